package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// nodesOwn are the directories that every node has of its own: on a shared file system a hostPath would be one
// directory on all nodes. The cluster's own directory is below none of them. The last is where containerd mounts the
// network namespaces of pods, which go with the node.
var nodesOwn = []string{"home", "var/lib", "var/log", "mnt", "srv", "run/netns"}

const (
	cniPlugins = "/usr/lib/cni" // where Debian's package has them
	pause      = "registry.k8s.io/pause:3.10"
)

func (c *cluster) nodePath(n int, parts ...string) string {
	return c.path(append([]string{"n" + strconv.Itoa(n)}, parts...)...)
}

func (c *cluster) socket(n int) string { return c.nodePath(n, "run", "containerd.sock") }

// Names of a node's processes.
func namespaceOf(n int) string  { return "namespace-" + strconv.Itoa(n) }
func containerdOf(n int) string { return "containerd-" + strconv.Itoa(n) }
func kubeletOf(n int) string    { return "kubelet-" + strconv.Itoa(n) }

// startNode starts a node's mount namespace, containerd and kubelet.
func (c *cluster) startNode(ctx context.Context, n int, pauseArchive string) error {
	if err := c.startNamespace(ctx, n); err != nil {
		return err
	}
	if err := c.makeCgroup(n); err != nil {
		return err
	}
	enter, err := c.enter(n)
	if err != nil {
		return err
	}
	if err := c.configureContainerd(n); err != nil {
		return err
	}
	containerd := append(enter, "containerd", "--config", c.nodePath(n, "containerd.toml"))
	if err := c.define(containerdOf(n), containerd...); err != nil {
		return err
	}
	if err := c.start(containerdOf(n)); err != nil {
		return err
	}
	var last error
	if !eventually(ctx, readyLimit, func() bool {
		_, last = runTool(ctx, "ctr", "--address", c.socket(n), "version")
		return last == nil
	}) {
		return fmt.Errorf("waiting for containerd: %w; see %s", last, c.path("log", containerdOf(n)))
	}
	if err := c.loadOn(ctx, n, pauseArchive); err != nil {
		return err
	}
	// A node's own /home may hide the directory of the programs.
	kubelet := c.path("bin", "kubelet")
	if err := copyProgram(c.program("kubelet"), kubelet); err != nil {
		return err
	}
	if err := c.configureKubelet(n); err != nil {
		return err
	}
	if err := c.define(kubeletOf(n), append(enter, kubelet, "--config="+c.nodePath(n, "kubelet.yaml"),
		"--kubeconfig="+c.path(nodeName(n)+".conf"), "--root-dir="+c.nodePath(n, "kubelet"),
		"--cert-dir="+c.nodePath(n, "pki"), "--hostname-override="+nodeName(n), "--node-ip="+bridgeIP(n))...); err != nil {
		return err
	}
	return c.start(kubeletOf(n))
}

// startNamespace starts the process that keeps a node's mount namespace alive.
func (c *cluster) startNamespace(ctx context.Context, n int) error {
	var script strings.Builder
	for _, dir := range nodesOwn {
		own := c.nodePath(n, "host", dir)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return fmt.Errorf("making %s of %s: %w", dir, nodeName(n), err)
		}
		fmt.Fprintf(&script, "mkdir -p /%[2]s; mount --bind %[1]s /%[2]s\n", own, dir)
	}
	// Shared from there on: containers see what is mounted later, such as a data disk.
	fmt.Fprintf(&script, "mount --make-rshared /\ntouch %s\nexec sleep infinity\n", c.nodePath(n, "mounted"))
	if _, running, err := c.running(namespaceOf(n)); err != nil || running {
		return err
	}
	if err := os.Remove(c.nodePath(n, "mounted")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("starting the namespace of %s: %w", nodeName(n), err)
	}
	if err := c.define(namespaceOf(n), "unshare", "--mount", "--propagation", "private",
		"sh", "-ec", script.String()); err != nil {
		return err
	}
	if err := c.start(namespaceOf(n)); err != nil {
		return err
	}
	if !eventually(ctx, 10*time.Second, func() bool { _, err := os.Stat(c.nodePath(n, "mounted")); return err == nil }) {
		return fmt.Errorf("starting the namespace of %s: see %s", nodeName(n), c.path("log", namespaceOf(n)))
	}
	return nil
}

// enter returns the words before a command that is to run in a node's mount namespace.
func (c *cluster) enter(n int) ([]string, error) {
	p, running, err := c.running(namespaceOf(n))
	if err != nil {
		return nil, err
	}
	if !running {
		return nil, fmt.Errorf("%s does not run: cluster up starts it", nodeName(n))
	}
	return []string{"nsenter", "--target", strconv.Itoa(p.PID), "--mount", "--"}, nil
}

// onNode runs a command in a node's file system, with this program's input and output.
func (c *cluster) onNode(ctx context.Context, n int, args []string) error {
	if n < 1 || n > c.Nodes {
		return fmt.Errorf("there is no node %d: they are 1 to %d", n, c.Nodes)
	}
	enter, err := c.enter(n)
	if err != nil {
		return err
	}
	args = append(enter, args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running on %s: %w", nodeName(n), err)
	}
	return nil
}

func (c *cluster) cgroupName(n int) string { return c.Name + "-n" + strconv.Itoa(n) }

// cgroup2 reports whether the machine has cgroup v2 alone; a hybrid has its controllers in hierarchies of v1.
func (c *cluster) cgroup2() bool {
	_, err := os.Stat(filepath.Join(c.cgroups, "cgroup.controllers"))
	return err == nil
}

// Controllers of cgroup v2 that a kubelet needs, and those that it uses where they are.
var (
	neededControllers = []string{"cpu", "cpuset", "memory", "pids"}
	usedControllers   = append(slices.Clone(neededControllers), "hugetlb")
)

// cgroupDirs returns a node's cgroup, one in every hierarchy of cgroup v1. Two kubelets with one cgroup root would kill
// each other's pods as orphans.
func (c *cluster) cgroupDirs(n int) ([]string, error) {
	if c.cgroup2() {
		return []string{filepath.Join(c.cgroups, c.cgroupName(n))}, nil
	}
	entries, err := os.ReadDir(c.cgroups)
	if err != nil {
		return nil, fmt.Errorf("listing cgroups: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(c.cgroups, e.Name(), c.cgroupName(n)))
		}
	}
	return dirs, nil
}

func (c *cluster) makeCgroup(n int) error {
	dirs, err := c.cgroupDirs(n)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a cgroup: %w", err)
		}
		// cgroup v1: a new cpuset has no processors, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil || len(bytes.TrimSpace(above)) == 0 {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), above, 0o644); err != nil {
				return fmt.Errorf("making a cgroup: %w", err)
			}
		}
	}
	if c.cgroup2() {
		// What is to be limited below must be delegated above, from the top on.
		return errors.Join(delegate(c.cgroups), delegate(dirs[0]))
	}
	return nil
}

// delegate enables a kubelet's controllers of cgroup v2 for the cgroups below a directory.
func delegate(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the controllers of cgroup %s: %w", dir, err)
	}
	available := strings.Fields(string(text))
	for _, controller := range neededControllers {
		if !slices.Contains(available, controller) {
			return fmt.Errorf("cgroup %s has no controller %s, which a kubelet needs: it has %q", dir, controller, available)
		}
	}
	var enable []string
	for _, controller := range usedControllers {
		if slices.Contains(available, controller) {
			enable = append(enable, "+"+controller)
		}
	}
	path := filepath.Join(dir, "cgroup.subtree_control")
	if err := os.WriteFile(path, []byte(strings.Join(enable, " ")), 0o644); err != nil {
		// The root of a machine delegates while it has processes; that of a container does not.
		return fmt.Errorf("delegating controllers to the cgroups below %s, which must have no processes of its own: %w",
			dir, err)
	}
	return nil
}

func (c *cluster) configureContainerd(n int) error {
	network := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "%s-n%d", "plugins": [
 {"type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": %q,
   "ranges": [[{"subnet": "10.244.%d.0/24", "rangeStart": "10.244.%d.10"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, c.Name, n, c.bridge(n), c.nodePath(n, "ipam"), n, n)
	if err := writeFile(c.nodePath(n, "cni", "10.conflist"), []byte(network)); err != nil {
		return err
	}
	// Without CAP_SYS_RESOURCE, as in many sandboxes, no OOM score can be lowered; runc would fail to start anything.
	return writeFile(c.nodePath(n, "containerd.toml"), fmt.Appendf(nil, `version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
`, c.nodePath(n, "root"), c.nodePath(n, "run"), c.socket(n), c.nodePath(n, "opt"), pause,
		cniPlugins, c.nodePath(n, "cni")))
}

func (c *cluster) configureKubelet(n int) error {
	config, err := yaml.Marshal(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": c.path("pki", "ca.crt")},
		},
		"authorization":               map[string]any{"mode": "Webhook"},
		"address":                     "0.0.0.0",
		"port":                        kubeletPort + 10*(n-1),
		"readOnlyPort":                0,
		"healthzPort":                 healthPort + 10*(n-1),
		"cgroupDriver":                "cgroupfs",
		"cgroupRoot":                  "/" + c.cgroupName(n),
		"failSwapOn":                  false,
		"failCgroupV1":                false,
		"containerRuntimeEndpoint":    "unix://" + c.socket(n),
		"enforceNodeAllocatable":      []string{},
		"evictionHard":                map[string]string{"memory.available": "100Mi"},
		"imageGCHighThresholdPercent": 100, // there is no registry to pull an image from again
		"imageGCLowThresholdPercent":  99,
		"tlsCertFile":                 c.path("pki", nodeName(n)+".crt"),
		"tlsPrivateKeyFile":           c.path("pki", nodeName(n)+".key"),
		"clusterDomain":               "cluster.local",
		"nodeStatusUpdateFrequency":   nodeStatus,
		"volumePluginDir":             c.nodePath(n, "volumeplugins"),
		"podLogsDir":                  c.nodePath(n, "logs"),
	})
	if err != nil {
		return fmt.Errorf("configuring the kubelet of %s: %w", nodeName(n), err)
	}
	return writeFile(c.nodePath(n, "kubelet.yaml"), config)
}

// copyProgram copies a program unless the copy is as long and as new.
func copyProgram(from, to string) error {
	source, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if copied, err := os.Stat(to); err == nil && copied.Size() == source.Size() &&
		!copied.ModTime().Before(source.ModTime()) {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	part := to + ".part" // a program that runs cannot be written to
	if err := os.WriteFile(part, data, 0o755); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	if err := os.Rename(part, to); err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	return nil
}
