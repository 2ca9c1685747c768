package main

import (
	"strings"
	"testing"
)

func TestWhichClusterIsTested(t *testing.T) {
	able := machine{linux: true, root: true, docker: true, kind: true, kubeconfig: "/home/me/.kube/config"}
	with := func(change func(*machine)) machine {
		m := able
		change(&m)
		return m
	}
	for name, c := range map[string]struct {
		on    machine
		want  kind
		words string // of the error
	}{
		"processes run all specs":    {able, processes, ""},
		"an ordinary user with kind": {with(func(m *machine) { m.root = false }), inDocker, ""},
		"no containerd":              {with(func(m *machine) { m.missing = []string{"containerd"} }), inDocker, ""},
		"another system":             {with(func(m *machine) { m.linux = false }), inDocker, ""},
		"an existing one if asked":   {with(func(m *machine) { m.existing = true }), existing, ""},
		"asked for, and not named": {
			with(func(m *machine) { m.existing, m.kubeconfig = true, "" }), "", "needs KUBECONFIG",
		},
		"Docker is stopped": {
			with(func(m *machine) { m.root, m.docker = false, false }), "", "needs root; kind needs Docker",
		},
		"kind is not installed": {
			with(func(m *machine) { m.linux, m.kind = false, false }), "", "needs Linux; kind is not",
		},
		"neither packages nor Docker": {
			machine{linux: true, root: true, missing: []string{"runc", "nft"}}, "", "needs runc, nft",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := choose(c.on)
			if got != c.want || (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
