package hyperliquid

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// filter is a config.Filter prepared for one stream. An event passes if it has every wanted field with a listed value,
// and no excluded status. It does not pass if a wanted field is missing or not a string. A missing status is not
// excluded.
type filter struct {
	wanted   field // the fields that must be present and listed
	used     field // the fields to read: wanted, status if some are excluded, and coin if records carry it
	coins    set
	prefixes []string // of coins, with the colon: "xyz:"
	users    map[address]struct{}
	statuses set
	excluded set
	sides    set
	minimum  decimal // of the notional; applies if sizeField is wanted
}

// address is a user's address in lower case.
type address [42]byte

// newFilter prepares a filter. It ignores lists for fields that the stream does not have.
func newFilter(c config.Filter, has field) (filter, error) {
	f := filter{
		users:    map[address]struct{}{},
		statuses: newSet(c.Statuses),
		excluded: newSet(c.ExcludeStatuses),
		sides:    newSet(c.Sides),
	}
	var exact []string
	for _, v := range c.Coins {
		if builder, all := strings.CutSuffix(v, ":*"); all {
			f.prefixes = append(f.prefixes, builder+":")
		} else {
			exact = append(exact, v)
		}
	}
	f.coins = newSet(exact)
	for _, v := range c.Users {
		var a address
		if len(v) != len(a) {
			return filter{}, fmt.Errorf("filter.users: %q is not an address", v)
		}
		f.users[lower([]byte(v))] = struct{}{}
	}
	for _, l := range []struct {
		values []string
		field  field
	}{{c.Coins, coinField}, {c.Users, userField}, {c.Statuses, statusField}, {c.Sides, sideField}} {
		if len(l.values) > 0 {
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
	return f, nil
}

// allows reports whether an event with value v in the field may pass, judged by this field alone.
func (f *filter) allows(which field, v []byte) bool {
	switch which {
	case coinField:
		if f.wanted&coinField == 0 || f.coins.has(v) {
			return true
		}
		for _, p := range f.prefixes {
			if len(v) >= len(p) && string(v[:len(p)]) == p {
				return true
			}
		}
		return false
	case userField:
		if len(v) != len(address{}) {
			return false
		}
		_, ok := f.users[lower(v)]
		return ok
	case statusField:
		return (f.wanted&statusField == 0 || f.statuses.has(v)) && !f.excluded.has(v)
	case sideField:
		return f.sides.has(v)
	}
	return true // price and size are only meaningful together
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
