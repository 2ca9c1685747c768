package kubectl

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// cluster is an API server with the object mainnet in namespace hl, and a manager that serves its reports.
type cluster struct {
	t       *testing.T
	api     client.Client
	env     *envtest.Environment
	manager string
	config  string // a kubeconfig of the administrator, with a client certificate

	leads bool
}

func start(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run make test, which finds or builds kube-apiserver and etcd")
	}
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	env := &envtest.Environment{
		CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: 5 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute,
	}
	admin, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	k := &cluster{t: t, env: env, leads: true, config: filepath.Join(t.TempDir(), "kubeconfig")}
	t.Cleanup(func() { k.must(env.Stop()) })
	k.must(os.WriteFile(k.config, env.KubeConfig, 0o600))
	scheme := runtime.NewScheme()
	k.must(errors.Join(v1alpha1.AddToScheme(scheme), corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme),
		rbacv1.AddToScheme(scheme)))
	k.api, err = client.New(admin, client.Options{Scheme: scheme})
	k.must(err)
	k.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hl"}})
	k.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "hl", Name: "reader"}})
	k.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "hl", Name: "stranger"}})
	k.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "reports-reader"}, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{v1alpha1.GroupVersion.Group},
		Resources: []string{"hyperliquidparsers/reports", "hyperliquidparsers/samples"}, Verbs: []string{"get"},
	}}})
	k.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "hl", Name: "reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "hl", Name: "reader"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "reports-reader"},
	})
	k.serve(admin)
	k.fill()
	return k
}

func (k *cluster) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *cluster) create(object client.Object) {
	k.t.Helper()
	k.must(k.api.Create(k.t.Context(), object))
}

// serve serves mainnet's reports behind the manager's filter.
func (k *cluster) serve(config *rest.Config) {
	k.t.Helper()
	http2, err := rest.HTTPClientFor(config)
	k.must(err)
	filter, err := server.Filter(config, http2)
	k.must(err)
	handler, err := filter(logr.Discard(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !k.leads {
			http.Error(w, reports.NotLeading, http.StatusServiceUnavailable)
			return
		}
		out := json.NewEncoder(w)
		switch target := r.URL.Query().Get(reports.QueryTarget); {
		case strings.HasPrefix(r.URL.Path, reports.SamplesPath):
			_ = out.Encode(sampled(sampling.Filter{Records: 2}))
			return
		case strings.HasPrefix(r.URL.Path, reports.DiagnosisPath) && target == "node-4":
			_ = out.Encode(reports.Diagnosis{Missing: []string{"stacks and metrics: no answer within 2s"}})
			return
		case strings.HasPrefix(r.URL.Path, reports.DiagnosisPath) && target != "":
			_ = out.Encode(reports.Diagnosis{Stacks: "goroutine 1 of " + target, Metrics: "go_goroutines 7\n"})
			return
		case strings.HasPrefix(r.URL.Path, reports.DiagnosisPath):
			_ = out.Encode(reports.Diagnosis{Stacks: "goroutine 1 of the manager"})
			return
		}
		all := served()
		if wanted := r.URL.Query()[reports.QueryTarget]; len(wanted) > 0 {
			all = all[1:2]
		}
		_ = out.Encode(reports.Head{Namespace: "hl", Name: "mainnet", Now: noon, Targets: len(all)})
		for i := range all {
			_ = out.Encode(all[i])
		}
	}))
	k.must(err)
	endpoint := httptest.NewTLSServer(handler)
	k.t.Cleanup(endpoint.Close)
	k.manager = endpoint.URL
}

// fill creates the object with its status, pods, revisions and an event.
func (k *cluster) fill() {
	k.t.Helper()
	ctx := k.t.Context()
	obj := mainnet()
	status := obj.Status
	obj.ObjectMeta = metav1.ObjectMeta{Namespace: "hl", Name: "mainnet"}
	obj.Spec.Target.Nodes.StatePath = "/state"
	obj.Spec.Image = "hlparser:v2"
	k.create(obj)
	obj.Status = status
	obj.Status.ObservedGeneration = obj.Generation
	k.must(k.api.Status().Update(ctx, obj))
	for _, pod := range pods() {
		pod.Spec.Containers = []corev1.Container{{Name: "hlparser", Image: "hlparser:v2"}}
		k.create(&pod)
	}
	for _, r := range revised()[:3] {
		r.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "HyperliquidParser", Name: "mainnet", UID: obj.UID,
			Controller: ptr.To(true),
		}}
		r.Labels[v1alpha1.LabelParser] = "mainnet"
		r.Data.Raw = []byte(`{"revision":"{}"}`)
		// As the operator stores them: the fields that shape pods.
		if r.Annotations[v1alpha1.AnnotationSpec] != "" {
			shape := obj.DeepCopy()
			shape.Spec.Target.Nodes.Selector = metav1.LabelSelector{}
			shape.Spec.Image = "hlparser:v" + string('0'+byte(r.Revision)-1)
			text, err := json.Marshal(shape.Spec)
			k.must(err)
			r.Annotations[v1alpha1.AnnotationSpec] = string(text)
		}
		k.create(&r)
	}
	k.create(&corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "hl", Name: "event"},
		InvolvedObject: corev1.ObjectReference{Kind: "HyperliquidParser", Namespace: "hl", Name: "mainnet"},
		Reason:         "SinkDown", Message: "the sink does not answer", Type: "Warning",
	})
}

func (k *cluster) object() *v1alpha1.HyperliquidParser {
	k.t.Helper()
	obj := &v1alpha1.HyperliquidParser{}
	k.must(k.api.Get(k.t.Context(), client.ObjectKey{Namespace: "hl", Name: "mainnet"}, obj))
	return obj
}

// run runs the program with the administrator's kubeconfig, and returns its outputs and exit code.
func (k *cluster) run(args ...string) (out, errs string, code int) {
	k.t.Helper()
	streams, _, stdout, stderr := genericiooptions.NewTestIOStreams()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	cmd := Command(streams)
	flags := []string{"--kubeconfig", k.config, "-n", "hl"}
	if args[0] == "__complete" { // its last argument is what is completed
		args = append(append([]string{"__complete"}, flags...), args[1:]...)
	} else {
		args = append(args, flags...)
	}
	cmd.SetArgs(args)
	code = Exit(cmd.ExecuteContext(ctx), stderr)
	return stdout.String(), stderr.String(), code
}

// managers makes two pods of the manager on a node. Ports of the first lead nowhere, and those of the second to the
// endpoint.
func (k *cluster) managers() {
	k.t.Helper()
	endpoint := strings.TrimPrefix(k.manager, "https://")
	kubelet := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if len(path) != 3 || path[0] != "portForward" {
			http.NotFound(w, r)
			return
		}
		portforward.ServePortForward(w, r, forwards(endpoint), path[2], "", nil, time.Minute, time.Minute,
			portforward.SupportedProtocols)
	}))
	k.t.Cleanup(kubelet.Close)
	address := kubelet.Listener.Addr().(*net.TCPAddr)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
	k.create(node)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.IP.String()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(address.Port)
	k.must(k.api.Status().Update(k.t.Context(), node))
	const namespace = "hyperliquid-parser-operator-system"
	k.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	for _, name := range []string{"manager-a", "manager-b"} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
				"control-plane": "controller-manager", "app.kubernetes.io/name": "hyperliquid-parser-operator",
			}},
			Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "manager", Image: "manager"}}},
		}
		k.create(pod)
		pod.Status.Phase = corev1.PodRunning
		k.must(k.api.Status().Update(k.t.Context(), pod))
	}
}

// forwards is the runtime of the manager's pods. It leads port 8443 of manager-b to an address.
type forwards string

func (f forwards) PortForward(_ context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	if pod != "manager-b" || port != managerPort {
		return errors.Join(errors.New("connection refused"), stream.Close())
	}
	conn, err := net.Dial("tcp", string(f))
	if err != nil {
		return err
	}
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		back <- errors.Join(err, stream.Close())
	}()
	_, err = io.Copy(conn, stream)
	return errors.Join(err, conn.Close(), <-back)
}

// wants fails the test unless the text has all parts.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

func TestOnAnAPIServer(t *testing.T) {
	k := start(t)
	reader := []string{"--manager", k.manager, "--service-account", "reader"}
	with := func(args ...string) []string { return append(args, reader...) }

	t.Run("reports come from the manager with a service account's token", func(t *testing.T) {
		out, errs, code := k.run(with("top", "mainnet")...)
		if code != ExitBad || errs != "" {
			t.Errorf("exit code %d: %s", code, errs)
		}
		golden(t, "top.txt", out)
		out, _, code = k.run(with("why", "mainnet", "node-2")...)
		if code != ExitBad {
			t.Errorf("exit code %d", code)
		}
		wants(t, "why", out, "node-2  SinkDown (Fills)", "acknowledged", "connection refused")
		if _, _, code = k.run(with("why", "mainnet", "node-9")...); code != ExitFailure {
			t.Errorf("a target that does not exist: %d", code)
		}
	})
	t.Run("of all objects, by label", func(t *testing.T) {
		out, _, _ := k.run(with("top")...)
		wants(t, "top", out, "OBJECT", "hl/mainnet")
		out, errs, code := k.run(with("top", "-l", "team=other")...)
		if out != "" || code != ExitUnknown || !strings.Contains(errs, "No HyperliquidParsers found") {
			t.Errorf("%q, %q, %d", out, errs, code)
		}
	})
	t.Run("without the manager the status says what it has", func(t *testing.T) {
		for what, args := range map[string][]string{
			"the kubeconfig has no token":                 {"--manager", k.manager},
			`"system:serviceaccount:hl:stranger" may not`: {"--manager", k.manager, "--service-account", "hl/stranger"},
			"connection refused":                          {"--manager", "https://127.0.0.1:1", "--service-account", "reader"},
			"no manager runs in namespace":                {"--service-account", "reader"},
			`serviceaccounts "nobody" not found`:          {"--manager", k.manager, "--service-account", "nobody"},
			"knows nothing of --as": {
				"--manager", k.manager, "--as", "a", "--as-group", "system:masters",
			},
		} {
			out, _, code := k.run(append([]string{"top", "mainnet"}, args...)...)
			if code != ExitBad {
				t.Errorf("%s: exit code %d", what, code)
			}
			wants(t, what, out, "node-4  Unreachable", "no figures, and no verdicts but those of bad targets: ", what)
		}
		k.leads = false
		defer func() { k.leads = true }()
		out, _, _ := k.run(with("top", "mainnet")...)
		wants(t, "top", out, "no manager leads")
	})
	t.Run("a wrong command line", func(t *testing.T) {
		for _, args := range [][]string{
			{"top", "mainnet", "-l", "a=b"}, {"top", "--sort", "size"}, {"top", "a", "b"}, {"why"}, {"top", "--nonsense"},
			{"pause", "mainnet", "--dry-run=client"}, {"top", "mainnet", "--manager", "http://127.0.0.1:1"},
		} {
			if _, errs, code := k.run(args...); code != ExitUsage || !strings.HasPrefix(errs, "error: ") {
				t.Errorf("%q: %d, %s", args, code, errs)
			}
		}
		if _, _, code := k.run("top", "other"); code != ExitFailure {
			t.Errorf("an object that does not exist: %d", code)
		}
	})
	t.Run("through a forwarded port, from the manager that leads", func(t *testing.T) {
		k.managers()
		out, errs, code := k.run("top", "mainnet", "--service-account", "reader")
		if code != ExitBad || errs != "" {
			t.Errorf("exit code %d: %s", code, errs)
		}
		golden(t, "top.txt", out)
	})
	t.Run("again and again, until it is interrupted", func(t *testing.T) {
		streams, _, out, _ := genericiooptions.NewTestIOStreams()
		r := newRunner(streams)
		waits := 0
		r.wait = func(_ context.Context, d time.Duration) bool { waits++; return d == interval && waits < 3 }
		cmd := r.command()
		cmd.SetArgs(with("top", "mainnet", "--watch", "--kubeconfig", k.config, "-n", "hl"))
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Error(err)
		}
		if n := strings.Count(out.String(), "TARGET  VERDICT"); n != 3 {
			t.Errorf("shown %d times, want 3", n)
		}
	})
	t.Run("tail", func(t *testing.T) {
		out, errs, code := k.run(with("tail", "mainnet", "node-1", "--count", "2")...)
		if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(errs, "2 shown of 14 records") {
			t.Errorf("%d, %s%s", code, out, errs)
		}
		out, errs, code = k.run("tail", "mainnet", "node-1", "--manager", k.manager, "--service-account", "hl/stranger")
		if code != ExitFailure || out != "" || !strings.Contains(errs, "may not get hyperliquidparsers/samples") {
			t.Errorf("a stranger: %d, %s%s", code, out, errs)
		}
		if _, _, code = k.run(with("tail", "mainnet", "node-1", "--stream", "x")...); code != ExitUsage {
			t.Errorf("a stream that there is not: %d", code)
		}
	})
	t.Run("actions", func(t *testing.T) { testActions(t, k) })
	t.Run("rollout", func(t *testing.T) { testRollout(t, k) })
	t.Run("diagnose", func(t *testing.T) { testDiagnose(t, k, reader) })
	t.Run("completion", func(t *testing.T) {
		for _, command := range []string{"why", "tail", "diagnose"} {
			out, _, _ := k.run("__complete", command, "mainnet", "")
			wants(t, "completion", out, "node-1\nnode-2\nnode-3\nnode-4\n")
		}
		out, _, _ := k.run("__complete", "tail", "mainnet", "node-1", "--stream", "")
		wants(t, "completion", out, "order-statuses\nfills\n")
	})
}

func testActions(t *testing.T, k *cluster) {
	before := k.object()
	for _, action := range []string{"restart", "pause", "acknowledge"} {
		out, errs, code := k.run(action, "mainnet", "--dry-run=server")
		if code != 0 || errs != "" {
			t.Errorf("%s: %d, %s", action, code, errs)
		}
		wants(t, action, out, "hyperliquidparser.fleet.hlparser.dev/mainnet", "(server dry run)")
	}
	if k.object().ResourceVersion != before.ResourceVersion {
		t.Error("a dry run has changed the object")
	}
	for _, action := range []string{"resume", "promote"} {
		if _, _, code := k.run(action, "mainnet"); code != ExitFailure {
			t.Errorf("%s of an object that does not offer it: %d", action, code)
		}
	}
	for _, action := range []string{"restart", "pause", "acknowledge"} {
		if _, errs, code := k.run(action, "mainnet"); code != 0 {
			t.Errorf("%s: %d, %s", action, code, errs)
		}
	}
	obj := k.object()
	if at, err := time.Parse(time.RFC3339, obj.Annotations[v1alpha1.AnnotationRestartedAt]); err != nil ||
		time.Since(at) > time.Hour {
		t.Errorf("restart: %v, %v", at, err)
	}
	if !obj.Spec.Paused || obj.Annotations[v1alpha1.AnnotationAcknowledgeLoss] != "2026-04-30T10:00:00Z" {
		t.Errorf("paused is %v, the acknowledged loss %q", obj.Spec.Paused,
			obj.Annotations[v1alpha1.AnnotationAcknowledgeLoss])
	}
	if _, _, code := k.run("pause", "mainnet"); code != ExitFailure {
		t.Errorf("a second pause: %d", code)
	}

	// Argo CD's label is enough for a warning.
	obj.Labels = map[string]string{"argocd.argoproj.io/instance": "fleets"}
	k.must(k.api.Update(t.Context(), obj))
	_, errs, code := k.run("resume", "mainnet")
	if code != 0 || k.object().Spec.Paused {
		t.Errorf("resume: %d, paused is %v", code, k.object().Spec.Paused)
	}
	wants(t, "the warning", errs, "Warning: Argo CD applies mainnet from git: leave spec.paused out of git")

	obj = k.object()
	obj.Status.Conditions = []metav1.Condition{set("Reconciling", "True", "CanarySoaking", "1 of 4")}
	k.must(k.api.Status().Update(t.Context(), obj))
	if _, errs, code := k.run("promote", "mainnet"); code != 0 ||
		k.object().Annotations[v1alpha1.AnnotationPromote] != "mainnet-b" {
		t.Errorf("promote: %d, %s, %v", code, errs, k.object().Annotations)
	}
	if _, errs, code := k.run("promote", "mainnet"); code != ExitFailure ||
		!strings.Contains(errs, "kubectl annotate hlp mainnet -n hl fleet.hlparser.dev/promote-") {
		t.Errorf("a second promotion: %d, %s", code, errs)
	}
}

func testRollout(t *testing.T, k *cluster) {
	out, _, code := k.run("rollout", "history", "mainnet")
	if code != 0 {
		t.Errorf("history: %d", code)
	}
	wants(t, "history", out, "3  mainnet-b", "image: hlparser:v1 → hlparser:v2", "fields are not stored")

	before := k.object()
	_, errs, code := k.run("rollout", "undo", "mainnet", "--dry-run")
	if code != 0 || k.object().Spec.Image != "hlparser:v2" {
		t.Errorf("a dry run: %d, %s, image %s", code, errs, k.object().Spec.Image)
	}
	if _, errs, code = k.run("rollout", "undo", "mainnet", "--to-revision=1"); code != ExitFailure ||
		!strings.Contains(errs, "without its fields") {
		t.Errorf("a revision without fields: %d, %s", code, errs)
	}
	if _, _, code = k.run("rollout", "undo", "mainnet", "--to-revision=7"); code != ExitFailure {
		t.Errorf("a revision that does not exist: %d", code)
	}
	out, errs, code = k.run("rollout", "undo", "mainnet")
	after := k.object()
	if code != 0 || after.Spec.Image != "hlparser:v1" || after.Spec.Target.Nodes.Selector.MatchLabels["role"] != "node" {
		t.Errorf("undo: %d, %s%s, %+v", code, out, errs, after.Spec)
	}
	wants(t, "undo", errs, "image: hlparser:v2 → hlparser:v1", "Warning: Argo CD applies mainnet from git")
	after.Spec.Image = before.Spec.Image
	if got := changes(&before.Spec, &after.Spec); len(got) > 0 {
		t.Errorf("undo has also changed %q", got)
	}

	// The operator has not seen the change.
	if _, errs, code = k.run("rollout", "status", "mainnet", "--timeout=1s"); code != ExitFailure ||
		!strings.Contains(errs, "the rollout is not over after 1s") {
		t.Errorf("status: %d, %s", code, errs)
	}
	obj := k.object()
	obj.Status.ObservedGeneration = obj.Generation
	obj.Status.Conditions = []metav1.Condition{
		set("Ready", "True", "AllReady", "4 of 4"), set("Reconciling", "False", "UpToDate", "no change is in progress"),
	}
	k.must(k.api.Status().Update(t.Context(), obj))
	if out, errs, code = k.run("rollout", "status", "mainnet"); code != 0 {
		t.Errorf("status: %d, %s", code, errs)
	}
	wants(t, "status", out, "mainnet-b is rolled out: 4 of 5 ready")

	// A restart changes no generation, so the status of before it looks like that of after it.
	pod := &corev1.Pod{}
	k.must(k.api.Get(t.Context(), client.ObjectKey{Namespace: "hl", Name: "mainnet-node-1"}, pod))
	kind := v1alpha1.GroupVersion.WithKind("HyperliquidParser")
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, kind)}
	k.must(k.api.Update(t.Context(), pod))
	if out, errs, code = k.run("rollout", "status", "mainnet", "--timeout=1s"); code != ExitFailure ||
		!strings.Contains(out, "to replace 1 pods from before the restart") {
		t.Errorf("status of a restart that nobody has begun: %d, %s%s", code, out, errs)
	}
	pod.Annotations[v1alpha1.AnnotationRestartedAt] = obj.Annotations[v1alpha1.AnnotationRestartedAt]
	k.must(k.api.Update(t.Context(), pod))
	if out, errs, code = k.run("rollout", "status", "mainnet"); code != 0 {
		t.Errorf("status of a restart that is over: %d, %s%s", code, out, errs)
	}
	obj.Status.Conditions = append(obj.Status.Conditions, set("Stalled", "True", "CanaryFailed", "worse than before"))
	k.must(k.api.Status().Update(t.Context(), obj))
	if _, errs, code = k.run("rollout", "status", "mainnet"); code != ExitFailure ||
		!strings.Contains(errs, "mainnet is stalled: CanaryFailed: worse than before") {
		t.Errorf("status of one that is stalled: %d, %s", code, errs)
	}
}

func testDiagnose(t *testing.T, k *cluster, reader []string) {
	k.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "hl", Name: "sink"},
		Data:       map[string][]byte{"password": []byte("the-secret-password")},
	})
	out, errs, code := k.run(append([]string{"diagnose", "mainnet", "node-1", "-f", "-"}, reader...)...)
	if code != 0 {
		t.Fatalf("%d, %s", code, errs)
	}
	unpacked, err := gzip.NewReader(strings.NewReader(out))
	k.must(err)
	files := map[string]string{}
	var first string
	for read := tar.NewReader(unpacked); ; {
		header, err := read.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		k.must(err)
		text, err := io.ReadAll(read)
		k.must(err)
		_, name, _ := strings.Cut(header.Name, "/")
		if first == "" {
			first = name
		}
		files[name] = string(text)
	}
	if first != "README.txt" {
		t.Errorf("the first file is %s", first)
	}
	wants(t, "README.txt", files["README.txt"], "node-2", "SinkDown", "logs/mainnet-node-2.log")
	wants(t, "object.yaml", files["object.yaml"], "name: mainnet")
	if strings.Contains(files["object.yaml"], "managedFields") {
		t.Error("object.yaml has managed fields")
	}
	wants(t, "revisions.yaml", files["revisions.yaml"], "mainnet-a", "mainnet-b")
	wants(t, "pods.yaml", files["pods.yaml"], "mainnet-node-1")
	wants(t, "events.txt", files["events.txt"], "the sink does not answer")
	wants(t, "stacks/manager.txt", files["stacks/manager.txt"], "of the manager")
	wants(t, "stacks/mainnet-node-1.txt", files["stacks/mainnet-node-1.txt"], "goroutine 1 of node-1")
	wants(t, "metrics/mainnet-node-2.txt", files["metrics/mainnet-node-2.txt"], "go_goroutines 7")
	// The reader of reports may not read metrics.
	wants(t, "README.txt", files["README.txt"], "the manager's metrics: the manager answers 403",
		"of mainnet-node-4: stacks")
	admin, err := os.ReadFile(k.config)
	k.must(err)
	for name, text := range files {
		for _, secret := range []string{"the-secret-password", `"coin"`, "Bearer ", "eyJhbGciOi", "PRIVATE KEY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
		for line := range strings.Lines(string(admin)) {
			if _, data, found := strings.Cut(line, "-data: "); found && strings.Contains(text, strings.TrimSpace(data)) {
				t.Errorf("%s has a part of the kubeconfig", name)
			}
		}
	}
	unknown := append([]string{"diagnose", "mainnet", "node-9", "-f", "-"}, reader...)
	if _, errs, code = k.run(unknown...); code != ExitFailure {
		t.Errorf("a target that there is not: %d, %s", code, errs)
	}
	_, targets, err := reports.Read(io.MultiReader(strings.NewReader(`{"targets":4}`+"\n"),
		strings.NewReader(files["reports.jsonl"])))
	if err != nil || len(targets) != 4 {
		t.Errorf("reports.jsonl: %d targets, %v", len(targets), err)
	}

	// Its own files are for the user alone, and replace none.
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	args := append([]string{"diagnose", "mainnet", "-f", file}, reader...)
	if _, errs, code = k.run(args...); code != 0 {
		t.Fatalf("%d, %s", code, errs)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, _, code = k.run(args...); code != ExitFailure {
		t.Errorf("a file that exists: %d", code)
	}
}

// The logs of parsers that write records to standard output have the records.
func TestNoLogsOfParsersThatWriteToStandardOutput(t *testing.T) {
	obj := mainnet()
	if writesToStdout(obj) {
		t.Error("an object with files")
	}
	obj.Spec.Sink = v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}}
	if !writesToStdout(obj) {
		t.Error("an object with standard output")
	}
	obj.Spec.Sink = v1alpha1.Sink{}
	obj.Spec.Sinks = []v1alpha1.NamedSink{{Name: "a"}, {Name: "b"}}
	obj.Spec.Sinks[1].Stdout = &v1alpha1.StdoutSink{}
	if !writesToStdout(obj) {
		t.Error("an object with several sinks")
	}
}
