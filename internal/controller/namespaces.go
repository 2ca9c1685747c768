package controller

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
)

// newClusters returns the clusters that the operator watches, by namespace: the manager for all namespaces (""), or one
// with its own cache for each of the given namespaces.
//
// One cache of several namespaces is not enough. After a write, controller-runtime waits until any of them shows a
// version as new, not the one that was written to, and a plan without the last writes would delete twice.
func newClusters(
	mgr ctrl.Manager, namespaces []string, health *informers.Health,
) (map[string]cluster.Cluster, error) {
	if len(namespaces) == 0 {
		return map[string]cluster.Cluster{"": mgr}, nil
	}
	config := rest.CopyConfig(mgr.GetConfig())
	if config.RateLimiter == nil && config.QPS > 0 {
		// Shared, so that more namespaces do not raise the rate.
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)
	}
	out := make(map[string]cluster.Cluster, len(namespaces))
	for _, namespace := range namespaces {
		if out[namespace] != nil {
			continue
		}
		settings, err := ManagerOptions(mgr.GetScheme(), health) // one for each: they hold the client's cache
		if err != nil {
			return nil, err
		}
		c, err := cluster.New(config, func(o *cluster.Options) {
			o.Scheme, o.HTTPClient = mgr.GetScheme(), mgr.GetHTTPClient()
			o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mgr.GetRESTMapper(), nil }
			o.Cache, o.Client = settings.Cache, settings.Client
			o.NewCache = informers.NewCache(health, namespace)
		})
		if err != nil {
			return nil, fmt.Errorf("creating a client of namespace %s: %w", namespace, err)
		}
		if err := mgr.Add(c); err != nil {
			return nil, fmt.Errorf("adding the cache of namespace %s to the manager: %w", namespace, err)
		}
		out[namespace] = c
	}
	return out, nil
}

// clientOf returns the client of the watched clusters.
func clientOf(mgr ctrl.Manager, clusters map[string]cluster.Cluster) client.Client {
	if clusters[""] != nil {
		return mgr.GetClient()
	}
	clients := make(map[string]client.Client, len(clusters))
	for namespace, c := range clusters {
		clients[namespace] = c.GetClient()
	}
	return &perNamespace{Client: mgr.GetClient(), clients: clients}
}

// perNamespace is a client with its own client for each watched namespace. The embedded client is for cluster-scoped
// objects.
type perNamespace struct {
	client.Client
	clients map[string]client.Client
}

// client returns the client of a namespace. It fails for a namespace that is not watched, which must not be read or
// written.
func (p *perNamespace) client(namespace string) (client.Client, error) {
	if namespace == "" {
		return p.Client, nil
	}
	c, ok := p.clients[namespace]
	if !ok {
		return nil, fmt.Errorf("namespace %s is not watched by the operator", namespace)
	}
	return c, nil
}

// Get implements client.Client.
func (p *perNamespace) Get(
	ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption,
) error {
	c, err := p.client(key.Namespace)
	if err != nil {
		return err
	}
	return c.Get(ctx, key, obj, options...)
}

// List implements client.Client. Without a namespace it lists all watched namespaces.
func (p *perNamespace) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	namespace := (&client.ListOptions{}).ApplyOptions(options).Namespace
	if namespace == "" {
		namespaced, err := p.IsObjectNamespaced(list)
		if err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		}
		if namespaced {
			return p.listAll(ctx, list, options)
		}
	}
	c, err := p.client(namespace)
	if err != nil {
		return err
	}
	return c.List(ctx, list, options...)
}

func (p *perNamespace) listAll(ctx context.Context, list client.ObjectList, options []client.ListOption) error {
	var all []runtime.Object
	for namespace, c := range p.clients {
		part, _ := list.DeepCopyObject().(client.ObjectList)
		if err := c.List(ctx, part, append(slices.Clip(options), client.InNamespace(namespace))...); err != nil {
			return err
		}
		items, err := meta.ExtractList(part)
		if err != nil {
			return fmt.Errorf("listing %T in namespace %s: %w", list, namespace, err)
		}
		all = append(all, items...)
	}
	return meta.SetList(list, all)
}

// Create implements client.Client.
func (p *perNamespace) Create(ctx context.Context, obj client.Object, options ...client.CreateOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Create(ctx, obj, options...)
}

// Update implements client.Client.
func (p *perNamespace) Update(ctx context.Context, obj client.Object, options ...client.UpdateOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Update(ctx, obj, options...)
}

// Patch implements client.Client.
func (p *perNamespace) Patch(
	ctx context.Context, obj client.Object, patch client.Patch, options ...client.PatchOption,
) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Patch(ctx, obj, patch, options...)
}

// Delete implements client.Client.
func (p *perNamespace) Delete(ctx context.Context, obj client.Object, options ...client.DeleteOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Delete(ctx, obj, options...)
}

// Status implements client.Client.
func (p *perNamespace) Status() client.SubResourceWriter { return p.SubResource("status") }

// SubResource implements client.Client.
func (p *perNamespace) SubResource(name string) client.SubResourceClient {
	return &subResources{p.Client.SubResource(name), p, name}
}

// subResources writes subresources of objects with the client of their namespace.
type subResources struct {
	client.SubResourceClient
	parent *perNamespace
	name   string
}

// Update implements client.SubResourceClient.
func (s *subResources) Update(ctx context.Context, obj client.Object, options ...client.SubResourceUpdateOption) error {
	c, err := s.parent.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.SubResource(s.name).Update(ctx, obj, options...)
}

// Patch implements client.SubResourceClient.
func (s *subResources) Patch(
	ctx context.Context, obj client.Object, patch client.Patch, options ...client.SubResourcePatchOption,
) error {
	c, err := s.parent.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.SubResource(s.name).Patch(ctx, obj, patch, options...)
}
