// Command benchfleet measures the operator with whole fleets on this machine: a real kube-apiserver and etcd, the real
// manager as its own process, and simulated nodes.
//
//	go run ./hack/benchfleet                            # fleets of 100, 1,000 and 5,000 nodes, about an hour
//	go run ./hack/benchfleet --sizes 100 --steady 30s   # a quick run
//	go run ./hack/benchfleet --sizes 5000 --beside 1000 # also with 1,000 small objects
//	go run ./hack/benchfleet --write FILE               # also update FILE, such as docs/benchmarks.md
//
// KUBEBUILDER_ASSETS is the directory of etcd, kube-apiserver and kube-controller-manager. This process simulates the
// scheduler and the kubelets (kubelet.go), and one more process simulates all parsers' reports (parsers.go). It runs
// from the module's root, on Linux, without privileges. All traffic is on 127.0.0.0/8. Its child processes end with it,
// and its files are removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// Subcommands that run as separate processes, so that their cost is not counted as the benchmark's or the manager's.
const (
	parsersCommand = "parsers"
	sweepCommand   = "sweep"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchfleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	// Failures are returned as errors; the clients' own logs add nothing for the user.
	klog.SetLogger(logr.FromSlogHandler(slog.DiscardHandler))
	ctrl.SetLogger(klog.Background())
	if len(args) > 0 {
		switch args[0] {
		case parsersCommand:
			return serveParsers(ctx, args[1:])
		case sweepCommand:
			return sweep(ctx, args[1:], os.Stdout)
		}
	}
	return bench(ctx, args)
}

// options are the options of the whole run.
type options struct {
	sizes []int
	// quiet is how long the status must be unchanged for a fleet to be at rest. It exceeds the proof period of the last
	// parsers to start.
	quiet  time.Duration
	steady time.Duration // how long the fleet at rest is watched
	// pollInterval and stuckAfter are settings of the fleet's object.
	pollInterval, stuckAfter time.Duration

	qps     int // requests per second of the manager's and the DaemonSet controller's client
	burst   int
	streams int // in each report
	small   int // objects of one node each, created beside the fleet
	assets  string
	dir     string // removed at the end
	program string // the manager under test
	// profiles is the directory for the manager's profiles and log. Empty disables saving them.
	profiles string
}

func bench(ctx context.Context, args []string) (err error) {
	o := options{
		assets: os.Getenv("KUBEBUILDER_ASSETS"), quiet: plan.ProvenAfter + 30*time.Second,
		pollInterval: 5 * time.Second, stuckAfter: 30 * time.Second,
	}
	fs := flag.NewFlagSet("benchfleet", flag.ContinueOnError)
	sizes := fs.String("sizes", "100,1000,5000", "comma-separated numbers of nodes")
	parent := fs.String("dir", "", "parent of the temporary directory (default: the system's)")
	write := fs.String("write", "", "file to update with the results, such as docs/benchmarks.md")
	fs.DurationVar(&o.steady, "steady", 10*time.Minute, "how long each fleet is watched at rest")
	fs.IntVar(&o.qps, "qps", 500, "requests per second of the manager's client and of the DaemonSet controller's")
	fs.IntVar(&o.burst, "burst", 1000, "burst of requests of both")
	fs.IntVar(&o.streams, "streams", 2, "streams in each report")
	fs.IntVar(&o.small, "beside", 0, "small objects, of one node each, created beside each fleet; 1000 for comparable "+
		"results")
	fs.StringVar(&o.profiles, "profiles", "", "directory for the manager's profiles at rest and its log")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxNodes {
			return fmt.Errorf("--sizes: %q is not a number from 1 to %d", text, maxNodes)
		}
		o.sizes = append(o.sizes, n)
	}
	if most := slices.Max(o.sizes) + o.small; o.small < 0 || most > maxNodes {
		return fmt.Errorf("--beside: %d nodes in total, but only %d have an address", most, maxNodes)
	}
	if fs.NArg() > 0 || o.steady <= 0 || o.qps < 1 || o.burst < 1 || o.streams < 1 || o.streams > 7 {
		return errors.New("--steady, --qps, --burst and --streams must be at least 1, --streams at most 7, " +
			"and there are no arguments")
	}
	if o.assets == "" {
		return errors.New("KUBEBUILDER_ASSETS is not set: run make bench-fleet, which finds or builds what is needed")
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return fmt.Errorf("--profiles: creating the directory: %w", err)
		}
	}
	if o.dir, err = os.MkdirTemp(*parent, "hlparser-benchfleet-"); err != nil {
		return fmt.Errorf("creating a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if err := o.build(ctx); err != nil {
		return err
	}

	text := results.Machine()
	var all []figures
	for _, n := range o.sizes {
		f, err := o.measure(ctx, n)
		if err != nil {
			return fmt.Errorf("measuring a fleet of %d: %w", n, err)
		}
		all = append(all, f)
	}
	text += "\n" + o.describe(all)
	fmt.Print(text)
	if *write == "" {
		return nil
	}
	return results.Replace(*write, "Fleets", text)
}

// build builds the manager.
func (o *options) build(ctx context.Context) error {
	o.program = filepath.Join(o.dir, "manager")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", o.program, "./cmd/manager").CombinedOutput(); err != nil {
		return fmt.Errorf("building the manager: %w: %s", err, out)
	}
	return nil
}

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "… "+format+"\n", args...)
}
