package controller

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

func TestAClientOfSomeNamespacesTouchesNoOther(t *testing.T) {
	c := &perNamespace{Client: unreachable{}, clients: map[string]client.Client{"a": unreachable{}}}
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "x"}}
	}
	for name, call := range map[string]func(namespace string) error{
		"get":    func(ns string) error { return c.Get(t.Context(), client.ObjectKeyFromObject(pod(ns)), &corev1.Pod{}) },
		"list":   func(ns string) error { return c.List(t.Context(), &corev1.PodList{}, client.InNamespace(ns)) },
		"create": func(ns string) error { return c.Create(t.Context(), pod(ns)) },
		"update": func(ns string) error { return c.Update(t.Context(), pod(ns)) },
		"patch": func(ns string) error {
			return c.Patch(t.Context(), pod(ns), client.RawPatch(types.MergePatchType, nil))
		},
		"delete": func(ns string) error { return c.Delete(t.Context(), pod(ns)) },
		"status": func(ns string) error { return c.Status().Update(t.Context(), pod(ns)) },
		"patch the status": func(ns string) error {
			return c.Status().Patch(t.Context(), pod(ns), client.RawPatch(types.MergePatchType, nil))
		},
	} {
		if err := call("b"); err == nil || !strings.Contains(err.Error(), "namespace b is not watched") {
			t.Errorf("%s in another namespace: %v", name, err)
		}
		if err := call("a"); !errors.Is(err, errUnreachable) {
			t.Errorf("%s in a namespace that is watched: %v", name, err)
		}
	}
}

var errUnreachable = errors.New("unreachable")

// unreachable is a client whose calls all fail.
type unreachable struct{ client.Client }

func (unreachable) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errUnreachable
}
func (unreachable) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errUnreachable
}
func (unreachable) Create(context.Context, client.Object, ...client.CreateOption) error {
	return errUnreachable
}
func (unreachable) Update(context.Context, client.Object, ...client.UpdateOption) error {
	return errUnreachable
}
func (unreachable) Patch(context.Context, client.Object, client.Patch, ...client.PatchOption) error {
	return errUnreachable
}
func (unreachable) Delete(context.Context, client.Object, ...client.DeleteOption) error {
	return errUnreachable
}
func (unreachable) SubResource(string) client.SubResourceClient { return unreachableStatus{} }

type unreachableStatus struct{ client.SubResourceClient }

func (unreachableStatus) Update(context.Context, client.Object, ...client.SubResourceUpdateOption) error {
	return errUnreachable
}
func (unreachableStatus) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return errUnreachable
}

// owners is an API server with one object, or an error.
type owners struct {
	client.Reader
	uid      types.UID
	deleting bool
	err      error
}

func (o owners) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if o.err != nil {
		return o.err
	}
	obj.SetUID(o.uid)
	if o.deleting {
		now := metav1.Now()
		obj.SetDeletionTimestamp(&now)
	}
	return nil
}

func TestAnOwnerIsThereWhenTheAPIServerHasItAndItIsTheSame(t *testing.T) {
	obj := &v1alpha1.HyperliquidParser{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", UID: "mine"}}
	gone := apierrors.NewNotFound(schema.GroupResource{Resource: "hyperliquidparsers"}, "b")
	for name, test := range map[string]struct {
		live   owners
		there  bool
		failed bool
	}{
		"there":           {owners{uid: "mine"}, true, false},
		"gone":            {owners{err: gone}, false, false},
		"another":         {owners{uid: "another"}, false, false},
		"being deleted":   {owners{uid: "mine", deleting: true}, false, false},
		"that is unknown": {owners{err: errUnreachable}, false, true},
	} {
		there, err := (&Reconciler{APIReader: test.live}).objectExists(t.Context(), obj)
		if there != test.there || (err != nil) != test.failed {
			t.Errorf("%s: there %v, %v", name, there, err)
		}
	}
}
