package file_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// lengths returns the recorded lengths of the parts in a state, by name.
func lengths(t *testing.T, state json.RawMessage) map[string]int64 {
	t.Helper()
	type part struct {
		Name  string
		Bytes int64
	}
	var st struct {
		Open     *part
		Complete []part
	}
	must(t, json.Unmarshal(state, &st))
	out := map[string]int64{}
	if st.Open != nil {
		out[st.Open.Name] = st.Open.Bytes
	}
	for _, p := range st.Complete {
		out[p.Name] = p.Bytes
	}
	return out
}

func (o *output) text(name string) string {
	o.t.Helper()
	content, err := o.fs.ReadFile(o.path(name))
	must(o.t, err)
	text, err := unpack(strings.TrimSuffix(name, ".part"), string(content))
	must(o.t, err)
	return text
}

func TestEveryCommitEndsAFrame(t *testing.T) {
	o := newOutput(t, file.Options{Zstd: true})
	want, before := "", int64(0)
	for i := range 5 {
		line := fmt.Sprintf("record %d", i)
		o.write(records(2*i, line, line))
		want += line + "\n" + line + "\n"
		o.commit(false)
		content, err := o.fs.ReadFile(o.path(name(0, ".zst.part")))
		must(t, err)
		recorded := lengths(t, o.state)[name(0, "")]
		if recorded != int64(len(content)) || recorded == before {
			t.Fatalf("the checkpoint records %d bytes after %d; the file has %d", recorded, before, len(content))
		}
		// The commit added one frame, and the whole file is readable.
		if got, err := unpack("added.zst", string(content[before:])); err != nil || got != line+"\n"+line+"\n" {
			t.Fatalf("the commit added %q, %v", got, err)
		}
		before = recorded
	}
	for range 3 {
		o.commit(true)
	}
	o.wantFiles(name(0, ".jsonl.zst"))
	if got := o.text(name(0, ".jsonl.zst")); got != want {
		t.Fatalf("the closed file holds %q, want %q", got, want)
	}
}

func TestUncompressedRecordsInMemoryAreBounded(t *testing.T) {
	const streams, rounds, limit = 7, 200, 1 << 20
	out, err := file.New(t.Context(), vfs.OS, t.TempDir(), file.Options{Zstd: true}, func() {})
	must(t, err)
	sinks := make([]sink.Sink, streams)
	for i := range sinks {
		sinks[i], err = out.Open(t.Context(), fmt.Sprint("stream-", i), nil)
		must(t, err)
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	batch := statuses(0, 300)
	before := heap()
	for i := range rounds {
		batch.Records[0].Offset = int64(i)
		for _, s := range sinks {
			must(t, s.Write(t.Context(), batch))
		}
	}
	if got := heap() - before; got > streams*3*limit/2+8<<20 {
		t.Errorf("%d streams of %d MB hold %d KiB before their commit", streams, rounds*len(batch.Data)>>20, got>>10)
	}
	for range 2 {
		for _, s := range sinks {
			_, err := sinktest.Flush(t.Context(), s, false)
			must(t, err)
		}
	}
	if got := heap() - before; got > 6<<20 {
		t.Errorf("idle, they hold %d KiB", got>>10)
	}
	for _, s := range sinks {
		must(t, s.Close())
	}
	must(t, out.Close())
}

func TestAFrameEndsBeforeItGetsTooLong(t *testing.T) {
	o := newOutput(t, file.Options{Zstd: true})
	written, batch := 0, statuses(0, 200)
	for i := range 50 {
		batch.Records[0].Offset = int64(i)
		o.write(batch)
		written += len(batch.Data)
		got := 0
		if len(o.files()) > 0 {
			got = len(o.text(o.files()[0]))
		}
		if written-got > 1<<20 {
			t.Fatalf("of %d bytes written only %d are in the file", written, got)
		}
	}
}

// random returns a record that does not compress.
func random(r *rand.Rand, n int) string {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.UintN(256))
		if p[i] == '\n' {
			p[i] = 0
		}
	}
	return string(p)
}

func TestACompressedPartEndsByItsLengthOnDisk(t *testing.T) {
	const limit = 64 << 10
	r := rand.New(rand.NewPCG(1, 2))
	for title, line := range map[string]func(i int) string{
		"what compresses well":      func(i int) string { return fmt.Sprint(i, strings.Repeat(" and so on", 30)) },
		"what does not compress":    func(int) string { return random(r, 1+r.IntN(5000)) },
		"also records of any size":  func(int) string { return random(r, 1+r.IntN(2*limit)) },
		"records as long as a part": func(int) string { return random(r, limit-64-1) },
		// Two fit, but not with the overhead of their frame.
		"records of half a part": func(int) string { return random(r, limit/2-3) },
	} {
		t.Run(title, func(t *testing.T) {
			o := newOutput(t, file.Options{Zstd: true, MaxBytes: limit})
			want := ""
			for i := 0; len(want) < 3<<20; {
				lines := make([]string, 1+r.IntN(40))
				for j := range lines {
					lines[j] = line(i + j)
				}
				b := records(i, lines...)
				o.write(b)
				want += string(b.Data)
				i += len(lines)
				if r.IntN(5) == 0 {
					o.commit(false)
				}
			}
			for range 3 {
				o.commit(true)
			}
			got, before := "", int64(limit)
			for _, name := range o.files() {
				size, err := o.fs.Size(o.path(name))
				must(t, err)
				text := o.text(name)
				got += text
				if size > limit && strings.Count(text, "\n") > 1 {
					t.Errorf("%s has %d bytes in %d records", name, size, strings.Count(text, "\n"))
				}
				if before+size <= limit {
					t.Errorf("%s has %d bytes, which fit in the previous part of %d bytes", name, size, before)
				}
				before = size
			}
			if got != want {
				t.Errorf("%d bytes were delivered, want %d", len(got), len(want))
			}
		})
	}
}

func TestAFullDiskInACommitIsAnOutageWithoutDuplicates(t *testing.T) {
	fsys := crashfs.New()
	o := &output{t: t, fs: fsys, dir: "out", opts: file.Options{Zstd: true}}
	o.mustOpen()
	o.commit(false)
	o.write(records(0, "a"))
	full := func(op crashfs.Op) error {
		if op.Kind == crashfs.Write || op.Kind == crashfs.Create {
			return syscall.ENOSPC
		}
		return nil
	}
	notFull := func(title string) {
		fsys.Inject(full)
		for range 3 {
			_, err := sinktest.Flush(t.Context(), o.sink, false)
			if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, sink.ErrReopen) || errors.Is(err, sink.ErrFailed) {
				t.Fatalf("%s: got %v, want only ENOSPC", title, err)
			}
		}
		fsys.Inject(nil)
	}
	notFull("when the part is created")
	o.commit(false)
	o.write(records(1, "b"))
	notFull("when the part grows")
	o.write(records(2, "c")) // more records may arrive between two attempts
	fsys.Inject(full)
	long := records(3, strings.Repeat("d", 2<<20))
	if err := o.sink.Write(t.Context(), long); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a long record: got %v, want ENOSPC", err)
	}
	fsys.Inject(nil)
	o.commit(false)
	if got := o.text(name(0, ".zst.part")); got != "a\nb\nc\n" {
		t.Fatalf("without the abandoned batch the part holds %.20q", got)
	}
	o.write(long)
	for range 3 {
		o.commit(true)
	}
	if got, err := closed(fsys, "out/fills"); err != nil || string(got) != "a\nb\nc\n"+string(long.Data) {
		t.Fatalf("delivered %.20q, %v", got, err)
	}
}

func TestACompressedPartIsTruncatedToTheRecordedFrame(t *testing.T) {
	o := newOutput(t, file.Options{Zstd: true})
	o.write(records(0, "a"))
	o.commit(false)
	o.write(records(1, "b"))
	_, err := sinktest.Flush(t.Context(), o.sink, false) // the checkpoint is never saved
	must(t, err)
	o.close()
	o.mustOpen()
	o.write(records(1, "B"))
	for range 3 {
		o.commit(true)
	}
	if got := o.text(name(0, ".jsonl.zst")); got != "a\nB\n" {
		t.Fatalf("the file holds %q", got)
	}
}

func TestCompressionMayBeTurnedOnAndOff(t *testing.T) {
	o := newOutput(t, file.Options{})
	for i := range 4 {
		o.write(records(i, fmt.Sprint(i)))
		o.commit(false)
		o.close()
		o.opts.Zstd = !o.opts.Zstd
		o.mustOpen()
	}
	for range 3 {
		o.commit(true)
	}
	o.wantFiles(name(0, ".jsonl"), name(1, ".jsonl.zst"), name(2, ".jsonl"), name(3, ".jsonl.zst"))
	if got, err := closed(o.fs, "out/fills"); string(got) != "0\n1\n2\n3\n" {
		t.Fatalf("delivered %q, %v", got, err)
	}
	// A position is delivered once, compressed or not.
	for _, packed := range []bool{true, false} {
		o.close()
		o.opts.Zstd = packed
		o.mustOpen()
		err := o.sink.Write(t.Context(), records(2, "2"))
		if err == nil {
			_, err = sinktest.Flush(t.Context(), o.sink, false)
		}
		if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), "move out/fills/"+name(2, ".jsonl")+" away") {
			t.Errorf("packed %v: got %v, want ErrFailed with instructions", packed, err)
		}
	}
}

func TestCompressedOutputWithoutItsCheckpointFails(t *testing.T) {
	o := newOutput(t, file.Options{Zstd: true})
	o.write(records(0, "a"))
	o.commit(false)
	o.close()
	o.state = nil
	if err := o.open(); !errors.Is(err, sink.ErrFailed) ||
		!strings.Contains(err.Error(), "which is not in the checkpoint") {
		t.Fatalf("got %v, want ErrFailed", err)
	}
	o.wantFiles(name(0, ".zst.part"))
}

// inHour sets the hour of a batch.
func inHour(h int, b sink.Batch) sink.Batch {
	b.File.Hour = h
	return b
}

func TestAnArchiveHoldsRecordsOfOneOfTheNodesFiles(t *testing.T) {
	for _, packed := range []bool{false, true} {
		t.Run(fmt.Sprintf("packed %v", packed), func(t *testing.T) {
			now := time.Unix(0, 0)
			o := newOutput(t, file.Options{Hourly: true, Zstd: packed, MaxAge: time.Minute,
				Now: func() time.Time { return now }})
			o.write(inHour(8, records(0, "a", "b")))
			o.commit(false)
			now = now.Add(time.Hour) // has no effect
			o.commit(false)
			o.write(inHour(8, records(2, "c")))
			o.write(inHour(9, records(0, "d")))
			o.write(inHour(8, records(3, "late"))) // the node appended to the old hour
			o.commit(false)
			o.close()
			o.mustOpen()
			o.write(inHour(9, records(1, "e")))
			again := inHour(9, records(2, "new")) // the node recreated the file
			again.File.Generation = "2b3c4d5e"
			o.write(again)
			for range 3 {
				o.commit(true)
			}
			got := map[string]string{}
			for _, file := range o.files() {
				got[strings.TrimSuffix(strings.TrimSuffix(file, ".zst"), ".jsonl")] = o.text(file)
			}
			at := func(hour, generation string, offset int) string {
				return fmt.Sprintf("20260430-%s-node_fills_by_block-%s-%015d-000007", hour, generation, offset)
			}
			want := map[string]string{
				at("08", "1a2b3c4d", 0): "a\nb\nc\n",
				at("09", "1a2b3c4d", 0): "d\n",
				at("08", "1a2b3c4d", 3): "late\n",
				at("09", "1a2b3c4d", 1): "e\n",
				at("09", "2b3c4d5e", 2): "new\n",
			}
			if !maps.Equal(got, want) {
				t.Fatalf("the archives are %q\nwant %q", got, want)
			}
		})
	}
}

// An hour's files sort in the order of its records, whatever arrives late between them, so a polling consumer needs
// only names.
func TestTheFilesOfAnHourSortInTheOrderOfItsRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		opts := file.Options{
			Hourly: true, MaxBytes: rapid.Int64Range(0, 60).Draw(rt, "maxBytes"), Zstd: rapid.Bool().Draw(rt, "packed"),
		}
		o := newOutput(t, opts)
		want := map[int]string{}
		next := map[int]int{}
		for i := range rapid.IntRange(1, 30).Draw(rt, "records") {
			hour := rapid.IntRange(8, 10).Draw(rt, "hour")
			text := fmt.Sprintf("record %d", i)
			o.write(inHour(hour, records(next[hour]*997, text)))
			next[hour]++
			want[hour] += text + "\n"
			if rapid.IntRange(0, 3).Draw(rt, "commit") == 0 {
				o.commit(false)
			}
		}
		for range 3 {
			o.commit(true)
		}
		got := map[int]string{}
		for _, name := range o.files() { // sorted, as one poll finds them
			for hour := 8; hour <= 10; hour++ {
				if strings.HasPrefix(name, fmt.Sprintf("20260430-%02d-node_fills_by_block-1a2b3c4d-", hour)) {
					got[hour] += o.text(name)
				}
			}
		}
		if !maps.Equal(got, want) {
			rt.Fatalf("got %v\nwant %v", got, want)
		}
		o.close()
	})
}

func TestEqualInputYieldsEqualArchives(t *testing.T) {
	for title, limits := range map[string]struct {
		maxBytes int64
		zstd     bool
	}{
		"plain": {}, "plain with a size": {maxBytes: 90}, "compressed": {zstd: true},
	} {
		t.Run(title, func(t *testing.T) {
			var first map[string]string
			for seed := range uint64(20) {
				w := newWorld()
				w.seed, w.hourly, w.maxBytes, w.zstd = seed, true, limits.maxBytes, limits.zstd
				w.maxAge = time.Duration(1+seed) * time.Second
				fsys := crashfs.New()
				if err := errors.Join(w.live(fsys), w.check(fsys)); err != nil {
					t.Fatal(err)
				}
				for name, content := range w.given {
					text, err := unpack(name, content)
					must(t, err)
					w.given[name] = text
				}
				if first == nil {
					first = w.given
				}
				if !maps.Equal(w.given, first) {
					t.Fatalf("run %d made %q\nthe first made %q", seed, w.given, first)
				}
			}
		})
	}
}

// statuses returns n synthetic order-status records.
func statuses(from, n int) sink.Batch {
	r := rand.New(rand.NewPCG(uint64(from), 7))
	lines := make([]string, 0, n)
	for i := range n {
		lines = append(lines, fmt.Sprintf(`{"target":"node-1","stream":"order-statuses",`+
			`"pos":"node_order_statuses_by_block/20260430/20@1a2b3c4d:%d:%d","block":%d,"index":%d,`+
			`"blockTime":"2026-04-30T20:46:43.%09d","localTime":"2026-04-30T20:46:43.%09d",`+
			`"event":{"time":"2026-04-30T20:46:43.%09d","user":"0x%016x%016x%08x","hash":null,"builder":null,"status":"%s",`+
			`"order":{"coin":"%s","side":"%s","limitPx":"%d.%d","sz":"0.%04d","oid":%d,"timestamp":%d,`+
			`"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,`+
			`"reduceOnly":false,"orderType":"Limit","origSz":"0.%04d","tif":"Alo","cloid":"0x%032x"}}}`,
			from+i/50, i%50, 900_000_000+i/50, i%50, r.IntN(1e9), r.IntN(1e9), r.IntN(1e9),
			r.Uint64()%500, r.Uint64()%500, r.Uint32()%500,
			[]string{"open", "canceled", "filled", "badAloPxRejected"}[r.IntN(4)],
			[]string{"BTC", "ETH", "SOL", "xyz:TSLA"}[r.IntN(4)], []string{"A", "B"}[r.IntN(2)],
			70000+r.IntN(9000), r.IntN(10), r.IntN(10000), 300_000_000_000+i, 1777582003304+i, r.IntN(10000), r.Uint64()))
	}
	return records(from, lines...)
}

// BenchmarkArchive writes order statuses in batches of 256 KiB and commits every 16 MiB.
func BenchmarkArchive(b *testing.B) {
	for _, packed := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "zstd"}[packed], func(b *testing.B) {
			dir := b.TempDir()
			out, err := file.New(b.Context(), vfs.OS, dir, file.Options{MaxBytes: 1 << 30, Zstd: packed}, func() {})
			if err != nil {
				b.Fatal(err)
			}
			s, err := out.Open(b.Context(), "fills", nil)
			if err != nil {
				b.Fatal(err)
			}
			batches := make([]sink.Batch, 16)
			for i := range batches {
				batches[i] = statuses(i*1000, 400)
			}
			b.SetBytes(int64(len(batches[0].Data)))
			b.ReportAllocs()
			var written, kept int64
			for i := 0; b.Loop(); i++ {
				batch := batches[i%len(batches)]
				batch.Records[0].Offset = int64(i)
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
				written += int64(len(batch.Data))
				if i%64 != 63 {
					continue
				}
				state, err := sinktest.Flush(b.Context(), s, false)
				if err != nil || bytes.Equal(state, nil) {
					b.Fatal(err)
				}
				if err := s.Committed(b.Context()); err != nil {
					b.Fatal(err)
				}
				names, _ := filepath.Glob(filepath.Join(dir, "fills", "*.jsonl*"))
				for _, name := range names {
					if info, err := os.Stat(name); err == nil {
						kept += info.Size()
					}
					_ = os.Remove(name)
				}
			}
			if _, err := sinktest.Flush(b.Context(), s, false); err != nil {
				b.Fatal(err)
			}
			names, _ := filepath.Glob(filepath.Join(dir, "fills", "*"))
			for _, name := range slices.Compact(names) {
				if info, err := os.Stat(name); err == nil {
					kept += info.Size()
				}
			}
			b.ReportMetric(float64(written)/float64(kept), "ratio")
		})
	}
}
