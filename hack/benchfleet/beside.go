package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// besideEach is the number of small objects in a namespace.
const besideEach = 10

// beside is how small objects, of one node each, fared during the creation of a fleet, and what all of them take at
// rest.
type beside struct {
	first []time.Duration // from an object's creation to that of its pod, sorted
	fleet time.Duration   // until all pods of the fleet existed
	rest  atRest
}

// small returns the namespace of the i-th small object, and the name of the object and of its node's role.
func small(i int) (namespace, name string) {
	return fmt.Sprintf("beside-%d", i/besideEach), fmt.Sprintf("small-%d", i)
}

// smallPod returns the name of the i-th small object's pod on a node.
func smallPod(i, node int) string {
	_, name := small(i)
	return podspec.PodName(name, target.Target{Name: nodeName(node), Node: nodeName(node)})
}

// roleOf returns the role of a node: the fleet's, the warm-up node's, or a small object's.
func (f *fleet) roleOf(node int) string {
	switch {
	case node < f.nodes:
		return roleFleet
	case node == f.nodes:
		return roleWarm
	}
	_, name := small(node - f.nodes - 1)
	return name
}

// allNodes counts the fleet's nodes, the warm-up node, and the nodes of the small objects.
func (f *fleet) allNodes() int { return f.nodes + 1 + f.small }

// beside creates the fleet once more and all small objects at the same moment, with a new manager. It then watches all
// of them at rest. It returns nil if there are no small objects.
func (f *fleet) beside(ctx context.Context) (*beside, error) {
	if f.small == 0 {
		return nil, nil
	}
	if err := f.deleteFleet(ctx); err != nil {
		return nil, err
	}
	if _, err := f.startManager(ctx); err != nil {
		return nil, err
	}
	for i := 0; i < f.small; i += besideEach {
		namespace, _ := small(i)
		for _, obj := range []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}},
		} {
			if err := f.client.Create(ctx, obj); err != nil {
				return nil, fmt.Errorf("creating %T %s: %w", obj, obj.GetName(), err)
			}
		}
	}
	audit, err := f.auditFromNow()
	if err != nil {
		return nil, err
	}
	defer func() { _ = audit.Close() }() // opened for reading only
	say("%d nodes: the operator creates their pods, and those of %d small objects", f.nodes, f.small)
	begin, began, err := f.createBeside(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.until(ctx, creationLimit, "not all pods run", func() (bool, error) {
		created, running, _, err := f.kubelets.pods()
		return created == f.nodes+f.small && running == f.nodes+f.small, err
	}); err != nil {
		return nil, err
	}
	result, err := f.firstPods(audit, begin, began)
	if err != nil {
		return nil, err
	}
	if err := f.settle(ctx); err != nil {
		return nil, err
	}
	result.rest, err = f.watchRest(ctx)
	return result, err
}

// createBeside creates the objects, the fleet's first. It returns when it began to create the fleet's object and each
// small one.
func (f *fleet) createBeside(ctx context.Context) (begin time.Time, began []time.Time, err error) {
	begin = time.Now()
	if err := f.client.Create(ctx, f.newObject(objectName, roleFleet)); err != nil {
		return begin, nil, fmt.Errorf("creating the fleet's object: %w", err)
	}
	began = make([]time.Time, f.small)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(kubeletWorkers)
	for i := range began {
		work.Go(func() error {
			namespace, name := small(i)
			obj := f.newObject(name, name)
			obj.Namespace = namespace
			began[i] = time.Now()
			if err := f.client.Create(ctx, obj); err != nil {
				return fmt.Errorf("creating small object %d: %w", i, err)
			}
			return nil
		})
	}
	return begin, began, work.Wait()
}

// firstPods reads the creation times of pods from the audit log.
func (f *fleet) firstPods(audit io.Reader, begin time.Time, began []time.Time) (*beside, error) {
	objects := make(map[string]int, f.small) // by pod name
	for i := range f.small {
		objects[smallPod(i, f.nodes+1+i)] = i
	}
	result := &beside{}
	fleet := 0
	err := readAudit(audit, func(e *audited) {
		if e.Verb != "create" || e.ObjectRef.Resource != "pods" || e.ObjectRef.Subresource != "" ||
			e.ResponseStatus.Code != http.StatusCreated {
			return
		}
		if i, ok := objects[e.ObjectRef.Name]; ok {
			result.first = append(result.first, e.At.Sub(began[i]))
			return
		}
		fleet++
		result.fleet = max(result.fleet, e.At.Sub(begin))
	})
	if err == nil && (fleet != f.nodes || len(result.first) != f.small) {
		err = fmt.Errorf("the audit log has %d and %d creations of pods, want %d and %d",
			fleet, len(result.first), f.nodes, f.small)
	}
	slices.Sort(result.first)
	return result, err
}

// besides describes the results for the small objects. It returns "" if there are none.
func (o *options) besides(all []figures) string {
	if o.small == 0 {
		return ""
	}
	t := results.Table{{
		"small objects beside", "seconds until a small one's pod exists: median", "99 %", "the last",
		"until the fleet's all do",
		"at rest: of a core", "MiB", "API writes",
	}}
	for _, f := range all {
		b := f.beside
		at := func(share int) string { return seconds(b.first[(len(b.first)-1)*share/100]) }
		t.Row(fmt.Sprintf("%s, a fleet of %s", humanize.Comma(int64(len(b.first))), humanize.Comma(int64(f.nodes))),
			at(50), at(99), at(100), seconds(b.fleet), fmt.Sprintf("%.1f %%", share(b.rest.cpu, b.rest.watched)),
			mebibytes(b.rest.resident), fmt.Sprint(len(b.rest.written)))
	}
	return fmt.Sprintf("\n### Small objects beside a fleet\n\n"+
		"The fleet's object and the small objects, of one node each and %d per namespace, are created at the same time.\n"+
		"At rest the manager serves all of them.\n\n%s", besideEach, t.String())
}
