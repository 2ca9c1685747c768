package controller

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// leave sets the owners of an object that is left behind.
var leave = map[string]func(client.Object){
	"without owners, as orphaning leaves it": func(o client.Object) { o.SetOwnerReferences(nil) },
	"with an owner that is no more, as where the garbage collector is slow": func(o client.Object) {
		changeOwners(o, func(r *metav1.OwnerReference) { r.UID = "before-" + r.UID })
	},
	"with owners that control nothing, as a backup tool restores it": func(o client.Object) {
		changeOwners(o, func(r *metav1.OwnerReference) { r.Controller, r.UID = nil, "before-"+r.UID })
	},
	"with an owner whose controller flag is false": func(o client.Object) {
		changeOwners(o, func(r *metav1.OwnerReference) { r.Controller = ptr.To(false) })
	},
}

func changeOwners(o client.Object, change func(*metav1.OwnerReference)) {
	owners := slices.Clone(o.GetOwnerReferences())
	for i := range owners {
		change(&owners[i])
	}
	o.SetOwnerReferences(owners)
}

// Whatever a deleted object left behind belongs to its successor: its pods are not ended, no message asks to delete
// anything, and what is no longer wanted is deleted as usual.
func TestWhatAnObjectLeftBehindIsTakenUpAlike(t *testing.T) {
	for name, left := range leave {
		t.Run(name, func(t *testing.T) {
			const nodes = 4
			s := serve(t, nodes)
			minutePasses(s)
			obj := s.object()
			// A record of restarts, and a revision of before with its config.
			text, err := plan.Record{UID: "gone", Times: []time.Time{s.clock.Now()}}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			s.mustCreate(&corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{
					Namespace:       "ns",
					Name:            ledgerName(obj),
					OwnerReferences: []metav1.OwnerReference{parserOwner(obj)},
					Labels: map[string]string{
						v1alpha1.LabelParser:    "mainnet",
						v1alpha1.LabelComponent: v1alpha1.ComponentRestarts,
					},
				},
				Data: map[string]string{nodeName(0): text, totalKey: "7"},
			})
			before := s.history("Raw")
			passed := map[types.UID]bool{}
			for _, pod := range s.pods() {
				passed[pod.UID] = true
			}
			all := s.children()

			if err := s.api.Delete(t.Context(), obj); err != nil {
				t.Fatal(err)
			}
			for _, o := range all {
				left(o)
				if err := s.api.Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			// One node takes no pods now, and one is not selected any more.
			changes(s, s.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = true })
			changes(s, s.node(2), func(n *corev1.Node) { n.Labels = nil })
			s.mustCreate(s.fresh())
			s.sent()
			s.passes(time.Minute)

			again := s.object()
			for _, o := range s.children() {
				config := o.GetLabels()[v1alpha1.LabelComponent] == v1alpha1.ComponentConfig
				if !config && !metav1.IsControlledBy(o, again) {
					t.Errorf("%T %s is %+v's", o, o.GetName(), o.GetOwnerReferences())
				}
				if owner := metav1.GetControllerOf(
					o,
				); config &&
					(owner == nil || owner.Kind != revisionKind || strings.HasPrefix(string(owner.UID), "before-")) {
					t.Errorf("config %s is %+v's", o.GetName(), o.GetOwnerReferences())
				}
			}
			names := map[string]bool{}
			for _, pod := range s.pods() {
				names[nodeOfPod(&pod)] = true
				if !passed[pod.UID] {
					t.Errorf("the pod of %s was replaced", nodeOfPod(&pod))
				}
			}
			if got := slices.Sorted(
				maps.Keys(names),
			); !slices.Equal(
				got, []string{nodeName(0), nodeName(1), nodeName(3)},
			) {
				t.Errorf("there are pods on %v", got)
			}
			for _, event := range s.sent() {
				if strings.HasPrefix(event, "Warning") {
					t.Errorf("an event: %s", event)
				}
			}
			if got := s.says(v1alpha1.ConditionStalled); got != "False/NotStalled: the operator can proceed" {
				t.Errorf("Stalled is %q", got)
			}
			var ledger corev1.ConfigMap
			if err := s.api.Get(
				t.Context(), client.ObjectKey{Namespace: "ns", Name: ledgerName(obj)}, &ledger,
			); err != nil {
				t.Fatal(err)
			}
			if ledger.Data[nodeName(0)] != text || ledger.Data[totalKey] != "" {
				t.Errorf("the record of restarts is %v", ledger.Data)
			}
			if err := s.api.Get(t.Context(), client.ObjectKeyFromObject(before), before); err != nil {
				t.Errorf("the revision of before: %v", err)
			}
			s.refusing(nil)
			s.passes(10 * time.Minute)
			if len(s.writes) > 0 {
				t.Errorf("at rest there are %v", s.writes)
			}
		})
	}
}

func parserOwner(obj *v1alpha1.HyperliquidParser) metav1.OwnerReference {
	return *metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(parserKind))
}

// history stores an earlier revision of the object, with its config.
func (s *served) history(format v1alpha1.Format) *appsv1.ControllerRevision {
	s.t.Helper()
	obj := s.object()
	obj.Spec.Format = format
	revision, err := podspec.NewRevision(obj, "image:v1", "cluster")
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := revision.Encode() // as earlier operators stored it
	if err != nil {
		s.t.Fatal(err)
	}
	object := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: revision.Name("mainnet"), OwnerReferences: []metav1.OwnerReference{parserOwner(obj)},
			Labels: map[string]string{v1alpha1.LabelParser: "mainnet", v1alpha1.LabelRevision: revision.Hash},
		},
		Data: runtime.RawExtension{Raw: data},
	}
	s.mustCreate(object)
	config := revision.ConfigMap("ns", "mainnet")
	config.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(object, appsv1.SchemeGroupVersion.WithKind(revisionKind)),
	}
	config.OwnerReferences[0].BlockOwnerDeletion = ptr.To(false)
	s.mustCreate(config)
	return object
}

// Objects of other owners, or that only resemble ours, are not touched.
func TestWhatWasNotLeftBehindIsNotTakenUp(t *testing.T) {
	obj := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet", UID: "now"}}
	of := func(kind, name string, uid types.UID) []metav1.OwnerReference {
		gv := v1alpha1.GroupVersion.String()
		if kind != parserKind {
			gv = "apps/v1"
		}
		return []metav1.OwnerReference{{APIVersion: gv, Kind: kind, Name: name, UID: uid, Controller: ptr.To(true)}}
	}
	for name, test := range map[string]struct {
		label  string
		owners []metav1.OwnerReference
		want   bool
	}{
		"without an owner":                 {"mainnet", nil, true},
		"of one of the name":               {"mainnet", of(parserKind, "mainnet", "before"), true},
		"ours":                             {"mainnet", of(parserKind, "mainnet", "now"), false},
		"of another object":                {"mainnet", of(parserKind, "testnet", "other"), false},
		"of something else of the name":    {"mainnet", of("Deployment", "mainnet", "before"), false},
		"with another's label":             {"testnet", nil, false},
		"without a label":                  {"", nil, false},
		"of the name with a foreign label": {"testnet", of(parserKind, "mainnet", "before"), false},
	} {
		m := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Labels:          map[string]string{v1alpha1.LabelParser: test.label},
				OwnerReferences: test.owners,
			},
		}
		if got := abandoned(obj, m); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: nameOfPod(
			0,
		),
		Labels:      map[string]string{v1alpha1.LabelParser: "mainnet"},
		Annotations: map[string]string{v1alpha1.AnnotationTarget: nodeName(0)},
	}, Spec: corev1.PodSpec{NodeName: nodeName(0)}}
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"a parser":                          {func(*corev1.Pod) {}, true},
		"a copy for debugging":              {func(p *corev1.Pod) { p.Name += "-debug" }, false},
		"one on another node than its name": {func(p *corev1.Pod) { p.Spec.NodeName = nodeName(1) }, false},
		"one on no node yet":                {func(p *corev1.Pod) { p.Spec.NodeName = "" }, false},
		"one of no target":                  {func(p *corev1.Pod) { p.Annotations = nil }, false},
	} {
		p := pod.DeepCopy()
		test.change(p)
		if got := abandonedPod(obj, p); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Pods of the cache are shared, so adoption works on a copy.
func TestAdoptingAPodChangesNothingOfTheCache(t *testing.T) {
	s := serve(t, 1)
	minutePasses(s)
	pod := s.podOn(0)
	pod.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "X", Name: "x", UID: "x"},
		parserOwner(s.object()),
	}
	pod.OwnerReferences[1].UID = "before"
	if err := s.api.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	cached := *pod // as a list that is not copied has it
	whole := pod.DeepCopy()
	if err := s.adoptPod(t.Context(), s.object(), pod); err != nil {
		t.Fatal(err)
	}
	if !metav1.IsControlledBy(pod, s.object()) || len(pod.OwnerReferences) != 2 {
		t.Errorf("it is %+v's", pod.OwnerReferences)
	}
	for i := range cached.OwnerReferences {
		if cached.OwnerReferences[i].UID != whole.OwnerReferences[i].UID {
			t.Error("the owners of the cache have changed")
		}
	}
	if !maps.Equal(cached.Labels, whole.Labels) {
		t.Error("the labels of the cache have changed")
	}
}

// What decodes the data of a ControllerRevision and encodes it again, as the API server does for a patch, writes the
// same bytes.
func TestStoredRevisionsAreLeftAloneByWhatEncodesThemAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		encoded, err := json.Marshal(map[string]any{
			"z": rapid.String().
				Draw(t, "text"),
			"a": rapid.SampledFrom([]string{"<&>", "\u2028", "é – 磁盘", "a/b", `"\`, "\x7f"}).Draw(t, "odd"),
			"n": 1.50,
		})
		if err != nil {
			t.Fatal(err)
		}
		data, err := wrapped(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if got := unwrapped(data); !bytes.Equal(got, encoded) {
			t.Fatalf("read %s, stored %s", got, encoded)
		}
		var tree map[string]any
		if err := json.Unmarshal(data, &tree); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(tree)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%s is written as %s", data, again)
		}
		var plainly bytes.Buffer // as encoders that escape less
		encoder := json.NewEncoder(&plainly)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(tree); err != nil || !bytes.Equal(bytes.TrimSpace(plainly.Bytes()), data) {
			t.Fatalf("%s is written as %s", data, plainly.Bytes())
		}
	})
	// Data of earlier operators is decoded as it is, whatever it contains.
	for _, old := range []string{`{"template":{},"config":"revision"}`, `{"config":"x","revision":null}`, `{"revision":7}`,
		`{`, ``} {
		if got := unwrapped([]byte(old)); string(got) != old {
			t.Errorf("%s is read as %s", old, got)
		}
	}
}

func TestARevisionThatIsStoredIsGenuine(t *testing.T) {
	s := serve(t, 1)
	minutePasses(s)
	s.history("Raw")
	var list appsv1.ControllerRevisionList
	s.list(&list)
	if len(list.Items) != 2 {
		t.Fatalf("there are %d revisions", len(list.Items))
	}
	for i := range list.Items {
		kept, err := readRevision(&list.Items[i])
		if err != nil {
			t.Fatal(err)
		}
		genuine, err := kept.Genuine("mainnet", unwrapped(kept.Object.Data.Raw))
		if err != nil || !genuine {
			t.Errorf("%s: %v, %v", kept.Object.Name, genuine, err)
		}
	}
}
