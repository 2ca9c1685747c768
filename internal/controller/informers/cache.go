package informers

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// resource is the resource name of HyperliquidParsers.
const resource = "hyperliquidparsers"

// NewCache returns a function that creates a cache of the objects in a namespace ("" for all) and of cluster-scoped
// objects. Its watches report to health.
func NewCache(health *Health, namespace string) cache.NewCacheFunc {
	return func(config *rest.Config, options cache.Options) (cache.Cache, error) {
		parsers, err := dynamic.NewForConfigAndClient(dynamic.ConfigFor(config), options.HTTPClient)
		if err != nil {
			return nil, fmt.Errorf("creating a client of HyperliquidParsers: %w", err)
		}
		if namespace != "" {
			options.DefaultNamespaces = map[string]cache.Config{namespace: {}}
		}
		options.NewInformer = func(
			lw toolscache.ListerWatcher, obj runtime.Object, resync time.Duration, indexers toolscache.Indexers,
		) toolscache.SharedIndexInformer {
			w := Watch{Kind: kindOf(obj, options.Scheme), Namespace: namespace}
			if _, ok := obj.(*v1alpha1.HyperliquidParser); ok {
				all := parsers.Resource(v1alpha1.GroupVersion.WithResource(resource))
				lw = lenientParsers(all)
				if namespace != "" {
					lw = lenientParsers(all.Namespace(namespace))
				}
			}
			informer := toolscache.NewSharedIndexInformer(observed(lw, w, health), obj, resync, indexers)
			// It fails only for an informer that is already running.
			_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *toolscache.Reflector, err error) {
				toolscache.DefaultWatchErrorHandler(ctx, r, err) // logs it; the reflector backs off
				health.failed(w, err)
			})
			return informer
		}
		c, err := cache.New(config, options)
		if err != nil {
			return nil, fmt.Errorf("creating the cache: %w", err)
		}
		return &reporting{c, options.Scheme, namespace, health}, nil
	}
}

func kindOf(obj runtime.Object, scheme *runtime.Scheme) string {
	gvk, err := apiutil.GVKForObject(obj, scheme)
	if err != nil {
		return fmt.Sprintf("%T", obj)
	}
	return gvk.Kind
}

// observed reports the results of lists and of opening watches to health, and retries while the API server is
// unreachable. The informer's error handler reports errors of open watches.
func observed(lw toolscache.ListerWatcher, w Watch, health *Health) *toolscache.ListWatch {
	inner := toolscache.ToListerWatcherWithContext(lw)
	retry := func(ctx context.Context, request func() error) error {
		first := true
		return RetryWhileUnreachable(ctx, func(err error) {
			health.failed(w, err)
			if first {
				klog.FromContext(ctx).Error(err, "the API server is unreachable, retrying", "watch", w.String())
			}
			first = false
		}, request)
	}
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
			err = retry(ctx, func() error {
				list, err = inner.ListWithContext(ctx, options)
				return err
			})
			health.failed(w, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (opened watch.Interface, err error) {
			err = retry(ctx, func() error {
				opened, err = inner.WatchWithContext(ctx, options)
				return err
			})
			if err != nil {
				health.failed(w, err)
				return nil, err
			}
			health.opened(w)
			return opened, nil
		},
	}
}

// reporting is a cache that reports kinds that it cannot start to watch, for example because their CRD is not
// installed.
type reporting struct {
	cache.Cache
	scheme    *runtime.Scheme
	namespace string
	health    *Health
}

// GetInformer implements cache.Cache.
func (r *reporting) GetInformer(
	ctx context.Context, obj client.Object, options ...cache.InformerGetOption,
) (cache.Informer, error) {
	informer, err := r.Cache.GetInformer(ctx, obj, options...)
	if err != nil && ctx.Err() == nil {
		r.health.failed(Watch{kindOf(obj, r.scheme), r.namespace}, err)
	}
	return informer, err
}
