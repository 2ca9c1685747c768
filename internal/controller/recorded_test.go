package controller

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/recorded"
)

// The recordings are those of a real kubelet and a real scheduler.
func TestRecordedWarningsExplainAPod(t *testing.T) {
	const nowhere = v1alpha1.HostPath("/home/hluser/nowhere/data")
	for name, test := range map[string]struct {
		dataPath v1alpha1.HostPath
		reason   string
		detail   string // words of it
	}{
		"directory-missing": {nowhere, v1alpha1.ReasonDataPathMissing, string(nowhere) + " does not exist on the node"},
		"directory-file":    {"/etc/hostname", v1alpha1.ReasonDataPathMissing, "/etc/hostname is a File on the node"},
		"data-missing": {
			"/home/hluser/missing/data", v1alpha1.ReasonDataPathMissing, "/home/hluser/missing/data does not exist on the node",
		},
		"configmap-missing": {nowhere, "FailedMount", `configmap "mainnet-config" not found`},
		"no-node":           {nowhere, "FailedScheduling", "didn't match Pod's node affinity/selector"},
		"unschedulable":     {nowhere, "FailedScheduling", "Insufficient memory"},
		"image-nowhere":     {nowhere, "ImagePullBackOff", "registry.invalid"},
		"secret-missing":    {nowhere, "CreateContainerConfigError", `secret "nats-creds" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			r := recorded.Load(t, name)
			obj := &v1alpha1.HyperliquidParser{}
			obj.Spec.Target.Nodes = &v1alpha1.NodeTarget{DataPath: test.dataPath}
			uid := r.Pod.UID
			reader := &Reconciler{APIReader: &eventReader{events: r.Events}}
			bound := map[types.UID]bool{uid: r.Pod.Spec.NodeName != ""}
			found, err := reader.readWarnings(t.Context(), r.Pod.Namespace, []types.UID{uid}, bound)
			if err != nil {
				t.Fatal(err)
			}
			got := podState(obj, &observed.Fleet{Warnings: found}, r.Pod)
			if got.Reason != test.reason || !strings.Contains(got.Detail, test.detail) {
				t.Errorf("got %q, %q, want %q, …%q…; events %+v", got.Reason, got.Detail, test.reason, test.detail, found)
			}
		})
	}
}

// The recordings are answers of a real API server.
func TestRecordedRefusals(t *testing.T) {
	type kind struct{ stalls, conflict, terminating bool }
	want := map[string]kind{
		"already-exists":        {},
		"invalid":               {stalls: true},
		"namespace-terminating": {stalls: true, terminating: true},
		"not-found":             {conflict: true},
		"pod-security":          {stalls: true},
		"policy-refuses-delete": {stalls: true},
		"quota-exceeded":        {stalls: true},
		"role-forbids":          {stalls: true},
		"uid-conflict":          {conflict: true},
		"unauthorized":          {},
	}
	for _, name := range recorded.Names(t) {
		r := recorded.Load(t, name)
		if r.Refusal == nil {
			continue
		}
		expected, ok := want[name]
		if !ok {
			t.Errorf("%s: the test does not know this recording", name)
		}
		delete(want, name)
		err := fmt.Errorf("creating it: %w", r.Err())
		got := kind{stalls: stalls(err), conflict: isConflict(err), terminating: terminating(r.Err())}
		if got != expected {
			t.Errorf("%s: got %+v, want %+v: %v", name, got, expected, err)
		}
	}
	for name := range want {
		t.Errorf("%s: there is no such recording", name)
	}
}
