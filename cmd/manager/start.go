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

// How an API server that is away is waited for. A process that ended instead would be started again less and less
// often: five minutes after an outage of one and a half.
const (
	// firstAsk and longestAsk bound the pause between two attempts, which doubles from one to the other; the jitter
	// adds up to half of it.
	firstAsk, longestAsk = 250 * time.Millisecond, 3 * time.Second
	// longestAttempt bounds an attempt, which may read a megabyte of kinds over a slow line, and dialTime a connection:
	// packets that are lost in an outage are not sent again until long after it.
	longestAttempt = 10 * time.Second
	dialTime       = 5 * time.Second
	// keepAlive is client-go's.
	keepAlive = 30 * time.Second
)

// Times of leader election. Who loses the lease ends, which costs a restart of seconds and the reports seen so far, and
// harms no parser.
const (
	leaseID = "hyperliquid-parser-operator.fleet.hlparser.dev"
	// renewDeadline is how long the leader goes on without renewing: it outlasts an API server that is replaced by
	// another behind one address, and two requests that hang, for which the lock's client waits half as long each. No
	// deadline outlasts an upgrade of a single API server, which takes a minute or two, so a longer one would only be a
	// longer lease.
	renewDeadline = 6 * time.Second
	// leaseDuration is how long nobody leads after a node is lost, and after an outage where no other manager has seen
	// the lease before. It is longer than the deadline and the attempt to give the lease up, 3 s, by a second for
	// clocks that go at different rates: the old leader has ended before another begins.
	leaseDuration = 10 * time.Second
	// retryPeriod is how often the leader renews, one write each; the others look after one to two of it. So one of
	// them leads within 3 s of the API server's return.
	retryPeriod = time.Second
)

// dialer bounds connections to the API server in time.
func dialer() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTime, KeepAlive: keepAlive}).DialContext
}

// discovery is a mapper of kinds that asks the API server, each time no longer than an attempt may take.
func discovery(config *rest.Config) (meta.RESTMapper, error) {
	config = rest.CopyConfig(config)
	config.Timeout = longestAttempt
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of the API server: %w", err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("making a client of the API server: %w", err)
	}
	return mapper, nil
}

// mapped is a manager's MapperProvider that gives it this one.
func mapped(mapper meta.RESTMapper) func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil }
}

// reach asks the API server for what a manager cannot be made without: whether the kinds that it caches are in
// namespaces, which the mapper keeps, and the cluster's ID, unless it is known.
func reach(
	ctx context.Context, reader client.Reader, scheme *runtime.Scheme, mapper meta.RESTMapper, kinds []client.Object, cluster *string,
) error {
	for _, kind := range kinds {
		if _, err := apiutil.IsObjectNamespaced(kind, scheme, mapper); err != nil {
			return fmt.Errorf("asking the API server for its kinds: %w", err)
		}
	}
	if *cluster != "" {
		return nil
	}
	// The UID of a namespace that every cluster has one of. An API server that has just started makes it within a
	// moment.
	var system corev1.Namespace
	if err := reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return fmt.Errorf("getting namespace %s, whose UID names this cluster unless --cluster-name does: %w", metav1.NamespaceSystem, err)
	}
	*cluster = string(system.UID)
	return nil
}

// Variables that give the manager's pod, from its status.
const (
	podVariable    = "POD_NAME"
	podUIDVariable = "POD_UID"
)

// lock is the lease as this pod's, whose container takes it back at once when it was restarted, after a crash or an
// outage, rather than wait until it ends: the kubelet runs one at a time. It is nil outside a pod, where each process
// is another holder.
func lock(config *rest.Config, namespace string, scheme *runtime.Scheme) (resourcelock.Interface, error) {
	pod, uid := os.Getenv(podVariable), os.Getenv(podUIDVariable)
	if pod == "" || uid == "" {
		return nil, nil
	}
	if namespace == "" {
		return nil, errors.New("--leader-election-namespace is missing: there is no service account's to take")
	}
	clients, err := kubernetes.NewForConfig(rest.AddUserAgent(config, "leader-election"))
	if err != nil {
		return nil, fmt.Errorf("making a client for the lease: %w", err)
	}
	identity := pod + "_" + uid
	events := record.NewBroadcaster() // for as long as the process
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clients.CoreV1().Events(namespace)})
	l, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, namespace, leaseID, resourcelock.ResourceLockConfig{
		Identity: identity, EventRecorder: events.NewRecorder(scheme, corev1.EventSource{Component: identity}),
	}, config, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("making the lease's lock: %w", err)
	}
	return l, nil
}
