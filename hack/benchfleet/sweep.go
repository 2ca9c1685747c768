package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
)

// swept is what one sweep over all parsers took.
type swept struct {
	Wall   time.Duration // until all were asked
	Missed int           // reports that did not come in time
	CPU    time.Duration // of the process
	Allocs uint64        // for each report
	Bytes  uint64        // allocated, for each report
}

// sweeps are what all of them took.
type sweeps struct {
	AtOnce []swept // the first opened the connections
	// Spread is the processor time of one interval's polls when they are spread over it, as they are in the manager.
	Spread time.Duration
}

// sweep runs the operator's poller in a process of its own and writes what it took as JSON: first by a clock that stands still until
// all targets fall due at once, and then at its usual pace.
func sweep(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet(sweepCommand, flag.ContinueOnError)
	nodes := fs.Int("nodes", 0, "how many")
	second := fs.Int("second", 0, "second byte of the parsers' addresses")
	workers := fs.Int("workers", 0, "the manager's --poll-workers")
	interval := fs.Duration("interval", 0, "the object's pollInterval")
	times := fs.Int("sweeps", 5, "how often all are asked at once")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var result sweeps
	var err error
	s := sweeper{nodes: *nodes, second: *second, workers: *workers, interval: *interval}
	if result.AtOnce, err = s.atOnce(ctx, *times); err != nil {
		return err
	}
	if result.Spread, err = s.spread(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return fmt.Errorf("writing what sweeps took: %w", err)
	}
	return nil
}

type sweeper struct {
	nodes, second, workers int
	interval               time.Duration
	polls, reports         atomic.Int64 // that are over, and that have come
}

// poll runs a poller of the parsers on some nodes until the context ends.
func (s *sweeper) poll(ctx context.Context, by clock.Clock, nodes []int) (ended <-chan error) {
	p := poller.New(poller.Options{
		Client: poller.NewClient(podspec.ReportPort), Clock: by, Workers: s.workers,
		Polled: func(_ time.Duration, ok bool) {
			s.polls.Add(1)
			if ok {
				s.reports.Add(1)
			}
		},
	})
	result := make(chan error, 1)
	go func() { result <- p.Start(ctx) }()
	go func() { // as the controller would
		for {
			select {
			case <-p.Changes():
			case <-ctx.Done():
				return
			}
		}
	}()
	settings := growth.Settings{PollInterval: s.interval, Lag: time.Minute, StuckAfter: time.Minute, BufferLimit: 32 * mebibyte}
	endpoints := make([]poller.Endpoint, len(nodes))
	for i, node := range nodes {
		endpoints[i] = poller.Endpoint{
			Target: nodeName(node), PodName: podName(node), IP: address(s.second, node),
			Pod: growth.PodState{UID: nodeName(node), Container: nodeName(node), Running: true},
		}
	}
	p.Track(types.NamespacedName{Namespace: namespace, Name: objectName}, settings, endpoints)
	return result
}

// atOnce asks all parsers at once, so many times: all but those that never give a report, which the operator asks seldom and apart.
func (s *sweeper) atOnce(ctx context.Context, times int) ([]swept, error) {
	const limit = 2 * time.Minute
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	still := testclock.NewFakeClock(time.Now())
	var nodes []int
	for i := range s.nodes {
		if k := kindOf(i); k == good || k == slow {
			nodes = append(nodes, i)
		}
	}
	ended := s.poll(ctx, still, nodes)
	results := make([]swept, 0, times)
	for range times {
		for still.Waiters() < 2 && ctx.Err() == nil { // those that answer and those that do not are waited for apart
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		var memory [2]runtime.MemStats
		runtime.ReadMemStats(&memory[0])
		polls, reports, cpu, begin := s.polls.Load(), s.reports.Load(), ownCPU(), time.Now()
		still.Step(s.interval)
		for ; s.polls.Load() < polls+int64(len(nodes)); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil || time.Since(begin) > limit {
				return nil, fmt.Errorf("%d of %d parsers were asked within %s", s.polls.Load()-polls, len(nodes), limit)
			}
		}
		one := swept{Wall: time.Since(begin), CPU: ownCPU() - cpu, Missed: len(nodes) - int(s.reports.Load()-reports)}
		runtime.ReadMemStats(&memory[1])
		one.Allocs = (memory[1].Mallocs - memory[0].Mallocs) / uint64(len(nodes))
		one.Bytes = (memory[1].TotalAlloc - memory[0].TotalAlloc) / uint64(len(nodes))
		results = append(results, one)
	}
	stop()
	return results, <-ended
}

// spread asks all parsers at the usual pace for some intervals, once the connections are open.
func (s *sweeper) spread(ctx context.Context) (time.Duration, error) {
	const intervals = 3
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nodes := make([]int, s.nodes)
	for i := range nodes {
		nodes[i] = i
	}
	ended := s.poll(ctx, clock.RealClock{}, nodes)
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	pause(2 * s.interval)
	before := ownCPU()
	pause(intervals * s.interval)
	took := ownCPU() - before
	stop()
	return took / intervals, <-ended
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
