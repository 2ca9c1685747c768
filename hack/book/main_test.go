package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/book/l4"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

// sampleData names a directory with a real node's output, its hl/data. Other tests use it, too.
const sampleData = "HLPARSER_SAMPLE_DATA"

// buildDir is removed after the tests, if any of them built hlparser.
var buildDir string

var build = sync.OnceValues(func() (program string, err error) {
	if buildDir, err = os.MkdirTemp("", "hlparser-book-"); err != nil {
		return "", err
	}
	program = filepath.Join(buildDir, "hlparser")
	if text, err := exec.Command("go", "build", "-o", program, "../../cmd/hlparser").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building hlparser: %w: %s", err, text)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir) // it is in the directory for temporary files anyway
	}
	os.Exit(code)
}

// parse returns the merged stream of a node's data directory.
func parse(t *testing.T, data string, streams ...string) []byte {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	args := make([]string, 0, 13+2*len(streams))
	args = append(args, "run", "--once", "--data-dir", data, "--state-dir", t.TempDir(), "--order", "block", "--markers",
		"--format", "enveloped", "--sink", "stdout")
	for _, s := range streams {
		args = append(args, "--stream", s)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running hlparser: %v: %s", err, &stderr)
	}
	return out
}

// books feeds the merged stream to books that begin with a block, and returns the state after each of its blocks, by
// number.
func books(t *testing.T, merged []byte, from int64) (after map[int64]string, all []*l4.Block) {
	t.Helper()
	feed := l4.Feed{From: from}
	after = map[int64]string{}
	for line := range bytes.Lines(merged) {
		b, err := feed.Add(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			continue
		}
		all = append(all, b)
		if b.Valid {
			after[b.Number] = fmt.Sprintf("%s since %d %+v", feed.Hash(), b.Since, b.Changes)
		}
	}
	return after, all
}

// same compares the books of two modes after each block from the first one that is whole in both.
func same(t *testing.T, byBlock, streaming []byte) (compared int, changes l4.Changes) {
	t.Helper()
	_, blocks := books(t, byBlock, 0)
	_, cut := books(t, streaming, 0)
	whole := func(b *l4.Block) bool { return b.Valid }
	if !slices.ContainsFunc(blocks, whole) || !slices.ContainsFunc(cut, whole) {
		t.Fatal("no block is whole")
	}
	from := max(blocks[slices.IndexFunc(blocks, whole)].Number, cut[slices.IndexFunc(cut, whole)].Number)
	want, _ := books(t, byBlock, from)
	got, cut := books(t, streaming, from)
	for _, b := range cut {
		if !b.Valid {
			continue
		}
		if got[b.Number] != want[b.Number] {
			t.Fatalf("block %d: by-block %q, streaming %q", b.Number, want[b.Number], got[b.Number])
		}
		compared++
		changes.New += b.Changes.New
		changes.Resized += b.Changes.Resized
		changes.Filled += b.Changes.Filled
		changes.Removed += b.Changes.Removed
		changes.Unknown += b.Changes.Unknown
		changes.NoStatus += b.Changes.NoStatus
	}
	for number := range want {
		if _, ok := got[number]; !ok {
			t.Logf("block %d has a book by-block, and none in streaming", number)
		}
	}
	return compared, changes
}

// A real node's output, once by block and once as the same events were written. In streaming mode the last block has no
// marker: nobody can know that it is over. The first one may have begun before the first line.
func TestByBlockAndStreamingGiveTheSameBooksOfARealNode(t *testing.T) {
	data := os.Getenv(sampleData)
	if data == "" {
		t.Skipf("set %s to a real node's hl/data that has both modes of the same blocks", sampleData)
	}
	const statuses = "order-statuses:by-block" // the sample has no other
	byBlock := parse(t, data, statuses, "raw-book-diffs:by-block", "fills:by-block")
	streaming := parse(t, data, statuses, "raw-book-diffs:streaming", "fills:streaming")
	compared, changes := same(t, byBlock, streaming)
	t.Logf("%d blocks, %+v", compared, changes)
	if compared != 38 {
		t.Errorf("%d blocks were compared; want 38 of 40", compared)
	}
	if changes.NoStatus > 0 {
		t.Errorf("%d orders have no status", changes.NoStatus)
	}
	after, _ := books(t, byBlock, 0)
	if len(after) != 40 {
		t.Errorf("by block, %d blocks have a book; want 40", len(after))
	}
}

// generate writes blocks of the three streams in both modes, with the same events.
func generate(t *testing.T, data string, blocks int) {
	t.Helper()
	begin := time.Date(2026, 4, 30, 19, 59, 50, 0, time.UTC)
	for i, stream := range []gen.Stream{gen.OrderStatuses, gen.RawBookDiffs, gen.Fills} {
		source := gen.Source{Stream: stream, Mode: gen.ByBlock}
		g, err := gen.New(gen.Options{Source: source, Seed: uint64(i + 1), EventsPerBlock: 60 >> (2 * i)})
		if err != nil {
			t.Fatal(err)
		}
		w := gen.NewWriter(data, source, g, gen.WriterOptions{})
		for b := range blocks {
			if err := w.WriteLine(begin.Add(time.Duration(b) * 70 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		cut(t, data, source)
	}
}

// cut writes a stream's blocks as a node in streaming mode does: each event in a line, and no line for a block without
// events.
func cut(t *testing.T, data string, source gen.Source) {
	t.Helper()
	from := filepath.Join(data, filepath.FromSlash(source.Dir()))
	to := filepath.Join(data, filepath.FromSlash(gen.Source{Stream: source.Stream, Mode: gen.Streaming}.Dir()))
	files, err := filepath.Glob(filepath.Join(from, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for line := range bytes.Lines(content) {
			head, _, found := bytes.Cut(line, []byte(`"events":[`))
			var e struct{ Events []json.RawMessage }
			if err := json.Unmarshal(line, &e); err != nil || !found {
				t.Fatalf("%v in %.100q", err, line)
			}
			for _, event := range e.Events {
				fmt.Fprintf(&text, "%s\"events\":[%s]}\n", head, event)
			}
		}
		path := filepath.Join(to, strings.TrimPrefix(name, from))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestByBlockAndStreamingGiveTheSameBooks(t *testing.T) {
	data := t.TempDir()
	const blocks = 300 // over the end of an hour
	generate(t, data, blocks)
	parseAs := func(mode string) []byte {
		return parse(t, data, "order-statuses:"+mode, "raw-book-diffs:"+mode, "fills:"+mode)
	}
	byBlock := parseAs("by-block")
	compared, changes := same(t, byBlock, parseAs("streaming"))
	t.Logf("%d blocks, %+v", compared, changes)
	// Fills are in 60 % of the blocks. After a stream's last line, no block is known to be complete.
	if compared < blocks*9/10 {
		t.Errorf("%d of %d blocks were compared", compared, blocks)
	}
	if changes.New == 0 || changes.Removed == 0 || changes.Resized == 0 {
		t.Errorf("the changes are %+v", changes)
	}
	_, all := books(t, byBlock, 0)
	for _, b := range all {
		if !b.Valid || b.Changes.Unknown > 0 {
			t.Fatalf("by block, from the first order on: %+v", b)
		}
	}
}

func TestThePrintedBook(t *testing.T) {
	const order = `{"stream":"RawBookDiffs","pos":"node_raw_book_diffs_by_block/20260430/20@6ee68db5:%d:0","block":7,` +
		`"event":{"user":"0x1","coin":"BTC","side":%q,"px":%q,"oid":%d,"raw_book_diff":{"new":{"sz":%q}}}}` + "\n"
	end := func(block, index int, complete bool) string {
		return fmt.Sprintf(`{"stream":"_marker","pos":"blocks/20260430/20@00000000:%d:%d","kind":"block","block":%d,`+
			`"delivered":{"RawBookDiffs":%d},"complete":%t}`+"\n", block, index, block, index, complete)
	}
	var in strings.Builder
	fmt.Fprintf(&in, order, 100, "B", "76450.0", 1, "0.5")
	fmt.Fprintf(&in, order, 200, "B", "76449.0", 2, "1.5")
	fmt.Fprintf(&in, order, 300, "B", "76450.0", 3, "0.25")
	fmt.Fprintf(&in, order, 400, "A", "76480.0", 4, "0.01242")
	in.WriteString(end(7, 4, true) + end(8, 0, false))
	var out strings.Builder
	if err := run([]string{"--coin", "BTC", "--depth", "5"}, strings.NewReader(in.String()), &out); err != nil {
		t.Fatal(err)
	}
	const want = ` since 7: 4 orders; 4 new, 0 resized, 0 filled, 0 removed, 0 unknown
       76450.0           0.75    2 |      76480.0        0.01242    1
       76449.0            1.5    1 |
8 invalid: the parser cannot say that it read the whole block
`
	_, after, _ := strings.Cut(out.String(), " since")
	if !strings.HasPrefix(out.String(), "7 ") || " since"+after != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	torn := strings.NewReader(strings.TrimSuffix(in.String(), "\n"))
	if err := run(nil, torn, &out); err == nil || !strings.Contains(err.Error(), "within line 6") {
		t.Errorf("a torn input: %v", err)
	}
	for _, args := range [][]string{{"--depth", "5"}, {"--coin", "BTC", "--depth", "-1"}, {"no such file"}} {
		if err := run(args, strings.NewReader(""), &out); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
