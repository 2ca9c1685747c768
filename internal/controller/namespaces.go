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

// newClusters returns what the operator watches: all namespaces, by the manager's own cache, or each of some by a cache of its own.
//
// One cache over several namespaces will not do: controller-runtime waits there for any namespace to show a version as new as a write, not
// for the one that was written to, and a plan that does not see the last one's writes deletes twice.
func newClusters(mgr ctrl.Manager, namespaces []string, health *informers.Health) (map[string]cluster.Cluster, error) {
	if len(namespaces) == 0 {
		return map[string]cluster.Cluster{"": mgr}, nil
	}
	config := rest.CopyConfig(mgr.GetConfig())
	if config.RateLimiter == nil && config.QPS > 0 {
		// One for all: more namespaces are not more requests.
		config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(config.QPS, config.Burst)
	}
	out := make(map[string]cluster.Cluster, len(namespaces))
	for _, namespace := range namespaces {
		if out[namespace] != nil {
			continue
		}
		settings, err := ManagerOptions(mgr.GetScheme(), health) // for each: a client's settings hold its cache
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
			return nil, fmt.Errorf("making a client of namespace %s: %w", namespace, err)
		}
		if err := mgr.Add(c); err != nil {
			return nil, fmt.Errorf("adding the cache of namespace %s to the manager: %w", namespace, err)
		}
		out[namespace] = c
	}
	return out, nil
}

// clientOf is the client of what the operator watches.
func clientOf(mgr ctrl.Manager, clusters map[string]cluster.Cluster) client.Client {
	if clusters[""] != nil {
		return mgr.GetClient()
	}
	of := make(map[string]client.Client, len(clusters))
	for namespace, c := range clusters {
		of[namespace] = c.GetClient()
	}
	return &perNamespace{Client: mgr.GetClient(), of: of}
}

// perNamespace is a client that works in some namespaces, in each by a client of its own, and on what lies in none by the manager's.
type perNamespace struct {
	client.Client
	of map[string]client.Client
}

// client returns the one for a namespace. Others are errors: what is not watched must be neither read nor written.
func (p *perNamespace) client(namespace string) (client.Client, error) {
	if namespace == "" {
		return p.Client, nil
	}
	c, ok := p.of[namespace]
	if !ok {
		return nil, fmt.Errorf("namespace %s is not one of those that the operator watches", namespace)
	}
	return c, nil
}

// Get is a client.Client's.
func (p *perNamespace) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	c, err := p.client(key.Namespace)
	if err != nil {
		return err
	}
	return c.Get(ctx, key, obj, options...)
}

// List is a client.Client's. Without a namespace it lists those of all that are watched.
func (p *perNamespace) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	asked := (&client.ListOptions{}).ApplyOptions(options)
	if asked.Namespace == "" {
		namespaced, err := p.IsObjectNamespaced(list)
		if err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		}
		if namespaced {
			return p.listAll(ctx, list, options)
		}
	}
	c, err := p.client(asked.Namespace)
	if err != nil {
		return err
	}
	return c.List(ctx, list, options...)
}

func (p *perNamespace) listAll(ctx context.Context, list client.ObjectList, options []client.ListOption) error {
	var all []runtime.Object
	for namespace, c := range p.of {
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

// Create is a client.Client's.
func (p *perNamespace) Create(ctx context.Context, obj client.Object, options ...client.CreateOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Create(ctx, obj, options...)
}

// Update is a client.Client's.
func (p *perNamespace) Update(ctx context.Context, obj client.Object, options ...client.UpdateOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Update(ctx, obj, options...)
}

// Patch is a client.Client's.
func (p *perNamespace) Patch(ctx context.Context, obj client.Object, patch client.Patch, options ...client.PatchOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Patch(ctx, obj, patch, options...)
}

// Delete is a client.Client's.
func (p *perNamespace) Delete(ctx context.Context, obj client.Object, options ...client.DeleteOption) error {
	c, err := p.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.Delete(ctx, obj, options...)
}

// Status is a client.Client's.
func (p *perNamespace) Status() client.SubResourceWriter { return p.SubResource("status") }

// SubResource is a client.Client's.
func (p *perNamespace) SubResource(name string) client.SubResourceClient {
	return &subResources{p.Client.SubResource(name), p, name}
}

// subResources writes subresources of objects in each namespace by that one's client.
type subResources struct {
	client.SubResourceClient
	parent *perNamespace
	name   string
}

// Update is a client.SubResourceClient's.
func (s *subResources) Update(ctx context.Context, obj client.Object, options ...client.SubResourceUpdateOption) error {
	c, err := s.parent.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.SubResource(s.name).Update(ctx, obj, options...)
}

// Patch is a client.SubResourceClient's.
func (s *subResources) Patch(ctx context.Context, obj client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	c, err := s.parent.client(obj.GetNamespace())
	if err != nil {
		return err
	}
	return c.SubResource(s.name).Patch(ctx, obj, patch, options...)
}
