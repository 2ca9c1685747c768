package hyperliquid

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// filter is a config.Filter prepared for one stream. An event passes if it has every wanted field with an allowed
// value, and no excluded coin or status. It does not pass if a wanted field is missing or not a string. A missing
// status or coin is not excluded. If a field has several values, it is enough that one is allowed.
type filter struct {
	wanted   field // the fields that must be present and allowed
	used     field // the fields to read: wanted, those with exclusions, and coin if records carry it
	coins    coins
	excluded coins
	markets  market
	users    map[address]struct{}
	statuses set
	// excludedStatuses are dropped.
	excludedStatuses set
	sides            set
	types            set
	minimum          decimal // of the notional; applies if sizeField is wanted
}

// address is a user's address in lower case.
type address [42]byte

// newFilter prepares a filter. It ignores settings for fields that the stream does not have.
func newFilter(c config.Filter, has field) (filter, error) {
	f := filter{
		coins:            newCoins(c.Coins),
		excluded:         newCoins(c.ExcludeCoins),
		users:            map[address]struct{}{},
		statuses:         newSet(c.Statuses),
		excludedStatuses: newSet(c.ExcludeStatuses),
		sides:            newSet(spellings(c.Sides)),
		types:            newSet(c.Types),
	}
	for _, v := range c.Markets {
		m := marketNamed(v)
		if m == 0 {
			return filter{}, fmt.Errorf("filter.markets: %q is not a market", v)
		}
		f.markets |= m
	}
	for _, v := range c.Users {
		var a address
		if len(v) != len(a) {
			return filter{}, fmt.Errorf("filter.users: %q is not an address", v)
		}
		f.users[lower([]byte(v))] = struct{}{}
	}
	for _, l := range []struct {
		values int
		field  field
	}{
		{len(c.Coins) + len(c.Markets), coinField}, {len(c.Users), userField}, {len(c.Statuses), statusField},
		{len(c.Sides), sideField}, {len(c.Types), typeField},
	} {
		if l.values > 0 {
			f.wanted |= l.field
		}
	}
	if c.MinNotional != "" {
		var ok bool
		if f.minimum, ok = parseDecimal([]byte(c.MinNotional)); !ok || f.minimum.negative {
			return filter{}, fmt.Errorf("filter.minNotional: %q is not a decimal of 0 or more", c.MinNotional)
		}
		f.wanted |= priceField | sizeField
	}
	f.wanted &= has
	f.used = f.wanted
	if len(c.ExcludeStatuses) > 0 {
		f.used |= statusField & has
	}
	if len(c.ExcludeCoins) > 0 {
		f.used |= coinField & has
	}
	return f, nil
}

// allows reports whether an event with value v in the field may pass, judged by this field alone.
func (f *filter) allows(which field, v []byte) bool {
	switch which {
	case coinField:
		return (f.coins.empty() || f.coins.has(v)) && (f.markets == 0 || f.markets&marketOf(v) != 0) && !f.excluded.has(v)
	case userField:
		if len(v) != len(address{}) {
			return false
		}
		_, ok := f.users[lower(v)]
		return ok
	case statusField:
		return (f.wanted&statusField == 0 || f.statuses.has(v)) && !f.excludedStatuses.has(v)
	case sideField:
		return f.sides.has(v)
	case typeField:
		return f.types.has(v)
	}
	return true // price and size are only meaningful together
}

// row reports whether a row of an event passes, such as one account's funding: its coin and its user must be allowed. A
// value that the row lacks is nil, and does not pass if the filter lists values of it.
func (f *filter) row(coin, user []byte) bool {
	if f.wanted&coinField != 0 && coin == nil || f.wanted&userField != 0 && user == nil {
		return false
	}
	return (coin == nil || f.used&coinField == 0 || f.allows(coinField, coin)) &&
		(user == nil || f.used&userField == 0 || f.allows(userField, user))
}

// coins is a set of coins: names, and the prefixes of patterns.
type coins struct {
	names    set
	prefixes []string // "xyz:", "@", "#"
}

func newCoins(values []string) coins {
	var c coins
	var names []string
	for _, v := range values {
		if prefix, all := strings.CutSuffix(v, "*"); all {
			c.prefixes = append(c.prefixes, prefix)
		} else {
			names = append(names, v)
		}
	}
	c.names = newSet(names)
	return c
}

func (c *coins) empty() bool { return c.names.empty() && len(c.prefixes) == 0 }

func (c *coins) has(v []byte) bool {
	if c.names.has(v) {
		return true
	}
	for _, p := range c.prefixes {
		if len(v) >= len(p) && string(v[:len(p)]) == p {
			return true
		}
	}
	return false
}

// market is a set of markets, one bit each.
type market uint8

const (
	perp market = 1 << iota
	spot
	hip3
	outcome
)

// marketNamed returns a market by its name in the configuration, or 0.
func marketNamed(name config.Market) market {
	switch name {
	case config.Perp:
		return perp
	case config.Spot:
		return spot
	case config.Hip3:
		return hip3
	case config.Outcome:
		return outcome
	}
	return 0
}

// marketOf returns the market of a coin, which its name shows: "BTC", "@107" or "PURR/USDC", "xyz:SP500", "#1890".
func marketOf(coin []byte) market {
	for i, c := range coin {
		switch {
		case c == '#' && i == 0:
			return outcome
		case c == '@' && i == 0, c == '/':
			return spot
		case c == ':':
			return hip3
		}
	}
	return perp
}

// The sides in Normalized records.
const (
	ask = "Ask"
	bid = "Bid"
)

// spellings returns every spelling of the sides: nodes write A or Ask, and B or Bid.
func spellings(sides []string) []string {
	out := make([]string, 0, 2*len(sides))
	for _, s := range sides {
		switch s {
		case "A", ask:
			out = append(out, "A", ask)
		case "B", bid:
			out = append(out, "B", bid)
		}
	}
	return out
}

// lower returns v, which must have the length of an address, in lower case.
func lower(v []byte) address {
	a := address(v)
	for i, c := range a {
		if 'A' <= c && c <= 'Z' {
			a[i] = c + 'a' - 'A'
		}
	}
	return a
}

// set is a set of values. Most filters list one or two values, for which comparing is faster than hashing.
type set struct {
	few  []string
	many map[string]struct{}
}

func newSet(values []string) set {
	if len(values) <= 8 {
		return set{few: slices.Clone(values)}
	}
	many := make(map[string]struct{}, len(values))
	for _, v := range values {
		many[v] = struct{}{}
	}
	return set{many: many}
}

func (s *set) empty() bool { return len(s.few) == 0 && s.many == nil }

func (s *set) has(v []byte) bool {
	for _, x := range s.few { //nolint:modernize // slices.Contains would need v as a string, and allocate it
		if x == string(v) {
			return true
		}
	}
	if s.many == nil {
		return false
	}
	_, ok := s.many[string(v)]
	return ok
}

// notional reports whether price × size reaches the minimum. A value that is not a decimal does not pass. A value with
// more than maxDigits digits is incomparable.
func (f *filter) notional(price, size []byte) verdict {
	if max(len(price), len(size)) > maxDigits && (tooLong(price) || tooLong(size)) {
		return incomparable
	}
	p, ok := parseDecimal(price)
	if !ok {
		return filtered
	}
	if s, ok := parseDecimal(size); ok && productAtLeast(&p, &s, &f.minimum) {
		return passed
	}
	return filtered
}
