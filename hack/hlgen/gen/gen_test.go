package gen_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

var start = time.Date(2026, 4, 30, 20, 46, 43, 304_461_819, time.UTC)

func allSources() []gen.Source {
	all := make([]gen.Source, 0, 18)
	for _, s := range []gen.Stream{gen.OrderStatuses, gen.Fills, gen.RawBookDiffs, gen.Trades, gen.MiscEvents,
		gen.TwapStatuses} {
		for _, m := range []gen.Mode{gen.Line, gen.Streaming, gen.ByBlock} {
			all = append(all, gen.Source{Stream: s, Mode: m})
		}
	}
	return all
}

func newGenerator(t testing.TB, src gen.Source, seed uint64) *gen.Generator {
	t.Helper()
	g, err := gen.New(gen.Options{Source: src, Seed: seed, EventsPerBlock: 50})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

type envelope struct {
	LocalTime   string            `json:"local_time"`
	BlockTime   string            `json:"block_time"`
	BlockNumber uint64            `json:"block_number"`
	Events      []json.RawMessage `json:"events"`
}

// events decodes lines with encoding/json only.
func events(t *testing.T, mode gen.Mode, text []byte) (all []json.RawMessage, blocks []envelope) {
	t.Helper()
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Fatalf("text ends in a torn line: …%q", text[max(0, len(text)-80):])
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if mode == gen.Line {
			all = append(all, line)
			continue
		}
		var e envelope
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil {
			t.Fatalf("envelope: %v in %.300s", err, line)
		}
		blocks = append(blocks, e)
		all = append(all, e.Events...)
	}
	return all, blocks
}

func TestEveryEventIsValidAndUnique(t *testing.T) {
	for _, src := range allSources() {
		t.Run(src.String(), func(t *testing.T) {
			g := newGenerator(t, src, 7)
			lines := 2000
			if src.Mode == gen.ByBlock {
				lines = 100
			}
			var text []byte
			counted := 0
			for i := range lines {
				var n int
				text, n = g.AppendLine(text, start.Add(time.Duration(i)*time.Millisecond))
				counted += n
			}
			all, blocks := events(t, src.Mode, text)
			if len(all) != counted {
				t.Errorf("lines hold %d events, AppendLine counted %d", len(all), counted)
			}
			seen := make(map[string]bool, len(all))
			for _, e := range all {
				if !json.Valid(e) {
					t.Fatalf("not JSON: %s", e)
				}
				if seen[string(e)] {
					t.Fatalf("occurs twice: %s", e)
				}
				seen[string(e)] = true
			}
			if src.Mode != gen.Line && len(blocks) != lines {
				t.Errorf("%d envelopes, want one per line", len(blocks))
			}
			for i := 1; i < len(blocks); i++ {
				step := blocks[i].BlockNumber - blocks[i-1].BlockNumber
				if src.Mode == gen.ByBlock && step != 1 {
					t.Fatalf("block %d follows %d", blocks[i].BlockNumber, blocks[i-1].BlockNumber)
				}
				if src.Mode == gen.Streaming && (step > 30 || len(blocks[i].Events) != 1) {
					t.Fatalf("block %d has %d events and follows its predecessor by %d",
						blocks[i].BlockNumber, len(blocks[i].Events), step)
				}
			}
		})
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	for _, src := range allSources() {
		text := func(seed uint64) []byte {
			g := newGenerator(t, src, seed)
			var b []byte
			for i := range 200 {
				b, _ = g.AppendLine(b, start.Add(time.Duration(i)*time.Second))
			}
			return b
		}
		if !bytes.Equal(text(3), text(3)) {
			t.Errorf("%s: two runs with one seed differ", src)
		}
		if bytes.Equal(text(3), text(4)) {
			t.Errorf("%s: two seeds yield equal bytes", src)
		}
	}
}

// keys returns the keys of a JSON object or a fill in order, with dots for nesting.
func keys(t *testing.T, raw []byte) []string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	var walk func(prefix string) []string
	walk = func(prefix string) []string {
		tok, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		switch tok {
		case json.Delim('{'):
			for dec.More() {
				key, err := dec.Token()
				if err != nil {
					t.Fatal(err)
				}
				name := prefix + key.(string)
				out = append(out, name)
				out = append(out, walk(name+".")...)
			}
			_, _ = dec.Token()
		case json.Delim('['):
			for dec.More() {
				out = append(out, walk(prefix)...)
			}
			_, _ = dec.Token()
		}
		return out
	}
	return walk("")
}

func TestFieldsHaveTheNodesOrder(t *testing.T) {
	want := map[gen.Stream]string{
		gen.OrderStatuses: "time user hash builder status order order.coin order.side order.limitPx order.sz order.oid " +
			"order.timestamp order.triggerCondition order.isTrigger order.triggerPx order.children order.isPositionTpsl " +
			"order.reduceOnly order.orderType order.origSz order.tif order.cloid",
		gen.Fills:        "coin px sz side time startPosition dir closedPnl hash oid crossed fee tid feeToken twapId",
		gen.RawBookDiffs: "user oid coin side px raw_book_diff raw_book_diff.new raw_book_diff.new.sz",
		gen.Trades: "coin side time px sz hash trade_dir_override side_info " +
			strings.Repeat("side_info.user side_info.start_pos side_info.oid side_info.twap_id side_info.cloid ", 2),
		gen.MiscEvents: "time hash inner inner.CDeposit inner.CDeposit.user inner.CDeposit.amount",
		gen.TwapStatuses: "time twap_id state state.coin state.user state.side state.sz state.executedSz state.executedNtl " +
			"state.minutes state.reduceOnly state.randomize state.timestamp status",
	}
	for stream, fields := range want {
		g := newGenerator(t, gen.Source{Stream: stream, Mode: gen.Line}, 1)
		found := slices.ContainsFunc(make([]struct{}, 100), func(struct{}) bool {
			line, _ := g.AppendLine(nil, start)
			return slices.Equal(keys(t, line), strings.Fields(fields))
		})
		if !found {
			line, _ := g.AppendLine(nil, start)
			t.Errorf("%s: none of 100 events has the plain set of fields; one has %v", stream, keys(t, line))
		}
	}
}

func TestMixMatchesMainnet(t *testing.T) {
	const total = 60_000
	g := newGenerator(t, gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}, 1)
	counts := map[string]int{}
	var line []byte
	var size int
	for range total {
		line, _ = g.AppendLine(line[:0], start)
		size += len(line)
		var e struct {
			Hash    *string
			Builder *struct{ B string }
			Status  string
			Order   struct {
				Coin     string
				Children []json.RawMessage
				TIF      *string
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		counts[e.Status]++
		counts["coin "+e.Order.Coin]++
		if e.Hash == nil {
			counts["null hash"]++
		}
		if e.Builder != nil {
			counts["builder"]++
		}
		if len(e.Order.Children) > 0 {
			counts["children"]++
		}
		if e.Order.TIF == nil {
			counts["null tif"]++
		}
	}
	between := func(what string, low, high float64) {
		t.Helper()
		if share := float64(counts[what]) / total; share < low || share > high {
			t.Errorf("%s: %.4f of the events, want %.4f to %.4f", what, share, low, high)
		}
	}
	between("badAloPxRejected", 0.94, 0.96)
	between("null hash", 0.975, 0.985)
	between("builder", 0.001, 0.01)
	between("children", 0.0002, 0.01)
	between("null tif", 0.0005, 0.01)
	between("internalCancel", 0.00001, 0.001)
	between("coin BTC", 0.2, 0.25)
	for _, coin := range []string{"@107", "kPEPE", "xyz:SP500", "PURR/USDC", "#1890"} {
		between("coin "+coin, 0.01, 0.1)
	}
	if mean := size / total; mean < 455 || mean > 500 {
		t.Errorf("mean line is %d bytes, mainnet's are about 480", mean)
	}
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found[path], err = os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestHoursSwitchAcrossMidnightWithoutPadding(t *testing.T) {
	dir := t.TempDir()
	src := gen.Source{Stream: gen.Fills, Mode: gen.ByBlock}
	w := gen.NewWriter(dir, src, newGenerator(t, src, 1), gen.WriterOptions{})
	begin := time.Date(2026, 4, 30, 22, 30, 0, 0, time.UTC)
	for i := range 100 {
		if err := w.WriteLine(begin.Add(time.Duration(i) * 2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	found := files(t, dir)
	var lines int64
	for _, name := range []string{"20260430/22", "20260430/23", "20260501/0", "20260501/1"} {
		text := found["node_fills_by_block/hourly/"+name]
		if len(text) == 0 {
			t.Errorf("no file %s", name)
		}
		_, blocks := events(t, src.Mode, text)
		lines += int64(len(blocks))
	}
	if s := w.Stats(); lines != 100 || s.Lines != 100 || s.Files != 4 || len(found) != 4 {
		t.Errorf("%d lines in %d files, stats %+v", lines, len(found), s)
	}
}

func TestWritesAreTornButCompleteAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	src := gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}
	w := gen.NewWriter(dir, src, newGenerator(t, src, 1), gen.WriterOptions{BufferSize: 1000})
	path := filepath.Join(dir, "node_order_statuses", "hourly", "20260430", "20")
	torn := 0
	for i := range 200 {
		if err := w.WriteLine(start.Add(time.Duration(i) * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(text)%1000 != 0 {
			t.Fatalf("%d bytes on disk, want whole buffers of 1000", len(text))
		}
		if len(text) > 0 && text[len(text)-1] != '\n' {
			torn++
		}
	}
	if torn < 150 {
		t.Errorf("only %d of 200 reads saw a torn line", torn)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := events(t, src.Mode, text); len(all) != 200 {
		t.Errorf("%d events, want 200", len(all))
	}
}

func TestOldHourGrowsAfterTheNewOneExists(t *testing.T) {
	dir := t.TempDir()
	src := gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}
	w := gen.NewWriter(dir, src, newGenerator(t, src, 1), gen.WriterOptions{BufferSize: 512, LateFor: 10 * time.Second})
	begin := time.Date(2026, 4, 30, 8, 59, 50, 0, time.UTC)
	oldPath := filepath.Join(dir, "node_order_statuses", "hourly", "20260430", "8")
	size := func() int64 {
		info, err := os.Stat(oldPath)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var atSwitch, atEnd int64
	for i := range 400 {
		now := begin.Add(time.Duration(i) * 100 * time.Millisecond)
		if err := w.WriteLine(now); err != nil {
			t.Fatal(err)
		}
		switch i {
		case 100:
			atSwitch = size()
		case 200: // the grace period has just passed
			atEnd = size()
		}
	}
	if atEnd <= atSwitch {
		t.Errorf("the old hour had %d bytes at the switch and %d at the end of its grace period", atSwitch, atEnd)
	}
	if now := size(); now != atEnd {
		t.Errorf("the old hour grew from %d to %d after its grace period", atEnd, now)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.LateLines == 0 || s.LateLines > 20 {
		t.Errorf("%d late lines, want some", s.LateLines)
	}
	total := 0
	for _, text := range files(t, dir) {
		all, _ := events(t, src.Mode, text)
		total += len(all)
	}
	if total != 400 {
		t.Errorf("%d events on disk, want 400", total)
	}
}

func TestPaceKeepsRateAndRunsTheClockFast(t *testing.T) {
	dir := t.TempDir()
	src := gen.Source{Stream: gen.Trades, Mode: gen.Line}
	w := gen.NewWriter(dir, src, newGenerator(t, src, 1), gen.WriterOptions{})
	clock := gen.Clock{Start: time.Date(2026, 4, 30, 9, 0, 0, 0, time.UTC), HourEvery: 50 * time.Millisecond}
	begin := time.Now()
	if err := gen.Pace(t.Context(), w, clock, 2000, 400); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 190*time.Millisecond {
		t.Errorf("400 lines at 2000 per second took %v", took)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Lines != 400 || s.Files < 4 {
		t.Errorf("stats %+v, want 400 lines in at least 4 hours", s)
	}
}

func TestParseSourceErrorsListTheOptions(t *testing.T) {
	for text, want := range map[string]string{
		"fills":             "fills:line",
		"trades:streaming":  "trades:streaming",
		"orders":            "",
		"fills:sideways":    "",
		"misc-events:line:": "",
	} {
		got, err := gen.ParseSource(text)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "want") {
				t.Errorf("%q: the error %v does not list the options", text, err)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
}

func BenchmarkAppendLine(b *testing.B) {
	for _, src := range allSources() {
		b.Run(fmt.Sprint(src), func(b *testing.B) {
			g := newGenerator(b, src, 1)
			var line []byte
			total, n := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				line, _ = g.AppendLine(line[:0], start.Add(time.Duration(n)*time.Microsecond))
				total += len(line)
			}
			b.SetBytes(int64(total / n))
		})
	}
}
