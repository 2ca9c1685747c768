package hyperliquid

import (
	"slices"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Addresses of the samples, which filters() names.
const (
	first  = "0x0000000000000000000000000000000000000001"
	second = "0x0000000000000000000000000000000000000002"
)

// severalOf returns events of the streams whose events hold several values of a field: as nodes write them, with other
// addresses, and valid ones written differently.
func severalOf(stream config.Stream) []string {
	inner := func(text string) string {
		return `{"time":"2026-06-11T01:00:00.039772125","hash":"0x00","inner":` + text + `}`
	}
	switch stream {
	case config.OracleUpdates:
		oracle := `{"update_class":"Deployer","mark_px_inputs":[["flx:BTC","90608.6"],["flx:COIN","158.42"]],` +
			`"spot_px_inputs":[["flx:BTC","63171.0"]],"external_perp_px_inputs":[],"oracle_pxs":{"coin_to_mark_px":` +
			`[["flx:BTC",{"px":"90608.6","last_update_time":"2026-06-11T11:00:00.103069128","daily_px":"90608.6"}]],` +
			`"coin_to_oracle_px":[],"coin_to_external_perp_px":[]}}`
		return []string{oracle,
			strings.NewReplacer("Deployer", "Fallback", `"flx:BTC"`, `"BTC"`).Replace(oracle),
			`{"oracle_pxs":{"coin_to_oracle_px":[["xyz:LITE",1],["ZEC"]]},"update_class":"Fallback"}`,
			`{"mark_px_inputs" : [ [ "B\u0054C" , 1 ] , [] , [[]] , "ETH" , [ 5 , "ETH" ] , {} ], "spot_px_inputs":"ETH"}`,
			`{"mark_px_inputs":[["@107"]],"mark_px_inputs":[["ZEC"]],"update_class":["Deployer"]}`, `{}`,
		}
	case config.SystemActions:
		action := `{"user":"` + first + `","nonce":2153263,"evm_tx_hash":"0xb2","action":{"type":"SystemSendAssetAction",` +
			`"destination":"` + second + `","fromSubAccount":null,"token":0,"wei":795700}}`
		return []string{action,
			`{"user":"` + second + `","nonce":1,"evm_tx_hash":"0xb7","action":{"type":"order","orders":[{"a":10107,"b":true,` +
				`"p":"67.83","t":{"limit":{"tif":"Ioc"}}}],"grouping":"na"}}`,
			`{"action" : { "type" : "\u006frder" , "type":"x" } , "user" : "` + strings.ToUpper(first[2:]) + `"}`,
			`{"action":"order","user":5}`, `{"action":{"action":{"type":"order"}}}`, `{}`,
		}
	}
	funding := inner(`{"Funding":{"deltas":[{"user":"` + first + `","coin":"ZEC","funding_amount":"9.3","szi":"280.0",` +
		`"funding_rate":"-0.00008"},{"user":"` + second + `","coin":"HYPE","funding_amount":"4.5","szi":"-2744.84",` +
		`"funding_rate":"0.00003"}]}}`)
	return []string{misc, `{"coin":"ETH","inner":[[],{}]}`, funding,
		strings.Replace(funding, "HYPE", "BTC", 1),
		strings.NewReplacer(first, second, second, first).Replace(funding),
		inner(`{"LedgerUpdate":{"users":["` + first + `","` + second + `"],"delta":{"type":"send","user":"` + first +
			`","destination":"` + second + `","token":"USDC","amount":"500.0"}}}`),
		inner(`{"LedgerUpdate":{"users":["` + second + `"],"delta":{"type":"liquidation","leverageType":"Cross",` +
			`"liquidatedPositions":[{"coin":"BTC","szi":"1.0"},{"coin":"xyz:LITE","szi":"2"}]}}}`),
		inner(`{"CWithdrawal":{"user":"` + first + `","amount":"11.3","is_finalized":false}}`),
		inner(`{"Delegation":{"user":"` + first + `","validator":"` + second + `","amount":"4.0","is_undelegate":false}}`),
		inner(`{"ValidatorRewards":{"validator_to_reward":[["` + first + `","0.2"],["` + second + `","0.3"]]}}`),
		inner(`{"GossipPriorityAuctionRestart":{"slot_id":0,"previous_winner":{"Ip":"203.0.113.7"}}}`),
		inner(`"Funding"`), inner(`{}`), inner(`null`), inner(`{"Funding":{"deltas":[]}}`),
		inner(`{"Funding":{"deltas":{}}}`),
		inner(` { "F\u0075nding" : { "deltas" : [ 5 , { "coin" : "Z\u0045C" } , { "user" : "` + second +
			`" , "coin" : 1 , "coin" : "HYPE" } , [ ] ] } , "Other" : { "user" : "` + first + `" } } `),
		inner(`{"CDeposit":{"user":"` + first + `"},"Funding":{"deltas":[{"coin":"BTC"}]},"CDeposit":{"user":"x"}}`),
		inner(`{"LedgerUpdate":{"users":[["` + first + `"],5,null,"x"],"delta":[{"type":"send"}]}}`),
		inner(`{"LedgerUpdate":{"users":"` + first + `","delta":{"type":["send"],"liquidatedPositions":{"coin":"BTC"}}}}`),
		inner(`{"ValidatorRewards":{"validator_to_reward":["` + first + `",[],[["` + first + `"]],[5,"` + second + `"]]}}`),
	}
}

// refSeveral are the values of an event that holds several of a field.
type refSeveral struct {
	coins, users, types []string
	rows                [][2][]string // the coin and the user of each row, if it has one
}

func severalIn(stream config.Stream, tree any) refSeveral {
	var s refSeveral
	member := func(tree any, path ...string) any {
		for _, key := range path {
			object, _ := tree.(map[string]any)
			tree = object[key]
		}
		return tree
	}
	list := func(tree any, path ...string) []any {
		l, _ := member(tree, path...).([]any)
		return l
	}
	firstOf := func(pairs []any) (out []string) {
		for _, p := range pairs {
			if pair, _ := p.([]any); len(pair) > 0 {
				out = append(out, get(pair[0])...)
			}
		}
		return out
	}
	switch stream {
	case config.MiscEvents:
		inner := member(tree, "inner")
		s.types = get(inner)
		variants, _ := inner.(map[string]any)
		for name := range variants {
			s.types = append(s.types, name)
		}
		s.types = append(s.types, get(inner, "LedgerUpdate", "delta", "type")...)
		for _, u := range list(inner, "LedgerUpdate", "users") {
			s.users = append(s.users, get(u)...)
		}
		for _, p := range list(inner, "LedgerUpdate", "delta", "liquidatedPositions") {
			s.coins = append(s.coins, get(p, "coin")...)
		}
		for _, path := range [][]string{{"CDeposit", "user"}, {"CWithdrawal", "user"}, {"Delegation", "user"},
			{"Delegation", "validator"}} {
			s.users = append(s.users, get(inner, path...)...)
		}
		s.users = append(s.users, firstOf(list(inner, "ValidatorRewards", "validator_to_reward"))...)
		for _, d := range list(inner, "Funding", "deltas") {
			if _, object := d.(map[string]any); object {
				s.rows = append(s.rows, [2][]string{get(d, "coin"), get(d, "user")})
			}
		}
	case config.OracleUpdates:
		s.types = get(tree, "update_class")
		for _, path := range [][]string{{"mark_px_inputs"}, {"spot_px_inputs"}, {"external_perp_px_inputs"},
			{"oracle_pxs", "coin_to_mark_px"}, {"oracle_pxs", "coin_to_oracle_px"},
			{"oracle_pxs", "coin_to_external_perp_px"}} {
			s.coins = append(s.coins, firstOf(list(tree, path...))...)
		}
	case config.SystemActions:
		s.types, s.users = get(tree, "action", "type"), get(tree, "user")
	}
	return s
}

// refMatches reports whether a pattern of a filter matches a coin.
func refMatches(pattern, coin string) bool {
	prefix, star := strings.CutSuffix(pattern, "*")
	return pattern == coin || star && strings.HasPrefix(coin, prefix)
}

func refMarket(coin string) config.Market {
	switch {
	case strings.HasPrefix(coin, "#"):
		return config.Outcome
	case strings.HasPrefix(coin, "@"):
		return config.Spot
	case strings.Contains(coin, ":") && !strings.Contains(strings.SplitN(coin, ":", 2)[0], "/"):
		return config.Hip3
	case strings.Contains(coin, "/"):
		return config.Spot
	}
	return config.Perp
}

func TestTheNameOfACoinShowsItsMarket(t *testing.T) {
	for market, coins := range map[config.Market][]string{
		config.Perp:    {"BTC", "kPEPE", "", "A@1", "A#1"},
		config.Spot:    {"@107", "@1", "PURR/USDC", "@", "A/B:C"},
		config.Hip3:    {"xyz:SP500", "flx:BTC", ":", "xyz:A/B", "xyz:@1"},
		config.Outcome: {"#1890", "#", "#1:2"},
	} {
		for _, coin := range coins {
			for _, listed := range config.Markets() {
				f, err := newFilter(config.Filter{Markets: []config.Market{listed}}, coinField)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := f.allows(coinField, []byte(coin)), listed == market; got != want {
					t.Errorf("%q passes %s: %v, want %v", coin, listed, got, want)
				}
			}
			if refMarket(coin) != market {
				t.Errorf("the reference has %s for %q", refMarket(coin), coin)
			}
		}
	}
}

// TestARowPassesByItsCoinAndItsUserTogether lists what a filter decides about rows.
func TestARowPassesByItsCoinAndItsUserTogether(t *testing.T) {
	zec, hype, none := []byte("ZEC"), []byte("HYPE"), []byte(nil)
	one, two := []byte(first), []byte(second)
	for name, c := range map[string]struct {
		filter     config.Filter
		coin, user []byte
		want       bool
	}{
		"no filter":                        {config.Filter{}, zec, one, true},
		"no filter, and no values":         {config.Filter{}, none, none, true},
		"both":                             {config.Filter{Coins: []string{"ZEC"}, Users: []string{first}}, zec, one, true},
		"another user":                     {config.Filter{Coins: []string{"ZEC"}, Users: []string{first}}, zec, two, false},
		"another coin":                     {config.Filter{Coins: []string{"ZEC"}, Users: []string{first}}, hype, one, false},
		"a coin alone":                     {config.Filter{Coins: []string{"ZEC"}}, zec, none, true},
		"no coin, and coins are listed":    {config.Filter{Coins: []string{"ZEC"}}, none, one, false},
		"no user, and users are listed":    {config.Filter{Users: []string{first}}, zec, none, false},
		"an excluded coin":                 {config.Filter{ExcludeCoins: []string{"ZEC"}}, zec, one, false},
		"no coin, and another is excluded": {config.Filter{ExcludeCoins: []string{"ZEC"}}, none, one, true},
		"a coin of another market":         {config.Filter{Markets: []config.Market{config.Spot}}, zec, one, false},
	} {
		f, err := newFilter(c.filter, coinField|userField)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.row(c.coin, c.user); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestTheConfigurationKnowsWhichFiltersAStreamApplies compares the configuration's matrix with the layouts.
func TestTheConfigurationKnowsWhichFiltersAStreamApplies(t *testing.T) {
	for setting, needs := range map[string]field{
		"coins": coinField, "markets": coinField, "excludeCoins": coinField, "users": userField, "statuses": statusField,
		"excludeStatuses": statusField, "sides": sideField, "types": typeField, "minNotional": priceField | sizeField,
	} {
		for _, stream := range config.Streams() {
			if got, want := stream.Applies(setting), layoutOf(stream).fields()&needs == needs; got != want {
				t.Errorf("%s applies %s: %v, and the layout: %v", stream, setting, got, want)
			}
		}
	}
}

// TestEachFilterSelectsOfEachStream is the matrix of docs/records.md: a setting that a stream applies passes some of
// its sample events and drops others; any other setting passes all.
func TestEachFilterSelectsOfEachStream(t *testing.T) {
	for setting, filters := range map[string][]config.Filter{
		"coins": {{Coins: []string{"BTC"}}, {Coins: []string{"xyz:*", "flx:*"}}},
		"markets": {{Markets: []config.Market{config.Perp}}, {Markets: []config.Market{config.Hip3}},
			{Markets: []config.Market{config.Spot}}},
		"excludeCoins": {{ExcludeCoins: []string{"BTC"}}, {ExcludeCoins: []string{"@*"}}},
		"users": {{Users: []string{first}}, {Users: []string{"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",
			"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f", "0xca1d1650d13b8fa936dca4efdf1f487766f2abd1",
			"0x91853bcefbdc3447768413e6db7d6e0a81c4be56", "0x7e57025c32d824dd4f1c59c5caa73b028dc0cbc7"}}},
		"statuses":        {{Statuses: []string{"open", "error"}}},
		"excludeStatuses": {{ExcludeStatuses: []string{"open", "error"}}},
		"sides":           {{Sides: []string{"Ask"}}, {Sides: []string{"B"}}},
		"types":           {{Types: []string{"Funding", "order", "Fallback"}}, {Types: []string{"send", "Deployer"}}},
		"minNotional":     {{MinNotional: "100"}},
	} {
		for _, stream := range config.Streams() {
			events := eventsOf(stream)
			passed, dropped := false, false
			for _, f := range filters {
				out := encode(t, lineOf(stream, f), lines(events...))
				passed = passed || out.Delivered > 0
				dropped = dropped || out.Delivered < int64(len(events))
			}
			if !passed || dropped != stream.Applies(setting) {
				t.Errorf("%s of %s: passes some: %v, drops some: %v", setting, stream, passed, dropped)
			}
		}
	}
}

func lineOf(stream config.Stream, f config.Filter) setting {
	return setting{stream, config.Line, f, config.Raw}
}

// TestEitherSpellingOfASideMatchesBoth also finds it in Normalized records.
func TestEitherSpellingOfASideMatchesBoth(t *testing.T) {
	for _, c := range []struct {
		written, name string
		filters       []string
	}{{"A", "Ask", []string{"A", "Ask"}}, {"Ask", "Ask", []string{"A", "Ask"}},
		{"B", "Bid", []string{"B", "Bid"}}, {"Bid", "Bid", []string{"B", "Bid"}}, {`\u0042id`, "Bid", []string{"B", "Bid"}}} {
		for _, listed := range []string{"A", "B", "Ask", "Bid"} {
			for _, stream := range config.Streams() {
				if !stream.Applies("sides") {
					continue
				}
				event := strings.NewReplacer(`"side":"A"`, `"side":"`+c.written+`"`, `"side":"B"`, `"side":"`+c.written+`"`).
					Replace(eventsOf(stream)[0])
				s := setting{stream, config.Line, config.Filter{Sides: []string{listed}}, config.Normalized}
				out := encode(t, s, lines(event))
				want := slices.Contains(c.filters, listed)
				if got := out.Delivered == 1; got != want || len(out.Bad) > 0 {
					t.Errorf("%s: side %s passes %s: %v, want %v", stream, c.written, listed, got, want)
				}
				if want && !strings.Contains(string(out.Data), `"side":"`+c.name+`"`) {
					t.Errorf("%s: side %s is written as %s", stream, c.written, out.Data)
				}
				s.check(t, lines(event))
			}
		}
	}
}
