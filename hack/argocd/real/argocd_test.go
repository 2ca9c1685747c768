package real

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

const (
	argocdNamespace = "argocd"
	examples        = root + "/config/argocd"
)

// argocd is an Argo CD whose components are processes. Each is the same program.
type argocd struct {
	*cluster
	assets    string // ARGOCD_ASSETS
	api       string // address of the API server
	metrics   string // address of the application-controller's metrics
	processes map[string]*child.Child
	apps      *recorder
}

// newArgoCD installs Argo CD as its manifests do, with the customizations of this project, and starts it.
func newArgoCD(t *testing.T, c *cluster) *argocd {
	t.Helper()
	a := &argocd{cluster: c, assets: os.Getenv("ARGOCD_ASSETS"), processes: map[string]*child.Child{}}
	if a.assets == "" {
		t.Fatal("ARGOCD_ASSETS names no directory with Argo CD")
	}
	a.install(t)
	a.apps = newRecorder(t, c.client)

	redis := miniredis.NewMiniRedis()
	noError(t, redis.StartAddr("127.0.0.1:0"))
	t.Cleanup(redis.Close)
	ports := map[string]string{}
	for _, name := range []string{"repo", "repo metrics", "controller metrics", "api", "api metrics"} {
		port, err := child.FreePort("127.0.0.1")
		noError(t, err)
		ports[name] = fmt.Sprint(port)
	}
	repo := "127.0.0.1:" + ports["repo"]
	a.api, a.metrics = "127.0.0.1:"+ports["api"], "127.0.0.1:"+ports["controller metrics"]
	a.start(t, "argocd-repo-server", "--address=127.0.0.1", "--port="+ports["repo"],
		"--metrics-address=127.0.0.1", "--metrics-port="+ports["repo metrics"],
		"--redis="+redis.Addr(), "--disable-tls", "--client-ca-path=")
	a.start(t, "argocd-application-controller", "--redis="+redis.Addr(),
		"--repo-server="+repo, "--repo-server-plaintext", "--metrics-port="+ports["controller metrics"],
		// No refresh by the clock, so that each in the test has a cause.
		"--app-resync=3600")
	server := a.start(t, "argocd-server", "--address=127.0.0.1", "--port="+ports["api"],
		"--metrics-address=127.0.0.1", "--metrics-port="+ports["api metrics"],
		"--redis="+redis.Addr(), "--repo-server="+repo, "--repo-server-plaintext",
		"--insecure", "--disable-auth", "--dex-server=http://127.0.0.1:1")
	noError(t, server.WaitUntil(t.Context(), func(ctx context.Context) error {
		_, err := get(ctx, "http://"+a.api+"/healthz")
		return err
	}, whole))
	return a
}

// install applies the CRDs, the project and the ConfigMap, and then patches that as docs/gitops.md says.
func (a *argocd) install(t *testing.T) {
	t.Helper()
	for _, name := range []string{"application", "applicationset", "appproject"} {
		a.apply(t, read(t, a.assets, name+"-crd.yaml"))
	}
	a.apply(t, []byte(`{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}`))
	for _, object := range []string{"ConfigMap argocd-rbac-cm", "Secret argocd-secret"} {
		kind, name, _ := strings.Cut(object, " ")
		obj := &unstructured.Unstructured{}
		obj.SetAPIVersion("v1")
		obj.SetKind(kind)
		obj.SetNamespace(argocdNamespace)
		obj.SetName(name)
		obj.SetLabels(map[string]string{"app.kubernetes.io/part-of": "argocd"})
		a.applyObject(t, obj)
	}
	project := objects(t, []byte(`
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: default, namespace: argocd}
spec:
  sourceRepos: ["*"]
  destinations: [{namespace: "*", server: "*"}]
  clusterResourceWhitelist: [{group: "*", kind: "*"}]
`))[0]
	within(t, soon, func() error { // until the CRD is served
		return a.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(project),
			client.FieldOwner("administrator"), client.ForceOwnership)
	})

	config := objects(t, read(t, a.assets, "argocd-cm.yaml"))[0]
	config.SetNamespace(argocdNamespace)
	for _, patch := range objects(t, read(t, examples, "argocd-cm.yaml")) {
		for key, value := range patch.Object["data"].(map[string]any) {
			noError(t, unstructured.SetNestedField(config.Object, value, "data", key))
		}
	}
	a.applyObject(t, config)
}

// start starts a component. Its output is a log in the test's directory.
func (a *argocd) start(t *testing.T, component string, args ...string) *child.Child {
	t.Helper()
	cmd := exec.Command(filepath.Join(a.assets, "argocd"), append(args, "--logformat=text")...)
	cmd.Env = append(a.environment(t),
		"ARGOCD_BINARY_NAME="+component,
		// https://kubernetes.default.svc means the cluster of the kubeconfig.
		"ARGOCD_FAKE_IN_CLUSTER=true",
		"ARGOCD_GPG_ENABLED=false",
		"ARGOCD_TLS_DATA_PATH="+a.mkdir(t, "argocd", "tls"), "ARGOCD_SSH_DATA_PATH="+a.mkdir(t, "argocd", "ssh"),
		"ARGOCD_GNUPGHOME="+a.mkdir(t, "argocd", "gpg", "keys"),
		"ARGOCD_GPG_DATA_PATH="+a.mkdir(t, "argocd", "gpg", "source"),
		"ARGOCD_PLUGINSOCKFILEPATH="+a.mkdir(t, "argocd", "plugins"),
		"ARGOCD_ASK_PASS_SOCK="+filepath.Join(a.dir, "argocd", "ask-pass.sock"),
		"HOSTNAME=argocd-application-controller-0", // the number is that of its shard
	)
	noError(t, os.WriteFile(filepath.Join(a.dir, "argocd", "ssh", "ssh_known_hosts"), nil, 0o600))
	process, err := a.children.Start(component, cmd, a.log(component))
	noError(t, err)
	a.processes[component] = process
	return process
}

func (a *argocd) log(component string) string { return filepath.Join(a.dir, component+".log") }

// environment is that of each component, and of the command line. Argo CD's own objects are in the namespace of the
// kubeconfig's context.
func (a *argocd) environment(t *testing.T) []string {
	t.Helper()
	kubeconfig := filepath.Join(a.dir, "argocd.kubeconfig")
	noError(t, a.cp.WriteAdminKubeconfig(kubeconfig, argocdNamespace))
	return []string{
		"KUBECONFIG=" + kubeconfig, "PATH=" + a.assets + ":" + os.Getenv("PATH"),
		"HOME=" + a.mkdir(t, "argocd", "home"), "TMPDIR=" + a.mkdir(t, "argocd", "tmp"),
	}
}

// cli runs a command of the program argocd, and returns what it prints.
func (a *argocd) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, err := a.tryCLI(t, args...)
	noError(t, err)
	return out
}

func (a *argocd) tryCLI(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(a.assets, "argocd"),
		append(args, "--server="+a.api, "--plaintext")...)
	cmd.Env = append(a.environment(t), "ARGOCD_BINARY_NAME=argocd")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("argocd %s: %w\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return string(out), err
}

// application returns one of the example's Applications, with another name, repository and path.
func application(t *testing.T, example, name string, repo *repository, path string) *unstructured.Unstructured {
	t.Helper()
	for _, obj := range objects(t, read(t, examples, "application.yaml")) {
		if obj.GetName() != example {
			continue
		}
		obj.SetName(name)
		for field, value := range map[string]string{"repoURL": repo.url(), "targetRevision": "main", "path": path} {
			noError(t, unstructured.SetNestedField(obj.Object, value, "spec", "source", field))
		}
		return obj
	}
	t.Fatalf("the example has no Application %s", example)
	return nil
}

var applicationKind = schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Application"}

// app returns an Application as it is stored.
func (a *argocd) app(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	obj := a.appObject()
	noError(t, a.client.Get(t.Context(), client.ObjectKey{Namespace: argocdNamespace, Name: name}, obj))
	return obj
}

func (a *argocd) appObject() *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(applicationKind)
	return obj
}

// refresh asks for a refresh, as a webhook of the git server does, and waits until it is done. A hard one also renders
// the manifests again.
func (a *argocd) refresh(t *testing.T, name, kind string) {
	t.Helper()
	const annotation = "argocd.argoproj.io/refresh"
	obj := a.app(t, name)
	patch := client.MergeFrom(obj.DeepCopy())
	annotations := maps.Clone(obj.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotation] = kind
	obj.SetAnnotations(annotations)
	noError(t, a.client.Patch(t.Context(), obj, patch))
	within(t, soon, func() error {
		if a.app(t, name).GetAnnotations()[annotation] != "" {
			return fmt.Errorf("%s is not refreshed", name)
		}
		return nil
	})
}

// message returns the health of the fleet in Argo CD's tree with its message. Its API server denies access to an
// Application that it has not seen yet.
func (a *argocd) message(t *testing.T, app string) (health, message string, err error) {
	t.Helper()
	text, err := get(t.Context(), "http://"+a.api+"/api/v1/applications/"+app+"/resource-tree")
	if err != nil {
		return "", "", err
	}
	var tree struct {
		Nodes []struct {
			Kind, Name string
			Health     struct{ Status, Message string }
		}
	}
	noError(t, json.Unmarshal(text, &tree))
	for _, n := range tree.Nodes {
		if n.Kind == "HyperliquidParser" && n.Name == fleetName {
			return n.Health.Status, n.Health.Message, nil
		}
	}
	return "", "", nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, text)
	}
	return text, err
}

// state is what an Application's status says.
type state struct {
	at                  time.Time
	sync, health, phase string
}

// recorder records each state that an Application has had, since one that lasts for a moment matters, too.
type recorder struct {
	mu     sync.Mutex
	states map[string][]state
	err    error
}

func newRecorder(t *testing.T, c client.WithWatch) *recorder {
	t.Helper()
	r := &recorder{states: map[string][]state{}}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(applicationKind)
	watching, err := c.Watch(t.Context(), list, client.InNamespace(argocdNamespace))
	noError(t, err)
	t.Cleanup(watching.Stop)
	go func() {
		for event := range watching.ResultChan() {
			if obj, ok := event.Object.(*unstructured.Unstructured); ok {
				r.record(obj)
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.err = fmt.Errorf("the watch of Applications has ended")
	}()
	return r
}

func (r *recorder) record(obj *unstructured.Unstructured) {
	field := func(path ...string) string {
		value, _, _ := unstructured.NestedString(obj.Object, append([]string{"status"}, path...)...)
		return value
	}
	now := state{
		at:   time.Now(),
		sync: field("sync", "status"), health: field("health", "status"), phase: field("operationState", "phase"),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.states[obj.GetName()]
	if len(all) > 0 {
		last := all[len(all)-1]
		last.at = now.at
		if last == now {
			return
		}
	}
	r.states[obj.GetName()] = append(all, now)
}

// since returns the states of an Application from the one that it had at a time.
func (r *recorder) since(t *testing.T, name string, begin time.Time) []state {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	noError(t, r.err)
	all := r.states[name]
	from := 0
	for i, s := range all {
		if !s.at.After(begin) {
			from = i
		}
	}
	return slices.Clone(all[from:])
}

// path is a sequence of healths that an Application is to go through.
type path struct {
	want []string
	may  []string // further ones that it may have on the way
}

// follow waits until an Application has gone through a path since a time, and prints when. It fails as soon as the
// Application has a health that is not on the path.
func (a *argocd) follow(t *testing.T, name string, begin time.Time, limit time.Duration, p path) {
	t.Helper()
	within(t, limit, func() error {
		for component, process := range a.processes {
			select {
			case <-process.Done():
				t.Fatalf("%s has ended: see %s", component, a.log(component))
			default:
			}
		}
		states := a.apps.since(t, name, begin)
		times, off := p.through(states, begin)
		if off != nil {
			t.Fatalf("%s is %s after %.1f s; the path is %+v\n%s",
				name, off.health, off.at.Sub(begin).Seconds(), p, shown(states, begin))
		}
		if len(times) < len(p.want) {
			return fmt.Errorf("%s is not through the path %+v\n%s", name, p, shown(states, begin))
		}
		for i, health := range p.want {
			a.say("%6.1fs  %s is %s", times[i].Sub(begin).Seconds(), name, health)
		}
		return nil
	})
}

// through returns when an Application has reached each health of the path, as far as it has come, and the first state
// that is off the path.
func (p path) through(states []state, begin time.Time) (times []time.Time, off *state) {
	for i, s := range states {
		reached := len(times)
		switch {
		case reached < len(p.want) && s.health == p.want[reached] && s.at.After(begin):
			times = append(times, s.at)
		case reached > 0 && s.health == p.want[reached-1]:
		case reached == 0 && s.health == states[0].health:
		case s.health == "", slices.Contains(p.may, s.health):
		default:
			return times, &states[i]
		}
	}
	return times, nil
}

func shown(states []state, begin time.Time) string {
	var out strings.Builder
	for _, s := range states {
		fmt.Fprintf(&out, "  %6.1fs %-10s %-12s %s\n", s.at.Sub(begin).Seconds(), s.sync, s.health, s.phase)
	}
	return out.String()
}
