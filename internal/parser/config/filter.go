package config

import (
	"fmt"
	"regexp"
	"slices"
)

// Filter selects the events that pass. An empty list passes all events. A stream applies the settings that Applies
// reports; ValidateFilters finds those that a stream cannot apply.
type Filter struct {
	Coins           []string `json:"coins,omitempty"`           // exact names, "@*", "#*", or a builder's "xyz:*"
	Markets         []Market `json:"markets,omitempty"`         // markets of the coins to keep
	ExcludeCoins    []string `json:"excludeCoins,omitempty"`    // coins to drop, written as Coins
	Users           []string `json:"users,omitempty"`           // addresses; case is ignored
	Statuses        []string `json:"statuses,omitempty"`        // statuses of orders to keep
	ExcludeStatuses []string `json:"excludeStatuses,omitempty"` // statuses of orders to drop
	Sides           []string `json:"sides,omitempty"`           // A or Ask, B or Bid
	Types           []string `json:"types,omitempty"`           // kinds of misc events, system actions, oracle updates
	MinNotional     string   `json:"minNotional,omitempty"`     // price × original size, a decimal; empty: no minimum
}

// Market is a kind of coin, which its name shows.
type Market string

const (
	// Perp are the perpetuals of the chain itself, such as BTC and kPEPE.
	Perp Market = "Perp"
	// Spot are spot pairs, such as @107 and PURR/USDC.
	Spot Market = "Spot"
	// Hip3 are builder-deployed perpetuals (HIP-3), such as xyz:SP500.
	Hip3 Market = "Hip3"
	// Outcome are outcome markets, such as #1890.
	Outcome Market = "Outcome"
)

// Markets lists every market.
func Markets() []Market { return []Market{Perp, Spot, Hip3, Outcome} }

// Applies reports whether the stream's events have the field that a setting of the filter, such as "excludeCoins",
// compares. The node's files decide that: see docs/records.md.
//
//nolint:goconst // the names of the settings are most readable as they are written
func (s Stream) Applies(setting string) bool {
	var streams []Stream
	switch setting {
	case "coins", "markets", "excludeCoins":
		return s != SystemActions // which name assets by number
	case "users":
		return s != OracleUpdates
	case "statuses", "excludeStatuses":
		streams = []Stream{OrderStatuses, TwapStatuses}
	case "sides":
		streams = []Stream{OrderStatuses, Fills, Trades, RawBookDiffs, TwapStatuses}
	case "types":
		streams = []Stream{MiscEvents, OracleUpdates, SystemActions}
	case "minNotional":
		streams = []Stream{OrderStatuses, Fills, Trades} // a removal from the book has no size
	}
	return slices.Contains(streams, s)
}

// setting is one setting of a filter.
type setting struct {
	name     string
	set      bool
	excludes bool // it drops events with the listed values, so that events without such a field pass
}

func (f Filter) settings() []setting {
	return []setting{
		{"coins", len(f.Coins) > 0, false},
		{"markets", len(f.Markets) > 0, false},
		{"excludeCoins", len(f.ExcludeCoins) > 0, true},
		{"users", len(f.Users) > 0, false},
		{"statuses", len(f.Statuses) > 0, false},
		{"excludeStatuses", len(f.ExcludeStatuses) > 0, true},
		{"sides", len(f.Sides) > 0, false},
		{"types", len(f.Types) > 0, false},
		{"minNotional", f.MinNotional != "", false},
	}
}

// FilterOf returns the filter of one of the configuration's streams.
func (c Config) FilterOf(s StreamConfig) Filter {
	if s.Filter != nil {
		return *s.Filter
	}
	return c.Filter
}

// ValidateFilters returns the first setting of a filter that a stream cannot apply, as a *FieldError. Such a setting
// has no effect on the stream: all of its events pass. In the common filter, a setting that excludes is an error only
// if no stream can apply it.
//
// Validate does not call it: earlier versions accepted such settings, and their configurations must keep running.
func (c Config) ValidateFilters() error {
	var common []int // the streams that the common filter applies to
	for i, s := range c.Streams {
		if s.Filter == nil {
			common = append(common, i)
			continue
		}
		for _, setting := range s.Filter.settings() {
			if setting.set && !s.Name.Applies(setting.name) {
				return &FieldError{fmt.Sprintf("streams[%d].filter.%s", i, setting.name),
					fmt.Sprintf("events of %s have no such field, so all would pass: leave it out", s.Name)}
			}
		}
	}
	for _, setting := range c.Filter.settings() {
		cannot := slices.DeleteFunc(slices.Clone(common), func(i int) bool { return c.Streams[i].Name.Applies(setting.name) })
		if !setting.set || len(cannot) == 0 || setting.excludes && len(cannot) < len(common) {
			continue
		}
		return &FieldError{"filter." + setting.name, fmt.Sprintf(
			"events of %s have no such field, so all would pass: set streams[%d].filter, which replaces filter for that "+
				"stream, or leave the stream out", c.Streams[cannot[0]].Name, cannot[0])}
	}
	return nil
}

var (
	addressPattern = regexp.MustCompile(`^0[xX][0-9a-fA-F]{40}$`)
	decimalPattern = regexp.MustCompile(`^[0-9]{1,30}(\.[0-9]{1,30})?$`)
	coinPattern    = regexp.MustCompile(`^([^*]+|[^*]+:\*|[@#]\*)$`)
)

// validate returns the first invalid setting. field is the name of the filter.
func (f Filter) validate(field string) error {
	for _, l := range []struct {
		name   string
		values []string
	}{
		{"coins", f.Coins}, {"excludeCoins", f.ExcludeCoins}, {"users", f.Users}, {"statuses", f.Statuses},
		{"excludeStatuses", f.ExcludeStatuses}, {"sides", f.Sides}, {"types", f.Types},
	} {
		if len(l.values) > MaxFilterValues {
			return &FieldError{field + "." + l.name, fmt.Sprintf("has %d values: at most %d", len(l.values), MaxFilterValues)}
		}
		for i, v := range l.values {
			if reason := invalid(l.name, v); reason != "" {
				return &FieldError{fmt.Sprintf("%s.%s[%d]", field, l.name, i), reason}
			}
		}
	}
	for i, m := range f.Markets {
		if !slices.Contains(Markets(), m) {
			return &FieldError{fmt.Sprintf("%s.markets[%d]", field, i),
				fmt.Sprintf("%q is unknown: write one of %s", m, joinNames(Markets()))}
		}
	}
	if f.MinNotional != "" && !decimalPattern.MatchString(f.MinNotional) {
		return &FieldError{field + ".minNotional", fmt.Sprintf("%q is not a decimal: write it as \"10000\" or \"0.5\"",
			f.MinNotional)}
	}
	return nil
}

// invalid returns what is wrong with a value of a list, or "".
func invalid(list, v string) string {
	if v == "" || len(v) > MaxFilterValueLength {
		return fmt.Sprintf("must have 1 to %d characters", MaxFilterValueLength)
	}
	switch list {
	case "coins", "excludeCoins":
		if !coinPattern.MatchString(v) {
			return fmt.Sprintf("%q: a star is allowed only for all coins of a builder, as in \"xyz:*\", or of a kind, as in "+
				"\"@*\" and \"#*\"", v)
		}
	case "users":
		if !addressPattern.MatchString(v) {
			return fmt.Sprintf("%q is not an address: write 0x and 40 hexadecimal digits", v)
		}
	case "sides":
		if !slices.Contains([]string{"A", "B", "Ask", "Bid"}, v) {
			return fmt.Sprintf("%q is not a side: write A (ask) or B (bid)", v)
		}
	}
	return ""
}
