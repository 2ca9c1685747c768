package hyperliquid

import (
	"fmt"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// filter is a config.Filter made ready for one stream. An event passes if it has every wanted field with a listed value, and
// no excluded status. A wanted field that is missing, or that is not a string, does not pass; a status that is missing is
// not excluded.
type filter struct {
	wanted   field // the fields that must be there and listed
	used     field // those that must be looked at: wanted, and status if some are excluded
	coins    set
	prefixes []string // of coins, with the colon: "xyz:"
	users    map[address]struct{}
	statuses set
	excluded set
	sides    set
	minimum  decimal // notional; applied if price is wanted
}

// address of a user, in lower case.
type address [42]byte

// newFilter leaves out what the stream has no fields for.
func newFilter(c config.Filter, has field) (filter, error) {
	f := filter{
		users:    map[address]struct{}{},
		statuses: newSet(c.Statuses),
		excluded: newSet(c.ExcludeStatuses),
		sides:    newSet(c.Sides),
	}
	var exact []string
	for _, v := range c.Coins {
		if prefix, isPrefix := strings.CutSuffix(v, "*"); isPrefix {
			f.prefixes = append(f.prefixes, prefix)
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
	if len(c.Coins) > 0 {
		f.wanted |= coin
	}
	if len(c.Users) > 0 {
		f.wanted |= user
	}
	if len(c.Statuses) > 0 {
		f.wanted |= status
	}
	if len(c.Sides) > 0 {
		f.wanted |= side
	}
	if c.MinNotional != "" {
		var ok bool
		if f.minimum, ok = parseDecimal([]byte(c.MinNotional)); !ok || f.minimum.negative {
			return filter{}, fmt.Errorf("filter.minNotional: %q is not a decimal of 0 or more", c.MinNotional)
		}
		if has&size != 0 {
			f.wanted |= price | size
		}
	}
	f.wanted &= has
	f.used = f.wanted
	if len(c.ExcludeStatuses) > 0 {
		f.used |= status & has
	}
	return f, nil
}

// allows says whether an event whose field is v may pass as far as that field goes.
func (f *filter) allows(which field, v []byte) bool {
	switch which {
	case coin:
		if f.coins.has(v) {
			return true
		}
		for _, p := range f.prefixes {
			if len(v) >= len(p) && string(v[:len(p)]) == p {
				return true
			}
		}
		return false
	case user:
		if len(v) != len(address{}) {
			return false
		}
		_, ok := f.users[lower(v)]
		return ok
	case status:
		return (f.wanted&status == 0 || f.statuses.has(v)) && !f.excluded.has(v)
	case side:
		return f.sides.has(v)
	}
	return true // price and size only mean something together
}

// lower returns v, which has the length of an address, in lower case.
func lower(v []byte) address {
	a := address(v)
	for i, c := range a {
		if 'A' <= c && c <= 'Z' {
			a[i] = c + 'a' - 'A'
		}
	}
	return a
}

// set is a set of values; most filters name one or two, for which comparing is faster than hashing.
type set struct {
	few  []string
	many map[string]struct{}
}

func newSet(values []string) set {
	if len(values) <= 8 {
		return set{few: values}
	}
	many := make(map[string]struct{}, len(values))
	for _, v := range values {
		many[v] = struct{}{}
	}
	return set{many: many}
}

func (s *set) has(v []byte) bool {
	for _, x := range s.few {
		if string(v) == x {
			return true
		}
	}
	if s.many == nil {
		return false
	}
	_, ok := s.many[string(v)]
	return ok
}

// notional says whether price × size reaches the minimum. What is not a decimal does not.
func (f *filter) notional(price, size []byte) bool {
	p, ok := parseDecimal(price)
	if !ok {
		return false
	}
	s, ok := parseDecimal(size)
	return ok && productAtLeast(&p, &s, &f.minimum)
}
