// Command e2e finds or starts the cluster that `make e2e` tests on, and stops it again:
//
//	e2e up ARCHIVE...    starts a cluster, loads docker-archives into it, and prints the suite's settings for a shell
//	e2e down             stops what up has started
//
// The cluster is, in this order:
//
//   - that of KUBECONFIG, if E2E_EXISTING=1. Its nodes must be able to pull the images; nothing is loaded or stopped.
//   - processes of hack/cluster, as root on Linux with the packages that they need. All specs run on it.
//   - kind, if Docker runs and kind is installed. Specs that touch what a node is made of are skipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const (
	usage = "usage: e2e [flags] up ARCHIVE... | down"

	kindName = "hlparser-e2e"
	// kindConfig has two nodes that take pods, as hack/cluster has.
	kindConfig = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
`
	// programs of Kubernetes that hack/cluster runs.
	programs = "kube-controller-manager,kube-scheduler,kubelet,kube-proxy"
)

// options of the command line, and where the repository is.
type options struct {
	root string
	dir  string
	name string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	root, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("finding the repository: %w", err)
	}
	o := options{root: root}
	flags := flag.NewFlagSet("e2e", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "/tmp/hlparser-cluster", "directory of a cluster of processes")
	flags.StringVar(&o.name, "name", "hlp", "name of a cluster of processes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	on, err := choose(observe(ctx))
	if err != nil {
		return err
	}
	switch args := flags.Args(); {
	case len(args) > 1 && args[0] == "up":
		return o.up(ctx, on, args[1:])
	case len(args) == 1 && args[0] == "down":
		return o.down(ctx, on)
	}
	return errors.New(usage)
}

// up starts a cluster with the images of archives, and prints the suite's settings.
func (o options) up(ctx context.Context, on kind, archives []string) error {
	fmt.Fprintf(os.Stderr, "e2e: testing on %s\n", on)
	switch on {
	case existing:
		return o.print("KUBECONFIG=" + os.Getenv("KUBECONFIG"))
	case processes:
		if err := o.runTool(ctx, nil, "go", "build", "-o", o.cluster(), "./hack/cluster"); err != nil {
			return err
		}
		var assets strings.Builder
		if err := o.capture(ctx, &assets, "go", "-C", "hack/controlplane", "run", ".", "--with", programs); err != nil {
			return err
		}
		if err := os.Setenv("KUBEBUILDER_ASSETS", strings.TrimSpace(assets.String())); err != nil {
			return fmt.Errorf("setting KUBEBUILDER_ASSETS: %w", err)
		}
		if err := o.runTool(ctx, nil, o.cluster(), "up", "--dir="+o.dir, "--name="+o.name); err != nil {
			return err
		}
		if err := o.runTool(ctx, nil, append([]string{o.cluster(), "load", "--dir=" + o.dir}, archives...)...); err != nil {
			return err
		}
		return o.print("KUBECONFIG="+filepath.Join(o.dir, "admin.conf"),
			"E2E_CLUSTER="+o.cluster(), "E2E_CLUSTER_DIR="+o.dir)
	default:
		config := filepath.Join(o.root, "dist", "e2e", "kubeconfig")
		if err := o.runTool(ctx, strings.NewReader(kindConfig), "kind", "create", "cluster", "--name="+kindName,
			"--kubeconfig="+config, "--wait=3m", "--config=-"); err != nil {
			return err
		}
		for _, archive := range archives {
			if err := o.runTool(ctx, nil, "kind", "load", "image-archive", archive, "--name="+kindName); err != nil {
				return err
			}
		}
		return o.print("KUBECONFIG=" + config)
	}
}

// down stops the cluster. None that somebody else has started is touched.
func (o options) down(ctx context.Context, on kind) error {
	switch on {
	case existing:
		return nil
	case processes:
		if _, err := os.Stat(o.dir); errors.Is(err, os.ErrNotExist) {
			return nil // it did not start
		}
		return o.runTool(ctx, nil, o.cluster(), "down", "--dir="+o.dir)
	default:
		return o.runTool(ctx, nil, "kind", "delete", "cluster", "--name="+kindName)
	}
}

func (o options) cluster() string { return filepath.Join(o.root, "bin", "cluster") }

// print prints settings for a shell to evaluate.
func (o options) print(settings ...string) error {
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		if _, err := fmt.Printf("export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`)); err != nil {
			return fmt.Errorf("printing the settings: %w", err)
		}
	}
	return nil
}

// runTool runs a program whose output is for people.
func (o options) runTool(ctx context.Context, stdin io.Reader, args ...string) error {
	return o.exec(ctx, stdin, os.Stderr, args...)
}

// capture runs a program whose output is for us.
func (o options) capture(ctx context.Context, out io.Writer, args ...string) error {
	return o.exec(ctx, nil, out, args...)
}

func (o options) exec(ctx context.Context, stdin io.Reader, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = o.root, stdin, out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// observe finds out what this machine has.
func observe(ctx context.Context) machine {
	m := machine{
		existing: os.Getenv("E2E_EXISTING") == "1", kubeconfig: os.Getenv("KUBECONFIG"),
		linux: runtime.GOOS == "linux", root: os.Geteuid() == 0,
	}
	for _, program := range clusterTools {
		if _, err := exec.LookPath(program); err != nil {
			m.missing = append(m.missing, program)
		}
	}
	_, err := exec.LookPath("kind")
	m.kind = err == nil
	if _, err := exec.LookPath("docker"); err == nil {
		m.docker = exec.CommandContext(ctx, "docker", "info").Run() == nil
	}
	return m
}
