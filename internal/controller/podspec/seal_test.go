package podspec_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Whether a report is sealed follows from the template that the pod was made from, never from the current spec or the
// parser.
func TestWhichPodsAreSealed(t *testing.T) {
	obj := object()
	if !podspec.Sealed(pod(obj, revision(t, obj), on("node-1"))) {
		t.Error("the pod of a new revision is not")
	}
	text, err := os.ReadFile("testdata/stored/revision.json")
	if err != nil {
		t.Fatal(err)
	}
	old, err := podspec.Decode("stored", text)
	if err != nil {
		t.Fatal(err)
	}
	if podspec.Sealed(pod(obj, old, on("node-1"))) {
		t.Error("the pod of a revision without keys is")
	}
}

// Only this pod's containers can access the private key. One of them writes it, and it survives neither pod nor node.
func TestThePrivateKeyStaysInThePod(t *testing.T) {
	spec := pod(object(), revision(t, object()), on("node-1")).Spec
	for _, v := range spec.Volumes {
		if v.Name == "seal" &&
			(v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumMemory || v.EmptyDir.SizeLimit == nil) {
			t.Errorf("it is on %+v", v.VolumeSource)
		}
	}
	for _, c := range append(spec.InitContainers, spec.Containers...) {
		for _, m := range c.VolumeMounts {
			if m.Name == "seal" && m.ReadOnly != (c.Name != "prepare") {
				t.Errorf("%s may write it: %v", c.Name, !m.ReadOnly)
			}
		}
	}
	// The path is the default one: prepare writes to the file that the kubelet reads.
	prepare := spec.InitContainers[0]
	data, err := json.Marshal(prepare.Env)
	if err != nil || prepare.TerminationMessagePath != "" ||
		!strings.Contains(string(data), corev1.TerminationMessagePathDefault) {
		t.Errorf("it leaves its words at %q, with %s", prepare.TerminationMessagePath, data)
	}
}

func TestThePublicKeyIsWhatTheKubeletSaysOfTheInitContainer(t *testing.T) {
	k, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ended := func(code int32, key *seal.Key) corev1.ContainerState {
		return corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: seal.Message(key.Public())},
		}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	none := seal.PublicKey{}
	for name, test := range map[string]struct {
		init, main []corev1.ContainerStatus
		want       seal.PublicKey
	}{
		"it has ended well": {[]corev1.ContainerStatus{{Name: "prepare", State: ended(0, k)}}, nil, k.Public()},
		"it runs once more": {
			[]corev1.ContainerStatus{{Name: "prepare", State: running, LastTerminationState: ended(0, k)}}, nil, k.Public(),
		},
		"it has ended twice": {
			[]corev1.ContainerStatus{{Name: "prepare", State: ended(0, k), LastTerminationState: ended(0, other)}}, nil,
			k.Public(),
		},
		"it runs for the first time":     {[]corev1.ContainerStatus{{Name: "prepare", State: running}}, nil, none},
		"it has failed":                  {[]corev1.ContainerStatus{{Name: "prepare", State: ended(1, k)}}, nil, none},
		"an injected one says a key":     {[]corev1.ContainerStatus{{Name: "sidecar", State: ended(0, k)}}, nil, none},
		"the parser says one as it ends": {nil, []corev1.ContainerStatus{{Name: "hlparser", State: ended(0, k)}}, none},
		"the parser has prepare's name":  {nil, []corev1.ContainerStatus{{Name: "prepare", State: ended(0, k)}}, none},
		"it says nothing, as an older image": {[]corev1.ContainerStatus{{
			Name: "prepare", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}, nil, none},
		"nothing is known": {nil, nil, none},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: test.init, ContainerStatuses: test.main}}
		if got := podspec.PublicKey(pod); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestWhenAParserStartedIsWhatTheKubeletSaysOfItsContainer(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC))
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}
	for name, test := range map[string]struct {
		containers []corev1.ContainerStatus
		want       time.Time
	}{
		"it runs":          {[]corev1.ContainerStatus{{Name: "sidecar"}, {Name: "hlparser", State: runs}}, at.Time},
		"a sidecar runs":   {[]corev1.ContainerStatus{{Name: "sidecar", State: runs}, {Name: "hlparser"}}, time.Time{}},
		"nothing runs":     {[]corev1.ContainerStatus{{Name: "hlparser"}}, time.Time{}},
		"nothing is known": {nil, time.Time{}},
		"it ran, and failed": {
			[]corev1.ContainerStatus{
				{
					Name:                 "hlparser",
					LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: at}},
				},
			},
			time.Time{},
		},
	} {
		pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: test.containers}}
		if got := podspec.Started(pod); !got.Equal(test.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
