package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Across any jump of the clock commits continue, and a commit that hangs still blocks the stream in the end.
func TestCommitsContinueAcrossAnyJumpOfTheClock(t *testing.T) {
	const day = 24 * time.Hour
	for title, jump := range map[string]time.Duration{
		"no jump": 0, "back a second": -time.Second, "back a day": -day, "ahead a second": time.Second, "ahead a day": day,
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var ahead atomic.Int64
			// a clock without a monotonic part
			b.now = func() time.Time { return time.Now().Round(0).Add(time.Duration(ahead.Load())) }
			b.node("node_trades/20260430/8", trades(0, 10))
			hanging, end := make(chan struct{}), make(chan struct{})
			var hangs atomic.Bool
			r := b.start(&memory{sync: func(context.Context) error {
				if hangs.CompareAndSwap(true, false) {
					close(hanging)
					<-end
				}
				return nil
			}})
			r.until("the first commit", func(s report.Stream) bool { return s.DeliveredTotal == 10 && waiting(&s) == 0 })
			ahead.Store(int64(jump))
			b.node("node_trades/20260430/8", trades(10, 20))
			r.until("a commit after the jump", func(s report.Stream) bool { return s.DeliveredTotal == 20 && waiting(&s) == 0 })

			hangs.Store(true)
			b.node("node_trades/20260430/8", trades(20, 30))
			<-hanging
			ahead.Add(int64(jump))
			r.until("a report of what hangs", func(s report.Stream) bool { return s.Sink.OutstandingSeconds > 0 })
			close(end)
			r.until("the commit that hung", func(s report.Stream) bool { return waiting(&s) == 0 })
			if _, err := r.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
