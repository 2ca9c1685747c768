package controller

import (
	"slices"
	"testing"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// archive is an object with its stored revisions, as an API server keeps them.
type archive struct {
	*testing.T
	r   *Reconciler
	obj *v1alpha1.HyperliquidParser
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	obj := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{
		Name: "mainnet", Namespace: "hl", UID: "object", Annotations: map[string]string{},
	}}
	return &archive{t, &Reconciler{Client: fake.NewClientBuilder().WithScheme(scheme).Build()}, obj}
}

// look resolves the revisions as a reconcile does, with that one asked for; it is stored when it is new.
func (a *archive) look(hash string) *revisions {
	a.Helper()
	v := &revisions{}
	var list appsv1.ControllerRevisionList
	if err := a.r.Client.List(a.Context(), &list); err != nil {
		a.Fatal(err)
	}
	for i := range list.Items {
		object := &list.Items[i]
		v.stored = append(v.stored, &observed.Revision{
			Revision: podspec.Revision{Hash: object.Labels[v1alpha1.LabelRevision]}, Object: object,
		})
	}
	slices.SortFunc(v.stored, func(a, b *observed.Revision) int { return int(b.Object.Revision - a.Object.Revision) })
	if v.update = v.find(hash); v.update == nil {
		revision := podspec.Revision{Hash: hash}
		v.update = &observed.Revision{Revision: revision, Object: &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{
				Name: revision.Name("mainnet"), Namespace: "hl", Labels: map[string]string{v1alpha1.LabelRevision: hash},
				Annotations: newAnnotations(a.obj, revision, hash),
			},
			Revision: v.newest() + 1,
		}}
		if err := a.r.Client.Create(a.Context(), v.update.Object); err != nil {
			a.Fatal(err)
		}
		v.stored = slices.Insert(v.stored, 0, v.update)
	}
	v.current = v.lastComplete(a.obj, nil)
	if err := a.r.mark(a.Context(), a.obj, v, hash); err != nil {
		a.Fatal(err)
	}
	v.rollout = readRollout(v.update, logr.Discard())
	return v
}

// complete completes a rollout.
func (a *archive) complete(v *revisions) {
	a.Helper()
	if err := a.r.writeCurrent(a.Context(), v.update); err != nil {
		a.Fatal(err)
	}
	a.obj.Status.CurrentRevision, a.obj.Status.ObservedGeneration = v.update.Name("mainnet"), 1
}

func (a *archive) promote(hash string) {
	if delete(a.obj.Annotations, v1alpha1.AnnotationPromote); hash != "" {
		a.obj.Annotations[v1alpha1.AnnotationPromote] = "mainnet-" + hash
	}
}

func (a *archive) want(v *revisions, current string, promoted bool) {
	a.Helper()
	if v.current.PlanName() != current || v.promoted(a.obj) != promoted {
		a.Errorf("current is %q, not %q, and %s is promoted: %v", v.current.PlanName(), current, v.update.Hash,
			v.promoted(a.obj))
	}
}

func TestAPromotionIsOfOneRollout(t *testing.T) {
	a := newArchive(t)
	s := a.look("one")
	a.want(s, "", false)
	a.complete(s)
	a.promote("two") // that revision was never observed: it is of a rollout before it was pruned
	a.want(a.look("one"), "one", false)
	a.want(a.look("two"), "one", false)
	a.want(a.look("two"), "one", false)
	a.promote("")
	a.want(a.look("two"), "one", false)
	a.promote("two")
	a.want(a.look("two"), "one", true)
	s = a.look("two")
	a.complete(s)
	a.want(a.look("two"), "two", true)
	// Another is on its way, and then the first again.
	a.want(a.look("three"), "two", false)
	a.complete(a.look("three"))
	a.want(a.look("two"), "three", false)
	a.want(a.look("two"), "three", false)
	// Another word means the present rollout.
	a.promote("three")
	a.want(a.look("two"), "three", false)
	a.promote("two")
	a.want(a.look("two"), "three", true)
	// By its hash alone likewise.
	a.obj.Annotations[v1alpha1.AnnotationPromote] = "two"
	a.want(a.look("two"), "three", true)
	a.want(a.look("one"), "three", false)
	a.want(a.look("two"), "three", false)
}

func TestTheCurrentRevisionIsKeptWithTheRevisions(t *testing.T) {
	a := newArchive(t)
	a.complete(a.look("one"))
	for name, wipe := range map[string]func(*v1alpha1.HyperliquidParserStatus){
		"nothing":             func(*v1alpha1.HyperliquidParserStatus) {},
		"all":                 func(s *v1alpha1.HyperliquidParserStatus) { *s = v1alpha1.HyperliquidParserStatus{} },
		"the revision":        func(s *v1alpha1.HyperliquidParserStatus) { s.CurrentRevision = "" },
		"for another":         func(s *v1alpha1.HyperliquidParserStatus) { s.CurrentRevision = "mainnet-two" },
		"for one that is not": func(s *v1alpha1.HyperliquidParserStatus) { s.CurrentRevision = "mainnet-none" },
	} {
		t.Run(name, func(t *testing.T) {
			before := a.obj.Status
			wipe(&a.obj.Status)
			if s := a.look("two"); s.current.PlanName() != "one" {
				t.Errorf("current is %q", s.current.PlanName())
			}
			a.obj.Status = before
		})
	}
	// It moves with the end of a rollout, also when the operator ends before the older one has lost its mark.
	s := a.look("two")
	a.complete(s)
	a.obj.Status = v1alpha1.HyperliquidParserStatus{}
	a.want(a.look("two"), "two", false)
	marked := 0
	for _, r := range a.look("two").stored {
		if r.Object.Annotations[v1alpha1.AnnotationCurrent] != "" {
			marked++
		}
	}
	if marked != 1 {
		t.Errorf("%d revisions are the fleet's", marked)
	}

	// An earlier operator has marked none: the status names it, or else the pods.
	a = newArchive(t)
	a.look("one")
	a.obj.Status.CurrentRevision, a.obj.Status.ObservedGeneration = "mainnet-one", 7
	a.want(a.look("two"), "one", false)
	a.obj.Status = v1alpha1.HyperliquidParserStatus{}
	a.want(a.look("two"), "one", false) // it is marked by now

	s = &revisions{stored: []*observed.Revision{{
		Revision: podspec.Revision{Hash: "x"},
		Object:   &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "mainnet-x"}},
	}}}
	pods := []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.LabelRevision: "x"}}}}
	if got := s.lastComplete(a.obj, pods).PlanName(); got != "x" {
		t.Errorf("without a status the commonest is %q", got)
	}
	a.obj.Status.ObservedGeneration = -1 // the schema's default
	if got := s.lastComplete(a.obj, pods).PlanName(); got != "x" {
		t.Errorf("before a status was written the commonest is %q", got)
	}
	a.obj.Status.ObservedGeneration = 1
	if got := s.lastComplete(a.obj, pods).PlanName(); got != "" {
		t.Errorf("before a first one was complete it is %q", got)
	}
}

func TestWhatARolloutHasTakenDownTheNextKnows(t *testing.T) {
	a := newArchive(t)
	a.complete(a.look("one"))
	s := a.look("two")
	if _, err := a.r.writeRollout(
		t.Context(), s.update, plan.Rollout{UpTo: "a", TakenDown: []string{"x"}, UnreadyBefore: []string{"y"}, Failed: "no"},
	); err != nil {
		t.Fatal(err)
	}
	s = a.look("three")
	text, err := s.rollout.Encode()
	if want := `{"down":["x"],"excused":["y"]}`; err != nil || text != want {
		t.Errorf("takes over %s, %v, want %s", text, err, want)
	}
	for _, r := range a.look("three").stored {
		if r != s.update && r.Hash != "three" && r.Object.Annotations[v1alpha1.AnnotationRollout] != "" {
			t.Errorf("%s has a rollout still", r.Hash)
		}
	}
	// The results of the present rollout are not overwritten.
	s = a.look("three")
	if _, err := a.r.writeRollout(t.Context(), s.update, plan.Rollout{UpTo: "b"}); err != nil {
		t.Fatal(err)
	}
	if s = a.look("three"); s.rollout.UpTo != "b" || len(s.rollout.TakenDown) > 0 {
		t.Errorf("%+v", s.rollout)
	}
}

func TestASpecThatIsRefusedHoldsAndWhatIsNotTrustedMakesNoPods(t *testing.T) {
	update := &observed.Revision{Revision: podspec.Revision{Hash: "x"}}
	refused := func(reason string) *problem { return &problem{Reason: reason} }
	for name, test := range map[string]struct {
		problem      *problem
		update       *observed.Revision
		shares       bool
		hold, noPods bool
	}{
		"nothing is wrong":             {nil, nil, false, false, false},
		"an image that is not allowed": {refused(v1alpha1.ReasonImageNotAllowed), nil, false, true, false},
		"a path, of a stored spec":     {refused(v1alpha1.ReasonPathNotAllowed), update, false, true, false},
		"somebody's revision":          {refused(v1alpha1.ReasonTampered), update, false, true, true},
		"a directory of others":        {refused(v1alpha1.ReasonPathNotAllowed), update, true, true, true},
		"a new spec with one":          {refused(v1alpha1.ReasonPathNotAllowed), nil, true, true, false},
	} {
		l := limits(&v1alpha1.HyperliquidParser{}, &observed.Fleet{SharesDirectory: test.shares},
			&revisions{problem: test.problem, update: test.update})
		if l.Hold != test.hold || l.NoPods != test.noPods {
			t.Errorf("%s: hold %v, no pods %v", name, l.Hold, l.NoPods)
		}
	}
}
