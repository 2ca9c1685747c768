package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// removeLimit is how long removing one container may take.
const removeLimit = 20 * time.Second

// down stops every process and removes all that the cluster has made. It goes on after an error, and returns all of
// them.
func (c *cluster) down(ctx context.Context) error {
	var errs []error
	check := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, name := range []string{proxy, scheduler, controllerManager} {
		check(c.stop(ctx, name, syscall.SIGTERM))
	}
	// Kubelets before containers: they would start them again.
	for n := 1; n <= c.Nodes; n++ {
		check(c.resume(ctx, kubeletOf(n)))
		check(c.stop(ctx, kubeletOf(n), syscall.SIGKILL))
	}
	for n := 1; n <= c.Nodes; n++ {
		check(c.resume(ctx, containerdOf(n)))
		check(c.removeContainers(ctx, n))
		check(c.stop(ctx, containerdOf(n), syscall.SIGTERM))
		check(c.killCgroup(ctx, n)) // what a containerd that was killed left
		check(c.stop(ctx, namespaceOf(n), syscall.SIGKILL))
	}
	for _, name := range []string{apiserver, etcd} {
		check(c.resume(ctx, name))
		check(c.stop(ctx, name, syscall.SIGKILL))
	}
	check(c.unmount())
	for n := 1; n <= c.Nodes; n++ {
		check(c.removeCgroup(n))
		check(c.removeBridge(ctx, n))
	}
	check(c.removeNetworks(ctx))
	if len(errs) == 0 { // otherwise what says what is left is kept
		check(os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// resume resumes a process that may be suspended: it would not see a signal.
func (c *cluster) resume(ctx context.Context, name string) error {
	return c.stop(ctx, name, syscall.SIGCONT)
}

// removeContainers removes a node's tasks and containers, if its containerd runs.
func (c *cluster) removeContainers(ctx context.Context, n int) error {
	if _, running, err := c.running(containerdOf(n)); err != nil || !running {
		return err
	}
	ctr := []string{"ctr", "--address", c.socket(n), "--namespace", "k8s.io"}
	each := func(list, remove []string) error {
		out, err := runTool(ctx, slices.Concat(ctr, list)...)
		if err != nil {
			return err
		}
		var errs []error
		for id := range strings.FieldsSeq(string(out)) {
			limited, cancel := context.WithTimeout(ctx, removeLimit)
			if _, err := runTool(limited, slices.Concat(ctr, remove, []string{id})...); err != nil {
				errs = append(errs, err)
			}
			cancel()
		}
		// One may end and be removed between the two calls, which is no error.
		left, err := runTool(ctx, slices.Concat(ctr, list)...)
		if err == nil && len(strings.Fields(string(left))) == 0 {
			return nil
		}
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(
		each([]string{"task", "ls", "-q"}, []string{"task", "rm", "-f"}),
		each([]string{"container", "ls", "-q"}, []string{"container", "rm"}),
	)
}

// killCgroup kills what still runs in a node's cgroup.
func (c *cluster) killCgroup(ctx context.Context, n int) error {
	dirs, err := c.cgroupDirs(n)
	if err != nil {
		return err
	}
	empty := eventually(ctx, stopLimit, func() bool {
		left := false
		for _, dir := range dirs {
			for _, cgroup := range below(dir) {
				procs, _ := os.ReadFile(filepath.Join(cgroup, "cgroup.procs")) // a cgroup may go at any time
				for pid := range strings.FieldsSeq(string(procs)) {
					left = true
					kill(pid)
				}
			}
		}
		return !left
	})
	if !empty {
		return fmt.Errorf("killing the containers of %s: some do not end", nodeName(n))
	}
	return nil
}

func kill(pid string) {
	var n int
	if _, err := fmt.Sscanf(pid, "%d", &n); err == nil && n > 1 {
		_ = syscall.Kill(n, syscall.SIGKILL)
	}
}

// below returns a directory and all directories below it, those above first.
func below(dir string) []string {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// removeCgroup removes a node's cgroup, which must be empty.
func (c *cluster) removeCgroup(n int) error {
	dirs, err := c.cgroupDirs(n)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		for _, path := range slices.Backward(below(dir)) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// natRules returns the rules of the cluster's networks in what iptables prints of a table, and the chains that they
// jump to. CNI's plugins write the name of a network into the comment of each of its rules.
func (c *cluster) natRules(table []byte) (rules, chains []string) {
	ours := regexp.MustCompile(`^-A (.* --comment "name: \\"` + regexp.QuoteMeta(c.Name) + `-n[0-9]\\" .*)$`)
	jump := regexp.MustCompile(` -j (CNI-[0-9a-f]+)$`)
	for line := range bytes.Lines(table) {
		rule := ours.FindSubmatch(bytes.TrimSpace(line))
		if rule == nil {
			continue
		}
		rules = append(rules, string(rule[1]))
		if chain := jump.FindSubmatch(rule[1]); chain != nil {
			chains = append(chains, string(chain[1]))
		}
	}
	slices.Sort(chains)
	return rules, slices.Compact(chains)
}

// unmount detaches all that is mounted below the cluster's directory in this mount namespace.
func (c *cluster) unmount() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return fmt.Errorf("listing mounts: %w", err)
	}
	var mounted []string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], c.dir+"/") {
			mounted = append(mounted, fields[1])
		}
	}
	var errs []error
	for _, path := range slices.Backward(mounted) {
		if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// removeBridge removes a node's bridge and what pods are attached to it by. A socket that a killed process left may keep
// the other end alive for minutes.
func (c *cluster) removeBridge(ctx context.Context, n int) error {
	if _, err := net.InterfaceByName(c.bridge(n)); err != nil {
		return nil //nolint:nilerr // there is none
	}
	out, err := runTool(ctx, "ip", "-json", "link", "show", "master", c.bridge(n))
	if err != nil {
		return err
	}
	var ports []struct {
		Name string `json:"ifname"`
	}
	if len(bytes.TrimSpace(out)) > 0 {
		if err := json.Unmarshal(out, &ports); err != nil {
			return fmt.Errorf("listing the ports of %s: %w", c.bridge(n), err)
		}
	}
	var errs []error
	for _, port := range ports {
		// It may have gone with its pod meanwhile. Some versions of ip print an object without a name for other interfaces.
		if _, err := net.InterfaceByName(port.Name); err == nil {
			_, err := runTool(ctx, "ip", "link", "del", port.Name)
			errs = append(errs, err)
		}
	}
	_, err = runTool(ctx, "ip", "link", "del", c.bridge(n))
	return errors.Join(append(errs, err)...)
}

// removeNetworks removes what CNI left of pods that were killed rather than deleted, and what kube-proxy made.
func (c *cluster) removeNetworks(ctx context.Context) error {
	var errs []error
	table, err := runTool(ctx, "iptables", "-t", "nat", "-S")
	if err != nil {
		return err
	}
	rules, chains := c.natRules(table)
	for _, rule := range rules {
		// iptables prints words as a shell would need them.
		_, err := runTool(ctx, "sh", "-c", "iptables -t nat -D "+rule)
		errs = append(errs, err)
	}
	for _, chain := range chains {
		_, err := runTool(ctx, "iptables", "-t", "nat", "-F", chain)
		errs = append(errs, err)
		if err == nil {
			_, err = runTool(ctx, "iptables", "-t", "nat", "-X", chain)
			errs = append(errs, err)
		}
	}
	for _, family := range []string{"ip", "ip6"} {
		// There is none where kube-proxy never ran.
		if _, err := runTool(ctx, "nft", "list", "table", family, proxy); err == nil {
			_, err = runTool(ctx, "nft", "delete", "table", family, proxy)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
