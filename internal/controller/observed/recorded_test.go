package observed

import (
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/recorded"
)

// The recordings are those of a real kubelet. A pod that is only being started is not blocked.
func TestRecordedPodsThatAreBlocked(t *testing.T) {
	for name, want := range map[string]string{
		"crash":             "CrashLoopBackOff: back-off ",
		"start-error":       "CrashLoopBackOff: back-off ",
		"secret-missing":    `CreateContainerConfigError: secret "nats-creds" not found`,
		"image-never":       "ErrImageNeverPull: ",
		"image-invalid":     "InvalidImageName: ",
		"image-nowhere":     "ImagePullBackOff: ",
		"configmap-missing": "",
		"directory-missing": "",
		"no-node":           "",
		"evicted":           "",
	} {
		t.Run(name, func(t *testing.T) {
			got := PlanPod(recorded.Load(t, name).Pod).Blocked
			if !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	if !PlanPod(recorded.Load(t, "evicted").Pod).Failed {
		t.Error("an evicted pod has not failed")
	}
}
