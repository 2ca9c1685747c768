package file_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// A checkpoint determines which files are truncated and renamed. A forged one affects only the output's own files.
func TestAForgedStateIsRefused(t *testing.T) {
	const (
		good     = "20260430-08-node_fills_by_block-1a2b3c4d-000000000000000-000000"
		slash    = "20260430-08-a/../../victim-1a2b3c4d-000000000000000-000000"
		complete = `{"name":"` + good + `","bytes":1,"saves":2}`
	)
	for name, state := range map[string]string{
		"an open part that climbs":      `{"open":{"name":"../../victim","bytes":1}}`,
		"an open part elsewhere":        `{"open":{"name":"/victim","bytes":1}}`,
		"a climb within a name":         `{"open":{"name":"20260430-08-..%2f-1a2b3c4d-000000000000000-000000","bytes":1}}`,
		"a slash within a name":         `{"open":{"name":"` + slash + `","bytes":1}}`,
		"an open part without a name":   `{"open":{"bytes":1}}`,
		"a length below 0":              `{"open":{"name":"` + good + `","bytes":-1}}`,
		"a complete part that climbs":   `{"complete":[{"name":"../../victim","bytes":1,"saves":2}]}`,
		"a complete length below 0":     `{"complete":[{"name":"` + good + `","bytes":-9,"saves":2}]}`,
		"a part in no checkpoint":       `{"complete":[{"name":"` + good + `","bytes":1,"saves":0}]}`,
		"saves below 0":                 `{"complete":[{"name":"` + good + `","bytes":1,"saves":-3}]}`,
		"a part that is open and whole": `{"open":{"name":"` + good + `","bytes":1},"complete":[` + complete + `]}`,
		"a part twice":                  `{"complete":[` + complete + `,` + complete + `]}`,
		"a length that overflows":       `{"open":{"name":"` + good + `","bytes":9223372036854775808}}`,
		"no state at all":               `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			fsys := crashfs.New()
			for _, victim := range []string{"victim.part", "victim.jsonl", "out/fills/" + good + ".part"} {
				must(t, vfs.MakeDirs(fsys, filepath.Dir(victim)))
				f, err := fsys.Create(victim)
				must(t, err)
				_, err = f.Write([]byte("precious"))
				must(t, errors.Join(err, f.Close()))
			}
			out, err := file.New(t.Context(), fsys, "out", file.Options{}, func() {})
			must(t, err)
			_, err = out.Open(t.Context(), "fills", json.RawMessage(state))
			if !errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), "put the state directory back") {
				t.Errorf("got %v, want ErrFailed with instructions", err)
			}
			for _, victim := range []string{"victim.part", "victim.jsonl", "out/fills/" + good + ".part"} {
				if got, err := fsys.ReadFile(victim); err != nil || string(got) != "precious" {
					t.Errorf("%s holds %q, %v", victim, got, err)
				}
			}
			must(t, out.Close())
		})
	}
}

// Keep touches files that may grow or are not renamed yet, whether their stream is open or not. Closed files belong to
// consumers.
func TestKeepTouchesPartsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	out, err := file.New(t.Context(), vfs.OS, dir, file.Options{}, func() {})
	must(t, err)
	old := time.Now().Add(-time.Hour)
	age := map[string]bool{ // whether the file must be touched
		"fills/20260430-08-node_fills-1a2b3c4d-000000000000000-000000.part":       true,
		"trades/20260430-08-node_trades-1a2b3c4d-000000000000000-000000.zst.part": true,
		"fills/20260430-07-node_fills-1a2b3c4d-000000000000000-000000.jsonl":      false,
		"fills/foreign.part": false,
		"a-file":             false,
		".lock":              true,
	}
	for name := range age {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if name != ".lock" {
			must(t, os.WriteFile(path, nil, 0o644))
		}
		must(t, os.Chtimes(path, old, old))
	}
	must(t, sink.Keep(sink.Routes(map[string]sink.Destination{"fills": {Output: out}})))
	for name, fresh := range age {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if got := info.ModTime().After(old.Add(time.Minute)); got != fresh {
			t.Errorf("%s is touched: %v, want %v", name, got, fresh)
		}
	}
	must(t, out.Close())
}

// A process that has lost the directory's lock neither writes nor renames.
func TestNothingIsWrittenToADirectoryLockedByAnother(t *testing.T) {
	fsys := crashfs.New()
	out, err := file.New(t.Context(), fsys, "out", file.Options{}, func() {})
	must(t, err)
	s, err := out.Open(t.Context(), "fills", nil)
	must(t, err)
	b := sink.Batch{File: hour, Data: []byte("{}\n"), Records: []sink.Record{{End: 3}}}
	must(t, s.Write(t.Context(), b))
	must(t, fsys.Remove("out/.lock"))
	other, err := fsys.TryLock("out/.lock")
	must(t, err)
	for call, err := range map[string]error{"Write": s.Write(t.Context(), b), "Keep": out.Keep()} {
		if !errors.Is(err, vfs.ErrLockLost) {
			t.Errorf("%s: got %v, want ErrLockLost", call, err)
		}
	}
	names, err := fsys.List("out/fills")
	must(t, err)
	if text, err := fsys.ReadFile(filepath.Join("out/fills", names[0])); err != nil || string(text) != "{}\n" {
		t.Errorf("it holds %q, %v", text, err)
	}
	must(t, other.Close())
	must(t, s.Close())
	must(t, out.Close())
}
