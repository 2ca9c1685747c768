package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
)

// apiServer is the part of an API server that a manager with an empty fleet needs. It answers every request with a
// status code instead, unless that is 0.
type apiServer struct {
	code  atomic.Int32
	asked atomic.Int32

	mu      sync.Mutex
	objects map[string]metav1.Object // that were created, by path
	version int
	seen    map[string]time.Time // when each path was asked for last, with "watch " before those of watches
}

func newAPIServer() *apiServer {
	return &apiServer{objects: map[string]metav1.Object{}, seen: map[string]time.Time{}}
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	if code := int(a.code.Load()); code != 0 {
		http.Error(w, "the server says "+http.StatusText(code), code)
		return
	}
	answer, ok := kinds()[r.URL.Path]
	if ok {
		a.write(w, http.StatusOK, answer)
		return
	}
	a.mu.Lock()
	path := r.URL.Path
	if r.URL.Query().Get("watch") != "" {
		path = "watch " + path
	}
	a.seen[path] = time.Now()
	a.mu.Unlock()
	switch {
	case r.URL.Query().Get("sendInitialEvents") != "": // the client lists instead
		a.write(w, http.StatusUnprocessableEntity, apierrors.NewInvalid(schema.GroupKind{}, "", nil).ErrStatus)
	case r.URL.Query().Get("watch") != "":
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case r.Method == http.MethodGet:
		a.get(w, r.URL.Path)
	default:
		a.store(w, r)
	}
}

func (a *apiServer) write(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

// get answers with an object, or an empty list.
func (a *apiServer) get(w http.ResponseWriter, path string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	parts := strings.Split(path, "/")
	kind, isList := map[string]string{
		"pods": "PodList", "nodes": "NodeList", "configmaps": "ConfigMapList",
		"controllerrevisions": "ControllerRevisionList",
		"networkpolicies":     "NetworkPolicyList", "hyperliquidparsers": "HyperliquidParserList",
	}[parts[len(parts)-1]]
	switch obj, there := a.objects[path]; {
	case there:
		a.write(w, http.StatusOK, obj)
	case isList:
		version := "v1"
		if parts[1] == "apis" {
			version = parts[2] + "/" + parts[3]
		}
		a.write(w, http.StatusOK, map[string]any{
			"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": "1"}, "items": []any{},
		})
	default:
		a.write(w, http.StatusNotFound, apierrors.NewNotFound(schema.GroupResource{}, path).ErrStatus)
	}
}

// store stores a created or updated object, unless it was changed meanwhile.
func (a *apiServer) store(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the manager has ended
	}
	decoded, _, err := clientgoscheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	obj, ok := decoded.(metav1.Object)
	if err != nil || !ok {
		http.Error(w, "not an object", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	path := r.URL.Path
	if r.Method == http.MethodPost {
		path += "/" + obj.GetName()
	}
	if there, ok := a.objects[path]; ok && there.GetResourceVersion() != obj.GetResourceVersion() {
		a.write(w, http.StatusConflict, apierrors.NewConflict(schema.GroupResource{}, path,
			errors.New("it was changed")).ErrStatus)
		return
	}
	a.version++
	obj.SetResourceVersion(strconv.Itoa(a.version))
	obj.SetUID("u")
	a.objects[path] = obj
	a.write(w, http.StatusOK, obj)
}

// last returns when a path was last requested.
func (a *apiServer) last(path string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[path]
}

// lease returns a copy of the lease, or nil if there is none.
func (a *apiServer) lease(namespace string) *coordinationv1.Lease {
	a.mu.Lock()
	defer a.mu.Unlock()
	lease, ok := a.objects["/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases/"+leaseID].(*coordinationv1.Lease)
	if !ok {
		return nil
	}
	return lease.DeepCopy()
}

// kinds are the discovery documents of an API server, and the namespace that identifies a cluster.
func kinds() map[string]any {
	group := func(name, version string) metav1.APIGroup {
		v := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
		return metav1.APIGroup{Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
	}
	of := func(group string, kinds ...metav1.APIResource) metav1.APIResourceList {
		meta := metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}
		return metav1.APIResourceList{TypeMeta: meta, GroupVersion: group, APIResources: kinds}
	}
	kind := func(name, kind string) metav1.APIResource {
		return metav1.APIResource{Name: name, Kind: kind, Namespaced: true}
	}
	return map[string]any{
		"/api": metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}},
		"/apis": metav1.APIGroupList{
			TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
			Groups: []metav1.APIGroup{group("apps", "v1"), group("networking.k8s.io", "v1"),
				group("fleet.hlparser.dev", "v1alpha1")},
		},
		"/api/v1": of("v1", kind("pods", "Pod"), kind("configmaps", "ConfigMap"), kind("secrets", "Secret"),
			metav1.APIResource{Name: "nodes", Kind: "Node"}, metav1.APIResource{Name: "namespaces", Kind: "Namespace"}),
		"/apis/apps/v1":              of("apps/v1", kind("controllerrevisions", "ControllerRevision")),
		"/apis/networking.k8s.io/v1": of("networking.k8s.io/v1", kind("networkpolicies", "NetworkPolicy")),
		"/apis/fleet.hlparser.dev/v1alpha1": of("fleet.hlparser.dev/v1alpha1",
			kind("hyperliquidparsers", "HyperliquidParser")),
		"/api/v1/namespaces/kube-system": corev1.Namespace{
			TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "kube-system",
				UID: "the-cluster"},
		},
	}
}

// Once startup has reached the API server, the manager is created without it, because it may become unreachable at
// once.
func TestAManagerIsMadeWithoutAnAPIServerOnceItWasReached(t *testing.T) {
	a := newAPIServer()
	server := httptest.NewServer(a)
	defer server.Close()
	config := &rest.Config{Host: server.URL, Dial: dialer()}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	options, err := fleet.ManagerOptions(scheme, informers.NewHealth(testclock.NewFakeClock(time.Unix(0, 0))))
	if err != nil {
		t.Fatal(err)
	}
	mapper, err := newMapper(config)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	kinds, cluster := slices.Collect(maps.Keys(options.Cache.ByObject)), ""
	try := func() error { return discover(t.Context(), reader, scheme, mapper, kinds, &cluster) }
	for _, code := range []int{http.StatusServiceUnavailable, http.StatusForbidden, http.StatusUnauthorized,
		http.StatusInternalServerError} {
		a.code.Store(int32(code))
		if err := try(); err == nil || cluster != "" {
			t.Errorf("%d: %v, cluster %q", code, err, cluster)
		}
	}
	a.code.Store(0)
	if err := try(); err != nil || cluster != "the-cluster" {
		t.Fatalf("%v, cluster %q", err, cluster)
	}
	server.Close()
	before := a.asked.Load()
	options.MapperProvider, options.Metrics = providerOf(mapper), metricsserver.Options{BindAddress: "0"}
	if _, err := ctrl.NewManager(config, options); err != nil {
		t.Error(err)
	}
	if a.asked.Load() != before {
		t.Error("it was asked once more")
	}
	cluster = "named-by-a-flag"
	if err := try(); err != nil || cluster != "named-by-a-flag" {
		t.Errorf("%v, cluster %q", err, cluster)
	}
}

// In a pod, the pod is the lease's holder, however often its process restarts. Elsewhere each process is a different
// holder.
func TestWhoHoldsTheLease(t *testing.T) {
	config := &rest.Config{Host: "http://127.0.0.1:1"}
	for name, test := range map[string]struct {
		pod, uid, namespace string
		want                string
		fails               bool
	}{
		"in a pod":                         {"manager-0", "u", "ns", "manager-0_u", false},
		"outside":                          {"", "", "ns", "", false},
		"in a pod of a manifest of before": {"manager-0", "", "ns", "", false},
		"in a pod without a namespace":     {"manager-0", "u", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(podVariable, test.pod)
			t.Setenv(podUIDVariable, test.uid)
			got, err := newLock(config, test.namespace, clientgoscheme.Scheme)
			if (err != nil) != test.fails {
				t.Fatal(err)
			}
			identity := ""
			if got != nil {
				identity = got.Identity()
				if want := test.namespace + "/" + leaseID; got.Describe() != want {
					t.Errorf("it is %s, want %s", got.Describe(), want)
				}
			}
			if identity != test.want {
				t.Errorf("held by %q", identity)
			}
		})
	}
}
