// Command simulate tests the operator's verdicts and restarts on simulated nodes, parsers, sinks and fleets:
//
//	go run ./hack/simulate                            # 10,000 normal days, 1,000 of each fault, fleets; minutes
//	go run ./hack/simulate --days 300 --faults 50     # a smaller run
//	go run ./hack/simulate --write FILE               # also write the results into FILE, such as docs/benchmarks.md
//
// Package sim does not know the operator's rules. Equal seeds give equal results. The rules were developed with seeds
// below 1,000; by default none of those is used. The command exits with status 1 if a goal is missed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

func main() {
	missed, err := run(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	case missed > 0:
		fmt.Fprintf(os.Stderr, "simulate: %d goals missed\n", missed)
		os.Exit(1)
	}
}

// sizes of a simulation.
type sizes struct {
	days    int // days of normal traffic
	faults  int // runs of each fault
	fleets  int // approximate number of targets for each fleet size and scene
	fleetOf []int
	seed    uint64
	workers int
}

func run(args []string) (missed int, err error) {
	s := sizes{fleetOf: []int{2, 12, 40, 400}, workers: runtime.GOMAXPROCS(0)}
	fs := flag.NewFlagSet("simulate", flag.ContinueOnError)
	fs.IntVar(&s.days, "days", 10_000, "days of one node with normal traffic")
	fs.IntVar(&s.faults, "faults", 1000, "runs of each fault")
	fs.IntVar(&s.fleets, "fleets", 1200, "targets in the fleets of each size and scene, at least one fleet")
	fs.Uint64Var(&s.seed, "seed", 1_000_000, "the first seed")
	write := fs.String("write", "", "file to update with the results, such as docs/benchmarks.md")
	if err := fs.Parse(args); err != nil {
		return 0, err
	}
	if fs.NArg() > 0 || s.days < 1 || s.faults < 1 || s.fleets < 1 {
		return 0, errors.New("invalid flags: sizes must be at least 1, and arguments are not accepted")
	}
	began := time.Now()
	text := results.Machine()
	fmt.Print(text)
	for _, section := range []func(sizes) (string, int){normalTraffic, faults, fleets} {
		part, failed := section(s)
		fmt.Print("\n", part)
		text += "\n" + part
		missed += failed
	}
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return missed, fmt.Errorf("reading the processor time: %w", err)
	}
	processor := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	took := fmt.Sprintf("\nThe run took %s and %s of processor time on %d cores. Seeds from %d.\n",
		time.Since(began).Round(time.Second), processor.Round(time.Second), s.workers, s.seed)
	fmt.Print(took)
	if *write == "" {
		return missed, nil
	}
	return missed, results.Replace(*write, "The operator's judgement, simulated", text+took)
}
