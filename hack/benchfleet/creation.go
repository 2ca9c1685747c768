package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

const (
	controllerManager = "kube-controller-manager"
	daemonNamespace   = "daemons"
	// The account of the DaemonSet controller in a cluster, with the role that kube-apiserver creates for it. Its
	// requests are authorized, queued and audited like the manager's.
	daemonAccount = "daemon-set-controller"
	daemonUser    = "system:serviceaccount:" + metav1.NamespaceSystem + ":" + daemonAccount
	// creationLimit bounds the creation of a fleet's pods.
	creationLimit = 15 * time.Minute
)

// creation measures the time from the creation of an object until all its pods exist, run, and are reported in its
// status.
type creation struct {
	created, running, reported time.Duration
	controllerCPU, clusterCPU  time.Duration // of the controller's process, and of kube-apiserver with etcd
}

// creations are the consecutive creations of one controller.
type creations []creation

// median returns the median of each figure separately.
func (all creations) median() creation {
	medianOf := func(part func(creation) time.Duration) time.Duration {
		values := all.sorted(part)
		return values[len(values)/2]
	}
	return creation{
		created:       medianOf(untilCreated),
		running:       medianOf(func(c creation) time.Duration { return c.running }),
		reported:      medianOf(func(c creation) time.Duration { return c.reported }),
		controllerCPU: medianOf(func(c creation) time.Duration { return c.controllerCPU }),
		clusterCPU:    medianOf(func(c creation) time.Duration { return c.clusterCPU }),
	}
}

func (all creations) sorted(part func(creation) time.Duration) []time.Duration {
	values := make([]time.Duration, 0, len(all))
	for _, c := range all {
		values = append(values, part(c))
	}
	slices.Sort(values)
	return values
}

func untilCreated(c creation) time.Duration { return c.created }

// turns is the order of the operator (true) and the DaemonSet controller (false). It balances effects of time and of
// the API server's history; the operator has the first turn, when the API server is new. Each has three turns, because
// single results differ by a third when everything shares two cores.
var turns = [...]bool{true, false, true, false, false, true}

// create measures both controllers. In each turn the process has just started and created one pod. The last fleet and
// its manager stay.
func (f *fleet) create(ctx context.Context) (byOperator, daemons creations, err error) {
	compared, err := f.prepareDaemons(ctx)
	if err != nil {
		return nil, nil, err
	}
	var spec *corev1.PodSpec
	for i, operator := range turns {
		switch {
		case operator:
			if spec, err = f.startManager(ctx); err != nil {
				return nil, nil, err
			}
			c, err := f.createByOperator(ctx)
			if err != nil {
				return nil, nil, err
			}
			byOperator = append(byOperator, c)
			if i < len(turns)-1 {
				if err := f.deleteFleet(ctx); err != nil {
					return nil, nil, err
				}
			}
		case compared:
			c, err := f.createDaemons(ctx, spec)
			if err != nil {
				return nil, nil, err
			}
			daemons = append(daemons, c)
		}
	}
	return byOperator, daemons, nil
}

// prepareDaemons creates what the DaemonSet controller and its pods need. It reports whether that controller is
// available.
func (f *fleet) prepareDaemons(ctx context.Context) (bool, error) {
	if _, err := exec.LookPath(filepath.Join(f.assets, controllerManager)); err != nil {
		say("%d nodes: no DaemonSet to compare with: %v", f.nodes, err)
		return false, nil
	}
	for _, obj := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: daemonAccount}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: daemonNamespace}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: daemonNamespace, Name: "default"}},
	} {
		if err := f.client.Create(ctx, obj); err != nil {
			return false, fmt.Errorf("creating %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return true, nil
}

// createDaemons lets the DaemonSet controller create a pod of the operator's spec on each node, and cleans up. Its
// client has the same limits as the manager's.
func (f *fleet) createDaemons(ctx context.Context, spec *corev1.PodSpec) (c creation, err error) {
	kubeconfig, err := f.kubeconfig(ctx, metav1.NamespaceSystem, daemonAccount)
	if err != nil {
		return c, err
	}
	program := filepath.Join(f.assets, controllerManager)
	manager, err := f.children.Start(controllerManager,
		exec.Command(program, "--kubeconfig="+kubeconfig, "--leader-elect=false",
			"--secure-port=0", "--controllers=daemonset-controller",
			"--kube-api-qps="+strconv.Itoa(f.qps), "--kube-api-burst="+strconv.Itoa(f.burst)),
		f.path(controllerManager+".log"))
	if err != nil {
		return c, err
	}
	defer stop(manager)
	if err := f.daemons(ctx, newDaemonSet("warm", roleWarm, spec), 1, nil); err != nil {
		return c, err
	}
	say("%d nodes: the DaemonSet controller creates their pods", f.nodes)
	err = f.daemons(ctx, newDaemonSet(objectName, roleFleet, spec), f.nodes, func(daemons *appsv1.DaemonSet) (err error) {
		c, err = f.timed(ctx, manager.PID(), daemons, func(ctx context.Context) (bool, error) {
			err := f.client.Get(ctx, client.ObjectKeyFromObject(daemons), daemons)
			return int(daemons.Status.NumberReady) == f.nodes, err
		})
		return err
	})
	return c, err
}

// stop ends a process and waits until it has ended.
func stop(process *child.Child) {
	process.Stop(10 * time.Second)
	<-process.Done()
}

// daemons creates a DaemonSet, waits for its pods, and deletes it with them.
func (f *fleet) daemons(
	ctx context.Context, daemons *appsv1.DaemonSet, pods int, create func(*appsv1.DaemonSet) error,
) error {
	if create == nil {
		create = func(daemons *appsv1.DaemonSet) error {
			if err := f.client.Create(ctx, daemons); err != nil {
				return fmt.Errorf("creating DaemonSet %s: %w", daemons.Name, err)
			}
			return f.until(ctx, creationLimit, "the DaemonSet controller did not create all pods", func() (bool, error) {
				_, running, _, err := f.kubelets.pods()
				return running == pods, err
			})
		}
	}
	if err := create(daemons); err != nil {
		return err
	}
	if err := f.client.Delete(ctx, daemons, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		return fmt.Errorf("deleting DaemonSet %s: %w", daemons.Name, err)
	}
	return f.clear(ctx, daemonNamespace)
}

func newDaemonSet(name, role string, spec *corev1.PodSpec) *appsv1.DaemonSet {
	labels := map[string]string{"app.kubernetes.io/name": parserName, "app.kubernetes.io/instance": name}
	spec = spec.DeepCopy()
	spec.Affinity, spec.NodeName, spec.NodeSelector = nil, "", map[string]string{roleLabel: role}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: daemonNamespace, Name: name},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: *spec},
		},
	}
}

// createByOperator lets the operator create its pods.
func (f *fleet) createByOperator(ctx context.Context) (creation, error) {
	say("%d nodes: the operator creates their pods", f.nodes)
	obj := f.newObject(objectName, roleFleet)
	profiled := make(chan error, 1)
	go func() { profiled <- f.profile(ctx, "profile", fmt.Sprintf("?seconds=%d", 5+f.nodes/50), "creation") }()
	c, err := f.timed(ctx, f.manager.PID(), obj, func(ctx context.Context) (bool, error) {
		err := f.client.Get(ctx, client.ObjectKeyFromObject(obj), obj)
		return int(obj.Status.Ready) == f.nodes, err
	})
	return c, errors.Join(err, <-profiled)
}

// deleteFleet ends the manager, and deletes its object and pods.
func (f *fleet) deleteFleet(ctx context.Context) error {
	stop(f.manager)
	if err := f.client.DeleteAllOf(ctx, &v1alpha1.HyperliquidParser{}, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("deleting a fleet: %w", err)
	}
	return f.clear(ctx, namespace)
}

// timed creates an object and measures until its controller has created a pod for each node and reported returns true.
func (f *fleet) timed(
	ctx context.Context, controller int, obj client.Object, reported func(context.Context) (bool, error),
) (creation, error) {
	audit, err := f.auditFromNow()
	if err != nil {
		return creation{}, err
	}
	defer func() { _ = audit.Close() }() // opened for reading only
	before, err := f.cpu(controller)
	if err != nil {
		return creation{}, err
	}
	begin := time.Now()
	if err := f.client.Create(ctx, obj); err != nil {
		return creation{}, fmt.Errorf("creating %T %s: %w", obj, obj.GetName(), err)
	}
	var c creation
	if err := f.until(ctx, creationLimit, "not all pods run", func() (bool, error) {
		created, running, lastRunning, err := f.kubelets.pods()
		c.running = lastRunning.Sub(begin)
		return created == f.nodes && running == f.nodes, err
	}); err != nil {
		return creation{}, err
	}
	err = f.until(ctx, creationLimit, "the status does not report all pods", func() (bool, error) { return reported(ctx) })
	if err != nil {
		return creation{}, err
	}
	c.reported = time.Since(begin)
	lastCreated, err := lastPodCreated(audit, f.nodes)
	if err != nil {
		return creation{}, err
	}
	c.created = lastCreated.Sub(begin)
	say("%d nodes: all pods existed after %.2f s", f.nodes, c.created.Seconds())
	after, err := f.cpu(controller)
	c.controllerCPU, c.clusterCPU = after.controller-before.controller, after.cluster-before.cluster
	return c, err
}

// newObject returns the README's example object for the nodes with a role.
func (o *options) newObject(name, role string) *v1alpha1.HyperliquidParser {
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{roleLabel: role}}, DataPath: "/home/hluser/hl/data",
			}},
			Streams: []v1alpha1.Stream{{Name: "OrderStatuses"}, {Name: "Fills"}},
			Filter:  v1alpha1.Filter{Coins: []v1alpha1.Coin{"BTC", "ETH"}},
			Sink:    v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}},
			Growth: v1alpha1.Growth{
				PollInterval: &metav1.Duration{Duration: o.pollInterval}, StuckAfter: &metav1.Duration{Duration: o.stuckAfter},
			},
		},
	}
}
