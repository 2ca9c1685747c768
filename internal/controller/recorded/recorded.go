// Package recorded holds what Kubernetes reports of faults, for the tests of what matches it. Specs of test/e2e record
// it on a real cluster when E2E_RECORD is 1.
package recorded

import (
	"embed"
	"encoding/json"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Recording is what Kubernetes reports of one fault.
type Recording struct {
	// Kubernetes is the version of the API server.
	Kubernetes string `json:"kubernetes"`
	// Pod has what a kubelet, a scheduler or a controller has set. Of its spec it has the node, and the names and
	// resources of containers.
	Pod *corev1.Pod `json:"pod,omitempty"`
	// Events are the pod's events of type Warning.
	Events []corev1.Event `json:"events,omitempty"`
	// Refusal is the answer to a request that the API server refuses.
	Refusal *metav1.Status `json:"refusal,omitempty"`
}

// Err returns the refusal as client-go does.
func (r *Recording) Err() error { return &apierrors.StatusError{ErrStatus: *r.Refusal} }

//go:embed testdata/*.json
var files embed.FS

// Load returns the recording of a name.
func Load(t testing.TB, name string) *Recording {
	t.Helper()
	data, err := files.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatalf("reading a recording: %v", err)
	}
	r := &Recording{}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatalf("decoding the recording %s: %v", name, err)
	}
	return r
}

// Names returns the names of all recordings.
func Names(t testing.TB) []string {
	t.Helper()
	entries, err := files.ReadDir("testdata")
	if err != nil {
		t.Fatalf("listing the recordings: %v", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), path.Ext(e.Name())))
	}
	return names
}
