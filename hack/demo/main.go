// Command demo runs a whole fleet on this machine, without privileges and without Docker: a real control plane, the
// operator as its own process with its own rights, simulated Kubernetes nodes whose pods are real hlparser processes,
// and Hyperliquid node output from hlgen. It plays a story: a parser hangs, the sink is down, a rollout is bad, or the
// sink is slow. The operator must do what the story requires and no more, and every event written must be delivered
// exactly once. `make demo` builds what it needs and runs it.
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
	"strings"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
)

func main() {
	keep := flag.Bool("keep", false, "keep the fleet running after the comparison, until Ctrl-C")
	scene := flag.String("scene", stories()[0].name, "the story to play: "+strings.Join(storyNames(), ", "))
	sink := flag.String("sink", "",
		"where the parsers deliver: "+fileSink+", or "+natsSink+" for a NATS server that the demo runs. "+
			"Defaults to what the scene needs, or else to "+fileSink)
	keepFiles := flag.Bool("keep-files", false, "keep data and logs even if the run succeeds")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *scene, *sink, *keep, *keepFiles)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, scene, sink string, keep, keepFiles bool) (err error) {
	plot, err := storyNamed(scene)
	if err != nil {
		return err
	}
	if sink, err = plot.chooseSink(sink); err != nil {
		return err
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
	s := newScene(options{
		dir: dir, tree: tree, assets: assets,
		manager: filepath.Join(tree, "bin", "demo", "manager"), parser: filepath.Join(tree, "bin", "demo", "hlparser"),
		nodes: 4, controllerManager: true,
		statusRate: 1300, trafficFor: time.Minute, hangAt: 15 * time.Second, hourEvery: 15 * time.Second,
		story: plot, sink: sink,
	}, newScreen(os.Stdout), slog.New(slog.NewTextHandler(log, nil)))
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
		table, tableErr := s.getTable(ctx)
		err = errors.Join(err, tableErr)
		s.screen.print(describe(&s.last, table, s.events))
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
