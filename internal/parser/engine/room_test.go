package engine

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs/crashfs"
)

// A stream that waits for space reports it, and resumes when a consumer removes closed files, whatever the stream was
// doing.
func TestAStreamThatWaitsForSpaceResumesWhenAConsumerFreesIt(t *testing.T) {
	const lines = 8000
	for title, opts := range map[string]file.Options{
		"maxTotalSize":          {MaxBytes: 64 << 10, MaxTotalBytes: 128 << 10},
		"maxTotalSize by hour":  {MaxBytes: 64 << 10, MaxTotalBytes: 128 << 10, Hourly: true},
		"maxTotalSize of a few": {MaxBytes: 1 << 20, MaxTotalBytes: 128 << 10},
		"the floor":             {MinFreePercent: 10},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for hour := range 4 {
				b.node(fmt.Sprintf("node_trades/20260430/%d", hour), trades(hour*lines/4, (hour+1)*lines/4))
			}
			disk := crashfs.New()
			output, err := file.New(t.Context(), disk, "out", opts, func() {})
			if err != nil {
				t.Fatal(err)
			}
			if opts.MinFreePercent > 0 {
				disk.SetSpace(5, 100)
			}
			r := b.start(output)
			s := r.until("waiting for room", func(s report.Stream) bool {
				return s.Sink.RetriesTotal >= 2 &&
					s.Sink.State == report.SinkRetrying
			})
			if !strings.Contains(s.Sink.LastError, "delivery then resumes") ||
				!strings.Contains(s.Sink.LastError, "out/trades") {
				t.Errorf("the report says %q", s.Sink.LastError)
			}
			disk.SetSpace(50, 100)
			var got strings.Builder
			for deadline := time.Now().Add(10 * waitTimeout); r.Streams()[0].DeliveredTotal < lines ||
				waiting(&r.Streams()[0]) > 0; {
				if time.Now().After(deadline) {
					names, _ := disk.List("out/trades")
					t.Fatalf("the stream does not resume: %q, %+v", names, r.Streams()[0])
				}
				got.WriteString(takeClosed(t, disk))
				time.Sleep(5 * time.Millisecond)
			}
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			for _, name := range list(t, disk) { // the open file is last
				data, err := disk.ReadFile(filepath.Join("out/trades", name))
				if err != nil {
					t.Fatal(err)
				}
				got.Write(data)
			}
			b.assertRecords(got.String(), trades(0, lines))
		})
	}
}

func list(t *testing.T, disk *crashfs.FS) []string {
	t.Helper()
	names, err := disk.List("out/trades")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// takeClosed returns the content of the closed files, and removes them.
func takeClosed(t *testing.T, disk *crashfs.FS) string {
	t.Helper()
	var all strings.Builder
	for _, name := range list(t, disk) {
		if !strings.HasSuffix(name, ".jsonl") {
			continue
		}
		path := filepath.Join("out/trades", name)
		data, err := disk.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
		if err := disk.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
