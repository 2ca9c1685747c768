package tail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

const testRate = int64(config.MinReadRate)

// Two streams with a backlog share one rate; neither stands still for as long as a hang is waited for.
func TestTheReadRateIsTheProcesss(t *testing.T) {
	const seconds, streams = 10, 2
	disks := make([]disk, 0, streams)
	for range streams {
		d := newDisk(t)
		d.append("node_fills/20260430/8", strings.Repeat(strings.Repeat("x", 1023)+"\n", int(testRate)*seconds/1024))
		disks = append(disks, d)
	}
	synctest.Test(t, func(t *testing.T) {
		rate := NewReadRate(testRate)
		ctx, stop := context.WithTimeout(t.Context(), seconds*time.Second)
		defer stop()
		var wg sync.WaitGroup
		var read [streams]int64
		for i, d := range disks {
			r := open(t, options(d, func(o *Options) { o.Now, o.ReadRate = nil, rate }), nil)
			wg.Go(func() {
				if err := r.tail.readAll(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("reading ended with %v", err)
				}
				read[i] = r.tail.Stats().ReadBytes
			})
			wg.Go(func() {
				moved := time.Now()
				for ctx.Err() == nil {
					select {
					case <-r.buf.NotEmpty():
						moved = time.Now()
						r.take(true)
					case <-time.After(time.Second):
						if still := time.Since(moved); still > 5*time.Second {
							t.Errorf("stream %d stands still for %v", i, still)
							return
						}
					case <-ctx.Done():
					}
				}
			})
		}
		wg.Wait()
		sum := read[0] + read[1]
		if low, high := testRate*seconds, testRate*(seconds+1)+streams*buffer.BlockSize; sum < low-streams*buffer.BlockSize || sum > high {
			t.Errorf("%d bytes in %d s; want %d, and one second more at the start", sum, seconds, low)
		}
		if read[0] < sum/3 || read[1] < sum/3 {
			t.Errorf("the streams had %d and %d bytes; want about the same", read[0], read[1])
		}
	})
}

func TestLinesThatComeWithinTheReadRateDoNotWait(t *testing.T) {
	d := newDisk(t)
	synctest.Test(t, func(t *testing.T) {
		r := open(t, options(d, func(o *Options) { o.Now, o.ReadRate = nil, NewReadRate(testRate) }), nil)
		defer r.tail.close()
		for i := range 100 {
			// Nine tenths of the rate, with a torn tail that is read again and again.
			d.append("node_fills/20260430/8", strings.Repeat(fmt.Sprintf("%1023d\n", i), int(testRate)*9/10/10/1024)+"to")
			began := time.Now()
			r.step(0)
			if waited := time.Since(began); waited > 0 {
				t.Fatalf("write %d waited %v", i, waited)
			}
			time.Sleep(100 * time.Millisecond)
			d.append("node_fills/20260430/8", "rn\n")
		}
	})
}

func TestALineLongerThanTheReadRateIsReadOnceAndPaidFor(t *testing.T) {
	d := newDisk(t)
	long := strings.Repeat("l", 3*int(testRate))
	d.append("node_fills/20260430/8", long+"\na\n")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := open(t, options(d, func(o *Options) { o.Now, o.ReadRate, o.MaxLineBytes = nil, NewReadRate(testRate), 64<<20 }), nil)
		defer r.tail.close()
		r.buf = buffer.NewBudget(64<<20, 1).NewBuffer()
		r.tail.buf = r.buf
		want(t, r.step(0), long, "a")
		d.append("node_fills/20260430/8", "b\n")
		want(t, r.step(0), "b")
		if took := time.Since(began).Round(100 * time.Millisecond); took != 2*time.Second {
			t.Errorf("took %v; want 2 s after the first second's bytes", took)
		}
	})
}
