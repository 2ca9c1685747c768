// Package informers fills the operator's caches. It adds two things to controller-runtime's.
//
// A HyperliquidParser that the API server has and no Go type holds is set aside: the cache has its metadata alone, with the reason
// (Undecodable). Without that, one such object would end each list and watch of its kind, and the operator would see no other any more.
// Only this kind needs it: what the API server has of its own kinds it has decoded into the same Go types itself.
//
// Health knows which watches fail, and for how long: for readiness, a metric, and so an alert.
//
// An API server that is away is asked again every few seconds, and not less and less often (UntilReached). Without
// that, what is watched is not seen for up to a minute after a long outage.
//
// The package must never decide what becomes of an object, and never drop one that can be decoded.
package informers

import (
	"context"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// annotationUndecodable, in the cache and nowhere else, is on objects that are set aside, and says why. One that a user sets does not get
// there.
const annotationUndecodable = v1alpha1.Group + "/undecodable"

// maxReason bounds the reason, which may quote what cannot be decoded.
const maxReason = 512

// Undecodable reports whether an object of the cache is set aside, and why. Nothing but its metadata is known then.
func Undecodable(obj client.Object) (reason string, ok bool) {
	reason, ok = obj.GetAnnotations()[annotationUndecodable]
	return reason, ok
}

// lenientParsers lists and watches HyperliquidParsers, and decodes them one by one.
func lenientParsers(resource dynamic.ResourceInterface) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := resource.List(ctx, options)
			if err != nil {
				return nil, err
			}
			out := &v1alpha1.HyperliquidParserList{
				ListMeta: metav1.ListMeta{
					ResourceVersion: list.GetResourceVersion(), Continue: list.GetContinue(), RemainingItemCount: list.GetRemainingItemCount(),
				},
				Items: make([]v1alpha1.HyperliquidParser, len(list.Items)),
			}
			for i := range list.Items {
				out.Items[i] = *decode(&list.Items[i])
			}
			return out, nil
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch, options.AllowWatchBookmarks = true, true
			w, err := resource.Watch(ctx, options)
			if err != nil {
				return nil, err
			}
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if u, ok := e.Object.(*unstructured.Unstructured); ok && e.Type != watch.Error {
					e.Object = decode(u)
				}
				return e, true
			}), nil
		},
	}
}

// decode returns the object, or one that says why there is none.
func decode(u *unstructured.Unstructured) *v1alpha1.HyperliquidParser {
	obj := &v1alpha1.HyperliquidParser{}
	data, err := u.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(data, obj) // as the scheme's codec does
	}
	if err == nil {
		delete(obj.Annotations, annotationUndecodable)
		return obj
	}
	stub := &v1alpha1.HyperliquidParser{}
	stub.APIVersion, stub.Kind = u.GetAPIVersion(), u.GetKind()
	stub.Namespace, stub.Name, stub.UID = u.GetNamespace(), u.GetName(), u.GetUID()
	stub.ResourceVersion, stub.Generation = u.GetResourceVersion(), u.GetGeneration()
	stub.CreationTimestamp, stub.DeletionTimestamp = u.GetCreationTimestamp(), u.GetDeletionTimestamp()
	stub.Labels, stub.Annotations = u.GetLabels(), maps.Clone(u.GetAnnotations())
	if stub.Annotations == nil {
		stub.Annotations = map[string]string{}
	}
	stub.Annotations[annotationUndecodable] = prose.Line(err.Error(), maxReason)
	return stub
}

// describe names a kind, of a namespace or of all.
func describe(kind, namespace string) string {
	if namespace == "" {
		return kind
	}
	return fmt.Sprintf("%s of namespace %s", kind, namespace)
}
