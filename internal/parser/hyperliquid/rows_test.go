package hyperliquid

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// splits reports whether events become rows.
func (s setting) splits() bool {
	return (s.format == config.Normalized || s.format == config.EnvelopedRows) &&
		slices.Contains([]config.Stream{config.MiscEvents, config.OracleUpdates, config.SystemActions}, s.stream)
}

// refRow is a row of the reference: the members of its Normalized record up to the block; the members of the event, and
// the item, of its EnvelopedRows record; and its coin and its user, if it has them.
type refRow struct {
	record, common, item string
	coin, user           []string
}

// rows returns the rows of an event. several reports whether EnvelopedRows splits it.
func (s setting) rows(event []byte, h refHeader) (rows []refRow, several bool) {
	switch s.stream {
	case config.MiscEvents:
		return refMisc(event)
	case config.OracleUpdates:
		return s.refOracle(event, h)
	}
	e := rawObject(event)
	action := rawObject(e["action"])
	r := refRecord{ok: true}
	r.add("type", orNull(action["type"], text))
	r.add("time", s.refBlockTime(h))
	r.add("user", orNull(e["user"], text))
	r.add("nonce", orNull(e["nonce"], whole))
	r.add("hash", orNull(e["evm_tx_hash"], text))
	r.add("action", orNull(e["action"], object))
	r.add("extra", refExtra(event, refKeys{"user": nil, "nonce": nil, "evm_tx_hash": nil, "action": nil}))
	if !r.ok {
		kind := orNull(action["type"], text)
		if kind == "" {
			kind = "null"
		}
		return []refRow{{record: s.refRaw(h, kind, string(event), "null")}}, false
	}
	return []refRow{{record: strings.Join(r.members, ",")}}, false
}

func (s setting) refBlockTime(h refHeader) string {
	if s.mode == config.Line {
		return "null"
	}
	return h.blockTime
}

func (s setting) refRaw(h refHeader, kind, raw, extra string) string {
	return fmt.Sprintf(`"type":%s,"time":%s,"raw":%s,"extra":%s`, kind, s.refBlockTime(h), raw, extra)
}

// refField is a member of a row: its name in the record and in the event, and its type.
type refField struct {
	name, key string
	kind      func([]byte) string
}

var refVariants = map[string][]refField{
	"Funding": {{"user", "user", text}, {"coin", "coin", text}, {"amount", "funding_amount", text},
		{"size", "szi", text}, {"rate", "funding_rate", text}},
	"LedgerUpdate": {{"kind", "", text}, {"users", "users", array}, {"delta", "delta", object}},
	"Delegation": {{"user", "user", text}, {"validator", "validator", text}, {"amount", "amount", text},
		{"undelegate", "is_undelegate", boolean}},
	"CDeposit": {{"user", "user", text}, {"amount", "amount", text}},
	"CWithdrawal": {{"user", "user", text}, {"amount", "amount", text},
		{"finalized", "is_finalized", boolean}},
	"ValidatorRewards": {{"validator", "0", text}, {"amount", "1", text}},
}

// refObject joins members that are not known.
func refObject(lists ...[]string) string {
	if all := slices.Concat(lists...); len(all) > 0 {
		return "{" + strings.Join(all, ",") + "}"
	}
	return "null"
}

func refMisc(event []byte) (rows []refRow, several bool) {
	whole := []refRow{{record: `"type":null,"time":null,"hash":null,"raw":` + string(event) + `,"extra":null`}}
	e := rawObject(event)
	at, hash := orNull(e["time"], text), orNull(e["hash"], text)
	names := refUnknown(e["inner"], "", nil)
	if len(names) != 1 || at == "" || hash == "" {
		return whole, false
	}
	var name string
	var value []byte
	for n, v := range rawObject(e["inner"]) {
		name, value = n, v
	}
	kind := strings.TrimSuffix(names[0], ":"+string(value))
	extra := refUnknown(event, "event.", refKeys{"time": nil, "hash": nil, "inner": nil})
	head := fmt.Sprintf(`"type":%s,"time":%s,"hash":%s,`, kind, at, hash)
	raw := func(v []byte) refRow {
		return refRow{record: head + `"raw":` + string(v) + `,"extra":` + refObject(extra)}
	}
	fields, known := refVariants[name]
	if !known || object(value) == "" {
		return []refRow{raw(value)}, false
	}
	key := map[string]string{"Funding": "deltas", "ValidatorRewards": "validator_to_reward"}[name]
	if key == "" {
		return []refRow{refMiscRow(head, fields, value, extra, raw)}, false
	}
	var items []json.RawMessage
	list := rawObject(value)[key]
	if array(list) == "" || json.Unmarshal(list, &items) != nil || len(items) == 0 {
		return []refRow{raw(value)}, false
	}
	extra = append(extra, refUnknown(value, name+".", refKeys{key: nil})...)
	length := len(kind) + len(e["time"]) + len(e["hash"]) + len(strings.TrimSuffix(refObject(extra), "}"))
	if len(extra) == 0 {
		length = len(kind) + len(e["time"]) + len(e["hash"]) + 1
	}
	if length > 1024 {
		return whole, false
	}
	for _, item := range items {
		row := refMiscRow(head, fields, item, extra, raw)
		row.common = fmt.Sprintf(`"time":%s,"hash":%s,"type":%s,"extra":%s`, at, hash, kind, refObject(extra))
		row.item = string(item)
		if name == "Funding" {
			row.coin, row.user = get(parseTree(item), "coin"), get(parseTree(item), "user")
		} else if pair, _ := parseTree(item).([]any); len(pair) > 0 {
			row.user = get(pair[0])
		}
		rows = append(rows, row)
	}
	return rows, true
}

func refMiscRow(head string, fields []refField, item []byte, extra []string, raw func([]byte) refRow) refRow {
	members, keys := rawObject(item), refKeys{}
	pair := fields[0].key == "0"
	if pair {
		var items []json.RawMessage
		_ = json.Unmarshal(item, &items)
		if array(item) == "" || len(items) != 2 {
			return raw(item)
		}
		members = map[string]json.RawMessage{"0": items[0], "1": items[1]}
	} else if object(item) == "" {
		return raw(item)
	}
	r := refRecord{ok: true}
	for _, f := range fields {
		v := members[f.key]
		if f.name == "kind" {
			v = rawObject(members["delta"])["type"]
		} else {
			keys[f.key] = nil
		}
		r.add(f.name, orNull(v, f.kind))
	}
	if !r.ok {
		return raw(item)
	}
	own := refUnknown(item, "", keys)
	if pair {
		own = nil
	}
	return refRow{record: head + strings.Join(r.members, ",") + `,"extra":` + refObject(own, extra)}
}

var refLists = [6]struct{ name, key, parent string }{
	{"markInput", "mark_px_inputs", ""}, {"spotInput", "spot_px_inputs", ""},
	{"externalInput", "external_perp_px_inputs", ""}, {"mark", "coin_to_mark_px", "oracle_pxs"},
	{"oracle", "coin_to_oracle_px", "oracle_pxs"}, {"external", "coin_to_external_perp_px", "oracle_pxs"},
}

func (s setting) refOracle(event []byte, h refHeader) (rows []refRow, several bool) {
	whole := []refRow{{record: s.refRaw(h, "null", string(event), "null")}}
	e := rawObject(event)
	known := refKeys{"update_class": nil, "oracle_pxs": {}}
	values := map[string]*[6][]json.RawMessage{} // by coin
	spelled := map[string][6][]string{}
	for i, l := range refLists {
		parent := e
		if l.parent != "" {
			parent = rawObject(e[l.parent])
			known[l.parent][l.key] = nil
		} else {
			known[l.key] = nil
		}
		list, there := parent[l.key]
		if !there {
			continue
		}
		var items []json.RawMessage
		if array(list) == "" || json.Unmarshal(list, &items) != nil {
			return whole, false
		}
		for _, item := range items {
			var pair []json.RawMessage
			var coin string
			if json.Unmarshal(item, &pair) != nil || len(pair) != 2 || text(pair[0]) == "" ||
				json.Unmarshal(pair[0], &coin) != nil {
				return whole, false
			}
			if values[coin] == nil {
				values[coin] = &[6][]json.RawMessage{}
			}
			values[coin][i] = append(values[coin][i], pair[1])
			as := spelled[coin]
			as[i] = append(as[i], string(pair[0]))
			spelled[coin] = as
		}
	}
	kind, extra := orNull(e["update_class"], text), refUnknown(event, "event.", known)
	if kind == "" || len(values) == 0 ||
		len(e["update_class"])+max(len(strings.TrimSuffix(refObject(extra), "}")), 1) > 1024 && len(extra) > 0 ||
		len(extra) == 0 && len(e["update_class"])+1 > 1024 {
		return whole, false
	}
	coins := make([]string, 0, len(values))
	for coin := range values {
		coins = append(coins, coin)
	}
	slices.Sort(coins)
	for _, coin := range coins {
		for n := 0; ; n++ {
			r, item, name, found := refRecord{ok: true}, refRecord{ok: true}, "", false
			for i, l := range refLists {
				var v json.RawMessage
				if n < len(values[coin][i]) {
					v = values[coin][i][n]
					if !found {
						name, found = spelled[coin][i][n], true
					}
				}
				kind := text
				if l.parent != "" {
					kind = object
				}
				r.add(l.name, orNull(v, kind))
				item.add(l.key, orNull(v, anything))
			}
			if !found {
				break
			}
			items := `{"coin":` + name + "," + strings.Join(item.members, ",") + "}"
			row := refRow{common: `"update_class":` + kind + `,"extra":` + refObject(extra), item: items,
				coin: []string{coin}}
			if r.ok {
				row.record = fmt.Sprintf(`"type":%s,"time":%s,"coin":%s,%s,"extra":%s`, kind, s.refBlockTime(h), name,
					strings.Join(r.members, ","), refObject(extra))
			} else {
				row.record = s.refRaw(h, kind, items, refObject(extra))
			}
			rows = append(rows, row)
		}
	}
	return rows, true
}

var splitStreams = []config.Stream{config.MiscEvents, config.OracleUpdates, config.SystemActions}

// TestRowsMatchTheReference encodes events of every shape, one by one and in blocks with malformed ones, in one output
// and in many that stop between rows.
func TestRowsMatchTheReference(t *testing.T) {
	for _, stream := range splitStreams {
		for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
			events := append(eventsOf(stream), sampled(oddEventsOf(stream))...)
			s := setting{stream, config.Line, config.Filter{}, format}
			s.check(t, lines(events...), 9)
			for _, e := range eventsOf(stream) {
				s.mode = config.Line
				s.check(t, lines(e, e), 50)
				s.mode = config.ByBlock
				s.check(t, lines(block(e, `{"x":tru}`, e)), 3, 50)
			}
			setting{stream, config.Streaming, config.Filter{}, format}.check(t, lines(block(events...), block(events[0])), 5)
		}
	}
}

// TestFilteredRowsMatchTheReference encodes events of every shape behind each filter.
func TestFilteredRowsMatchTheReference(t *testing.T) {
	for _, stream := range splitStreams {
		odd := oddEventsOf(stream)
		for i, f := range sampled(filters()) {
			events := eventsOf(stream)
			for k := i % 31; k < len(odd); k += 31 {
				events = append(events, odd[k])
			}
			for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
				setting{stream, config.Line, f, format}.check(t, lines(events...))
				setting{stream, config.ByBlock, f, format}.check(t, lines(block(events...), block(events[0])), 5)
			}
		}
	}
}

// TestAFilterAppliesToEachRow lists the rows that filters let pass, by the number of each in its line. The numbers are
// those that the rows have without a filter.
func TestAFilterAppliesToEachRow(t *testing.T) {
	twice := strings.NewReplacer(`"ZEC"`, `"HYPE"`, `"HYPE"`, `"ZEC"`).Replace(funding) // the users with the other coins
	zec, hype := "0xb11cbd5900050ac85facc0883dcc31b622f8da31", "0xd89fccaf1d5aaa9b447c6d2ba0ec20cd2e5a8e1d"
	misc := []string{funding, rewards, misc, twice, ledger}               // rows 0 1, 2 3, 4, 5 6, 7
	updates := []string{oracle, strings.ReplaceAll(oracle, "flx", "xyz")} // 0 to 4, 5 to 9: AAPL, BTC twice, COIN, SP500
	for name, c := range map[string]struct {
		stream config.Stream
		events []string
		filter config.Filter
		want   string // number:event of each record
	}{
		"all":    {config.MiscEvents, misc, config.Filter{}, "0:0 1:0 2:1 3:1 4:2 5:3 6:3 7:4"},
		"a coin": {config.MiscEvents, misc, config.Filter{Coins: []string{"ZEC"}}, "0:0 6:3"},
		"a user": {config.MiscEvents, misc, config.Filter{Users: []string{strings.ToUpper(zec)}}, "0:0 5:3"},
		"users": {config.MiscEvents, misc, config.Filter{Users: []string{zec, "0x15f02807362067f79efbe526de2cfe4ee61379f7",
			"0x2444847e6d7bd5d42a57b167f4c3f477ba3076b4"}}, "0:0 3:1 5:3 7:4"},
		"a coin of a user": {config.MiscEvents, misc, config.Filter{Coins: []string{"ZEC"}, Users: []string{hype}}, "6:3"},
		"not a coin": {config.MiscEvents, misc, config.Filter{ExcludeCoins: []string{"ZEC"}},
			"1:0 2:1 3:1 4:2 5:3 7:4"},
		"no coin of these": {config.MiscEvents, misc, config.Filter{ExcludeCoins: []string{"ZEC", "HYPE"}},
			"2:1 3:1 4:2 7:4"},
		"a type": {config.MiscEvents, misc, config.Filter{Types: []string{"ValidatorRewards"}}, "2:1 3:1"},
		"a type and a coin": {config.MiscEvents, misc, config.Filter{Types: []string{"Funding"}, Coins: []string{"HYPE"}},
			"1:0 5:3"},
		"a coin of an oracle":    {config.OracleUpdates, updates, config.Filter{Coins: []string{"flx:COIN"}}, "3:0"},
		"a builder of an oracle": {config.OracleUpdates, updates, config.Filter{Coins: []string{"flx:*"}}, "0:0 1:0 2:0 3:0"},
		"a coin that two lists have twice": {config.OracleUpdates, updates,
			config.Filter{Coins: []string{"xyz:BTC", "xyz:SP500"}}, "4:0 6:1 7:1 9:1"},
		"a market of an oracle": {config.OracleUpdates, updates, config.Filter{Markets: []config.Market{config.Perp}}, ""},
		"not a coin of an oracle": {config.OracleUpdates, updates, config.Filter{ExcludeCoins: []string{"flx:*"}},
			"4:0 5:1 6:1 7:1 8:1 9:1"},
		"a user of an oracle, which has none": {config.OracleUpdates, updates[:1], config.Filter{Users: []string{zec}},
			"0:0 1:0 2:0 3:0 4:0"},
	} {
		for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
			s := setting{c.stream, config.ByBlock, c.filter, format}
			out := encode(t, s, lines(block(c.events...)))
			got := make([]string, len(out.Records))
			for i, r := range out.Records {
				got[i] = fmt.Sprintf("%d:%d", r.Index, r.Event)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, %s: %v, want %s", name, format, got, c.want)
			}
			s.check(t, lines(block(c.events...)), 3)
		}
	}
}

// TestRowsAreReadAfterAMalformedList reads rows after an event that is malformed within a list: they must not be taken
// for items of that list.
func TestRowsAreReadAfterAMalformedList(t *testing.T) {
	broken := `{"inner":{"LedgerUpdate":{"delta":{"liquidatedPositions":[{"coin":"BTC"},{"coin":"ETH"},{"coin":tru}]}}}}`
	for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
		s := setting{config.MiscEvents, config.ByBlock, config.Filter{Coins: []string{"ZEC"}}, format}
		s.check(t, lines(block(broken, funding, broken, delegation)), 3)
		if out := encode(t, s, lines(block(broken, funding))); out.Delivered != 1 {
			t.Errorf("%s: %s", format, describe(out))
		}
	}
}

// bigFunding returns a Funding event of n deltas.
func bigFunding(n int) string {
	var b strings.Builder
	b.WriteString(`{"time":"2026-06-11T01:00:00.039772125","hash":"0x00","inner":{"Funding":{"deltas":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"user":"0x%040x","coin":"ZEC","funding_amount":"9.330246","szi":"280.0",`+
			`"funding_rate":"-0.00008"}`, i)
	}
	b.WriteString(`]}}}`)
	return b.String()
}

// TestAnEventWithManyRowsStopsAtTheLimit encodes an event into outputs of 64 KiB. Each output ends with the row that
// reaches the limit, positions grow by one, and the next event continues after the last row, as it does behind a filter
// or a malformed event.
func TestAnEventWithManyRowsStopsAtTheLimit(t *testing.T) {
	const rows, limit = 20000, 64 << 10
	for _, format := range []config.Format{config.Normalized, config.EnvelopedRows} {
		for _, mode := range modes {
			data := lines(bigFunding(rows), misc)
			if mode != config.Line {
				data = lines(block(misc, bigFunding(rows), `{"x":tru}`, misc), block(misc))
			}
			w := setting{config.MiscEvents, mode, config.Filter{}, format}.encoder(t).NewWorker()
			out := Output{Limit: limit}
			outputs, lastOffset, last := 0, int64(-1), int32(-1)
			for rest := (Span{Data: data}); ; outputs++ {
				out.Reset()
				rest = w.Encode(&out, rest, testFile)
				if n := size(out); n > limit+1024 {
					t.Fatalf("%s %s: an output of %d bytes", format, mode, n)
				}
				for _, r := range out.Records {
					if r.Offset != lastOffset {
						lastOffset, last = r.Offset, -1
					}
					if r.Index != last+1 && r.Index != last+2 || r.Index == last+2 && r.Event != 3 {
						t.Fatalf("%s %s: record %d of event %d follows %d", format, mode, r.Index, r.Event, last)
					}
					last = r.Index
				}
				if rest.Len() == 0 {
					break
				}
			}
			if outputs < 50 {
				t.Errorf("%s %s: %d outputs", format, mode, outputs)
			}
		}
	}
}
