package main

import (
	"errors"
	"fmt"
	"strings"
)

// kind of a cluster.
type kind string

const (
	existing  kind = "the cluster of KUBECONFIG"
	processes kind = "a cluster of processes"
	inDocker  kind = "a cluster of kind"
)

// clusterTools are the programs of Debian's packages that hack/cluster runs.
var clusterTools = []string{
	"containerd", "ctr", "runc", "iptables", "nft", "conntrack", "ip", "nsenter", "unshare",
}

// machine is what decides on the cluster.
type machine struct {
	existing   bool // E2E_EXISTING=1
	kubeconfig string
	linux      bool
	root       bool
	missing    []string // of clusterTools
	docker     bool     // its daemon answers
	kind       bool     // the program is there
}

// choose returns the cluster to test on. It never falls back from a cluster that was asked for, nor to one that the
// current kubeconfig happens to name: the suite stops nodes.
func choose(m machine) (kind, error) {
	if m.existing {
		if m.kubeconfig == "" {
			return "", errors.New("E2E_EXISTING=1 needs KUBECONFIG: the file of a cluster that serves nothing else")
		}
		return existing, nil
	}
	if m.linux && m.root && len(m.missing) == 0 {
		return processes, nil
	}
	if m.docker && m.kind {
		return inDocker, nil
	}
	var why []string
	switch {
	case !m.linux:
		why = append(why, "a cluster of processes needs Linux")
	case !m.root:
		why = append(why, "a cluster of processes needs root")
	default:
		why = append(why, "a cluster of processes needs "+strings.Join(m.missing, ", "))
	}
	switch {
	case !m.docker:
		why = append(why, "kind needs Docker, whose daemon does not answer")
	default:
		why = append(why, "kind is not installed")
	}
	return "", fmt.Errorf("finding a cluster to test on: %s; or set E2E_EXISTING=1 and KUBECONFIG",
		strings.Join(why, "; "))
}
