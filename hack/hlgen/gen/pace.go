package gen

import (
	"context"
	"time"
)

// Clock is the node's: it starts at a time and may run faster than the wall's.
type Clock struct {
	// Start is the node's time at the beginning.
	Start time.Time
	// HourEvery is how long an hour of the node takes; default one hour.
	HourEvery time.Duration
}

// During is the time that passes at the node while elapsed passes on the wall.
func (c Clock) During(elapsed time.Duration) time.Duration {
	if c.HourEvery <= 0 {
		return elapsed
	}
	return time.Duration(float64(elapsed) * (float64(time.Hour) / float64(c.HourEvery)))
}

// At is the node's time when elapsed has passed on the wall.
func (c Clock) At(elapsed time.Duration) time.Time { return c.Start.Add(c.During(elapsed)) }

// Fill writes lines as fast as it can. The node's clock advances by step a
// line, so content depends on the arguments alone.
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

// Pace writes rate lines a second until lines are written (0: no limit) or ctx
// ends, which is not an error.
func Pace(ctx context.Context, w *Writer, clock Clock, rate float64, lines int64) error {
	// Short enough that a reader sees a flow, long enough to cost nothing.
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
