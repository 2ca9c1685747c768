// Command demo runs a whole fleet on this machine, without privileges and without Docker: a real control plane, the
// operator as its own process with its own rights, simulated Kubernetes nodes whose pods are real hlparser processes,
// and Hyperliquid node output from hlgen. One parser is made to hang. The operator must detect and restart that one,
// and every event written must be delivered exactly once. `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
)

func main() {
	keep := flag.Bool("keep", false, "keep the fleet running after the comparison, until Ctrl-C")
	sink := flag.String("sink", fileSink,
		"where the parsers deliver: "+fileSink+", or "+natsSink+" for a NATS server that the demo runs")
	keepFiles := flag.Bool("keep-files", false, "keep data and logs even if the run succeeds")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *sink, *keep, *keepFiles)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sink string, keep, keepFiles bool) (err error) {
	if sink != fileSink && sink != natsSink {
		return fmt.Errorf("invalid --sink %q: want %s or %s", sink, fileSink, natsSink)
	}
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		return errors.New("KUBEBUILDER_ASSETS is not set: it must name the directory of etcd, kube-apiserver and " +
			"kube-controller-manager; `make demo` sets it")
	}
	if err := agent.CheckAddresses(); err != nil {
		return err
	}
	tree, err := sourceTree(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hlparser-demo-")
	if err != nil {
		return fmt.Errorf("creating a directory for the demo: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return fmt.Errorf("creating the agent's log: %w", err)
	}
	s := &scene{
		options: options{
			dir: dir, tree: tree, assets: assets,
			manager: filepath.Join(tree, "bin", "demo", "manager"), parser: filepath.Join(tree, "bin", "demo", "hlparser"),
			nodes: 4, controllerManager: true,
			statusRate: 1300, trafficFor: time.Minute, hangAt: 15 * time.Second, hourEvery: 15 * time.Second,
			sink: sink,
		},
		screen:   newScreen(os.Stdout),
		log:      slog.New(slog.NewTextHandler(log, nil)),
		children: &child.Group{},
	}
	defer func() {
		s.close()
		err = errors.Join(err, log.Close(), tidy(dir, keepFiles, ctx.Err() != nil, err))
	}()

	out, err := s.play(ctx)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if s.last.object.Name != "" {
		s.screen.keepTable()
		s.screen.print(describe(&s.last, s.events))
	}
	if out != nil {
		s.screen.print(out.String())
	}
	if err != nil || !keep {
		return err
	}
	return s.stay(ctx)
}

// tidy removes the demo's files, unless they may be needed to examine a failure.
func tidy(dir string, keepFiles, interrupted bool, failure error) error {
	if keepFiles || failure != nil && !interrupted {
		fmt.Fprintf(os.Stderr, "data and logs are in %s\n", dir)
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the demo's files: %w", err)
	}
	return nil
}
