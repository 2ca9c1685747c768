package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
)

// What kubelets, schedulers and controllers of Kubernetes 1.28 to 1.37 say, to the letter.
const (
	noDirectory = `MountVolume.SetUp failed for volume "data" : hostPath type check failed: /home/hluser/hl/data is ` +
		`not a directory`
	noDirectory37 = `MountVolume.SetUp failed for volume "data" : hostPath type check failed, /home/hluser/hl/data is ` +
		`not a directory, ` +
		`unable to determine its type: path "/home/hluser/hl/data" does not exist`
	aFile37 = `MountVolume.SetUp failed for volume "data" : hostPath type check failed: /home/hluser/hl/data is ` +
		`not a directory, it's a File`
	otherPath = `MountVolume.SetUp failed for volume "state" : hostPath type check failed: /home/hluser/hl/data2 is ` +
		`not a directory`
	noConfig    = `MountVolume.SetUp failed for volume "config" : configmap "mainnet-7f9c2kq4mz" not found`
	cannotMake  = `MountVolume.SetUp failed for volume "state" : mkdir /var/lib/hlparser: read-only file system`
	stillMounts = `Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[], failed to ` +
		`process volumes=[]: timed out waiting for the condition`
	stillMounts3 = `Unable to attach or mount volumes: unmounted volumes=[data config], unattached volumes=[], failed ` +
		`to process volumes=[]: context deadline exceeded`
	attached = `Multi-Attach error for volume "pvc-0a7c9c1e-3d6e-4d36-9f3d-0a3d5b7c8d9e" Volume is already ` +
		`exclusively attached to one node and can't be attached to another`
	noSandbox = `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox ` +
		`"5e0f8b7c6c0e4f4a8a3f0f3b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d": plugin type="loopback" failed (add): failed ` +
		`to find plugin "loopback" in path [/opt/cni/bin]`
	noNetwork = `network is not ready: container runtime network not ready: NetworkReady=false ` +
		`reason:NetworkPluginNotReady ` +
		`message:Network plugin returns error: cni plugin not initialized`
	noRoom = `0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match Pod's node affinity/selector. ` +
		`preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful ` +
		`for scheduling.`
	noImage = `Failed to pull image "ghcr.io/hlparser/hlparser:v9": rpc error: code = NotFound desc = failed to pull ` +
		`and unpack image ` +
		`"ghcr.io/hlparser/hlparser:v9": failed to resolve reference "ghcr.io/hlparser/hlparser:v9": ` +
		`ghcr.io/hlparser/hlparser:v9: not found`
	errPull   = `Error: ErrImagePull`
	pullAgain = `Error: ImagePullBackOff`
	dns       = `Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: ` +
		`10.0.0.2 10.0.0.3 10.0.0.4`
	fileNotDir = ` is a File on the node, and must be a directory, or exclude the node in spec.target.nodes.selector`
	notThere   = `/home/hluser/hl/data does not exist on the node: create it, or exclude the node in ` +
		`spec.target.nodes.selector`
)

// happened is an event of a pod of type Warning, some seconds after noon, as the API of its source writes it.
func happened(after int, reason, message string) corev1.Event {
	at := metav1.NewTime(noon.Add(time.Duration(after) * time.Second))
	e := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         "ns",
			Name:              fmt.Sprintf("mainnet.%d", after),
			CreationTimestamp: metav1.NewTime(noon),
		},
		InvolvedObject: corev1.ObjectReference{
			Kind:      "Pod",
			Namespace: "ns",
			UID:       "starts",
		},
		Type:    corev1.EventTypeWarning,
		Reason:  reason,
		Message: message,
	}
	if reason == "FailedScheduling" { // by events.k8s.io
		e.EventTime = metav1.NewMicroTime(noon)
		e.Series = &corev1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(at.Time)}
		return e
	}
	e.FirstTimestamp, e.LastTimestamp, e.Count = metav1.NewTime(noon), at, 3
	return e
}

// eventReader is an API server with events; the fields that it was asked for are kept.
type eventReader struct {
	client.Reader
	events []corev1.Event
	fails  error
	asked  []string
}

func (r *eventReader) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	with := (&client.ListOptions{}).ApplyOptions(opts)
	r.asked = append(r.asked, with.FieldSelector.String())
	if r.fails != nil {
		return r.fails
	}
	out := list.(*corev1.EventList)
	for _, e := range r.events {
		if with.Namespace == e.Namespace && with.FieldSelector.Matches(fields.Set{
			"involvedObject.kind": e.InvolvedObject.Kind,
			"involvedObject.uid":  string(e.InvolvedObject.UID),
			"type":                e.Type,
		}) {
			out.Items = append(out.Items, e)
		}
	}
	return nil
}

func TestAPodThatDoesNotStartIsExplainedByItsEvents(t *testing.T) {
	creating := corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	normal := happened(99, "Pulling", `Pulling image "ghcr.io/hlparser/hlparser:v9"`)
	normal.Type = corev1.EventTypeNormal
	for name, test := range map[string]struct {
		events  []corev1.Event
		waiting corev1.ContainerStateWaiting
		unbound bool
		claims  bool // the data is on claims
		reason  string
		detail  string
	}{
		"without events": {waiting: creating, reason: "ContainerCreating"},
		"no directory, as kubelets said it": {events: []corev1.Event{happened(1, "FailedMount", noDirectory)},
			waiting: creating, reason: v1alpha1.ReasonDataPathMissing, detail: notThere},
		"no directory, as kubelets say it": {events: []corev1.Event{happened(1, "FailedMount", noDirectory37)},
			waiting: creating, reason: v1alpha1.ReasonDataPathMissing, detail: notThere},
		"a file in its place": {events: []corev1.Event{happened(1, "FailedMount", aFile37)},
			waiting: creating, reason: v1alpha1.ReasonDataPathMissing, detail: "/home/hluser/hl/data" + fileNotDir},
		"another path that begins alike": {events: []corev1.Event{happened(1, "FailedMount", otherPath)},
			waiting: creating, reason: "FailedMount", detail: "FailedMount: " + otherPath},
		"no directory where data is on claims": {claims: true,
			events: []corev1.Event{happened(1, "FailedMount", noDirectory)}, waiting: creating, reason: "FailedMount",
			detail: "FailedMount: " + noDirectory},
		"no config": {events: []corev1.Event{happened(1, "FailedMount", noConfig)},
			waiting: creating, reason: "FailedMount", detail: "FailedMount: " + noConfig},
		"a state directory that cannot be made": {events: []corev1.Event{happened(1, "FailedMount", cannotMake)},
			waiting: creating, reason: "FailedMount", detail: "FailedMount: " + cannotMake},
		"the newest": {events: []corev1.Event{happened(30, "FailedMount", cannotMake),
			happened(10, "FailedMount", noConfig)}, waiting: creating, reason: "FailedMount", detail: "FailedMount: " +
			cannotMake},
		"a cause before a newer one without": {events: []corev1.Event{happened(10, "FailedMount", noConfig),
			happened(130, "FailedMount", stillMounts)}, waiting: creating, reason: "FailedMount", detail: "FailedMount: " +
			noConfig},
		"the same, the other way around": {events: []corev1.Event{happened(130, "FailedMount", stillMounts3),
			happened(10, "FailedMount", noConfig)}, waiting: creating, reason: "FailedMount", detail: "FailedMount: " +
			noConfig},
		"none with a cause": {events: []corev1.Event{happened(130, "FailedMount", stillMounts)},
			waiting: creating, reason: "FailedMount", detail: "FailedMount: " + stillMounts},
		"a claim that is elsewhere": {claims: true,
			events: []corev1.Event{happened(1, "FailedAttachVolume", attached)}, waiting: creating, reason: "FailedAttachVolume",
			detail: "FailedAttachVolume: " + attached},
		"no sandbox": {events: []corev1.Event{happened(1, "FailedCreatePodSandBox", noSandbox)},
			waiting: creating, reason: "FailedCreatePodSandBox", detail: health.Detail("FailedCreatePodSandBox", noSandbox)},
		"no network": {events: []corev1.Event{happened(1, "NetworkNotReady", noNetwork)},
			waiting: creating, reason: "NetworkNotReady", detail: health.Detail("NetworkNotReady", noNetwork)},
		"a warning about something else": {events: []corev1.Event{happened(9, "DNSConfigForming", dns),
			happened(1, "FailedMount", noConfig)}, waiting: creating, reason: "FailedMount", detail: "FailedMount: " + noConfig},
		"no node": {unbound: true,
			events: []corev1.Event{happened(40, "FailedScheduling", noRoom)}, waiting: corev1.ContainerStateWaiting{},
			reason: "FailedScheduling", detail: health.Detail("FailedScheduling", noRoom)},
		"no node for a while": {events: []corev1.Event{happened(40, "FailedScheduling", noRoom),
			happened(10, "FailedMount", noConfig)}, waiting: creating, reason: "FailedMount", detail: "FailedMount: " +
			noConfig},
		"no image, where the status says it": {events: []corev1.Event{happened(1, "Failed", noImage)},
			waiting: corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "the status says so"},
			reason:  "ImagePullBackOff", detail: "ImagePullBackOff: the status says so"},
		"no image, where the status does not": {events: []corev1.Event{happened(1, "Failed", noImage),
			happened(2, "Failed", errPull), happened(9, "Failed", pullAgain), normal},
			waiting: corev1.ContainerStateWaiting{Reason: "ImagePullBackOff",
				Message: `Back-off pulling image "ghcr.io/hlparser/hlparser:v9"`}, reason: "ImagePullBackOff",
			detail: health.Detail("ImagePullBackOff", noImage)},
		"what is only being done is no warning": {events: []corev1.Event{normal}, waiting: creating,
			reason: "ContainerCreating"},
		"a reason and a message of somebody else": {events: []corev1.Event{happened(1, "no reason\n", "a\nb\x1b[2J")},
			waiting: creating, reason: "noreason", detail: "noreason: a b\ufffd[2J"},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet"}}
			obj.Spec.Target.Nodes = &v1alpha1.NodeTarget{DataPath: "/home/hluser/hl/data"}
			if test.claims {
				obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{}}
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "starts"}, Spec: corev1.PodSpec{NodeName: "node"}}
			if test.unbound {
				pod.Spec.NodeName = ""
			} else {
				pod.Status.ContainerStatuses = []corev1.ContainerStatus{
					{Name: v1alpha1.ContainerName, State: corev1.ContainerState{Waiting: &test.waiting}},
				}
			}
			others := happened(200, "FailedMount", "of another pod")
			others.InvolvedObject.UID = "other"
			r := &Reconciler{APIReader: &eventReader{events: append(test.events, others)}}
			said, err := r.readWarnings(
				t.Context(), "ns", []types.UID{pod.UID}, map[types.UID]bool{pod.UID: !test.unbound},
			)
			if err != nil {
				t.Fatal(err)
			}
			f := &observed.Fleet{Warnings: said}
			if got := podState(obj, f, pod); got.Reason != test.reason || got.Detail != test.detail {
				t.Errorf("got  %q, %q\nwant %q, %q", got.Reason, got.Detail, test.reason, test.detail)
			}
			// Once it runs, or has run, it is no more what keeps it from running.
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{
				{Name: v1alpha1.ContainerName, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			}
			if got := podState(obj, f, pod); got.Reason != "" || got.Detail != "" {
				t.Errorf("while it runs: %+v", got)
			}
		})
	}
}

// A few pods are asked for one by one, among however many events of others; many are one list.
func TestEventsOfManyPodsAreOneList(t *testing.T) {
	for pods, want := range map[int]int{1: 1, maxSingleReads: maxSingleReads, maxSingleReads + 1: 1, 5000: 1} {
		server := &eventReader{}
		var uids []types.UID
		for i := range pods {
			uids = append(uids, types.UID(fmt.Sprint(i)))
		}
		e := happened(1, "FailedMount", noConfig)
		e.InvolvedObject.UID = uids[pods-1]
		server.events = []corev1.Event{e}
		r := &Reconciler{APIReader: server}
		said, err := r.readWarnings(t.Context(), "ns", uids, nil)
		if err != nil || len(server.asked) != want || len(said) != 1 || said[e.InvolvedObject.UID].Message != noConfig {
			t.Errorf("%d pods: %d lists, %v, %v", pods, len(server.asked), said, err)
		}
	}
	r := &Reconciler{APIReader: &eventReader{fails: errors.New("no answer")}}
	if said, err := r.readWarnings(t.Context(), "ns", []types.UID{"a"}, nil); err == nil || len(said) != 0 {
		t.Errorf("without an answer: %v, %v", said, err)
	}
}

func TestWhenEventsAreRead(t *testing.T) {
	var w warnings
	now := noon
	pods := map[types.UID]time.Time{}
	look := func() (known map[types.UID]warning, long []types.UID, wait time.Duration) {
		known, long, at := w.observe(anObject, pods, now)
		if at.IsZero() {
			return known, long, -1
		}
		return known, long, at.Sub(now)
	}
	if _, _, wait := look(); wait != -1 {
		t.Errorf("without pods that start: after %s", wait)
	}
	pods["a"], pods["behind"] = noon, noon.Add(time.Hour) // the clock of the API server is ahead
	if _, long, wait := look(); wait != firstRead || len(long) != 0 {
		t.Errorf("for one that was made now: after %s, %v", wait, long)
	}
	now = now.Add(firstRead)
	if _, long, wait := look(); wait > 0 || len(long) != 2 {
		t.Errorf("for one that starts for long: after %s, %v", wait, long)
	}
	delete(pods, "behind")
	look()
	// From now on it is read again, less and less often.
	least := []time.Duration{2 * minReadInterval, 4 * minReadInterval, 8 * minReadInterval, maxReadInterval,
		maxReadInterval}
	for i, want := range least {
		w.record(anObject, now, []types.UID{"a", "gone"}, nil)
		_, long, wait := look()
		if want = min(want, maxReadInterval); wait < want || wait > want+minReadInterval/2 || len(long) != 1 {
			t.Errorf("after %d reads: in %s, at the least %s; %v", i+1, wait, want, long)
		}
		now = now.Add(wait)
	}
	// One that is new is read soon, and not for each of many.
	w.record(anObject, now, []types.UID{"a"}, map[types.UID]warning{"a": {Reason: "FailedMount", Message: noConfig}})
	pods["b"] = now.Add(-time.Hour)
	known, _, wait := look()
	if wait < minReadInterval || wait > minReadInterval*3/2 || known["a"].Message != noConfig || len(known) != 1 {
		t.Errorf("for a new one: after %s; %v", wait, known)
	}
	// A read that says nothing new, or fails, leaves what is known.
	w.record(anObject, now, []types.UID{"a", "b"}, nil)
	if known, _, _ = look(); known["a"].Message != noConfig {
		t.Errorf("after one that says nothing: %v", known)
	}
	clear(pods)
	if known, _, wait = look(); wait != -1 || len(known) != 0 || len(w.objects) != 0 {
		t.Errorf("at rest: after %s, %v, %d objects are remembered", wait, known, len(w.objects))
	}
	w.record(anObject, now, []types.UID{"a"}, nil) // an answer that comes late
	if len(w.objects) != 0 {
		t.Error("what is gone is remembered")
	}
}
