package health_test

import (
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/recorded"
)

// The recordings are those of a real kubelet and a real scheduler. Words of the detail are enough: the rest is quoted.
func TestRecordedPods(t *testing.T) {
	for name, want := range map[string]struct {
		reason              string
		detail              []string
		starting, unstarted bool
	}{
		"oom-killed":        {reason: "OOMKilled", detail: []string{"OOMKilled (limit 96Mi)"}},
		"crash":             {reason: "CrashLoopBackOff", detail: []string{"exit 2", "nonsense"}},
		"aborted":           {reason: "CrashLoopBackOff", detail: []string{"exit 2", "SIGABRT"}},
		"start-error":       {reason: "CrashLoopBackOff", detail: []string{"StartError (exit 128)", `exec: "/nothing"`}},
		// A parser that drains in time is evicted as if it had ended by itself. Its event says why.
		"evicted":           {reason: "Succeeded", detail: []string{"Succeeded"}},
		"secret-missing":    {reason: "CreateContainerConfigError", detail: []string{`secret "nats-creds" not found`}, unstarted: true},
		"image-never":       {reason: "ErrImageNeverPull", detail: []string{"not present with pull policy of Never"}, unstarted: true},
		"image-invalid":     {reason: "InvalidImageName", detail: []string{"Not-A-Name:v9"}, unstarted: true},
		"image-nowhere":     {reason: "ImagePullBackOff", detail: []string{"registry.invalid/hlparser:v9"}, unstarted: true},
		"configmap-missing": {reason: "ContainerCreating", starting: true, unstarted: true},
		"no-node": {
			reason: "Unschedulable", detail: []string{"didn't match Pod's node affinity"}, starting: true, unstarted: true,
		},
		"unschedulable": {
			reason: "Unschedulable", detail: []string{"Insufficient memory"}, starting: true, unstarted: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := health.StateOf(recorded.Load(t, name).Pod)
			if got.Reason != want.reason || got.Starting != want.starting || got.Unstarted != want.unstarted {
				t.Errorf("got %+v, want %+v", got, want)
			}
			for _, words := range want.detail {
				if !strings.Contains(got.Detail, words) {
					t.Errorf("the detail lacks %q: %q", words, got.Detail)
				}
			}
		})
	}
}
