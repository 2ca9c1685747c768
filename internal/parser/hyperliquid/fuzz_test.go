package hyperliquid

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// FuzzValid compares the scanner with encoding/json.
func FuzzValid(f *testing.F) {
	for _, stream := range config.Streams() {
		for _, e := range append(eventsOf(stream), malformedOf(stream)...) {
			f.Add([]byte(e))
		}
	}
	for _, s := range []string{`[1.5e-3,-0,0.1E+9,01,1.,.5,-,1e]`, `"\ud800\u12G4"`, `{"a":[true,false,null,nul]}`,
		"\"\xff\xfe\x7f\"", "[\n\r\t \v]"} {
		f.Add([]byte(s))
	}
	workers := map[config.Stream]*Worker{}
	for _, stream := range config.Streams() {
		w := setting{stream, config.Line, config.Filter{}, config.Raw}.encoder(f).NewWorker()
		w.encoder.keys = layoutOf(stream).keys
		workers[stream] = w
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		from, to := trim(data)
		body := data[from:to]
		end := scanValue(body, 0, 0)
		if got, want := end == len(body), json.Valid(data); got != want {
			t.Errorf("%q: valid %v, want %v", data, got, want)
		}
		// The general path accepts the same input, whatever keys it searches for.
		for stream, w := range workers {
			end, v := w.readAny(body, 0)
			s := setting{stream: stream}
			if got, want := v != malformed && end == len(body), json.Valid(data) && s.shape(body); got != want {
				t.Errorf("%s: %q: valid %v, want %v", stream, data, got, want)
			}
		}
	})
}

// FuzzEncode compares the encoder with the reference, in any stream, mode, format and filter.
func FuzzEncode(f *testing.F) {
	streams, some := config.Streams(), filters()
	for i, stream := range streams {
		events := eventsOf(stream)
		for m, mode := range modes {
			for k := range some {
				e := events[k%len(events)]
				if mode != config.Line {
					e = block(events[0], e)
				}
				f.Add(lines(e), uint8(i), uint8(m), uint8(k), k%2 == 0, uint8(2))
			}
		}
		for k, e := range append(malformedOf(stream), nonStrictOf(stream)...) {
			f.Add(lines(block(events[0], e, events[0])), uint8(i), uint8(1+k%2), uint8(k), k%2 == 0, uint8(3))
			f.Add(lines(e), uint8(i), uint8(0), uint8(k), k%2 == 0, uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, stream, mode, filter uint8, raw bool, spans uint8) {
		s := setting{streams[int(stream)%len(streams)], modes[int(mode)%len(modes)], some[int(filter)%len(some)],
			config.Enveloped}
		if raw {
			s.format = config.Raw
		}
		if bytes.Count(data, []byte("[")) > 1000 {
			return // the depth limit counts from the event, not from the line
		}
		s.check(t, data, int(spans%16)+1)
	})
}

// FuzzNormalized compares Normalized and EnvelopedRows records with the reference. The fuzzer writes one event, or the
// value of one of its members. The event is tested alone and in a block.
func FuzzNormalized(f *testing.F) {
	streams, some := config.Streams(), filters()
	for i, stream := range streams {
		for k, e := range eventsOf(stream) {
			f.Add(e, "", uint8(k), uint8(i), uint8(k))
			f.Add(e, oddValues[k%len(oddValues)], uint8(k), uint8(i), uint8(0))
		}
		for k, e := range oddEventsOf(stream) {
			if k%40 == 0 {
				f.Add(e, "", uint8(k), uint8(i), uint8(k))
			}
		}
	}
	f.Fuzz(func(t *testing.T, event, value string, member, stream, filter uint8) {
		if members := memberText.FindAllStringSubmatchIndex(event, -1); value != "" && len(members) > 0 {
			at := members[int(member)%len(members)]
			event = event[:at[4]] + value + event[at[5]:]
		}
		if strings.Count(event, "[") > 1000 {
			return
		}
		s := setting{streams[int(stream)%len(streams)], config.Line, config.Filter{}, config.Normalized}
		if filter%4 == 1 {
			s.filter = some[int(filter/4)%len(some)]
		}
		if filter%4 == 2 {
			s.format = config.EnvelopedRows
		}
		s.check(t, lines(event))
		s.mode = config.ByBlock
		s.check(t, lines(block(eventsOf(s.stream)[0], event)), 2)
	})
}

// FuzzSplitEnvelope lets the fuzzer write events for given envelopes, so that it need not discover how to write an
// envelope.
func FuzzSplitEnvelope(f *testing.F) {
	layouts := len(envelopesOf(""))
	for k, e := range append(eventsOf(config.RawBookDiffs), malformedOf(config.RawBookDiffs)...) {
		f.Add(newDiff, e, " , ", uint8(k), uint8(k))
	}
	for k := range layouts {
		f.Add(newDiff, `{"a":["]",{"b":"\""}]}`, ",", uint8(k), uint8(3))
	}
	f.Fuzz(func(t *testing.T, first, second, between string, layout, spans uint8) {
		data := envelopesOf(first + between + second + "," + newDiff)[int(layout)%layouts]
		if strings.Count(data, "[") > 1000 {
			return
		}
		setting{config.RawBookDiffs, config.ByBlock, config.Filter{}, config.Raw}.check(t, lines(data), int(spans%8)+1)
	})
}

// FuzzBlockNumber compares the number at the beginning of a line with that of its whole envelope.
func FuzzBlockNumber(f *testing.F) {
	const times = `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`
	for _, s := range []string{
		times + `"block_number":978995377,"events":[]}`, times + `"block_number":978995377,"events":[{"block_number":1,`,
		times + `"block_number":9`, times + `"block_number":,"events":[]}`, times + `"block_number":-1,"events":[]}`,
		times + `"block_number":999999999999999999,"events":[]}`, times + `"block_number":9999999999999999999,"events":[]}`,
		times + `"block_number":01,"events":[]}`, `{"block_number":5,"events":[]}`, `{"events":[],"block_number":5}`,
		`{"coin":"BTC","px":"1"}`, `["0xabc",{"coin":"BTC"}]`, "", "\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		number, ok := BlockNumber(line)
		if ok && (number < 0 || number > 999_999_999_999_999_999) {
			t.Errorf("%q: %d", line, number)
		}
		if again, same := BlockNumber(line[:min(len(line), 1<<10)]); again != number || same != ok {
			t.Errorf("%q: %d, %v; the first KiB has %d, %v", line, number, ok, again, same)
		}
		var h header
		if i := h.readUsualHeader(line); i >= 0 && i < 256 && (!ok || number != h.block) {
			if !bytes.Contains(append(h.blockTime, h.localTime...), []byte("block_number")) {
				t.Errorf("%q: %d, %v; the envelope has %d", line, number, ok, h.block)
			}
		}
	})
}
