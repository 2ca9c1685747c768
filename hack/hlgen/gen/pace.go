package gen

import (
	"context"
	"time"
)

// Clock is the node's clock. It may run faster than real time.
type Clock struct {
	// Start is the node's time at the start.
	Start time.Time
	// HourEvery is the real time of one hour of the node. Defaults to one hour.
	HourEvery time.Duration
}

// During returns the node's time that passes while elapsed passes in real time.
func (c Clock) During(elapsed time.Duration) time.Duration {
	if c.HourEvery <= 0 {
		return elapsed
	}
	return time.Duration(float64(elapsed) * (float64(time.Hour) / float64(c.HourEvery)))
}

// At returns the node's time after elapsed in real time.
func (c Clock) At(elapsed time.Duration) time.Time { return c.Start.Add(c.During(elapsed)) }

// Fill writes lines as fast as possible. The node's clock advances by step per line, so the content depends on the
// arguments alone.
func Fill(ctx context.Context, w *Writer, start time.Time, lines int64, step time.Duration) error {
	for i := range lines {
		if i&0xfff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.WriteLine(start.Add(time.Duration(i) * step)); err != nil {
			return err
		}
	}
	return nil
}

// Pace writes rate lines per second until lines are written (0 means no limit) or ctx ends, which is not an error.
func Pace(ctx context.Context, w *Writer, clock Clock, rate float64, lines int64) error {
	// Short enough for a steady flow, long enough for a negligible cost.
	const tick = 10 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	begin := time.Now()
	for written := int64(0); lines == 0 || written < lines; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		elapsed := time.Since(begin)
		due := int64(elapsed.Seconds() * rate)
		if lines > 0 {
			due = min(due, lines)
		}
		for ; written < due; written++ {
			if err := w.WriteLine(clock.At(elapsed)); err != nil {
				return err
			}
		}
	}
	return nil
}
