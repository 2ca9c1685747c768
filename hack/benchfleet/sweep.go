package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
)

// swept is what one sweep over all parsers took.
type swept struct {
	Wall   time.Duration // until the last that gives a report has given it
	CPU    time.Duration // of the process
	Allocs uint64        // for each report
	Bytes  uint64        // allocated, for each report
}

// sweep runs the operator's poller in a process of its own, by a clock that stands still until all targets fall due at once, and
// writes what each sweep took as JSON. The first, which opens the connections, comes first.
func sweep(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet(sweepCommand, flag.ContinueOnError)
	nodes := fs.Int("nodes", 0, "how many")
	second := fs.Int("second", 0, "second byte of the parsers' addresses")
	workers := fs.Int("workers", 0, "the manager's --poll-workers")
	sweeps := fs.Int("sweeps", 5, "how often")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	clock := testclock.NewFakeClock(time.Now())
	var reports, polls atomic.Int64
	p := poller.New(poller.Options{
		Client: poller.NewClient(podspec.ReportPort), Clock: clock, Workers: *workers,
		Polled: func(_ time.Duration, ok bool) {
			polls.Add(1)
			if ok {
				reports.Add(1)
			}
		},
	})
	ended := make(chan error, 1)
	go func() { ended <- p.Start(ctx) }()
	go func() {
		for range p.Changes() { // as the controller would
		}
	}()
	settings := growth.Settings{PollInterval: 5 * time.Second, StuckAfter: 30 * time.Second, BufferLimit: 32 * mebibyte}
	endpoints := make([]poller.Endpoint, *nodes)
	for i := range endpoints {
		node := nodeName(i)
		endpoints[i] = poller.Endpoint{
			Target: node, PodName: podName(i), IP: address(*second, i),
			Pod: growth.PodState{UID: node, Container: node, Running: true},
		}
	}
	p.Track(types.NamespacedName{Namespace: namespace, Name: objectName}, settings, endpoints)

	var results []swept
	reporting := int64(*nodes - badNodes(*nodes))
	for range *sweeps {
		for clock.Waiters() < 2 { // both lanes wait for their next target
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		var memory [2]runtime.MemStats
		runtime.ReadMemStats(&memory[0])
		before, cpu, begin := reports.Load(), ownCPU(), time.Now()
		clock.Step(settings.PollInterval)
		for limit := begin.Add(time.Minute); reports.Load() < before+reporting; time.Sleep(time.Millisecond) {
			if ctx.Err() != nil || time.Now().After(limit) {
				return fmt.Errorf("%d of %d parsers reported within a minute", reports.Load()-before, reporting)
			}
		}
		s := swept{Wall: time.Since(begin), CPU: ownCPU() - cpu}
		runtime.ReadMemStats(&memory[1])
		s.Allocs = (memory[1].Mallocs - memory[0].Mallocs) / uint64(*nodes)
		s.Bytes = (memory[1].TotalAlloc - memory[0].TotalAlloc) / uint64(*nodes)
		results = append(results, s)
		// Those that hang are given up before the next sweep.
		time.Sleep(2500 * time.Millisecond)
	}
	stop()
	return errors.Join(<-ended, json.NewEncoder(out).Encode(results))
}

// ownCPU is the processor time of this process so far.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fmt.Fprintln(os.Stderr, "benchfleet:", err)
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
