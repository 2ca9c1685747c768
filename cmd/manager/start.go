package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// The process waits for an API server that is unreachable. If it exited instead, the kubelet would back off and start
// it five minutes after an outage of one and a half.
const (
	// minBackoff and maxBackoff bound the pause between two attempts, which doubles each time. Jitter adds up to half of
	// it.
	minBackoff, maxBackoff = 250 * time.Millisecond, 3 * time.Second
	// attemptTimeout bounds an attempt, which may read a megabyte of kinds over a slow line.
	attemptTimeout = 10 * time.Second
	// dialTimeout bounds a connection attempt: packets lost in an outage are retransmitted only long after it.
	dialTimeout = 5 * time.Second
	// keepAlive is client-go's default.
	keepAlive = 30 * time.Second
)

// Times of leader election. A process that loses the lease exits. That costs a restart of seconds and the reports
// observed so far, and harms no parser.
const (
	leaseID = "hyperliquid-parser-operator.fleet.hlparser.dev"
	// renewDeadline is how long the leader continues without a renewal. It outlasts the replacement of an API server
	// behind the same address, and two requests that hang: the lock's client waits for half of it on each. No deadline
	// outlasts an upgrade of a single API server, which takes a minute or two, so a longer one would only lengthen the
	// lease.
	renewDeadline = 6 * time.Second
	// leaseDuration is how long there is no leader after the loss of a node, and after an outage in which no other manager
	// had read the lease before. It exceeds renewDeadline plus the attempt to release the lease, 3 s, by one second for
	// clocks that run at different rates: the old leader has exited before another starts.
	leaseDuration = 10 * time.Second
	// retryPeriod is how often the leader renews, with one write each. The others check after one to two periods, so one
	// of them leads within 3 s of the API server's return.
	retryPeriod = time.Second
)

// dialer returns a dial function with a timeout for connections to the API server.
func dialer() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
}

// newMapper returns a mapper of kinds whose requests to the API server take at most attemptTimeout.
func newMapper(config *rest.Config) (meta.RESTMapper, error) {
	config = rest.CopyConfig(config)
	config.Timeout = attemptTimeout
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client of the API server: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("creating a client of the API server: %w", err)
	}
	return mapper, nil
}

// providerOf returns a MapperProvider for a manager's options that returns mapper.
func providerOf(mapper meta.RESTMapper) func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil }
}

// discover reads from the API server what a manager requires: whether the kinds that it caches are namespaced, which
// the mapper remembers, and the cluster's ID, unless it is set.
func discover(
	ctx context.Context, reader client.Reader, scheme *runtime.Scheme, mapper meta.RESTMapper, kinds []client.Object,
	cluster *string,
) error {
	for _, kind := range kinds {
		if _, err := apiutil.IsObjectNamespaced(kind, scheme, mapper); err != nil {
			return fmt.Errorf("discovering the API server's kinds: %w", err)
		}
	}
	if *cluster != "" {
		return nil
	}
	// The UID of a namespace that every cluster has one of. An API server that has just started makes it within a
	// moment.
	var system corev1.Namespace
	if err := reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return fmt.Errorf("getting namespace %s, whose UID is the default of --cluster-name: %w", metav1.NamespaceSystem, err)
	}
	*cluster = string(system.UID)
	return nil
}

// Environment variables with the name and the UID of the manager's pod.
const (
	podVariable    = "POD_NAME"
	podUIDVariable = "POD_UID"
)

// newLock returns a lock on the lease whose holder is this pod. A container that restarts after a crash or an outage
// takes the lease back at once instead of waiting until it expires. This is safe because the kubelet runs one container
// at a time. The lock is nil outside a pod, where each process is its own holder.
func newLock(config *rest.Config, namespace string, scheme *runtime.Scheme) (resourcelock.Interface, error) {
	pod, uid := os.Getenv(podVariable), os.Getenv(podUIDVariable)
	if pod == "" || uid == "" {
		return nil, nil
	}
	if namespace == "" {
		return nil, errors.New("--leader-election-namespace is missing: there is no service account to take it from")
	}
	clients, err := kubernetes.NewForConfig(rest.AddUserAgent(config, "leader-election"))
	if err != nil {
		return nil, fmt.Errorf("creating a client for the lease: %w", err)
	}
	identity := pod + "_" + uid
	events := record.NewBroadcaster() // it runs until the process exits
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clients.CoreV1().Events(namespace)})
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, namespace, leaseID,
		resourcelock.ResourceLockConfig{
			Identity: identity, EventRecorder: events.NewRecorder(scheme, corev1.EventSource{Component: identity}),
		}, config, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("creating the lock on the lease: %w", err)
	}
	return lock, nil
}
