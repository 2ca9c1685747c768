package hyperliquid

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// TestEveryStreamModeFormatAndFilter compares the encoder with the reference, for valid and malformed events of all
// kinds, separately and together.
// sampled returns the cases that an enumeration takes.
func sampled[T any](all []T) []T {
	some := make([]T, 0, len(all)/sample+1)
	for cases := range slices.Chunk(all, sample) {
		some = append(some, cases[0])
	}
	return some
}

func TestEveryStreamModeFormatAndFilter(t *testing.T) {
	taken := 0
	for _, stream := range config.Streams() {
		for _, mode := range modes {
			for _, format := range config.Formats() {
				for i, filter := range filters() {
					if layoutOf(stream).keys == nil && filter.MinNotional != "0" {
						continue // no filter applies: one is enough
					}
					if (format == config.Enveloped || mode == config.Streaming) && len(filter.Coins) == 0 {
						continue // the format does not affect what passes, and both block modes are read alike
					}
					if taken++; taken%sample != 0 {
						continue
					}
					s := setting{stream, mode, filter, format}
					var all []string
					events := eventsOf(stream)
					if i < 2 { // malformed events do not depend on the filter
						events = append(events, malformedOf(stream)...)
					}
					for _, e := range events {
						framed := []string{e}
						if mode != config.Line {
							framed = []string{block(e), block(eventsOf(stream)[0], e, eventsOf(stream)[0])}
						}
						for _, line := range framed {
							s.check(t, lines(line), 2)
						}
						all = append(all, framed...)
					}
					if i == 0 {
						for _, e := range nonStrictOf(stream) {
							if mode != config.Line {
								e = block(e)
							}
							all = append(all, e)
						}
					}
					s.check(t, lines(all...), 3, 1, 2, 7, 100)
				}
			}
		}
	}
}

func TestEnvelopesOfAnyLayout(t *testing.T) {
	for _, stream := range []config.Stream{config.OrderStatuses, config.Fills, config.MiscEvents} {
		events := eventsOf(stream)
		for _, inner := range []string{"", " ", events[0], strings.Join(events, ","), strings.Join(events, " , ") + "\t",
			events[0] + `,{"a":tru},` + events[1], events[0] + `,{]`} {
			for _, line := range envelopesOf(inner) {
				s := setting{stream, config.ByBlock, config.Filter{Coins: []string{"BTC"}}, config.Enveloped}
				s.check(t, lines(line), 2, 5)
				s.check(t, lines(block(events[0]), line, block(events[1:]...)), 2, 5)
			}
		}
	}
}

func TestHeaderValuesThatRecordsRepeatAreShortAndText(t *testing.T) {
	for _, stream := range []config.Stream{config.RawBookDiffs, config.MiscEvents} {
		events := eventsOf(stream)
		for _, format := range config.Formats() {
			for _, inner := range []string{"", events[0] + `,{"a":tru},` + events[1], events[0] + `,{]`} {
				for _, line := range headersOf(inner) {
					s := setting{stream, config.Streaming, config.Filter{}, format}
					s.check(t, lines(block(events[0]), line, block(events[0])), 3)
				}
			}
		}
	}
	// The reference has the same result; these are the ones that users see.
	for line, want := range map[string]string{
		strings.Replace(block(order), "2026", strings.Repeat("2", 40), 1):      ReasonHeader,
		strings.Replace(block(order), "978995377", strings.Repeat("9", 65), 1): ReasonHeader,
		strings.Replace(block(order), "2026", "\xff", 1):                       ReasonUTF8,
		block(strings.Replace(order, "BTC", "\xff", 1)):                        ReasonUTF8,
		block(strings.Replace(order, "BTC", `\ud800`, 1)):                      ReasonUTF8,
		block(strings.Replace(order, "BTC", strings.Repeat("B", 129), 1)):      ReasonField, // no sink could address it
	} {
		out := encode(t, setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Enveloped}, lines(line))
		if len(out.Bad) != 1 || out.Bad[0].Reason != want || out.Delivered != 0 {
			t.Errorf("%.300s: malformed %v, want %s", line, out.Bad, want)
		}
	}
}

// TestTextThatStrictReadersRefuseIsVerbatimInRaw compares with what encoding/json does with such text.
func TestTextThatStrictReadersRefuseIsVerbatimInRaw(t *testing.T) {
	for _, stream := range config.Streams() {
		for _, event := range nonStrictOf(stream) {
			if !json.Valid([]byte(event)) {
				t.Fatalf("%s is not JSON", event)
			}
			for _, mode := range modes {
				line := event
				if mode != config.Line {
					line = block(event)
				}
				out := encode(t, setting{stream, mode, config.Filter{}, config.Raw}, lines(line))
				if string(out.Data) != event+"\n" {
					t.Errorf("%s: Raw is %q, want %q", stream, out.Data, event)
				}
				out = encode(t, setting{stream, mode, config.Filter{}, config.Enveloped}, lines(line))
				if strict := refStrict([]byte(event)); strict != (len(out.Records) == 1) || !strict &&
					out.Bad[0].Reason != ReasonUTF8 || !utf8.Valid(out.Data) {
					t.Errorf("%s: %q: %d records", stream, event, len(out.Records))
				}
			}
		}
	}
}

func TestRecordsAsTheyAreWritten(t *testing.T) {
	t.Run("raw is the event and a newline", func(t *testing.T) {
		out := encode(t, setting{config.OrderStatuses, config.Line, config.Filter{}, config.Raw}, lines(" "+order+" \r"))
		if got, want := string(out.Data), order+"\n"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("enveloped in line mode has a null block", func(t *testing.T) {
		out := encode(t, setting{config.Trades, config.Line, config.Filter{}, config.Enveloped}, lines(trade, trade))
		second := strings.SplitAfter(string(out.Data), "\n")[1]
		want := fmt.Sprintf(`{"target":"node \"1\"\n","stream":"Trades","pos":"%s:%d:0","block":null,"index":null,`+
			`"blockTime":null,"localTime":null,"event":%s}`+"\n",
			testFile, len(trade)+1, trade)
		if second != want {
			t.Errorf("got\n%s\nwant\n%s", second, want)
		}
	})
	t.Run("enveloped in block modes has the block, its times and the index", func(t *testing.T) {
		out := encode(t, setting{config.Fills, config.ByBlock, config.Filter{Coins: []string{"@107"}}, config.Enveloped},
			lines(block(fill, liquidation)))
		want := `{"target":"node \"1\"\n","stream":"Fills","pos":"` + testFile + `:0:1","block":978995377,"index":1,` +
			`"blockTime":"2026-04-30T20:46:43.304461819","localTime":"2026-04-30T20:46:46.266580134","event":` + liquidation +
			"}\n"
		if got := string(out.Data); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("a file name is escaped if necessary", func(t *testing.T) {
		var out Output
		e := setting{config.Trades, config.Line, config.Filter{}, config.Enveloped}.encoder(t)
		e.NewWorker().Encode(&out, Span{Data: lines(trade)}, "a\"\x01\xff")
		var record struct{ Pos string }
		if err := json.Unmarshal(out.Data, &record); err != nil || record.Pos != "a\"\x01\ufffd:0:0" {
			t.Errorf("pos %q, %v", record.Pos, err)
		}
	})
	t.Run("a last line without its newline counts", func(t *testing.T) {
		out := encode(t, setting{config.Trades, config.Line, config.Filter{}, config.Raw}, []byte(trade))
		if string(out.Data) != trade+"\n" || out.Lines != 1 {
			t.Errorf("%d lines, %q", out.Lines, out.Data)
		}
	})
}

func encode(t *testing.T, s setting, data []byte) Output {
	t.Helper()
	var out Output
	s.encoder(t).NewWorker().Encode(&out, Span{Data: data}, testFile)
	return out
}

func TestMalformedEventsAndTheirReasons(t *testing.T) {
	orders := func(mode config.Mode) setting {
		return setting{config.OrderStatuses, mode, config.Filter{}, config.Raw}
	}
	for name, c := range map[string]struct {
		setting setting
		line    string
		want    []string // index and reason
		rest    int64    // events delivered
	}{
		"a blank line":                                 {orders(config.Line), "", []string{"0 empty"}, 0},
		"a line of white space":                        {orders(config.Line), " \t\r", []string{"0 empty"}, 0},
		"a region lost in a crash":                     {orders(config.Line), "\x00\x00\x00", []string{"0 nul"}, 0},
		"a region lost in a crash, followed by a line": {orders(config.Line), "\x00\x00" + order, []string{"0 nul"}, 0},
		"a region lost in a crash, between blocks": {orders(config.ByBlock), "\x00\x00" + block(order), []string{"0 nul"},
			0},
		"a line torn in the middle":            {orders(config.Line), order[:100], []string{"0 shape"}, 0},
		"a line torn and joined with the next": {orders(config.Line), order[:100] + order, []string{"0 json"}, 0},
		"an array in place of an object":       {orders(config.Line), "[]", []string{"0 shape"}, 0},
		"an object in place of a fill": {setting{config.Fills, config.Line, config.Filter{},
			config.Raw}, "{}", []string{"0 shape"}, 0},
		"a fill without its user": {setting{config.Fills, config.Line, config.Filter{},
			config.Raw}, `[{"coin":"BTC"}]`, []string{"0 shape"}, 0},
		"a blank line between blocks":   {orders(config.ByBlock), "", []string{"0 empty"}, 0},
		"an event without its envelope": {orders(config.ByBlock), order, []string{"0 envelope"}, 0},
		"an envelope that does not end": {orders(config.ByBlock), block(order, order)[:900], []string{"0 envelope"}, 0},
		"malformed events; the events between them are delivered": {orders(config.ByBlock),
			block(order, `{"a":tru}`, order, "5", order), []string{"1 json", "3 shape"}, 3},
		"an event that lacks a bracket, followed by two valid ones": {orders(config.ByBlock),
			block(order[:len(order)-1], order, order), []string{"0 envelope"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			out := encode(t, c.setting, lines(c.line))
			got := make([]string, 0, len(out.Bad))
			for _, b := range out.Bad {
				got = append(got, fmt.Sprint(b.Index, " ", b.Reason))
				if !slices.Contains(Reasons(), b.Reason) {
					t.Errorf("reason %q is not one of Reasons", b.Reason)
				}
			}
			if !slices.Equal(got, c.want) || out.Delivered != c.rest || out.Lines != 1 {
				t.Errorf("malformed %q, want %q; %d delivered, want %d; %d lines", got, c.want, out.Delivered, c.rest, out.Lines)
			}
		})
	}
}

func TestALineThatLooksWrongIsMalformedAlthoughFilteredOut(t *testing.T) {
	for name, line := range map[string]string{"torn": triggered[:300], "joined to other text": triggered + "x",
		"without its beginning": triggered[1:]} {
		out := encode(t, setting{config.OrderStatuses, config.Line, config.Filter{Coins: []string{"BTC"}}, config.Raw},
			lines(line))
		if len(out.Bad) != 1 || out.Events != 0 {
			t.Errorf("%s: %d malformed, %d events", name, len(out.Bad), out.Events)
		}
	}
}

func TestDeepNestingNeitherPassesNorCrashes(t *testing.T) {
	deep := `{"a":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + `}`
	for _, mode := range modes {
		line := deep
		if mode != config.Line {
			line = block(misc, deep, misc)
		}
		out := encode(t, setting{config.MiscEvents, mode, config.Filter{}, config.Raw}, lines(line))
		if len(out.Bad) != 1 || out.Bad[0].Reason != ReasonJSON {
			t.Errorf("%s: %d malformed", mode, len(out.Bad))
		}
	}
}

func TestBlocksAreListedOnceInOrder(t *testing.T) {
	s := setting{config.RawBookDiffs, config.Streaming, config.Filter{Coins: []string{"none"}}, config.Raw}
	at := func(n string) string { return strings.Replace(block(newDiff), "978995377", n, 1) }
	out := encode(t, s, lines(at("5"), at("5"), at("6"), "rubbish", at("6"), at("9"), at("5"),
		strings.TrimSuffix(at("77"), "}")))
	if want := []int64{5, 6, 9, 5}; !slices.Equal(out.Blocks, want) {
		t.Errorf("blocks %v, want %v", out.Blocks, want)
	}
}

func TestResetKeepsNothingButMemory(t *testing.T) {
	s := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Enveloped}
	data := lines(block(order, "{]"), block(triggered, "5"), "x")
	w := s.encoder(t).NewWorker()
	var out Output
	w.Encode(&out, Span{Data: data}, testFile)
	first := describe(out)
	out.Reset()
	if got, want := describe(out), describe(Output{}); got != want {
		t.Errorf("after Reset\n%s", got)
	}
	if out.Bad[:1][0].Bytes != nil {
		t.Error("after Reset the output still refers to the lines of the last batch")
	}
	w.Encode(&out, Span{Data: data}, testFile)
	if got := describe(out); got != first {
		t.Errorf("second time\n%s\nfirst time\n%s", got, first)
	}
}

func TestNoAllocation(t *testing.T) {
	data := map[config.Mode][]byte{}
	events := sampleEvents(200)
	for _, mode := range modes {
		data[mode] = frame(mode, events, 50)
	}
	for _, mode := range modes {
		for _, format := range config.Formats() {
			for _, filter := range append(filters(), config.Filter{Coins: []string{"none"}}) {
				w := setting{config.OrderStatuses, mode, filter, format}.encoder(t).NewWorker()
				var out Output
				run := func() {
					out.Reset()
					w.Encode(&out, Span{Data: data[mode]}, testFile)
				}
				run()
				if n := testing.AllocsPerRun(10, run); n != 0 {
					t.Errorf("%s %s %+v: %v allocations for %d events, %d delivered", mode, format, filter, n, out.Events,
						out.Delivered)
				}
			}
		}
	}
	// The general path, and the other streams.
	for _, stream := range config.Streams() {
		format := config.Normalized
		for _, filter := range []config.Filter{{}, {Coins: []string{"BTC"}, MinNotional: "1"}} {
			var plain []string
			for _, e := range eventsOf(stream) {
				if !strings.Contains(e, `\`) {
					plain = append(plain, e)
				}
			}
			w := setting{stream, config.Line, filter, format}.encoder(t).NewWorker()
			var out Output
			input := lines(plain...)
			run := func() {
				out.Reset()
				w.Encode(&out, Span{Data: input}, testFile)
			}
			run()
			if n := testing.AllocsPerRun(10, run); n != 0 {
				t.Errorf("%s %+v: %v allocations", stream, filter, n)
			}
		}
	}
}

// TestAnOutputReleasesMemoryBeyondTwiceItsLimit makes each part of an output grow beyond the limit.
func TestAnOutputReleasesMemoryBeyondTwiceItsLimit(t *testing.T) {
	const limit = 64 << 10
	for name, data := range map[string][]byte{
		"one long record":       lines(block(strings.Replace(misc, "10.0", strings.Repeat("1", 4*limit), 1))),
		"many records":          lines(block(strings.Split(strings.Repeat("{},", 4*limit), ",")[:4*limit]...)),
		"many malformed events": lines(block(strings.Split(strings.Repeat("1,", 4*limit), ",")[:4*limit]...)),
		"many blocks": lines(strings.Split(strings.Repeat(block()+"\n"+`{"block_number":1,"events":[]}`+"\n",
			limit), "\n")...),
	} {
		w := setting{config.MiscEvents, config.ByBlock, config.Filter{}, config.Raw}.encoder(t).NewWorker()
		w.Parts, w.Hashes = true, true
		out := Output{Limit: limit}
		for rest := (Span{Data: data}); ; {
			rest = w.Encode(&out, rest, testFile)
			out.Reset()
			if held := out.memory(); held > 2*limit {
				t.Fatalf("%s: %d bytes are kept, more than twice %d", name, held, limit)
			}
			if rest.Len() == 0 {
				break
			}
		}
	}
}

func TestAnOutputIsFullWhateverItHolds(t *testing.T) {
	const limit = 1 << 10
	events := make([]string, 2000)
	for i := range events {
		events[i] = order
	}
	line := lines(block(events...))
	w := setting{config.OrderStatuses, config.ByBlock, config.Filter{Coins: []string{"none"}},
		config.Raw}.encoder(t).NewWorker()
	w.Parts, w.Hashes = true, true
	out, pieces := Output{Limit: limit}, 0
	for rest := (Span{Data: line}); rest.Len() > 0; pieces++ {
		out.Reset()
		if rest = w.Encode(&out, rest, testFile); len(out.Hashes)*hashSize > limit {
			t.Fatalf("%d hashes", len(out.Hashes))
		}
	}
	if least := len(events) * hashSize / limit; pieces < least {
		t.Errorf("%d events were read in %d pieces, want at least %d", len(events), pieces, least)
	}
	for name, o := range map[string]Output{
		"records": {Records: make([]sink.Record, limit)}, "malformed events": {Bad: make([]Bad, limit)},
		"blocks": {Blocks: make([]int64, limit)},
		"parts":  {Parts: make([]Part, limit)}, "hashes": {Hashes: make([]uint32, limit)},
		"data": {Data: make([]byte, 3*limit)},
	} {
		if o.Limit = limit; !o.Full() {
			t.Errorf("%s do not fill an output", name)
		}
		if o.Reset(); cap(o.Data)+cap(o.Records)+cap(o.Bad)+cap(o.Blocks)+cap(o.Parts)+cap(o.Hashes) != 0 {
			t.Errorf("the memory of %s is kept", name)
		}
	}
}

func TestInvalidSettingsAreRefused(t *testing.T) {
	for name, s := range map[string]setting{
		"an unknown stream":               {"Blocks", config.Line, config.Filter{}, config.Raw},
		"a mode not yet decided":          {config.Fills, config.Auto, config.Filter{}, config.Raw},
		"an unknown format":               {config.Fills, config.Line, config.Filter{}, "XML"},
		"a user that is not an address":   {config.Fills, config.Line, config.Filter{Users: []string{"0x1"}}, config.Raw},
		"a minimum that is not an amount": {config.Fills, config.Line, config.Filter{MinNotional: "1e3"}, config.Raw},
		"a minimum below 0":               {config.Fills, config.Line, config.Filter{MinNotional: "-1"}, config.Raw},
	} {
		if e, err := NewEncoder(s.stream, s.mode, s.filter, s.format, "", false); err == nil || e != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestDirectories(t *testing.T) {
	for want, s := range map[string]setting{
		"node_order_statuses":                      {stream: config.OrderStatuses, mode: config.Line},
		"node_fills_by_block":                      {stream: config.Fills, mode: config.ByBlock},
		"node_trades_streaming":                    {stream: config.Trades, mode: config.Streaming},
		"node_raw_book_diffs":                      {stream: config.RawBookDiffs, mode: config.Line},
		"misc_events_by_block":                     {stream: config.MiscEvents, mode: config.ByBlock},
		"hip3_oracle_updates":                      {stream: config.OracleUpdates, mode: config.Line},
		"system_and_core_writer_actions_streaming": {stream: config.SystemActions, mode: config.Streaming},
		"node_twap_statuses_streaming":             {stream: config.TwapStatuses, mode: config.Streaming},
	} {
		if got := Directory(s.stream, s.mode); got != want {
			t.Errorf("%s %s: %q, want %q", s.stream, s.mode, got, want)
		}
	}
	if got := Directory(config.Fills, config.Auto) + Directory("Blocks", config.Line); got != "" {
		t.Errorf("%q", got)
	}
}

func TestEventsAsNodesWriteThemTakeTheFastPath(t *testing.T) {
	for stream, events := range map[config.Stream][]string{
		config.OrderStatuses: append(sampleEvents(100), order, triggered, oldOrder),
		config.Fills:         {fill, liquidation},
		config.Trades:        {trade},
		config.RawBookDiffs:  {newDiff, updateDiff, removeDiff},
		config.TwapStatuses:  {twapFinished, twapFailed},
	} {
		w := setting{stream, config.Line, config.Filter{}, config.Raw}.encoder(t).NewWorker()
		for _, e := range events {
			if end, v := w.readSteps([]byte(e), 0, false); v != passed || end != len(e) {
				t.Errorf("%s: %s takes the general path", stream, e)
			}
		}
	}
}

// TestShortCutsMatchTheirSteps compares each shortcut of a layout with the steps that it skips.
func TestShortCutsMatchTheirSteps(t *testing.T) {
	for _, stream := range config.Streams() {
		steps := layoutOf(stream).steps
		for i, s := range steps {
			if s.skips == 0 {
				continue
			}
			text := s.text
			for k, passed := range steps[i+1 : i+1+s.skips] {
				if !strings.HasPrefix(text, passed.text) {
					t.Fatalf("%s: %q does not continue with %q", stream, text, passed.text)
				}
				text = text[len(passed.text):]
				last := k == s.skips-1
				switch {
				case last && s.value == passed.value:
				case last && passed.value == anyValue && strings.HasSuffix(s.text, `"`) && s.value == stringRest:
					text = strings.TrimPrefix(text, `"`)
				case passed.value == stringRest:
					_, text, _ = strings.Cut(text, `"`)
				default:
					text = text[scanValue([]byte(text), 0, 0):]
				}
				if last && (text != "" || s.field != passed.field) {
					t.Errorf("%s: %q and its steps end differently", stream, s.text)
				}
				if !last && passed.field != 0 {
					t.Errorf("%s: %q skips a filter field", stream, s.text)
				}
			}
		}
	}
}
