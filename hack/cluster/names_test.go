package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestClustersShareNoNames has two clusters of one machine: neither finds the other's bridges, cgroups or rules.
func TestClustersShareNoNames(t *testing.T) {
	one, other := testCluster(t), testCluster(t)
	other.Name, other.cgroups = "hlp-b", one.cgroups
	for _, hierarchy := range []string{"memory", "pids"} {
		if err := os.Mkdir(filepath.Join(one.cgroups, hierarchy), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n <= maxNodes; n++ {
		for m := 1; m <= maxNodes; m++ {
			if one.bridge(n) == other.bridge(m) || one.cgroupName(n) == other.cgroupName(m) {
				t.Errorf("node %d of one is node %d of the other", n, m)
			}
		}
	}
	for _, c := range []*cluster{one, other} {
		if err := c.makeCgroup(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := one.removeCgroup(1); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(one.cgroups, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	wanted := []string{
		filepath.Join(one.cgroups, "memory", "hlp-b-n1"), filepath.Join(one.cgroups, "pids", "hlp-b-n1"),
	}
	if !slices.Equal(left, wanted) {
		t.Errorf("left are %q, not %q", left, wanted)
	}
}

// TestOnlyOurRulesAreRemoved reads what iptables prints on a machine with two clusters and podman.
func TestOnlyOurRulesAreRemoved(t *testing.T) {
	const table = `-P POSTROUTING ACCEPT
-N CNI-aaaa01
-N CNI-bbbb02
-N CNI-cccc03
-A POSTROUTING -s 10.244.1.10/32 -m comment --comment "name: \"hlp-n1\" id: \"x\"" -j CNI-aaaa01
-A POSTROUTING -s 10.244.1.10/32 -m comment --comment "name: \"hlp-b-n1\" id: \"y\"" -j CNI-bbbb02
-A POSTROUTING -s 10.88.0.2/32 -m comment --comment "name: \"podman\" id: \"z\"" -j CNI-cccc03
-A CNI-aaaa01 -d 10.244.1.0/24 -m comment --comment "name: \"hlp-n1\" id: \"x\"" -j ACCEPT
-A CNI-aaaa01 ! -d 224.0.0.0/4 -m comment --comment "name: \"hlp-n1\" id: \"x\"" -j MASQUERADE
`
	rules, chains := testCluster(t).natRules([]byte(table))
	if len(rules) != 3 || !slices.Equal(chains, []string{"CNI-aaaa01"}) {
		t.Errorf("rules %q, chains %q", rules, chains)
	}
	for _, rule := range rules {
		if !strings.Contains(rule, `\"hlp-n1\"`) {
			t.Errorf("a stranger's rule is removed: %s", rule)
		}
	}
}

// cgroup2 makes a directory that a kernel's cgroup would be, with the controllers that it has.
func cgroup2(t *testing.T, dir, controllers string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(controllers), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCgroupsOfVersion2(t *testing.T) {
	c := testCluster(t)
	node := filepath.Join(c.cgroups, "hlp-n1")
	cgroup2(t, c.cgroups, "cpuset cpu io memory hugetlb pids rdma\n")
	cgroup2(t, node, "cpuset cpu memory pids\n") // as the kernel does, which a directory of a test does not
	if err := c.makeCgroup(1); err != nil {
		t.Fatal(err)
	}
	for dir, wanted := range map[string]string{
		c.cgroups: "+cpu +cpuset +memory +pids +hugetlb", node: "+cpu +cpuset +memory +pids",
	} {
		got, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil || string(got) != wanted {
			t.Errorf("%s delegates %q, not %q: %v", dir, got, wanted, err)
		}
	}
}

func TestACgroupWithoutAControllerSaysWhich(t *testing.T) {
	c := testCluster(t)
	cgroup2(t, c.cgroups, "cpu io memory pids\n")
	if err := c.makeCgroup(1); err == nil || !strings.Contains(err.Error(), "no controller cpuset") {
		t.Errorf("got %v", err)
	}
}
