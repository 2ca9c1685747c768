package checkpoint_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// sealed returns a document with a valid checksum. Anyone who can write a checkpoint can compute one.
func sealed(t interface{ Helper() }, format int, payload []byte) []byte {
	t.Helper()
	compact, err := json.Marshal(json.RawMessage(payload))
	if err != nil {
		compact = payload
	}
	return fmt.Appendf(nil, `{"format":%d,"crc32c":"%08x","checkpoint":%s}`, format,
		crc32.Checksum(compact, crc32.MakeTable(crc32.Castagnoli)), compact)
}

// forge replaces both slots with a document.
func forge(t *testing.T, fsys *crashfs.FS, doc []byte) {
	t.Helper()
	for _, slot := range []string{odd, even} {
		rewrite(t, fsys, slot, func([]byte) []byte { return doc })
	}
}

// orderOf returns the order of one file, modified by change.
func orderOf(change func(o *checkpoint.Order)) []checkpoint.Order {
	o := checkpoint.Order{FileID: position.FileID{Directory: "node_fills_streaming", Date: "20260430", Hour: 8}}
	change(&o)
	return []checkpoint.Order{o}
}

// Names and numbers of a checkpoint become names, lengths and offsets of files.
func TestAForgedCheckpointIsRefused(t *testing.T) {
	tests := map[string]func(s *checkpoint.State){
		"a directory with dot-dot":       func(s *checkpoint.State) { s.Files[0].Directory = "../../etc" },
		"a directory with a slash":       func(s *checkpoint.State) { s.Files[0].Directory = "a/b" },
		"the directory itself":           func(s *checkpoint.State) { s.Files[0].Directory = "." },
		"no directory":                   func(s *checkpoint.State) { s.Files[0].Directory = "" },
		"a directory with a NUL":         func(s *checkpoint.State) { s.Files[0].Directory = "a\x00b" },
		"a date with dot-dot":            func(s *checkpoint.State) { s.Files[0].Date = "../../.." },
		"a date too long":                func(s *checkpoint.State) { s.Files[0].Date = "202604300" },
		"an hour below 0":                func(s *checkpoint.State) { s.Files[0].Hour = -1 },
		"an hour too late":               func(s *checkpoint.State) { s.Files[0].Hour = 24 },
		"a generation with dot-dot":      func(s *checkpoint.State) { s.Files[0].Generation = "/../../x" },
		"an offset below 0":              func(s *checkpoint.State) { s.Files[0].Offset = -1 },
		"a size below 0":                 func(s *checkpoint.State) { s.Files[0].Size = -1 << 63 },
		"an absence below 0":             func(s *checkpoint.State) { s.Files[0].AbsentSeconds = -1 },
		"a head that is too long":        func(s *checkpoint.State) { s.Files[0].Head.Length = 1 << 40 },
		"a head below 0":                 func(s *checkpoint.State) { s.Files[0].Head.Length = -1 },
		"a marker before the file":       func(s *checkpoint.State) { s.Files[0].Marker.At = -1 },
		"a marker that overflows":        func(s *checkpoint.State) { s.Files[0].Markers[1].At = 1<<63 - 1 },
		"a last block below 0":           func(s *checkpoint.State) { s.LastBlock = -1 },
		"a dead letter position below 0": func(s *checkpoint.State) { s.DeadLetterBytes = -1 },
		"an interval that ends too early": func(s *checkpoint.State) {
			s.Blocks.Complete = []checkpoint.Interval{{First: 5, Last: 4}}
		},
		"intervals out of order": func(s *checkpoint.State) {
			s.Blocks.Complete = []checkpoint.Interval{{First: 5, Last: 9}, {First: 7, Last: 8}}
		},
		"an interval below 0": func(s *checkpoint.State) {
			s.Blocks.Complete = []checkpoint.Interval{{First: -2, Last: 4}}
		},
		"an ended block below 0": func(s *checkpoint.State) {
			s.Blocks.Ended = []checkpoint.Interval{{First: -2, Last: 4}}
		},
		"partial blocks out of order": func(s *checkpoint.State) {
			s.Blocks.Partial = []checkpoint.PartialBlock{{Block: 2}, {Block: 2}}
		},
		"a partial block below 0": func(s *checkpoint.State) {
			s.Blocks.Partial = []checkpoint.PartialBlock{{Block: -1}}
		},
		"missing events out of order": func(s *checkpoint.State) {
			s.Blocks.Partial = []checkpoint.PartialBlock{
				{Block: 2, Missing: []checkpoint.Interval{{First: 5, Last: 9}, {First: 7, Last: 8}}},
			}
		},
		"recent blocks out of order": func(s *checkpoint.State) {
			s.Blocks.Recent = []checkpoint.RecentBlock{{Block: 2}, {Block: 1}}
		},
		"a truncated event hash": func(s *checkpoint.State) {
			s.Blocks.Recent = []checkpoint.RecentBlock{{Events: []byte{1, 2, 3}}}
		},
		"a newest block below 0":  func(s *checkpoint.State) { s.Blocks.Last = -1 },
		"a current block below 0": func(s *checkpoint.State) { s.Blocks.Current = -1 },
		"an order with dot-dot": func(s *checkpoint.State) {
			s.Blocks.Orders = orderOf(func(o *checkpoint.Order) { o.Directory = "../x" })
		},
		"an order's newest block below 0": func(s *checkpoint.State) {
			s.Blocks.Orders = orderOf(func(o *checkpoint.Order) { o.Last = -1 })
		},
		"an order's highest block below 0": func(s *checkpoint.State) {
			s.Blocks.Orders = orderOf(func(o *checkpoint.Order) { o.Highest = -1 })
		},
		"an order back until below 0": func(s *checkpoint.State) {
			s.Blocks.Orders = orderOf(func(o *checkpoint.Order) { o.Until = -1 })
		},
		"the highest sequence":    func(s *checkpoint.State) { s.Sequence = 1<<64 - 1 },
		"another stream":          func(s *checkpoint.State) { s.Stream = "../fills" },
		"a stream that is a path": func(s *checkpoint.State) { s.Streams = []string{"../x"} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := crashfs.New()
			saveBlocks(t, fsys, "state", 2)
			s := state(7)
			s.Sequence, s.Stream, s.Blocks = 7, "fills", &checkpoint.Blocks{}
			good, err := json.Marshal(s)
			must(t, err)
			forge(t, fsys, sealed(t, 1, good))
			if got := load(t, open(t, fsys, "state")); got.State.LastBlock != 7 {
				t.Fatalf("the unmodified checkpoint loads as %+v", got)
			}
			change(&s)
			bad, err := json.Marshal(s)
			must(t, err)
			forge(t, fsys, sealed(t, 1, bad))
			_, err = open(t, fsys, "state").Load()
			if !errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), "put state/checkpoint/fills.0.json") {
				t.Errorf("got %v, want ErrLost with instructions", err)
			}
			// A parser does not write what it would refuse to read.
			if s.Sequence == 7 && s.Stream == "fills" && s.Streams == nil { // Save sets these
				fsys := crashfs.New()
				store := open(t, fsys, "state")
				load(t, store)
				if err := store.Save(s); err == nil {
					t.Error("Save accepted it")
				}
			}
		})
	}
}

func TestOpenRefusesAStreamNamedLikeAPath(t *testing.T) {
	for _, stream := range []string{"..", "../x", "a/b", "a.b", "", "A", "a b", "a\x00"} {
		if _, err := checkpoint.Open(crashfs.New(), "state", stream); err == nil {
			t.Errorf("%q was accepted", stream)
		}
	}
}

// putFiles returns a store whose files hold the given documents.
func putFiles(fsys *crashfs.FS, slot, base []byte) *checkpoint.Store {
	s, err := checkpoint.Open(fsys, "state", "fills")
	for name, doc := range map[string][]byte{"fills.0.json": slot, "fills.base-1.0.json": base} {
		var f vfs.File
		if err == nil {
			f, err = fsys.Create(filepath.Join("state/checkpoint", name))
		}
		if err == nil {
			_, err = f.Write(doc)
		}
	}
	if err != nil {
		panic(err)
	}
	return s
}

// For any content of a checkpoint's files, Load returns either an error or a state that can be saved and loaded
// unchanged.
func FuzzLoad(f *testing.F) {
	whole := state(1)
	whole.Sequence, whole.Stream, whole.Streams = 1, "fills", []string{"fills"}
	whole.Blocks = &checkpoint.Blocks{
		Complete: []checkpoint.Interval{{First: 1, Last: 5}, {First: 7, Last: 9}},
		Partial:  []checkpoint.PartialBlock{{Block: 6, Missing: []checkpoint.Interval{{First: 2, Last: 3}}}},
		Recent:   []checkpoint.RecentBlock{{Block: 9, Events: []byte("abcd")}}, Orders: orderOf(func(*checkpoint.Order) {}),
	}
	payload, err := json.Marshal(whole)
	if err != nil {
		f.Fatal(err)
	}
	base := fmt.Appendf(nil, `{"format":1,"crc32c":"%08x","checkpoint":%s}`,
		crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)), payload)
	changes := fmt.Appendf(nil, `{"base":{"number":1,"crc32c":"%s"},"state":{"sequence":2,"stream":"fills","lastBlock":3},
"blocks":{"last":9},"files":[{"from":0,"count":1,"new":[{"directory":"a","date":"20260101","hour":1,"generation":""}]}],
"lists":{"complete":[{"from":1,"count":1,"new":[{"first":11,"last":11}]}]}}`, base[22:30])
	fsys := crashfs.New()
	if _, err := putFiles(fsys, sealed(f, 2, changes), base).Load(); err != nil {
		f.Fatal(err) // without this the fuzzer would never reach slots that refer to a base
	}
	f.Add(changes, base)
	f.Add(payload, base)
	f.Add(base, base)
	f.Add([]byte("{"), []byte(nil))
	f.Fuzz(func(t *testing.T, slot, base []byte) {
		for _, doc := range [][]byte{slot, sealed(t, 1, slot), sealed(t, 2, slot)} {
			fsys := crashfs.New()
			s := putFiles(fsys, doc, base)
			loaded, err := s.Load()
			if err != nil {
				if loaded.Found {
					t.Fatalf("%v and %+v", err, loaded)
				}
				continue
			}
			if !loaded.Found {
				t.Fatal("an existing file was treated as missing")
			}
			if n := len(loaded.State.Files); n > len(slot)+len(base) {
				t.Fatalf("%d files from %d bytes", n, len(slot)+len(base))
			}
			must(t, s.Save(loaded.State))
			checkLoaded(t, fsys, loaded.State)
		}
	})
}

// A file too large for any parser to have written is not read.
func TestAHugeFileIsNotRead(t *testing.T) {
	fsys := huge{crashfs.New()}
	s := open(t, fsys, "state")
	if _, err := s.Load(); !errors.Is(err, checkpoint.ErrLost) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

type huge struct{ vfs.FS }

func (h huge) Size(name string) (int64, error) {
	if name == odd {
		return 1 << 40, nil
	}
	return h.FS.Size(name)
}

func (h huge) ReadFile(name string) ([]byte, error) { panic("unexpected read of " + name) }
