// Command cluster runs a real Kubernetes cluster out of processes on this machine: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler and kube-proxy, and for each node a containerd and a kubelet of its own. It
// needs Linux, root and the Debian packages containerd, runc, containernetworking-plugins, iptables, nftables,
// conntrack, iproute2 and util-linux; no Docker, and no image of any registry.
//
//	cluster up [--nodes=2] [--name=hlp]
//	                              starts what does not run, waits until all nodes are Ready, prints a kubeconfig's path
//	cluster down                  stops everything and removes all of it
//	cluster start NAME            starts a process again; names are those of files in DIR/log
//	cluster stop NAME [SIGNAL]    sends a process a signal (TERM) and waits for its end, unless it is STOP or CONT
//	cluster node N COMMAND...     runs a command in node N's file system
//	cluster load ARCHIVE...       imports docker-archives into every node
//
// Programs of Kubernetes and etcd come from the directory in KUBEBUILDER_ASSETS, which hack/controlplane prepares.
//
// Several clusters run on one machine if each has its own --dir, --name and network namespace; in one network namespace
// their addresses and ports are the same:
//
//	unshare --net sh -c 'ip link set lo up; ip route add default dev lo; exec "$@"' sh \
//		cluster up --dir=/tmp/other --name=other
//
// It is a tool for tests and must not be exposed to a network: the API server listens on every address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	defaultDir   = "/tmp/hlparser-cluster" // short: a socket's path has at most 107 bytes
	defaultName  = "hlp"
	defaultNodes = 2
	maxNodes     = 9

	identityFile = "cluster.json"

	usage = "usage: cluster [flags] up|down|start NAME|stop NAME [SIGNAL]|node N COMMAND...|load ARCHIVE..."
)

// namePattern leaves room for a node's number in the name of a network interface, which has at most 15 bytes.
var namePattern = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,12}[a-z])?$`)

// cluster is one cluster of processes. There is one per network namespace: its ports and addresses are fixed.
type cluster struct {
	dir     string // state, keys, logs and the nodes' file systems
	assets  string // the programs
	cgroups string // where cgroups are mounted
	identity
}

// identity is what a cluster keeps from its first start on.
type identity struct {
	Name  string `json:"name"` // the prefix of its bridges and cgroups
	Nodes int    `json:"nodes"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	dir := flags.String("dir", defaultDir,
		"directory of the cluster's state; not below a directory that nodes have of their own")
	clusterName := flags.String("name", defaultName,
		"prefix of the names of bridges and cgroups; another for each cluster of the machine; used by up")
	nodes := flags.Int("nodes", defaultNodes, fmt.Sprintf("number of nodes, 1 to %d; used by up", maxNodes))
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	var name string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") { // flags may follow the command
		name, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	args = flags.Args()
	if name == "" && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	if name == "" {
		flags.Usage()
		return errors.New("no command is given")
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errors.New("a cluster of processes needs Linux and root; elsewhere use kind or another cluster")
	}
	c, err := open(*dir, identity{Name: *clusterName, Nodes: *nodes})
	if err != nil {
		return err
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	switch {
	case name == "up" && len(args) == 0:
		defer unlock()
		return c.up(ctx)
	case name == "down" && len(args) == 0:
		defer unlock()
		return c.down(ctx)
	case name == "start" && len(args) == 1:
		defer unlock()
		return c.start(args[0])
	case name == "stop" && (len(args) == 1 || len(args) == 2):
		defer unlock()
		sig := syscall.SIGTERM
		if len(args) == 2 {
			if sig = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(args[1]), "SIG")); sig == 0 {
				return fmt.Errorf("%s is no signal", args[1])
			}
		}
		return c.stop(ctx, args[0], sig)
	case name == "load" && len(args) > 0:
		defer unlock()
		return c.load(ctx, args...)
	case name == "node" && len(args) > 1:
		unlock() // a command may take long, and changes nothing of the cluster
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("%s is no number of a node", args[0])
		}
		return c.onNode(ctx, n, args[1:])
	}
	unlock()
	flags.Usage()
	return fmt.Errorf("there is no command %s with %d arguments", name, len(args))
}

// open returns the cluster in a directory. Its identity is that with which it was first started.
func open(dir string, wanted identity) (*cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the cluster: %w", err)
	}
	for _, own := range nodesOwn {
		if strings.HasPrefix(dir+"/", "/"+own+"/") {
			return nil, fmt.Errorf("--dir must not be below /%s: each node has a directory of its own there", own)
		}
	}
	if wanted.Nodes < 1 || wanted.Nodes > maxNodes {
		return nil, fmt.Errorf("--nodes=%d is out of range: 1 to %d", wanted.Nodes, maxNodes)
	}
	if !namePattern.MatchString(wanted.Name) {
		return nil, fmt.Errorf("--name=%s must be at most 14 lower-case letters, digits and dashes, "+
			"and begin and end with a letter", wanted.Name)
	}
	c := &cluster{dir: dir, assets: os.Getenv("KUBEBUILDER_ASSETS"), cgroups: "/sys/fs/cgroup", identity: wanted}
	var was identity
	switch err := readJSON(c.path(identityFile), &was); {
	case err == nil:
		c.identity = was
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	return c, nil
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

// lock keeps other invocations from changing the cluster at the same time.
func (c *cluster) lock() (unlock func(), err error) {
	f, err := os.OpenFile(c.dir+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the cluster: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the cluster: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// checkPrograms reports all that is missing at once, with what installs it.
func (c *cluster) checkPrograms() error {
	var missing []string
	for _, program := range kubernetesPrograms {
		if _, err := os.Stat(filepath.Join(c.assets, program)); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("KUBEBUILDER_ASSETS=%s lacks %s: "+
			"run `go -C hack/controlplane run . --with %s` and export what it prints",
			c.assets, strings.Join(missing, ", "), strings.Join(kubernetesPrograms, ","))
	}
	for _, program := range []string{
		"containerd", "ctr", "runc", "iptables", "nft", "conntrack", "ip", "nsenter", "unshare",
	} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s not found: run `apt-get install --no-install-recommends containerd runc "+
			"containernetworking-plugins iptables nftables conntrack iproute2`", strings.Join(missing, ", "))
	}
	return nil
}
