package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// testCluster returns a cluster that has made nothing yet. Processes need no privileges.
func testCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir(), cgroups: t.TempDir(), identity: identity{Name: defaultName, Nodes: 1}}
	for _, dir := range []string{"cmd", "pid", "log"} {
		if err := os.Mkdir(c.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// begin starts a process that waits for a signal.
func begin(t *testing.T, c *cluster, name string) process {
	t.Helper()
	if err := c.define(name, "sleep", "600"); err != nil {
		t.Fatal(err)
	}
	if err := c.start(name); err != nil {
		t.Fatal(err)
	}
	p, running, err := c.running(name)
	if err != nil || !running {
		t.Fatalf("running: %t, %v", running, err)
	}
	t.Cleanup(func() { _ = syscall.Kill(p.PID, syscall.SIGKILL) })
	return p
}

func alive(p process) bool {
	ticks, err := startTicks(p.PID)
	return err == nil && ticks == p.Started
}

func TestAProcessIsStartedOnceAndAgain(t *testing.T) {
	c := testCluster(t)
	first := begin(t, c, "one")
	if second := begin(t, c, "one"); second != first {
		t.Errorf("a process that runs was started again: %v, %v", first, second)
	}
	if err := c.stop(t.Context(), "one", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if alive(first) {
		t.Error("the process outlives its stop")
	}
	if third := begin(t, c, "one"); third == first {
		t.Error("the process was not started again")
	}
}

func TestStoppingWhatDoesNotRunIsNoError(t *testing.T) {
	c := testCluster(t)
	p := begin(t, c, "one")
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.stop(t.Context(), "one", syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if err := c.stop(t.Context(), "never defined", syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

// TestASuspendedProcessIsResumed also shows that a suspension is no stop: the process keeps its identity.
func TestASuspendedProcessIsResumed(t *testing.T) {
	c := testCluster(t)
	p := begin(t, c, "one")
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := c.stop(t.Context(), "one", signal); err != nil {
			t.Fatal(err)
		}
		if now, running, err := c.running("one"); err != nil || !running || now != p {
			t.Errorf("after %v: %v, running: %t, %v", signal, now, running, err)
		}
	}
}

// TestAStrangersProcessIsLeftAlone gives the record of a process another start time, as when the kernel has reused its
// number.
func TestAStrangersProcessIsLeftAlone(t *testing.T) {
	c := testCluster(t)
	p := begin(t, c, "one")
	if err := writeJSON(c.path("pid", "one.json"), process{p.PID, p.Started - 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(t.Context(), "one", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !alive(p) {
		t.Error("a process with another start time was killed")
	}
}

func TestAnUnknownProcessIsAnErrorThatListsTheOthers(t *testing.T) {
	c := testCluster(t)
	begin(t, c, "kubelet-1")
	if err := c.start("kubelet-9"); err == nil || !strings.Contains(err.Error(), "kubelet-1") {
		t.Errorf("got %v", err)
	}
}

func TestTheDirectoryIsNotOneOfTheNodesOwn(t *testing.T) {
	for dir, ok := range map[string]bool{
		"/home/user/cluster": false, "/var/lib/x": false, "/mnt": false, "/srv/a": false, "/homes/x": true, t.TempDir(): true,
	} {
		if _, err := open(dir, identity{Name: defaultName, Nodes: 1}); (err == nil) != ok {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestWhatAClusterMayBeNamedAndHave(t *testing.T) {
	for _, nodes := range []int{0, -1, maxNodes + 1} {
		if _, err := open(t.TempDir(), identity{Name: defaultName, Nodes: nodes}); err == nil {
			t.Errorf("%d nodes are accepted", nodes)
		}
	}
	// A name that ends in a digit would share bridges with another: hlp1 and its node 1, hlp and its node 11.
	for name, ok := range map[string]bool{
		"a": true, "hlp": true, "hlp-b": true, "abcdefghijklmn": true,
		"": false, "hlp1": false, "abcdefghijklmno": false, "Hlp": false, "-a": false, "a-": false,
		"a/b": false, "a.b": false,
	} {
		if _, err := open(t.TempDir(), identity{Name: name, Nodes: 1}); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestAClusterKeepsItsIdentity(t *testing.T) {
	dir := t.TempDir()
	was := identity{Name: "other", Nodes: 3}
	if err := writeJSON(filepath.Join(dir, identityFile), was); err != nil {
		t.Fatal(err)
	}
	c, err := open(dir, identity{Name: defaultName, Nodes: 1})
	if err != nil || c.identity != was {
		t.Errorf("%+v, %v", c.identity, err)
	}
}
