package informers

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// object returns a HyperliquidParser with any fields, as if there were no schema.
func object(name string, spec, status map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "HyperliquidParser",
		"metadata": map[string]any{
			"namespace": "ns", "name": name, "uid": "uid-" + name, "resourceVersion": "7", "generation": int64(3),
			"labels":      map[string]any{"a": "b"},
			"annotations": map[string]any{"c": "d", annotationUndecodable: "a user's"},
		},
		"spec": spec,
	}}
	if status != nil {
		u.Object["status"] = status
	}
	return u
}

func TestWhatCannotBeDecodedKeepsItsMetadataAndSaysWhy(t *testing.T) {
	for name, u := range map[string]*unstructured.Unstructured{
		"a number that no int32 holds": object("odd",
			map[string]any{"rollout": map[string]any{"maxUnavailable": int64(3_000_000_000)}}, nil),
		"a quantity": object("odd",
			map[string]any{"resources": map[string]any{"limits": map[string]any{"cpu": "1e99999999999999999999"}}}, nil),
		"a duration":           object("odd", map[string]any{"growth": map[string]any{"lag": "1d"}}, nil),
		"a list that is a map": object("odd", map[string]any{"streams": map[string]any{}}, nil),
		"a time": object("odd", map[string]any{},
			map[string]any{"conditions": []any{map[string]any{"lastTransitionTime": "x"}}}),
		"a float": object("odd", map[string]any{"runAsUser": 9.3e18}, nil),
		"a long text": object("odd",
			map[string]any{"growth": map[string]any{"lag": strings.Repeat("x", 100_000)}}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			obj := decode(u)
			reason, ok := Undecodable(obj)
			if !ok || reason == "" || reason == "a user's" || len(reason) > maxReason+3 {
				t.Errorf("set aside %v, because of %q", ok, reason)
			}
			if obj.Name != "odd" || obj.Namespace != "ns" || obj.UID != "uid-odd" || obj.ResourceVersion != "7" ||
				obj.Generation != 3 ||
				obj.Labels["a"] != "b" || obj.Annotations["c"] != "d" {
				t.Errorf("got %+v", obj.ObjectMeta)
			}
			if len(obj.Spec.Streams) > 0 || obj.Spec.Target.Nodes != nil {
				t.Errorf("got %+v", obj.Spec)
			}
		})
	}
}

func TestAUserCannotSetAnObjectAside(t *testing.T) {
	obj := decode(object("good", map[string]any{"paused": true}, nil))
	if reason, ok := Undecodable(obj); ok || !obj.Spec.Paused || obj.Annotations["c"] != "d" {
		t.Errorf("set aside %v, because of %q: %+v", ok, reason, obj)
	}
}

// server answers lists and watches.
type server struct {
	dynamic.ResourceInterface
	list  *unstructured.UnstructuredList
	watch *watch.FakeWatcher
}

func (s server) List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	return s.list, nil
}

func (s server) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return s.watch, nil
}

func TestOneThatCannotBeDecodedHidesNoOther(t *testing.T) {
	good, odd := object("good", map[string]any{"paused": true}, nil), object("odd", map[string]any{"paused": "x"}, nil)
	s := server{list: &unstructured.UnstructuredList{Items: []unstructured.Unstructured{*odd, *good}},
		watch: watch.NewFakeWithChanSize(4, false)}
	s.list.SetResourceVersion("9")
	s.list.SetContinue("more")
	lw := lenientParsers(s)
	got, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := got.(*v1alpha1.HyperliquidParserList)
	if len(list.Items) != 2 || list.ResourceVersion != "9" || list.Continue != "more" || !list.Items[1].Spec.Paused {
		t.Errorf("got %+v", list)
	}
	if _, ok := Undecodable(&list.Items[0]); !ok {
		t.Error("the odd one is not set aside")
	}

	w, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	bookmark := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "HyperliquidParser",
		"metadata": map[string]any{"resourceVersion": "12"}, "spec": nil,
	}}
	s.watch.Modify(odd)
	s.watch.Add(good)
	s.watch.Action(watch.Bookmark, bookmark)
	s.watch.Error(&metav1.Status{Reason: metav1.StatusReasonExpired})
	for i, want := range []watch.EventType{watch.Modified, watch.Added, watch.Bookmark, watch.Error} {
		e := <-w.ResultChan()
		if e.Type != want {
			t.Fatalf("event %d is %s, want %s", i, e.Type, want)
		}
		switch obj := e.Object.(type) {
		case *v1alpha1.HyperliquidParser:
			if _, aside := Undecodable(obj); aside != (i == 0) || i == 2 && obj.ResourceVersion != "12" {
				t.Errorf("event %d has %+v", i, obj)
			}
		case runtime.Object:
			if want != watch.Error {
				t.Errorf("event %d has a %T", i, obj)
			}
		}
	}
}
