package tail

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// NewReadRate returns a limit of the bytes that tailers together read from disk in a second; 0: none. What was not read in one
// second may be read in the next, so that lines which come within the rate never wait.
func NewReadRate(bytes int64) *rate.Limiter {
	if bytes == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), int(bytes))
}

// pace waits until the rate allows to read on. What was read is charged afterwards, so a block is never held while it waits. Meanwhile
// it goes on looking at the disk, as get does.
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
			if err := t.look(); err != nil {
				return err
			}
		}
	}
}

// charge takes bytes that were read for the first time off the rate; more than it allows at once are owed.
func (t *Tailer) charge(bytes int64) {
	limit := t.opt.ReadRate
	if limit == nil {
		return
	}
	for now, burst := t.now(), int64(limit.Burst()); bytes > 0; bytes -= burst {
		limit.ReserveN(now, int(min(bytes, burst)))
	}
}
