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

// Two streams with a backlog share one rate. Neither stalls long enough to be taken for a hang.
func TestTheReadRateIsSharedByTheProcess(t *testing.T) {
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
			r := open(t, newSetup(d, func(o *Options) { o.Now, o.ReadRate = nil, rate }), nil)
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
							t.Errorf("stream %d is stalled for %v", i, still)
							return
						}
					case <-ctx.Done():
					}
				}
			})
		}
		wg.Wait()
		sum := read[0] + read[1]
		low, high := testRate*seconds, testRate*(seconds+1)+streams*buffer.BlockSize
		if sum < low-streams*buffer.BlockSize || sum > high {
			t.Errorf("%d bytes in %d s; want %d, plus one second's worth at the start", sum, seconds, low)
		}
		if read[0] < sum/3 || read[1] < sum/3 {
			t.Errorf("the streams read %d and %d bytes; want about the same", read[0], read[1])
		}
	})
}

func TestLinesWithinTheReadRateDoNotWait(t *testing.T) {
	d := newDisk(t)
	synctest.Test(t, func(t *testing.T) {
		r := open(t, newSetup(d, func(o *Options) { o.Now, o.ReadRate = nil, NewReadRate(testRate) }), nil)
		defer r.tail.Close()
		for i := range 100 {
			// The writes take nine tenths of the rate. A torn tail is read again each time.
			d.append("node_fills/20260430/8", strings.Repeat(fmt.Sprintf("%1023d\n", i), int(testRate)*9/10/10/1024)+"to")
			start := time.Now()
			r.step(0)
			if waited := time.Since(start); waited > 0 {
				t.Fatalf("write %d waited %v", i, waited)
			}
			time.Sleep(100 * time.Millisecond)
			d.append("node_fills/20260430/8", "rn\n")
		}
	})
}

func TestALineLongerThanTheReadRateIsReadAndChargedOnce(t *testing.T) {
	d := newDisk(t)
	long := strings.Repeat("l", 3*int(testRate))
	d.append("node_fills/20260430/8", long+"\na\n")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := open(t, newSetup(d, func(o *Options) {
			o.Now, o.ReadRate, o.MaxLineBytes = nil, NewReadRate(testRate), 64<<20
		}), nil)
		defer r.tail.Close()
		r.buf = buffer.NewBudget(64<<20, 1).NewBuffer()
		r.tail.buf = r.buf
		wantLines(t, r.step(0), long, "a")
		d.append("node_fills/20260430/8", "b\n")
		wantLines(t, r.step(0), "b")
		if took := time.Since(start).Round(100 * time.Millisecond); took != 2*time.Second {
			t.Errorf("took %v; want 2 s after the burst of the first second", took)
		}
	})
}
