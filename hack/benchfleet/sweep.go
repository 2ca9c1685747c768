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

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// swept is the cost of one sweep over all parsers.
type swept struct {
	Wall   time.Duration // until all were polled
	Missed int           // reports that did not arrive in time
	CPU    time.Duration // of the process
	Allocs uint64        // per report
	Bytes  uint64        // allocated per report
}

// sweeps are the costs of all sweeps.
type sweeps struct {
	AtOnce []swept // the first one opened the connections
	// Spread is the processor time of one interval's polls if they are spread over it, as in the manager.
	Spread time.Duration
}

// sweep runs the operator's poller in its own process and writes the costs as JSON: first with a fake clock that makes
// all targets due at the same moment, then at the usual pace.
func sweep(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet(sweepCommand, flag.ContinueOnError)
	nodes := fs.Int("nodes", 0, "number of nodes")
	second := fs.Int("second", 0, "second byte of the parsers' addresses")
	workers := fs.Int("workers", 0, "value of the manager's --poll-workers")
	interval := fs.Duration("interval", 0, "pollInterval of the object")
	key := fs.String("operator-key", "", "file with the operator's private key")
	times := fs.Int("sweeps", 5, "number of sweeps over all parsers")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var result sweeps
	operator, err := seal.ReadKey(*key)
	if err != nil {
		return err
	}
	s := sweeper{nodes: *nodes, second: *second, workers: *workers, interval: *interval, operator: operator}
	if result.AtOnce, err = s.atOnce(ctx, *times); err != nil {
		return err
	}
	if result.Spread, err = s.spread(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return fmt.Errorf("writing the results of the sweeps: %w", err)
	}
	return nil
}

type sweeper struct {
	nodes, second, workers int
	interval               time.Duration
	operator               *seal.Key
	polls, reports         atomic.Int64 // finished polls, and received reports
}

// poll runs a poller for the parsers on some nodes until the context ends.
func (s *sweeper) poll(ctx context.Context, by clock.Clock, nodes []int) (ended <-chan error, err error) {
	p := poller.New(poller.Options{
		Client: poller.NewClient(podspec.ReportPort), Clock: by, Workers: s.workers,
		Polled: func(_ types.NamespacedName, _ time.Duration, why poller.Failure) {
			s.polls.Add(1)
			if why == "" {
				s.reports.Add(1)
			}
		},
	})
	result := make(chan error, 1)
	go func() { result <- p.Start(ctx) }()
	go func() { // as the controller does
		for {
			select {
			case <-p.Changes():
			case <-ctx.Done():
				return
			}
		}
	}()
	settings := health.Settings{PollInterval: s.interval, Lag: time.Minute, StuckAfter: time.Minute,
		BufferLimit: 32 * mebibyte}
	endpoints := make([]poller.Endpoint, len(nodes))
	for i, node := range nodes {
		key, err := podKey(node)
		if err != nil {
			return nil, err
		}
		endpoints[i] = poller.Endpoint{
			Target: nodeName(node), PodName: podName(node), IP: address(s.second, node),
			Pod: health.PodState{UID: nodeName(node), Container: nodeName(node), Running: true},
			Key: key.Public(), Operator: s.operator,
		}
	}
	p.Track(types.NamespacedName{Namespace: namespace, Name: objectName}, settings, endpoints)
	return result, nil
}

// atOnce polls all parsers in the same moment, the given number of times. It leaves out those that never report, which
// the operator polls rarely and separately.
func (s *sweeper) atOnce(ctx context.Context, times int) ([]swept, error) {
	const limit = 2 * time.Minute
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	fake := testclock.NewFakeClock(time.Now())
	var nodes []int
	for i := range s.nodes {
		if k := kindOf(i); k == good || k == slow {
			nodes = append(nodes, i)
		}
	}
	ended, err := s.poll(ctx, fake, nodes)
	if err != nil {
		return nil, err
	}
	results := make([]swept, 0, times)
	for range times {
		for fake.Waiters() < 2 && ctx.Err() == nil { // polls that succeed and polls that fail have separate timers
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		var memory [2]runtime.MemStats
		runtime.ReadMemStats(&memory[0])
		polls, reports, cpu, begin := s.polls.Load(), s.reports.Load(), ownCPU(), time.Now()
		fake.Step(s.interval)
		for ; s.polls.Load() < polls+int64(len(nodes)); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil || time.Since(begin) > limit {
				return nil, fmt.Errorf("%d of %d parsers were polled within %s", s.polls.Load()-polls, len(nodes), limit)
			}
		}
		one := swept{
			Wall: time.Since(begin), CPU: ownCPU() - cpu, Missed: len(nodes) - int(s.reports.Load()-reports),
		}
		runtime.ReadMemStats(&memory[1])
		one.Allocs = (memory[1].Mallocs - memory[0].Mallocs) / uint64(len(nodes))
		one.Bytes = (memory[1].TotalAlloc - memory[0].TotalAlloc) / uint64(len(nodes))
		results = append(results, one)
	}
	stop()
	return results, <-ended
}

// spread polls all parsers at the usual pace for some intervals, after the connections are open.
func (s *sweeper) spread(ctx context.Context) (time.Duration, error) {
	const intervals = 3
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nodes := make([]int, s.nodes)
	for i := range nodes {
		nodes[i] = i
	}
	ended, err := s.poll(ctx, clock.RealClock{}, nodes)
	if err != nil {
		return 0, err
	}
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

// ownCPU returns the processor time of this process so far.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fmt.Fprintln(os.Stderr, "benchfleet:", err)
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
