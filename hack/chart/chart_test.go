package main

import (
	"bufio"
	"bytes"

	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../dist/chart"
	configDir = "../../config"

	// Names that kustomize gives. A release of the same name in this namespace has the same.
	name      = "hyperliquid-parser-operator"
	namespace = "hyperliquid-parser-operator-system"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// values parses the values of a release.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// render returns what a release consists of, as `helm template` prints it.
func render(t *testing.T, releaseName, namespace, text string) []byte {
	t.Helper()
	manifest, err := tryRender(t, releaseName, namespace, text)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func tryRender(t *testing.T, releaseName, namespace, text string) ([]byte, error) {
	t.Helper()
	i := action.NewInstall(action.NewConfiguration())
	i.ReleaseName, i.Namespace, i.DryRunStrategy = releaseName, namespace, action.DryRunClient
	version, err := common.ParseKubeVersion("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	i.KubeVersion = version
	out, err := i.RunWithContext(t.Context(), load(t), values(t, text))
	if err != nil {
		return nil, err
	}
	return []byte(out.(*release.Release).Manifest), nil
}

// kustomize builds a kustomization of config. Several are built as if one named the others.
func kustomize(t *testing.T, dirs ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, dir := range dirs {
		cmd := exec.CommandContext(t.Context(),
			"go", "tool", "-modfile=../tools/go.mod", "kustomize", "build", filepath.Join(configDir, dir))
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("building %s: %v: %s", dir, err, stderr.Bytes())
		}
		out.WriteString("---\n")
	}
	return out.Bytes()
}

// objects parses manifests, by kind, namespace and name.
func objects(t *testing.T, manifests []byte) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		object := map[string]any{}
		if err := yaml.UnmarshalStrict(document, &object); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		key := id(object)
		if _, exists := out[key]; exists {
			t.Errorf("%s is there twice", key)
		}
		out[key] = object
	}
}

func id(object map[string]any) string {
	meta := object["metadata"].(map[string]any)
	return fmt.Sprintf("%v %v/%v", object["kind"], or(meta["namespace"], ""), meta["name"])
}

func or(v, otherwise any) any {
	if v == nil {
		return otherwise
	}
	return v
}

// unlabelled removes the labels that name the tool that made an object, and empty labels.
func unlabelled(object map[string]any) {
	meta := object["metadata"].(map[string]any)
	labels, ok := meta["labels"].(map[string]any)
	if !ok {
		return
	}
	for _, key := range []string{
		"app.kubernetes.io/managed-by", "app.kubernetes.io/instance", "app.kubernetes.io/version",
		"app.kubernetes.io/name", "helm.sh/chart",
	} {
		delete(labels, key)
	}
	if len(labels) == 0 {
		delete(meta, "labels")
	}
}

// TestHelmInstallsWhatKustomizeDoes compares the two object by object. The prefix of names is removed from both: what
// is not part of config/default has none there.
func TestHelmInstallsWhatKustomizeDoes(t *testing.T) {
	for _, test := range []struct {
		name   string
		dirs   []string
		values string
	}{
		{"default", []string{"default"}, ""},
		{"namespaced", []string{"namespaced"}, "namespaces: [hyperliquid]"},
		{"prometheus", []string{"default", "prometheus"}, "prometheus: " +
			"{serviceMonitor: {enable: true}, podMonitor: {enable: true}, rules: {enable: true}}"},
		{"a certificate", []string{"../hack/chart/testdata/certificate"}, `
metrics: {certificateSecret: hyperliquid-parser-operator-metrics-server-cert}
prometheus:
  serviceMonitor:
    enable: true
    ca: {secret: {name: hyperliquid-parser-operator-metrics-server-cert, key: ca.crt}}
  podMonitor: {enable: true}
  rules: {enable: true}`},
		{"grafana", []string{"default", "grafana"}, "grafana: {dashboards: {enable: true}}"},
		{"network policy", []string{"default", "network-policy"}, "networkPolicy: {enable: true}"},
		{"admission policies", []string{"default", "admission-policy", "operator-policy"},
			"admissionPolicy: {bounds: true, operator: true}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			shorten := strings.NewReplacer(name+"-", "")
			want := objects(t, []byte(shorten.Replace(string(kustomize(t, test.dirs...)))))
			got := objects(t, []byte(shorten.Replace(string(render(t, name, namespace, test.values)))))

			// Helm makes the namespace by --create-namespace, without labels.
			delete(want, "Namespace /system")
			// kustomize cannot know the repository of the image.
			if bounds, ok := got["ConfigMap system/hyperliquidparser-bounds"]; ok {
				data := bounds["data"].(map[string]any)
				if data["allowed-images"] != name {
					t.Errorf("allowed images are %v", data["allowed-images"])
				}
				data["allowed-images"] = ""
			}
			if crd, ok := got["CustomResourceDefinition /hyperliquidparsers.fleet.hlparser.dev"]; ok {
				annotations := crd["metadata"].(map[string]any)["annotations"].(map[string]any)
				if annotations["helm.sh/resource-policy"] != "keep" {
					t.Errorf("the CRD's annotations are %v", annotations)
				}
				delete(annotations, "helm.sh/resource-policy")
			}
			for _, all := range []map[string]map[string]any{want, got} {
				for _, object := range all {
					unlabelled(object)
				}
			}
			for _, key := range slices.Sorted(maps.Keys(want)) {
				if _, ok := got[key]; !ok {
					t.Errorf("the chart lacks %s", key)
				} else if diff := cmp.Diff(want[key], got[key]); diff != "" {
					t.Errorf("%s differs (-kustomize +helm):\n%s", key, diff)
				}
			}
			for key := range got {
				if _, ok := want[key]; !ok {
					t.Errorf("only the chart has %s", key)
				}
			}
		})
	}
}

// TestTheCertificateIsEnabledByItsComments removes the comment signs that the kustomizations ask for.
func TestTheCertificateIsEnabledByItsComments(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.CopyFS(config, os.DirFS(configDir)); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, dir := range []string{"default", "prometheus"} {
		path := filepath.Join(config, dir, "kustomization.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, components, ok := bytes.Cut(text, []byte("\n#components:\n"))
		if !ok {
			t.Fatalf("%s has no components in comments", path)
		}
		text = fmt.Appendf(text, "\ncomponents:\n%s", bytes.ReplaceAll(components, []byte("#- "), []byte("- ")))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(),
			"go", "tool", "-modfile=../tools/go.mod", "kustomize", "build", filepath.Join(config, dir))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("building %s: %v", dir, err)
		}
		got.Write(out)
		got.WriteString("---\n")
	}
	want := objects(t, kustomize(t, "../hack/chart/testdata/certificate"))
	if diff := cmp.Diff(want, objects(t, got.Bytes())); diff != "" {
		t.Errorf("not what the components make of the same (-component +comment):\n%s", diff)
	}
}

// TestReferencesLeadToObjectsOfTheRelease renders releases whose names and namespaces differ from kustomize's.
func TestReferencesLeadToObjectsOfTheRelease(t *testing.T) {
	const everything = `
namespaces: [a, b]
networkPolicy: {enable: true}
admissionPolicy: {bounds: true, operator: true}
`
	for _, test := range []struct{ release, values string }{
		{"prod", everything},
		{"prod-hyperliquid-parser-operator", everything},
		{"a-release-with-a-name-of-fifty-three-characters-which-", everything + "fullnameOverride: short"},
		{"other", everything + "serviceAccount: {name: hand-made}\nmanager: {priorityClass: {name: own}}"},
	} {
		t.Run(test.release, func(t *testing.T) {
			const namespace = "elsewhere"
			manifest := render(t, strings.TrimSuffix(test.release, "-"), namespace, test.values)
			if bytes.Contains(manifest, []byte("hyperliquid-parser-operator-system")) {
				t.Error("the release names kustomize's namespace")
			}
			all := objects(t, manifest)
			exists := func(kind, namespace string, name any) {
				t.Helper()
				key := fmt.Sprintf("%s %s/%v", kind, namespace, name)
				if _, ok := all[key]; !ok {
					t.Errorf("%s is referred to and does not exist; there are %v", key, slices.Sorted(maps.Keys(all)))
				}
			}
			references := 0
			for _, object := range all {
				meta := object["metadata"].(map[string]any)
				if len(meta["name"].(string)) > 63 {
					t.Errorf("%s has a name of more than 63 characters", id(object))
				}
				where, _ := meta["namespace"].(string)
				if role, ok := object["roleRef"].(map[string]any); ok {
					references++
					in := where
					if role["kind"] == "ClusterRole" {
						in = ""
					}
					exists(role["kind"].(string), in, role["name"])
					subject := object["subjects"].([]any)[0].(map[string]any)
					exists("ServiceAccount", subject["namespace"].(string), subject["name"])
				}
				spec, _ := object["spec"].(map[string]any)
				switch object["kind"] {
				case "Deployment":
					references++
					pod := spec["template"].(map[string]any)["spec"].(map[string]any)
					exists("ServiceAccount", namespace, pod["serviceAccountName"])
					exists("PriorityClass", "", pod["priorityClassName"])
				case "ValidatingAdmissionPolicyBinding":
					references++
					exists("ValidatingAdmissionPolicy", "", spec["policyName"])
					if param, ok := spec["paramRef"].(map[string]any); ok {
						exists("ConfigMap", param["namespace"].(string), param["name"])
					}
				}
			}
			if references < 9 {
				t.Errorf("the release has only %d references", references)
			}
			account := "hand-made"
			if !strings.Contains(test.values, account) {
				account = managerName(t, all)
			}
			if !bytes.Contains(manifest, []byte("'system:serviceaccount:"+namespace+":"+account+"'")) {
				t.Errorf("the operator's policy does not name its account %s", account)
			}
		})
	}
}

// TestTheServersNameIsThatOfTheService: a certificate is issued for it.
func TestTheServersNameIsThatOfTheService(t *testing.T) {
	for _, named := range []string{"prod", "a-release-with-a-name-of-fifty-three-characters"} {
		service, verified := "", ""
		for _, object := range objects(t, render(t, named, "elsewhere", `
metrics: {certificateSecret: c}
prometheus: {serviceMonitor: {enable: true, ca: {secret: {name: c, key: ca.crt}}}}
`)) {
			switch object["kind"] {
			case "Service":
				service = object["metadata"].(map[string]any)["name"].(string)
			case "ServiceMonitor":
				endpoint := object["spec"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
				verified = fmt.Sprint(endpoint["tlsConfig"].(map[string]any)["serverName"])
			}
		}
		if service == "" || verified != service+".elsewhere.svc" {
			t.Errorf("the Service is %s, and the certificate is verified for %s", service, verified)
		}
	}
}

// managerName returns the name of the Deployment.
func managerName(t *testing.T, all map[string]map[string]any) string {
	t.Helper()
	for _, object := range all {
		if object["kind"] == "Deployment" {
			return object["metadata"].(map[string]any)["name"].(string)
		}
	}
	t.Fatal("there is no Deployment")
	return ""
}

// manager returns the manager's container, and the data of the bounds' ConfigMap.
func manager(t *testing.T, text string) (container, bounds map[string]any) {
	t.Helper()
	for _, object := range objects(t, render(t, name, namespace, text)) {
		switch object["kind"] {
		case "Deployment":
			pod := object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
			container = pod["containers"].([]any)[0].(map[string]any)
		case "ConfigMap":
			bounds = object["data"].(map[string]any)
		}
	}
	return container, bounds
}

func TestFlagsFollowTheValues(t *testing.T) {
	container, bounds := manager(t, `
clusterName: tokyo
namespaces: [a, b]
networkPolicy: {parsers: false, scrapeFromNamespaces: [team=obs, tier=1]}
metrics: {port: 9443, secure: false}
manager: {extraArgs: [--poll-workers=64], image: {repository: example.com/op, tag: v1}}
parser: {image: {repository: example.com/parser, digest: "sha256:`+strings.Repeat("ab", 32)+`"}}
admissionPolicy: {bounds: true}
bounds:
  allowedDataPaths: [/srv]
  stateRoots: [/srv/a, /srv/b]
  allowedUsers: [999, 12]
  allowedPodLabels: [team=*]
`)
	want := []any{
		"--leader-elect", "--health-probe-bind-address=:8081", "--metrics-bind-address=:9443", "--metrics-secure=false",
		"--parser-image=$(PARSER_IMAGE)", "--namespaces=a,b", "--cluster-name=tokyo", "--network-policies=false",
		"--scrape-from-namespaces=team=obs,tier=1", "--allowed-data-paths=/srv", "--allowed-pod-labels=team=*",
		"--allowed-users=999,12", "--state-root=/srv/a,/srv/b", "--poll-workers=64",
	}
	if diff := cmp.Diff(want, container["args"]); diff != "" {
		t.Errorf("the manager's flags differ:\n%s", diff)
	}
	if image := container["image"]; image != "example.com/op:v1" {
		t.Errorf("the manager's image is %v", image)
	}
	parser := container["env"].([]any)[0].(map[string]any)["value"]
	if parser != "example.com/parser@sha256:"+strings.Repeat("ab", 32) {
		t.Errorf("the parsers' image is %v", parser)
	}
	for key, want := range map[string]string{
		"allowed-data-paths": "/srv", "state-root": "/srv/a,/srv/b", "allowed-users": "999,12", "allowed-groups": "",
		"allowed-images": "example.com/parser", "output-root": "/var/lib/hlparser-out",
	} {
		if bounds[key] != want {
			t.Errorf("the policy's %s is %q, and not %q", key, bounds[key], want)
		}
	}
}

// TestTheFlagsDefaultsAreTheChartsDefaults: the chart leaves out flags whose values are the manager's defaults.
func TestTheFlagsDefaultsAreTheChartsDefaults(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/manager", "--help")
	cmd.Dir = "../.."
	help, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, help)
	}
	_, bounds := manager(t, "admissionPolicy: {bounds: true}")
	delete(bounds, "allowed-images") // defaults to the parsers' repository in both
	for flag, value := range bounds {
		want := fmt.Sprintf("(default [%v])", value)
		if value == "" {
			want = "Defaults to none"
		}
		line := false
		for text := range strings.Lines(string(help)) {
			if line = strings.Contains(text, "--"+flag+" ") && strings.Contains(text, want); line {
				break
			}
		}
		if !line {
			t.Errorf("--%s has another default than %q:\n%s", flag, value, help)
		}
	}
}

func TestInvalidValuesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"replicas: 3":                            "additional properties 'replicas' not allowed",
		"manager: {image: {digest: latest}}":     "does not match pattern",
		"bounds: {allowedUsers: [0]}":            "minimum: got 0, want 1",
		"bounds: {allowedDataPaths: [relative]}": "does not match pattern",
		"namespaces: [Upper]":                    "does not match pattern",
		"serviceAccount: {create: false}":        "serviceAccount.name is required",
		"metrics: {enable: false}\nprometheus: {serviceMonitor: {enable: true}}":        "needs metrics.enable",
		"metrics: {secure: false, certificateSecret: s}":                                "needs metrics.secure",
		"prometheus: {serviceMonitor: {enable: true, ca: {secret: {name: s, key: k}}}}": "needs metrics.certificateSecret",
		"prometheus: {serviceMonitor: {ca: {secret: {name: s}}}}":                       "missing property 'key'",
		"prometheus: {serviceMonitor: {ca: {secret: {name: s, key: k}, " +
			"configMap: {name: s, key: k}}}}": "maxProperties",
	} {
		if _, err := tryRender(t, name, namespace, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, and not %q", text, err, want)
		}
	}
}

// TestEveryValueHasAnEffect changes each value alone, and expects another release.
func TestEveryValueHasAnEffect(t *testing.T) {
	const all = `
networkPolicy: {enable: true}
admissionPolicy: {bounds: true, operator: true}
metrics: {certificateSecret: c}
prometheus:
  serviceMonitor: {enable: true, ca: {secret: {name: c, key: ca.crt}}}
  podMonitor: {enable: true}
  rules: {enable: true}
grafana: {dashboards: {enable: true}}
parser: {image: {repository: p}}
`
	before := render(t, "x", namespace, all)
	for _, change := range []string{
		"nameOverride: other", "fullnameOverride: other", "manager.replicas: 3", "manager.image.repository: r",
		"manager.image.tag: t", "manager.image.digest: sha256:" + strings.Repeat("0", 64), "manager.image.pullPolicy: Never",
		"manager.imagePullSecrets: [{name: s}]", "manager.extraArgs: [--x]", "manager.env: [{name: A}]",
		"manager.resources: {limits: {cpu: 1}}", "manager.podLabels: {a: b}", "manager.podAnnotations: {a: b}",
		"manager.podSecurityContext: {runAsNonRoot: false}", "manager.securityContext: {privileged: true}",
		"manager.nodeSelector: {a: b}", "manager.tolerations: [{operator: Exists}]",
		"manager.affinity: {nodeAffinity: {}}", "manager.topologySpreadConstraints: [{maxSkew: 2}]",
		"manager.terminationGracePeriodSeconds: 11", "manager.priorityClass.create: false",
		"manager.priorityClass.name: p", "manager.priorityClass.value: 1", "manager.podDisruptionBudget.enable: false",
		"manager.podDisruptionBudget.maxUnavailable: 50%", "parser.image.repository: r", "parser.image.tag: t",
		"parser.image.digest: sha256:" + strings.Repeat("0", 64), "namespaces: [a]", "clusterName: c",
		"bounds.allowedDataPaths: [/a]", "bounds.stateRoots: [/a]", "bounds.outputRoots: [/a]",
		"bounds.allowedImages: [a]", "bounds.allowedPodLabels: [a]", "bounds.allowedPodAnnotations: [a]",
		"bounds.allowedPriorityClasses: [a]", "bounds.allowedSELinuxTypes: [a]", "bounds.allowedUsers: [1]",
		"bounds.allowedGroups: [1]", "crd.enable: false", "crd.keep: false", "serviceAccount.create: false",
		"serviceAccount.name: s", "serviceAccount.annotations: {a: b}", "rbac.create: false", "rbac.userRoles: false",
		"metrics.enable: false", "metrics.port: 1", "metrics.secure: false", "metrics.certificateSecret: s",
		"prometheus.serviceMonitor.ca: {configMap: {name: a, key: k}}", "prometheus.serviceMonitor.serverName: other",
		"prometheus.serviceMonitor.enable: false",
		"prometheus.serviceMonitor.labels: {a: b}", "prometheus.podMonitor.enable: false",
		"prometheus.podMonitor.labels: {a: b}", "prometheus.rules.enable: false",
		"prometheus.nativeHistograms: false", "prometheus.rules.labels: {a: b}",
		"grafana.dashboards.enable: false", "grafana.dashboards.labels: {a: b}", "grafana.dashboards.annotations: {a: b}",
		"networkPolicy.enable: false", "networkPolicy.parsers: false", "networkPolicy.scrapeFromNamespaces: [a=b]",
		"admissionPolicy.bounds: false", "admissionPolicy.operator: false",
	} {
		path, value, _ := strings.Cut(change, ": ")
		v := values(t, all)
		switch path { // need another value
		case "serviceAccount.create":
			set(t, v, "serviceAccount.name", "s")
		case "metrics.enable":
			set(t, v, "prometheus.serviceMonitor.enable", "false")
		case "metrics.secure":
			set(t, v, "metrics.certificateSecret", "''")
			set(t, v, "prometheus.serviceMonitor.ca", "{}")
		}
		set(t, v, path, value)
		text, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if after := render(t, "x", namespace, string(text)); bytes.Equal(before, after) {
			t.Errorf("%s changes nothing", change)
		}
	}
	readme, _, err := readDocs(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := bytes.Count(readme, []byte("\n| `")), 68; got != want {
		t.Errorf("the chart has %d values, of those %d are changed here: add the new ones", got, want)
	}
}

// set sets the value at a path of keys.
func set(t *testing.T, v map[string]any, path, value string) {
	t.Helper()
	keys := strings.Split(path, ".")
	for _, key := range keys[:len(keys)-1] {
		next, ok := v[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			v[key] = next
		}
		v = next
	}
	var parsed any
	if err := yaml.Unmarshal([]byte(value), &parsed); err != nil {
		t.Fatal(err)
	}
	v[keys[len(keys)-1]] = parsed
}

func TestTheChartIsClean(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("there are values for chart-testing in %v: %v", files, err)
	}
	for _, file := range append(files, filepath.Join(chartDir, "values.yaml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := lint(chartDir, values(t, string(text))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		render(t, name, namespace, string(text))
	}
}

func TestTheReadmeHasTheValues(t *testing.T) {
	readme, values, err := readDocs(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := withValues(readme, values)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readme, want) {
		t.Error("README.md is not up to date; run `make generate`")
	}
}

// TestAPackageIsReproducible packages twice, and reads the version.
func TestAPackageIsReproducible(t *testing.T) {
	var archives [2][]byte
	for i := range archives {
		path, err := pack(chartDir, "v1.2.3", "example.com/op", t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(path) != name+"-1.2.3.tgz" {
			t.Errorf("the archive is %s", path)
		}
		if archives[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		c, err := loader.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.Metadata.Version != "1.2.3" || c.Metadata.AppVersion != "v1.2.3" {
			t.Errorf("the archive has versions %s and %s", c.Metadata.Version, c.Metadata.AppVersion)
		}
		repository := c.Values["manager"].(map[string]any)["image"].(map[string]any)["repository"]
		if repository != "example.com/op" {
			t.Errorf("the archive's image is of %v", repository)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of one commit differ")
	}
}
