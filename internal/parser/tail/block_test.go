package tail

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const streamingDir = "node_fills_streaming"

// blockLine returns a line of a block with at least size bytes, including its newline.
func blockLine(block int64, size int) string {
	line := fmt.Sprintf(`{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`+
		`"block_number":%d,"events":["`, block)
	return line + strings.Repeat("x", max(size-len(line)-4, 0)) + "\"]}\n"
}

func blockLines(blocks ...int64) string {
	var b strings.Builder
	for _, n := range blocks {
		b.WriteString(blockLine(n, 0))
	}
	return b.String()
}

// memoryFile is a file that counts the bytes that are read from it.
type memoryFile struct {
	*bytes.Reader
	vfs.Source
	read *int64
}

func (f memoryFile) Close() error { return nil }

func (f memoryFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.Reader.ReadAt(p, off)
	*f.read += int64(n)
	return n, err
}

func memoryFiles(texts []string) (files []extent, read *int64) {
	read = new(int64)
	for _, text := range texts {
		files = append(files, extent{int64(len(text)), func() (vfs.Source, error) {
			return memoryFile{Reader: bytes.NewReader([]byte(text)), read: read}, nil
		}})
	}
	return files, read
}

// startReference is findBlock line by line: the line after the last one with an earlier block before the first one with
// the block or a later one.
func startReference(texts []string, n int64) (file int, offset int64, block int64, earlier bool) {
	after := false // the start is the next complete line
	file = len(texts)
	begun := false
	for i, text := range texts {
		at := int64(0)
		for line := range strings.Lines(text) {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			if !begun || after {
				file, offset, begun, after = i, at, true, false
			}
			at += int64(len(line))
			number, ok := hyperliquid.BlockNumber([]byte(line))
			switch {
			case ok && number >= n:
				return file, offset, number, earlier
			case ok:
				after, earlier = true, true
			}
		}
	}
	if after {
		return len(texts), 0, 0, earlier
	}
	return file, offset, 0, earlier
}

func TestFindBlockAgreesWithALinearSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next, highest := int64(10), int64(10)
		count := rapid.IntRange(0, 6).Draw(t, "files")
		texts := make([]string, 0, count)
		for range count {
			var text strings.Builder
			for range rapid.IntRange(0, 12).Draw(t, "lines") {
				next += int64(rapid.SampledFrom([]int{0, 0, 1, 1, 2, 9}).Draw(t, "step"))
				highest = max(highest, next)
				size := rapid.SampledFrom([]int{0, 0, 1 << 10, 60 << 10, 64 << 10, 200 << 10}).Draw(t, "size")
				switch rapid.IntRange(0, 9).Draw(t, "kind") {
				case 0:
					text.WriteString("\n")
				case 1:
					text.WriteString(strings.Repeat("malformed", size/9) + "\n")
				default:
					text.WriteString(blockLine(next, size))
				}
			}
			if rapid.Bool().Draw(t, "torn") {
				line := blockLine(next+1, 100<<10)
				text.WriteString(line[:rapid.IntRange(0, len(line)-1).Draw(t, "length")])
			}
			texts = append(texts, text.String())
		}
		n := rapid.Int64Range(1, highest+2).Draw(t, "block")
		files, _ := memoryFiles(texts)
		got, err := findBlock(files, n, hyperliquid.BlockNumber)
		if err != nil {
			t.Fatal(err)
		}
		file, offset, block, earlier := startReference(texts, n)
		if want := (blockStart{file, offset, block, earlier}); got != want {
			t.Fatalf("block %d: got %+v, want %+v", n, got, want)
		}
	})
}

// Where a node wrote blocks again, the search finds one of the places where the block is reached.
func TestFindBlockAfterARepeatReachesTheBlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := int64(10)
		count := rapid.IntRange(1, 4).Draw(t, "files")
		texts := make([]string, 0, count)
		type line struct {
			file   int
			offset int64
			block  int64
		}
		lines := make([]line, 0, 40*count)
		for i := range count {
			var text strings.Builder
			for range rapid.IntRange(0, 40).Draw(t, "lines") {
				next = max(next+int64(rapid.SampledFrom([]int{0, 1, 1, 1, -7}).Draw(t, "step")), 1)
				lines = append(lines, line{i, int64(text.Len()), next})
				text.WriteString(blockLine(next, rapid.SampledFrom([]int{0, 30 << 10}).Draw(t, "size")))
			}
			texts = append(texts, text.String())
		}
		n := rapid.Int64Range(1, 40).Draw(t, "block")
		files, _ := memoryFiles(texts)
		got, err := findBlock(files, n, hyperliquid.BlockNumber)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(lines, func(l line) bool { return l.file == got.file && l.offset == got.offset })
		if at < 0 {
			at = len(lines)
		}
		if at > 0 && lines[at-1].block >= n || at < len(lines) && lines[at].block < n {
			t.Fatalf("block %d: starting at %+v, which is line %d of %v", n, got, at, lines)
		}
	})
}

// The search reads little: about a window per halving of the files.
func TestFindBlockReadsLittle(t *testing.T) {
	var text strings.Builder
	block := int64(0)
	for text.Len() < 64<<20 {
		block++
		text.WriteString(blockLine(block, 600))
	}
	files, read := memoryFiles([]string{text.String()})
	got, err := findBlock(files, block/3, hyperliquid.BlockNumber)
	if err != nil || got.block != block/3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if *read > 16*searchWindow {
		t.Errorf("%d bytes were read", *read)
	}
}

func TestFindBlockReportsTheFileThatCannotBeRead(t *testing.T) {
	files, _ := memoryFiles([]string{blockLines(1, 2), blockLines(3), blockLines(4)})
	files[1].open = func() (vfs.Source, error) { return nil, fs.ErrPermission }
	_, err := findBlock(files, 4, hyperliquid.BlockNumber)
	if e, ok := errors.AsType[*searchError](err); !ok || e.file != 1 || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}

func atBlock(n int64, directories ...Directory) func(*Options) {
	return func(o *Options) { o.StartAt, o.StartBlock, o.Directories = config.AtBlock, n, directories }
}

// Every start at a block, over hours with gaps, empty files, a block that is in two files, and a torn last line.
func TestAStreamStartsAtItsBlock(t *testing.T) {
	hours := []struct {
		name   string
		blocks []int64
	}{
		{"20260430/8", []int64{10, 10, 11}},
		{"20260430/9", []int64{11, 12, 14}},
		{"20260430/11", nil},
		{"20260501/0", []int64{14, 15, 15}},
		{"20260501/10", []int64{18, 19}},
	}
	for _, dir := range []Directory{{blockDir, config.ByBlock}, {streamingDir, config.Streaming}} {
		for _, c := range []struct {
			n, first int64 // first is the first block that is emitted; 0: none
			log      string
		}{
			{1, 10, "is older than everything on disk"}, {9, 10, "is older than everything on disk"},
			{10, 10, "starting at a block"}, {11, 11, ""}, {12, 12, ""}, {13, 14, "starting with the next one"}, {14, 14, ""},
			{15, 15, ""}, {16, 18, ""}, {17, 18, "starting with the next one"}, {18, 18, ""}, {19, 19, ""},
			{20, 0, "is not on disk yet"}, {1000, 0, "is not on disk yet"},
		} {
			t.Run(fmt.Sprintf("%s %d", dir.Mode, c.n), func(t *testing.T) {
				d := newDisk(t)
				var want []string
				for _, h := range hours {
					d.append(dir.Name+"/"+h.name, blockLines(h.blocks...))
					for _, b := range h.blocks {
						if b >= c.first && c.first > 0 {
							want = append(want, strings.TrimSuffix(blockLines(b), "\n"))
						}
					}
				}
				torn := blockLines(20)
				d.append(dir.Name+"/20260501/10", torn[:50])
				s := newSetup(d, atBlock(c.n, dir))
				r := open(t, s, nil)
				if !strings.Contains(r.log.String(), c.log) {
					t.Errorf("the log has no %q: %s", c.log, r.log)
				}
				// A process that ends before the first commit starts at the same line, and one that ends after it continues.
				other := open(t, s, nil)
				resumed := open(t, s, r.checkpoint())
				d.append(dir.Name+"/20260501/10", torn[50:])
				want = append(want, strings.TrimSuffix(torn, "\n"))
				for _, r := range []*reader{r, other, resumed} {
					for range 12 {
						r.step(3 * time.Second)
					}
					wantLines(t, r.got, want...)
				}
			})
		}
	}
}

func TestADirectoryInLineModeHasNoBlockToStartAt(t *testing.T) {
	d := newDisk(t)
	dirs := []Directory{{lineDir, config.Line}, {blockDir, config.ByBlock}}
	d.append("node_fills/20260430/8", "a\n")
	s := newSetup(d, atBlock(10, dirs...))
	s.Log = open(t, newSetup(d), nil).tail.log
	if err := New(s.Options, open(t, newSetup(d), nil).buf).Open(nil); !errors.Is(err, ErrNoBlocks) ||
		!strings.Contains(err.Error(), "--batch-by-block") {
		t.Fatalf("got %v", err)
	}
	// The node now writes blocks: the old directory is stale.
	d.append("node_fills_by_block/20260430/9", blockLines(9, 10, 11))
	r := open(t, s, nil)
	r.step(0)
	wantLines(t, r.got, strings.Fields(blockLines(10, 11))...)
}

func TestAFileInLineModeBeforeTheBlockEndsTheStream(t *testing.T) {
	d := newDisk(t)
	s := newSetup(d, atBlock(10, Directory{lineDir, config.Line}, Directory{blockDir, config.ByBlock}))
	r := open(t, s, nil)
	d.append("node_fills/20260430/8", "a\n")
	if err := r.tail.refresh(); err != nil {
		t.Fatal(err)
	}
	if err := r.tail.readAll(t.Context()); !errors.Is(err, ErrNoBlocks) {
		t.Errorf("got %v", err)
	}
}

func TestAnUnreadableFileDelaysTheStartAtABlock(t *testing.T) {
	d := newDisk(t)
	d.append("node_fills_by_block/20260430/8", blockLines(8, 9))
	d.append("node_fills_by_block/20260430/9", blockLines(10, 11))
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	d.noError(os.Chmod(d.path("node_fills_by_block/20260430/8"), 0))
	r := open(t, newSetup(d, atBlock(10, Directory{blockDir, config.ByBlock})), nil)
	wantLines(t, r.step(time.Second))
	d.noError(os.Chmod(d.path("node_fills_by_block/20260430/8"), 0o644))
	r.step(time.Minute)
	r.step(time.Second)
	wantLines(t, r.got, strings.Fields(blockLines(10, 11))...)
}

// In real node output every block is found where a linear search finds it. It needs HLPARSER_SAMPLE_DATA, the data
// directory.
func TestFindBlockInRealOutput(t *testing.T) {
	root := os.Getenv("HLPARSER_SAMPLE_DATA")
	if root == "" {
		t.Skip("HLPARSER_SAMPLE_DATA is not set: no real node output")
	}
	names, err := filepath.Glob(filepath.Join(root, "*_*/hourly/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	searched := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := map[int64]bool{}
		for line := range bytes.Lines(text) {
			if n, ok := hyperliquid.BlockNumber(line); ok {
				blocks[n-1], blocks[n], blocks[n+1] = true, true, true
			}
		}
		for n := range blocks {
			files, _ := memoryFiles([]string{string(text)})
			got, err := findBlock(files, n, hyperliquid.BlockNumber)
			file, offset, block, earlier := startReference([]string{string(text)}, n)
			if want := (blockStart{file, offset, block, earlier}); err != nil || got != want {
				t.Errorf("%s: block %d: got %+v, %v; want %+v", name, n, got, err, want)
			}
			searched++
		}
	}
	if searched == 0 {
		t.Error("no file names a block")
	}
}
