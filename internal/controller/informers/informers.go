// Package informers fills the operator's caches. It adds three features to controller-runtime's caches.
//
// A HyperliquidParser that the API server accepts but the Go type cannot hold does not stop the others. The cache holds
// only its metadata, and the reason (Undecodable). Otherwise one such object would end each list and watch of its kind,
// and the operator would observe no other object. Only this kind needs it: the API server decodes its built-in kinds
// into the same Go types.
//
// Health tracks which watches fail, and for how long, for readiness, a metric and so an alert.
//
// Requests to an unreachable API server are retried every few seconds (RetryWhileUnreachable). With the backoff of
// client-go, changes would not be observed for up to a minute after a long outage.
//
// The package must never decide what happens to an object, and never drop one that can be decoded.
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

// annotationUndecodable has the reason why an object cannot be decoded. It exists only in the cache. The same
// annotation set by a user does not get into the cache.
const annotationUndecodable = v1alpha1.Group + "/undecodable"

// maxReason bounds the reason, in bytes, because it may quote the invalid value.
const maxReason = 512

// Undecodable reports whether an object of the cache could not be decoded, and why. Such an object has only its
// metadata.
func Undecodable(obj client.Object) (reason string, ok bool) {
	reason, ok = obj.GetAnnotations()[annotationUndecodable]
	return reason, ok
}

// lenientParsers lists and watches HyperliquidParsers, and decodes each by itself.
func lenientParsers(resource dynamic.ResourceInterface) *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := resource.List(ctx, options)
			if err != nil {
				return nil, err
			}
			out := &v1alpha1.HyperliquidParserList{
				ListMeta: metav1.ListMeta{
					ResourceVersion: list.GetResourceVersion(), Continue: list.GetContinue(),
					RemainingItemCount: list.GetRemainingItemCount(),
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

// decode returns the decoded object, or its metadata with the reason why it cannot be decoded.
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

// describe returns a kind with its namespace, if it has one.
func describe(kind, namespace string) string {
	if namespace == "" {
		return kind
	}
	return fmt.Sprintf("%s of namespace %s", kind, namespace)
}
