package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/deadletter"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// retries counts and spaces the attempts at one call after its first failure.
type retries struct {
	backoff *backoff.ExponentialBackOff
	made    int // number of pauses returned
}

func newRetries() *retries { return &retries{backoff: sink.NewBackoff()} }

// pause returns how long to wait before the next attempt.
func (r *retries) pause() time.Duration {
	r.made++
	return r.backoff.NextBackOff()
}

// reset makes the next pause the first one.
func (r *retries) reset() {
	r.made = 0
	r.backoff.Reset()
}

// retry repeats a call with backoff while it fails with an outage.
func (a *attempt) retry(ctx context.Context, doing string, call func() error) error {
	for retries := newRetries(); ; {
		err := call()
		if err == nil {
			a.recordRecovery(retries)
			return nil
		}
		if !isOutage(err) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		pause := retries.pause()
		a.recordRetry(doing, err, pause)
		if !a.pause(ctx, pause) {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
}

// isOutage reports whether repeating the same call may help.
func isOutage(err error) bool {
	var refusal *sink.Refusal
	return !errors.Is(err, vfs.ErrLockLost) && !errors.Is(err, deadletter.ErrUnsynced) &&
		!errors.Is(err, sink.ErrReopen) &&
		!errors.Is(err, sink.ErrFailed) && !errors.Is(err, sink.ErrGone) && !errors.As(err, &refusal)
}

// recordRecovery marks the sink healthy after a call succeeded that had failed before.
func (a *attempt) recordRecovery(after *retries) {
	if after.made > 0 {
		a.stats.set(func(s *stats) { s.setSink(report.SinkHealthy, nil, a.engine.now()) })
	}
}

func (a *attempt) recordRetry(doing string, err error, pause time.Duration) {
	a.log.Warn(doing+"; retrying", "error", err, "after", pause)
	a.stats.set(func(s *stats) {
		s.retries++
		s.setSink(report.SinkRetrying, err, a.engine.now())
	})
}

// trackSinkCall marks a request to the sink as outstanding until done is called. A sync that hangs counts as a request
// too. While it is outstanding, progress observed in the files is saved.
func (a *attempt) trackSinkCall() (done func()) {
	began := a.engine.now()
	a.stats.set(func(s *stats) { s.requestSince = began })
	stop := a.saveAndLogMeanwhile()
	return func() {
		stop()
		a.stats.set(func(s *stats) {
			s.requestSince = time.Time{}
			s.busy += a.engine.now().Sub(began)
		})
	}
}

// pause waits before a call is repeated, and reports whether the context is still active.
func (a *attempt) pause(ctx context.Context, d time.Duration) bool {
	defer a.saveAndLogMeanwhile()()
	return sleep(ctx, d)
}

// sleep waits, and reports whether the context is still active.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
