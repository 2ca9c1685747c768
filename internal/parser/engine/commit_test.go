package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// slowDisk is a sink whose syncs wait for a gate once it is armed.
type slowDisk struct {
	memory
	armed          atomic.Bool
	waits          atomic.Int64
	gate           chan error // each sync takes its result from it
	ignoresContext bool       // a sync that waits ignores its context
}

func newSlowDisk() *slowDisk {
	d := &slowDisk{gate: make(chan error)}
	d.sync = func(ctx context.Context) error {
		if !d.armed.Load() {
			return nil
		}
		d.waits.Add(1)
		if d.ignoresContext {
			return <-d.gate
		}
		select {
		case err := <-d.gate:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return d
}

// lagging starts a stream that has delivered ten trades and whose commit of them waits for the disk.
func lagging(t *testing.T, b *bench, disk *slowDisk) *running {
	t.Helper()
	r := b.start(disk)
	r.until("the start", func(report.Stream) bool { return r.Ready() })
	disk.armed.Store(true)
	b.node("node_trades/20260430/8", trades(0, 10))
	r.until("a commit that waits", func(s report.Stream) bool { return s.DeliveredTotal == 10 && disk.waits.Load() == 1 })
	return r
}

func TestDeliveryContinuesDuringACommitThatWaitsForTheDisk(t *testing.T) {
	b := newBench(t)
	disk := newSlowDisk()
	r := lagging(t, b, disk)
	b.node("node_trades/20260430/8", trades(10, 20))
	s := r.until("delivery during the commit", func(s report.Stream) bool { return s.DeliveredTotal == 20 })
	if s.CommittedBytesTotal != 0 || s.Sink.OutstandingSeconds != 0 {
		t.Errorf("while the commit waits for the disk the report says %+v", s)
	}
	saved := func() int64 {
		loaded, err := checkpoint.Show(vfs.OS, b.cfg.StateDir, "trades")
		if err != nil || !loaded.Found {
			t.Fatalf("no checkpoint: %v", err)
		}
		if len(loaded.State.Files) == 0 {
			return 0
		}
		return loaded.State.Files[0].Offset
	}
	if got := saved(); got != 0 {
		t.Errorf("the checkpoint is at %d before the disk is done", got)
	}
	disk.gate <- nil
	r.until("the first commit", func(s report.Stream) bool { return s.CommittedBytesTotal == int64(len(trades(0, 10))) })
	if got := saved(); got != int64(len(trades(0, 10))) {
		t.Errorf("the first commit has %d bytes, which is not what was acknowledged when it began", got)
	}
	disk.gate <- nil
	r.until("the second commit", func(s report.Stream) bool { return s.CommittedBytesTotal == int64(len(trades(0, 20))) })
	disk.armed.Store(false)
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(disk.text(), trades(0, 20))
}

func TestACommitThatHangsBlocksTheStreamAndIsReported(t *testing.T) {
	b := newBench(t)
	disk := newSlowDisk()
	var ahead atomic.Int64
	b.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := lagging(t, b, disk)
	ahead.Store(int64(commitTimeout))
	b.node("node_trades/20260430/8", trades(10, 20))
	r.until("the request to show", func(s report.Stream) bool { return s.Sink.OutstandingSeconds > 0 })
	b.node("node_trades/20260430/8", trades(20, 30))
	s := r.until("the reader to continue", func(s report.Stream) bool { return s.BufferLines == 10 })
	if s.DeliveredTotal > 20 {
		t.Errorf("%d records were delivered although the disk hangs", s.DeliveredTotal)
	}
	disk.armed.Store(false)
	disk.gate <- nil
	r.until("the rest", func(s report.Stream) bool { return s.DeliveredTotal == 30 && s.Sink.OutstandingSeconds == 0 })
	if _, err := r.stop(); err != nil {
		t.Fatal(err)
	}
	b.assertRecords(disk.text(), trades(0, 30))
}

func TestASyncThatFailsIsRepeatedOrRestartsTheStream(t *testing.T) {
	for title, c := range map[string]struct {
		err   error
		again bool
	}{
		"an outage":                {errors.New("the disk is away"), false},
		"what was written is lost": {sink.ErrReopen, true},
	} {
		t.Run(title, func(t *testing.T) {
			b := newBench(t)
			disk := newSlowDisk()
			r := lagging(t, b, disk)
			b.node("node_trades/20260430/8", trades(10, 20))
			r.until("delivery during the commit", func(s report.Stream) bool { return s.DeliveredTotal == 20 })
			disk.armed.Store(false)
			disk.gate <- c.err
			want := trades(0, 20)
			if c.again {
				want += want
			}
			r.until("everything committed", func(s report.Stream) bool {
				return s.Sink.RetriesTotal == 1 && waiting(&s) == 0 && s.DeliveredTotal == int64(strings.Count(want, "\n"))
			})
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
			b.assertRecords(disk.text(), want)
		})
	}
}

func TestAStreamWhoseCommitHangsStopsInTime(t *testing.T) {
	for _, unsure := range []bool{false, true} {
		b := newBench(t)
		disk := newSlowDisk()
		disk.ignoresContext = unsure
		r := lagging(t, b, disk)
		took, err := r.stop()
		if err != nil {
			t.Fatal(err)
		}
		if limit := b.cfg.ShutdownTimeout.Duration + time.Second; took > limit {
			t.Errorf("it took %s to stop; want at most %s", took, limit)
		}
		if unsure { // the abandoned stream ends when the disk recovers, and releases the state directory last
			disk.armed.Store(false)
			disk.gate <- nil
			lock, err := checkpoint.Lock(t.Context(), vfs.OS, b.cfg.StateDir, func() {})
			if err != nil {
				t.Fatal(err)
			}
			if err := lock.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestABacklogOfManySmallFilesIsCommittedEveryFewFiles(t *testing.T) {
	const files = 700 // the hours of a month
	b := newBench(t)
	for i := range files {
		b.node(fmt.Sprintf("node_trades/%d/%d", 20260101+i/24, i%24), trade(i)+"\n")
	}
	var mu sync.Mutex
	written, most := map[position.FileID]bool{}, 0
	output := &memory{}
	output.fail = func(_ int, batch sink.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		written[batch.File] = true
		most = max(most, len(written))
		return nil
	}
	output.flush = func(int) error {
		mu.Lock()
		defer mu.Unlock()
		clear(written)
		return nil
	}
	b.cfg.Once = true
	if err := b.engine(output).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if output.writes < files || most == 0 || most > commitFiles {
		t.Errorf("%d writes, up to %d files between two commits; want at most %d", output.writes, most, commitFiles)
	}
}
