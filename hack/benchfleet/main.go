// Command benchfleet measures the operator with whole fleets, on this machine: a real kube-apiserver and etcd, the real manager as a
// process of its own, and simulated nodes.
//
//	go run ./hack/benchfleet                            # fleets of 100, 1,000 and 5,000 nodes, about an hour
//	go run ./hack/benchfleet --sizes 100 --steady 30s   # a look
//	go run ./hack/benchfleet --write FILE               # into FILE, such as docs/benchmarks.md
//
// KUBEBUILDER_ASSETS names the directory of etcd, kube-apiserver and kube-controller-manager. What is simulated: this process stands
// in for scheduler and kubelets (kubelet.go), and one more for all parsers' reports (parsers.go). It runs from the module's root, on
// Linux, as anybody; all traffic is on 127.0.0.0/8; what it starts ends with it, and its files are removed.
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

// What this program is when its first argument is one of these, so that what they take is not counted as the bench's or the manager's.
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
	// What goes wrong comes back as an error; what the clients say meanwhile is not for a person.
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

// options of the whole run.
type options struct {
	sizes []int
	// quiet is how long nothing new is told by a fleet that has come to rest: longer than the last parsers to start take to be proven.
	quiet  time.Duration
	steady time.Duration // how long the fleet is watched then
	// pollInterval and stuckAfter of the fleet's object.
	pollInterval, stuckAfter time.Duration

	qps     int // of the manager's client and of the DaemonSet controller's
	burst   int
	streams int // in each report
	assets  string
	dir     string // removed in the end
	program string // the manager, which is under test
	// profiles is the directory to keep the manager's profiles and log in; empty: nowhere.
	profiles string
}

func bench(ctx context.Context, args []string) (err error) {
	o := options{
		assets: os.Getenv("KUBEBUILDER_ASSETS"), quiet: plan.Proof + 30*time.Second, pollInterval: 5 * time.Second, stuckAfter: 30 * time.Second,
	}
	fs := flag.NewFlagSet("benchfleet", flag.ContinueOnError)
	sizes := fs.String("sizes", "100,1000,5000", "numbers of nodes, by comma")
	parent := fs.String("dir", "", "where to make a temporary directory (default: the system's place)")
	write := fs.String("write", "", "file to write the results into, such as docs/benchmarks.md")
	fs.DurationVar(&o.steady, "steady", 10*time.Minute, "how long each fleet is watched at rest")
	fs.IntVar(&o.qps, "qps", 500, "requests a second of the manager's client and of the DaemonSet controller's")
	fs.IntVar(&o.burst, "burst", 1000, "requests that may come at once, of both")
	fs.IntVar(&o.streams, "streams", 2, "streams in each report")
	fs.StringVar(&o.profiles, "profiles", "", "directory to keep the manager's profiles at rest, and its log, in")
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
	if fs.NArg() > 0 || o.steady <= 0 || o.qps < 1 || o.burst < 1 || o.streams < 1 || o.streams > 7 {
		return errors.New("see --help: counts are at least 1, streams at most 7, and there are no arguments")
	}
	if o.assets == "" {
		return errors.New("KUBEBUILDER_ASSETS is not set: run make bench-fleet, which finds or builds what is needed")
	}
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return fmt.Errorf("--profiles: making the directory: %w", err)
		}
	}
	if o.dir, err = os.MkdirTemp(*parent, "hlparser-benchfleet-"); err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
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
			return fmt.Errorf("a fleet of %d: %w", n, err)
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

// say tells a person what takes so long.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "… "+format+"\n", args...)
}
