package tail

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// NewReadRate returns a limit of the bytes per second that tailers together read from disk. 0 means no limit. The limit
// carries one unused second over to the next, so that lines which arrive within the rate never wait.
func NewReadRate(bytes int64) *rate.Limiter {
	if bytes == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(bytes))
}

// pace waits until the rate allows the next read. Reads are charged afterwards, so that no block is held during the
// wait. While it waits, it continues to refresh the table of files, as getBlock does.
func (t *Tailer) pace(ctx context.Context) error {
	limit := t.opt.ReadRate
	if limit == nil {
		return nil
	}
	for {
		debt := -limit.TokensAt(t.now())
		if debt <= 0 {
			return nil
		}
		due := time.Duration(debt/float64(limit.Limit())*float64(time.Second)) + 1
		timer := time.NewTimer(min(due, pollInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for the read rate: %w", ctx.Err())
		case <-timer.C:
			if due < pollInterval {
				continue
			}
			if err := t.refresh(); err != nil {
				return err
			}
		}
	}
}

// charge charges bytes that were read for the first time. Bytes beyond the burst become a debt.
func (t *Tailer) charge(bytes int64) {
	limit := t.opt.ReadRate
	if limit == nil {
		return
	}
	for now, burst := t.now(), int64(limit.Burst()); bytes > 0; bytes -= burst {
		limit.ReserveN(now, int(min(bytes, burst)))
	}
}
