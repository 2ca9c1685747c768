package real

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// The Applications: the two of the example, and one of the same kind for spellings.
const (
	operatorApp  = "hyperliquid-parser-operator"
	fleetsApp    = "hyperliquid-fleets"
	spellingsApp = "spellings"
)

// Healths of Argo CD.
const (
	healthy     = "Healthy"
	progressing = "Progressing"
	degraded    = "Degraded"
	suspended   = "Suspended"
)

// walk is the test's state as it goes through its steps.
type walk struct {
	*argocd
	operator, fleets *repository
	workers          int // in git
	page             *page
}

// TestConfigurationInARealArgoCD goes through docs/gitops.md: each step begins with the fleet as the step before has
// left it.
func TestConfigurationInARealArgoCD(t *testing.T) {
	if os.Getenv("ARGOCD_ASSETS") == "" {
		t.Skip("ARGOCD_ASSETS names no directory with Argo CD: run `make test-argocd`")
	}
	c := newCluster(t)
	c.out = t.Output()
	w := &walk{argocd: newArgoCD(t, c), workers: 1, page: &page{blocks: map[string]string{}}}
	defer w.showLogs(t)
	w.operator = newRepository(t, w.mkdir(t, "operator.git"))
	w.fleets = newRepository(t, w.mkdir(t, "fleets.git"))
	steps := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"the operator is installed", w.installOperator},
		{"a fleet is created", w.create},
		{"nothing happens at rest", w.rest},
		{"a parser hangs", w.hang},
		{"a canary is promoted", w.promote},
		{"a canary fails, and a commit reverts it", w.canaryFails},
		{"the sink is down", w.sinkDown},
		{"a loss is acknowledged", w.acknowledge},
		{"all pods are restarted", w.restart},
		{"the fleet is paused and resumed", w.pause},
		{"a change by hand is reverted", w.selfHeal},
		{"no way to compare finds a difference", w.noDrift},
		{"what git does not say is left alone", w.leftAlone},
		{"what leaves git is pruned", w.prune},
		{"an Application is deleted", w.remove},
	}
	ran := 0 // all, unless -run chooses some
	for _, step := range steps {
		ok := t.Run(step.name, func(t *testing.T) {
			w.say("%s:", step.name)
			begin := time.Now()
			ran++
			step.run(t)
			w.say("%6.1fs  done", time.Since(begin).Seconds())
		})
		if !ok {
			return
		}
	}
	w.page.write(t, ran == len(steps))
}

// say prints a line.
func (c *cluster) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, format+"\n", args...)
}

// installOperator lets Argo CD install the CRD, the rights and all else but the Deployment: the operator is a process.
func (w *walk) installOperator(t *testing.T) {
	noError(t, os.CopyFS(filepath.Join(w.operator.dir, "config"), os.DirFS(root+"/config")))
	w.operator.commit(t, "the operator", map[string][]byte{"process/kustomization.yaml": []byte(`
resources: [../config/default]
patches:
- target: {kind: Deployment}
  patch: |
    $patch: delete
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: any}
`)})
	begin := time.Now()
	w.applyObject(t, application(t, operatorApp, operatorApp, w.operator, "process"))
	w.follow(t, operatorApp, begin, whole, path{want: []string{healthy}, may: []string{"Missing", progressing, "Unknown"}})
	within(t, soon, func() error { return w.synced(t, operatorApp) })
	var crd apiextensionsv1.CustomResourceDefinition
	noError(t, w.client.Get(t.Context(), client.ObjectKey{Name: "hyperliquidparsers.fleet.hlparser.dev"}, &crd))
	w.startOperator(t)
}

// manifest is the fleet as it is in git.
func (w *walk) manifest(t *testing.T) []byte {
	t.Helper()
	return []byte(strings.NewReplacer("{nats}", w.broker.Address(), "{workers}", strconv.Itoa(w.workers)).
		Replace(string(read(t, "testdata/fleet.yaml"))))
}

// push commits the fleet with a number of workers, which every pod has to be replaced for, and lets Argo CD know.
func (w *walk) push(t *testing.T, message string, workers int) {
	t.Helper()
	w.workers = workers
	w.fleets.commit(t, message, map[string][]byte{"mainnet/fleet.yaml": w.manifest(t)})
	w.refresh(t, fleetsApp, "normal")
}

func (w *walk) create(t *testing.T) {
	w.fleets.commit(t, "a fleet", map[string][]byte{
		"mainnet/fleet.yaml": w.manifest(t), "spellings/all.yaml": spellings(),
	})
	begin := time.Now()
	w.applyObject(t, application(t, fleetsApp, fleetsApp, w.fleets, "mainnet"))
	within(t, whole, func() error { return w.messageHas(t, progressing, "") })
	w.page.add("created", w.showTree(t))
	w.follow(t, fleetsApp, begin, whole, path{want: []string{progressing, healthy}, may: []string{"Missing", "Unknown"}})
	within(t, soon, func() error { return w.synced(t, fleetsApp) })
	within(t, soon, func() error { return w.messageHas(t, healthy, "") })
	w.page.add("healthy", w.showTree(t))
	if obj := w.fleet(t); obj.Status.Ready != nodes {
		t.Errorf("Argo CD says Healthy, and %d of %d parsers are ready", obj.Status.Ready, nodes)
	}
}

// hang makes one parser hang. Until the operator has restarted it, the fleet is Progressing, not Degraded.
func (w *walk) hang(t *testing.T) {
	pod := w.podOf(t, "node-3")
	begin := time.Now()
	address := net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(reportPort))
	response, err := http.Post("http://"+address+"/debug/fault/hang", "", nil)
	noError(t, err)
	noError(t, response.Body.Close())
	if response.StatusCode/100 != 2 {
		t.Fatalf("the parser does not hang: status %d", response.StatusCode)
	}
	w.follow(t, fleetsApp, begin, whole, path{want: []string{progressing, healthy}})
	if obj := w.fleet(t); obj.Status.Restarts == 0 {
		t.Error("the operator has restarted nothing")
	}
}

// promote commits a change whose canary soaks for an hour, and ends the soak by the action.
func (w *walk) promote(t *testing.T) {
	begin := time.Now()
	w.push(t, "two workers", 2)
	w.follow(t, fleetsApp, begin, whole, path{want: []string{progressing}})
	within(t, whole, func() error { return w.reason(t, v1alpha1.ConditionReconciling, v1alpha1.ReasonCanarySoaking) })
	within(t, soon, func() error { return w.messageHas(t, progressing, "soak") })
	w.page.add("soaking", w.showTree(t))
	w.offers(t, "promote", true)
	w.page.add("actions", w.show(t, "argocd app actions list "+fleetsApp+" --kind HyperliquidParser"))
	w.act(t, "promote")
	w.follow(t, fleetsApp, begin, whole, path{want: []string{progressing, healthy}})
	if obj := w.fleet(t); obj.Status.Updated != nodes {
		t.Errorf("%d of %d pods have the revision", obj.Status.Updated, nodes)
	}
	w.offers(t, "promote", false)
}

// canaryFails commits a change whose canary crashes, and then reverts the commit.
func (w *walk) canaryFails(t *testing.T) {
	good := w.fleet(t).Status.UpdateRevision
	begin := time.Now()
	w.push(t, "three workers", 3)
	within(t, whole, func() error {
		for _, pod := range w.pods(t) {
			if !strings.HasSuffix(good, "-"+pod.Labels["fleet.hlparser.dev/revision"]) {
				crash(t, &pod)
			}
		}
		return w.reason(t, v1alpha1.ConditionStalled, v1alpha1.ReasonCanaryFailed)
	})
	w.follow(t, fleetsApp, begin, soon, path{want: []string{progressing, degraded}})
	within(t, soon, func() error { return w.messageHas(t, degraded, "restarted") })
	w.page.add("canary-failed", w.showTree(t))
	begin = time.Now()
	w.push(t, "Revert \"three workers\"", 2)
	w.follow(t, fleetsApp, begin, whole, path{want: []string{healthy}, may: []string{progressing}})
}

// sinkDown ends the NATS server. Restarts cure nothing here, so the fleet is Degraded.
func (w *walk) sinkDown(t *testing.T) {
	begin := time.Now()
	w.broker.Kill()
	w.follow(t, fleetsApp, begin, whole, path{want: []string{degraded}, may: []string{progressing}})
	within(t, soon, func() error { return w.messageHas(t, degraded, "sink") })
	w.page.add("sink-down", w.showTree(t))
	begin = time.Now()
	noError(t, w.broker.Start(t.Context()))
	w.follow(t, fleetsApp, begin, whole, path{want: []string{healthy}, may: []string{progressing}})
}

// acknowledge prunes lines that a parser has not delivered.
func (w *walk) acknowledge(t *testing.T) {
	const node = "node-2"
	w.offers(t, "acknowledge-loss", false)
	begin := time.Now()
	w.broker.Kill()
	// The parser stores what it has seen of a file and not delivered.
	time.Sleep(10 * time.Second)
	noError(t, filepath.WalkDir(w.agent.HostPath(node, dataPath), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Remove(path)
	}))
	signal(t, w.podOf(t, node), syscall.SIGKILL)
	noError(t, w.broker.Start(t.Context()))
	within(t, whole, func() error { return w.reason(t, v1alpha1.ConditionDelivering, "DataLost") })
	within(t, soon, func() error {
		w.refresh(t, fleetsApp, "normal") // it was Degraded before, with another message
		return w.messageHas(t, degraded, "deleted too early")
	})
	w.follow(t, fleetsApp, begin, soon, path{want: []string{degraded}, may: []string{progressing}})
	w.offers(t, "acknowledge-loss", true)
	begin = time.Now()
	w.act(t, "acknowledge-loss")
	w.follow(t, fleetsApp, begin, whole, path{want: []string{healthy}, may: []string{progressing}})
	w.offers(t, "acknowledge-loss", false)
}

func (w *walk) restart(t *testing.T) {
	before := map[string]bool{}
	for _, pod := range w.pods(t) {
		before[string(pod.UID)] = true
	}
	begin := time.Now()
	w.act(t, "restart")
	w.follow(t, fleetsApp, begin, whole, path{want: []string{progressing, healthy}})
	pods := w.pods(t)
	for _, pod := range pods {
		if before[string(pod.UID)] {
			t.Errorf("%s has not been replaced", pod.Name)
		}
	}
	if len(pods) != nodes {
		t.Errorf("there are %d pods", len(pods))
	}
}

// pause pauses the fleet. Self-heal does not undo it, also not while it refreshes, since git has no field paused.
func (w *walk) pause(t *testing.T) {
	begin := time.Now()
	w.act(t, "pause")
	w.follow(t, fleetsApp, begin, soon, path{want: []string{suspended}, may: []string{progressing}})
	w.refresh(t, fleetsApp, "hard")
	if !w.fleet(t).Spec.Paused {
		t.Error("self-heal has undone the pause")
	}
	noError(t, w.synced(t, fleetsApp))
	begin = time.Now()
	w.act(t, "resume")
	w.follow(t, fleetsApp, begin, soon, path{want: []string{healthy}, may: []string{progressing}})
	if w.fleet(t).Spec.Paused {
		t.Error("the fleet is still paused")
	}
}

// selfHeal changes a field that is in git by hand.
func (w *walk) selfHeal(t *testing.T) {
	w.revertsChange(t)
	history := w.show(t, "argocd app history "+fleetsApp)
	w.page.add("history", history)
}

func (w *walk) revertsChange(t *testing.T) {
	t.Helper()
	generation := w.fleet(t).Generation
	w.patch(t, fleetName, `{"spec":{"growth":{"stuckAfter":"7s"}}}`)
	took := within(t, soon, func() error {
		obj := w.fleet(t)
		if obj.Spec.Growth.StuckAfter.Duration != 6*time.Second || obj.Generation < generation+2 {
			return errors.New("the change is still there")
		}
		return nil
	})
	w.say("%6.1fs  a change by hand is reverted", took.Seconds())
	within(t, soon, func() error { return w.synced(t, fleetsApp) })
}

// noDrift compares in each way that Argo CD has, what the fleet and the spellings are in git with what they are in the
// cluster, after a sync in that way. Each way notices a change by hand.
func (w *walk) noDrift(t *testing.T) {
	w.applyObject(t, application(t, fleetsApp, spellingsApp, w.fleets, "spellings"))
	within(t, soon, func() error { return w.differences(t, spellingsApp) })
	apps := []string{fleetsApp, spellingsApp}
	for _, way := range []struct{ name, compare, sync string }{
		{"with the last applied manifest", "", ""},
		{"by a dry run on the API server", "ServerSideDiff=true", ""},
		{"by a dry run, with mutating webhooks", "ServerSideDiff=true,IncludeMutationWebhook=true", ""},
		{"by a dry run, with server-side apply", "", "ServerSideApply=true"},
		{"with the last applied manifest, and server-side apply", "ServerSideDiff=false", "ServerSideApply=true"},
	} {
		before := w.generations(t)
		for _, name := range apps {
			w.compareBy(t, name, way.compare, way.sync)
			w.sync(t, name)
			w.refresh(t, name, "hard")
			noError(t, w.differences(t, name))
		}
		if after := w.generations(t); after != before {
			t.Errorf("a sync has changed objects:\n%s\n%s", before, after)
		}
		w.say("        none %s", way.name)
		w.revertsChange(t)
	}
	for _, name := range apps {
		w.compareBy(t, name, "", "")
		w.sync(t, name)
	}
}

// leftAlone changes by hand what git does not say, and what it says of a list with server-side apply: Argo CD reports
// Synced, and leaves it. It changes back what git says.
func (w *walk) leftAlone(t *testing.T) {
	w.patch(t, fleetName, `{"spec":{"growth":{"action":"Alert"}}}`)
	w.refresh(t, fleetsApp, "hard")
	noError(t, w.synced(t, fleetsApp))
	if got := w.hlp(t, fleetName).Spec.Growth.Action; got != v1alpha1.GrowthActionAlert {
		t.Errorf("growth.action is %s", got)
	}
	w.patch(t, fleetName, `{"spec":{"growth":{"action":"Restart"}}}`)

	const lists, paused = "spelling-lists", "spelling-unpaused"
	add := `{"spec":{"filter":{"coins":["BTC","DOGE","ETH","SOL"]}}}`
	coins := func() int { return len(w.hlp(t, lists).Spec.Filter.Coins) }
	w.patch(t, lists, add)
	within(t, soon, func() error {
		if n := coins(); n != 3 {
			return fmt.Errorf("there are %d coins", n)
		}
		return nil
	})
	w.compareBy(t, spellingsApp, "", "ServerSideApply=true")
	w.sync(t, spellingsApp)
	w.patch(t, lists, add)
	w.sync(t, spellingsApp)
	w.refresh(t, spellingsApp, "hard")
	noError(t, w.synced(t, spellingsApp))
	if n := coins(); n != 4 {
		t.Errorf("with server-side apply there are %d coins", n)
	}
	w.compareBy(t, spellingsApp, "", "")
	w.sync(t, spellingsApp)

	generation := w.hlp(t, paused).Generation
	w.cli(t, "app", "actions", "run", spellingsApp, "pause", "--kind=HyperliquidParser", "--resource-name="+paused)
	within(t, soon, func() error {
		if obj := w.hlp(t, paused); obj.Spec.Paused || obj.Generation != generation+2 {
			return fmt.Errorf("the pause is not undone; the generation is %d after %d", obj.Generation, generation)
		}
		return nil
	})
}

// patch changes a HyperliquidParser by hand.
func (w *walk) patch(t *testing.T, name, patch string) {
	t.Helper()
	noError(t, w.client.Patch(t.Context(), w.hlp(t, name), client.RawPatch(types.MergePatchType, []byte(patch)),
		client.FieldOwner("somebody")))
}

// generations returns the generations of all HyperliquidParsers: a sync that changes nothing leaves them as they are.
func (w *walk) generations(t *testing.T) string {
	t.Helper()
	var list v1alpha1.HyperliquidParserList
	noError(t, w.client.List(t.Context(), &list))
	var out strings.Builder
	for _, obj := range list.Items {
		fmt.Fprintf(&out, "%s %d, ", obj.Name, obj.Generation)
	}
	return out.String()
}

// compareBy sets how an Application compares and syncs, in addition to what the example has.
func (w *walk) compareBy(t *testing.T, name, compare, sync string) {
	t.Helper()
	obj := w.app(t, name)
	patch := client.MergeFrom(obj.DeepCopy())
	obj.SetAnnotations(map[string]string{"argocd.argoproj.io/compare-options": compare})
	const option = "ServerSideApply=true"
	options, _, err := unstructured.NestedStringSlice(obj.Object, "spec", "syncPolicy", "syncOptions")
	noError(t, err)
	options = slices.DeleteFunc(options, func(o string) bool { return o == option })
	if sync != "" {
		options = append(options, sync)
	}
	noError(t, unstructured.SetNestedStringSlice(obj.Object, options, "spec", "syncPolicy", "syncOptions"))
	noError(t, w.client.Patch(t.Context(), obj, patch))
}

// rest counts for a minute, in which the nodes write and the parsers deliver, what Argo CD and the operator do.
func (w *walk) rest(t *testing.T) {
	const long, quiet = time.Minute, 10 * time.Second
	refreshes, writes := w.refreshes(t), w.writes(t)
	since := time.Now()
	within(t, whole, func() error { // until the last of what the creation has led to
		r, all := w.refreshes(t), w.writes(t)
		if r != refreshes || !maps.Equal(all, writes) {
			refreshes, writes, since = r, all, time.Now()
		}
		if time.Since(since) < quiet {
			return errors.New("there are still refreshes or writes")
		}
		return nil
	})
	time.Sleep(long)
	var lines []string
	for what, n := range w.writes(t) {
		if n > writes[what] {
			lines = append(lines, fmt.Sprintf("%s: %d", what, int(n-writes[what])))
		}
	}
	slices.Sort(lines)
	n := int(w.refreshes(t) - refreshes)
	w.say("        in %s Argo CD has refreshed %d times; writes to the API server: %v", long, n, lines)
	if n > 0 || len(lines) > 0 {
		t.Errorf("%d refreshes and %d kinds of writes at rest", n, len(lines))
	}
}

// refreshes returns how many refreshes the application-controller has done.
func (w *walk) refreshes(t *testing.T) float64 {
	t.Helper()
	text, err := get(t.Context(), "http://"+w.metrics+"/metrics")
	noError(t, err)
	sum, found := 0.0, false
	for _, m := range sample.FindAllSubmatch(text, -1) {
		if string(m[1]) == "argocd_app_reconcile_count" {
			n, err := strconv.ParseFloat(string(m[3]), 64)
			noError(t, err)
			sum, found = sum+n, true
		}
	}
	if !found {
		t.Fatal("the application-controller does not count refreshes")
	}
	return sum
}

// sample matches a line of Prometheus' text format.
var sample = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} (\S+)$`)

// writes returns how many writes of each kind the API server has served, except those that store nothing, and leases,
// which their holders renew.
func (w *walk) writes(t *testing.T) map[string]float64 {
	t.Helper()
	text, err := w.kube.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	noError(t, err)
	label := func(labels []byte, name string) string {
		m := regexp.MustCompile(`\b` + name + `="([^"]*)"`).FindSubmatch(labels)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	out := map[string]float64{}
	for _, m := range sample.FindAllSubmatch(text, -1) {
		verb, group, resource := label(m[2], "verb"), label(m[2], "group"), label(m[2], "resource")
		if string(m[1]) != "apiserver_request_total" || resource == "leases" || label(m[2], "dry_run") != "" ||
			!slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"}, verb) ||
			slices.Contains([]string{"authorization.k8s.io", "authentication.k8s.io"}, group) {
			continue
		}
		n, err := strconv.ParseFloat(string(m[3]), 64)
		noError(t, err)
		out[strings.TrimRight(verb+" "+resource+"/"+label(m[2], "subresource")+" of "+group, "/")] += n
	}
	if len(out) == 0 {
		t.Fatal("the API server does not count requests")
	}
	return out
}

// prune removes the fleet from git, but not the spellings.
func (w *walk) prune(t *testing.T) {
	w.fleets.commit(t, "no fleet", map[string][]byte{
		"mainnet/fleet.yaml": nil, "mainnet/README.md": []byte("No fleet.\n"),
	})
	begin := time.Now()
	w.refresh(t, fleetsApp, "normal")
	// Argo CD does not prune all that an Application has by itself, without allowEmpty: somebody has to ask for it.
	within(t, soon, func() error {
		if err := w.synced(t, fleetsApp); err == nil || !strings.Contains(err.Error(), "wipe out all resources") {
			return fmt.Errorf("no word that all would be pruned: %w", err)
		}
		return nil
	})
	w.sync(t, fleetsApp, "--prune")
	w.gone(t, begin, fleetName)
	within(t, soon, func() error { return w.synced(t, fleetsApp) })
}

// remove deletes an Application with what it has made.
func (w *walk) remove(t *testing.T) {
	begin := time.Now()
	w.cli(t, "app", "delete", spellingsApp, "--yes")
	w.gone(t, begin, "spelling-")
	within(t, soon, func() error {
		if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: argocdNamespace, Name: spellingsApp},
			w.appObject()); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Application is still there: %w", err)
		}
		return nil
	})
}

// gone waits until HyperliquidParsers whose names begin with a prefix, and all pods, are gone.
func (w *walk) gone(t *testing.T, begin time.Time, prefix string) {
	t.Helper()
	within(t, whole, func() error {
		var list v1alpha1.HyperliquidParserList
		noError(t, w.client.List(t.Context(), &list))
		for _, obj := range list.Items {
			if strings.HasPrefix(obj.Name, prefix) {
				return fmt.Errorf("%s is still there", obj.Name)
			}
		}
		if n := len(w.pods(t)); n > 0 {
			return fmt.Errorf("there are %d pods", n)
		}
		return nil
	})
	w.say("%6.1fs  all of it is gone", time.Since(begin).Seconds())
}

// synced returns an error unless an Application is Synced, and no comparison has failed.
func (w *walk) synced(t *testing.T, name string) error {
	t.Helper()
	obj := w.app(t, name)
	conditions, _, err := unstructured.NestedSlice(obj.Object, "status", "conditions")
	noError(t, err)
	if len(conditions) > 0 {
		return fmt.Errorf("%s has conditions: %v", name, conditions)
	}
	if sync, _, _ := unstructured.NestedString(obj.Object, "status", "sync", "status"); sync != "Synced" {
		resources, _, _ := unstructured.NestedSlice(obj.Object, "status", "resources")
		return fmt.Errorf("%s is %s: %v", name, sync, resources)
	}
	return nil
}

// sync syncs an Application, once Argo CD is at no other sync of it.
func (w *walk) sync(t *testing.T, name string, options ...string) {
	t.Helper()
	// The command asks for a refresh, too. Argo CD can miss that one was done, and answers "application refresh deadline
	// exceeded" after a minute, when the command has given up.
	within(t, whole, func() error {
		_, err := w.tryCLI(t, append([]string{"app", "sync", name}, options...)...)
		return err
	})
}

// differences returns what synced returns, with the differences.
func (w *walk) differences(t *testing.T, name string) error {
	t.Helper()
	err := w.synced(t, name)
	if err != nil {
		_, diff := w.tryCLI(t, "app", "diff", name) // it fails if there are some
		err = fmt.Errorf("%w\n%w", err, diff)
	}
	return err
}

// messageHas returns an error unless Argo CD shows a health of the fleet whose message contains a text.
func (w *walk) messageHas(t *testing.T, health, text string) error {
	t.Helper()
	got, message, err := w.message(t, fleetsApp)
	if err != nil {
		return err
	}
	if got != health || message == "" || !strings.Contains(message, text) {
		return fmt.Errorf("the fleet's health is %q, %q; want %q with %q", got, message, health, text)
	}
	return nil
}

// reason returns an error unless a condition of the fleet has a reason.
func (w *walk) reason(t *testing.T, kind, reason string) error {
	t.Helper()
	conditions := w.fleet(t).Status.Conditions
	if c := meta.FindStatusCondition(conditions, kind); c == nil || c.Reason != reason {
		return fmt.Errorf("%s is not %s: %+v", kind, reason, conditions)
	}
	return nil
}

// offers waits until Argo CD's API server offers an action, or does not.
func (w *walk) offers(t *testing.T, action string, want bool) {
	t.Helper()
	within(t, soon, func() error {
		var offered []struct {
			Action   string
			Disabled bool
		}
		text := w.cli(t, "app", "actions", "list", fleetsApp, "--kind=HyperliquidParser", "--out=json")
		noError(t, json.Unmarshal([]byte(text), &offered))
		for _, o := range offered {
			if o.Action == action && !o.Disabled {
				if want {
					return nil
				}
				return fmt.Errorf("%s is offered", action)
			}
		}
		if want {
			return fmt.Errorf("%s is not offered: %s", action, text)
		}
		return nil
	})
}

// act runs an action as people do: Argo CD's API server runs the script, and patches the object.
func (w *walk) act(t *testing.T, action string) {
	t.Helper()
	w.offers(t, action, true)
	w.cli(t, "app", "actions", "run", fleetsApp, action, "--kind=HyperliquidParser", "--resource-name="+fleetName)
}

// showTree returns what argocd app get shows of the fleet's status, and of its objects the fleet and its pods. The last
// column is the message of the health.
func (w *walk) showTree(t *testing.T) string {
	t.Helper()
	command, printed, _ := strings.Cut(w.show(t, "argocd app get "+fleetsApp+" -o tree=detailed"), "\n")
	_, status, _ := strings.Cut(printed, "Sync Status:")
	out := command + "\n…\n"
	for line := range strings.Lines("Sync Status:" + status) {
		if !strings.Contains(line, "/") || strings.Contains(line, "HyperliquidParser/") || strings.Contains(line, "Pod/") ||
			strings.Contains(line, "KIND/NAME") {
			out += strings.TrimRight(line, " \n") + "\n"
		}
	}
	return out
}

// show returns a command with what it prints, for the documentation.
func (w *walk) show(t *testing.T, command string) string {
	t.Helper()
	args := strings.Fields(command)
	shown := strings.ReplaceAll(w.cli(t, args[1:]...), w.fleets.url(), "https://git.example/fleets.git")
	return "$ " + command + "\n" + shown
}

// showLogs prints the ends of the logs of a test that has failed.
func (w *walk) showLogs(t *testing.T) {
	if !t.Failed() {
		return
	}
	paths, err := filepath.Glob(filepath.Join(w.dir, "*.log"))
	noError(t, err)
	for _, path := range paths {
		const maxBytes = 1500
		text := read(t, path)
		t.Logf("%s:\n%s", filepath.Base(path), text[max(len(text)-maxBytes, 0):])
	}
}
