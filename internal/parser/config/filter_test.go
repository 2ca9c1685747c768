package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// settingsOfFilter has one valid value of each setting.
func settingsOfFilter() map[string]Filter {
	return map[string]Filter{
		"coins": {Coins: []string{"BTC"}}, "markets": {Markets: []Market{Spot}},
		"excludeCoins": {ExcludeCoins: []string{"@*"}},
		"users":        {Users: []string{"0x" + strings.Repeat("aB", 20)}}, "statuses": {Statuses: []string{"open"}},
		"excludeStatuses": {ExcludeStatuses: []string{"open"}}, "sides": {Sides: []string{"Ask"}},
		"types": {Types: []string{"Funding"}}, "minNotional": {MinNotional: "1"},
	}
}

func TestEverySettingOfAFilterIsListed(t *testing.T) {
	fields := reflect.TypeFor[Filter]()
	listed := Filter{}.settings()
	if len(listed) != fields.NumField() || len(settingsOfFilter()) != fields.NumField() {
		t.Fatalf("%d of %d settings are listed, %d tested", len(listed), fields.NumField(), len(settingsOfFilter()))
	}
	for i, s := range listed {
		if name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ","); s.name != name {
			t.Errorf("setting %d is %s, want %s", i, s.name, name)
		}
		of := settingsOfFilter()[s.name].settings()
		for k, other := range of {
			if other.set != (i == k) {
				t.Errorf("with %s, %s is set: %v", s.name, other.name, other.set)
			}
		}
	}
}

// TestASettingThatAStreamCannotApplyIsRefused tests every setting with every pair of streams, in the common filter, in
// that of a stream, and with a way out.
func TestASettingThatAStreamCannotApplyIsRefused(t *testing.T) {
	for name, filter := range settingsOfFilter() {
		excludes := strings.HasPrefix(name, "exclude")
		for _, one := range Streams() {
			own := Config{Streams: []StreamConfig{{Name: one, Filter: &filter}}, Filter: Filter{}}
			wantField(t, own, "streams[0].filter."+name, !one.Applies(name))
			for _, two := range Streams() {
				if one == two {
					continue
				}
				both := Config{Streams: []StreamConfig{{Name: one}, {Name: two}}, Filter: filter}
				refused := !one.Applies(name) || !two.Applies(name)
				if excludes {
					refused = !one.Applies(name) && !two.Applies(name)
				}
				wantField(t, both, "filter."+name, refused)
				both.Streams[1].Filter = &Filter{}
				wantField(t, both, "filter."+name, !one.Applies(name))
			}
		}
	}
}

// wantField checks the error of ValidateFilters, and that Validate accepts what an earlier version rendered.
func wantField(t *testing.T, c Config, field string, refused bool) {
	t.Helper()
	var wrong *FieldError
	switch err := c.ValidateFilters(); {
	case !refused && err != nil:
		t.Errorf("%v: %v", c.Streams, err)
	case refused && (!errors.As(err, &wrong) || wrong.Field != field):
		t.Errorf("%v: %v; want an error for %s", c.Streams, err, field)
	case refused && !strings.Contains(wrong.Reason, string(c.Streams[0].Name)) &&
		!strings.Contains(wrong.Reason, string(c.Streams[len(c.Streams)-1].Name)):
		t.Errorf("%v names no stream", err)
	}
	c.DataDir, c.StateDir, c.Sink = "data", "state", Sink{Stdout: &StdoutSink{}}
	if err := c.WithDefaults(1).Validate(); err != nil {
		t.Errorf("%v: Validate: %v", c.Streams, err)
	}
}

func TestAStreamsOwnFilterReplacesTheCommonOne(t *testing.T) {
	c := Config{Filter: Filter{Coins: []string{"BTC"}, Sides: []string{"A"}}}
	for _, own := range []*Filter{{}, {Coins: []string{"ETH"}}} {
		if got := c.FilterOf(StreamConfig{Filter: own}); !reflect.DeepEqual(got, *own) {
			t.Errorf("%v, want %v", got, *own)
		}
	}
	if got := c.FilterOf(StreamConfig{}); !reflect.DeepEqual(got, c.Filter) {
		t.Errorf("%v, want the common filter", got)
	}
}

func TestTheFilterOfAStreamIsValidatedLikeTheCommonOne(t *testing.T) {
	for field, filter := range map[string]Filter{
		"coins[1]":           {Coins: []string{"@*", "*"}},
		"coins[0]":           {Coins: []string{"@**"}},
		"excludeCoins[1]":    {ExcludeCoins: []string{"#*", "@1*"}},
		"markets[0]":         {Markets: []Market{"perp"}},
		"users[0]":           {Users: []string{"0x1"}},
		"statuses[0]":        {Statuses: []string{""}},
		"excludeStatuses[0]": {ExcludeStatuses: []string{strings.Repeat("x", MaxFilterValueLength+1)}},
		"sides[4]":           {Sides: []string{"A", "B", "Ask", "Bid", "ask"}},
		"types":              {Types: make([]string, MaxFilterValues+1)},
		"types[0]":           {Types: []string{""}},
		"minNotional":        {MinNotional: "1e3"},
	} {
		common, own := valid(), valid()
		common.Filter = filter
		own.Streams = append(own.Streams, StreamConfig{Name: TwapStatuses, Filter: &filter})
		for at, c := range map[string]Config{"filter.": common,
			fmt.Sprintf("streams[%d].filter.", len(own.Streams)-1): own} {
			var wrong *FieldError
			if err := c.WithDefaults(1).Validate(); !errors.As(err, &wrong) || wrong.Field != at+field {
				t.Errorf("%v, want an error for %s", err, at+field)
			}
		}
	}
}
