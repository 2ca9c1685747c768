package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// chartDir is the Helm chart. Its templates wrap the parts of manifests that chartFiles copies into it, so that what
// both kustomize and Helm install is written once.
const chartDir = "dist/chart"

// dashboardsDir has the Grafana dashboards that hack/grafana generates.
const dashboardsDir = "config/grafana"

// Keys of what templates include.
const (
	rulesKey = "rules"
	specKey  = "spec"
)

// chartFile is a part of a manifest that a template of the chart includes.
type chartFile struct {
	from string
	key  string // the only key of the object that is copied
	to   string // below the chart's files directory
}

func chartFiles() []chartFile {
	return []chartFile{
		{roleFile, rulesKey, "manager-rules.yaml"},
		{clusterRoleFile, rulesKey, "manager-cluster-rules.yaml"},
		{watchedRoleFile, rulesKey, "manager-namespaced-rules.yaml"},
		{"config/rbac/leader_election_role.yaml", rulesKey, "leader-election-rules.yaml"},
		{"config/rbac/keys_role.yaml", rulesKey, "keys-rules.yaml"},
		{"config/rbac/metrics_auth_role.yaml", rulesKey, "metrics-auth-rules.yaml"},
		{"config/rbac/metrics_reader_role.yaml", rulesKey, "metrics-reader-rules.yaml"},
		{"config/rbac/reports_reader_role.yaml", rulesKey, "reports-reader-rules.yaml"},
		{"config/rbac/samples_reader_role.yaml", rulesKey, "samples-reader-rules.yaml"},
		{"config/rbac/hyperliquidparser_admin_role.yaml", rulesKey, "admin-rules.yaml"},
		{"config/rbac/hyperliquidparser_editor_role.yaml", rulesKey, "editor-rules.yaml"},
		{"config/rbac/hyperliquidparser_viewer_role.yaml", rulesKey, "viewer-rules.yaml"},
		{"config/prometheus/monitor.yaml", specKey, "service-monitor-spec.yaml"},
		{"config/prometheus/parsers.yaml", specKey, "pod-monitor-spec.yaml"},
		{"config/prometheus/rules.yaml", specKey, "rules-spec.yaml"},
		{"config/admission-policy/policy.yaml", specKey, "bounds-policy-spec.yaml"},
		{"config/operator-policy/policy.yaml", specKey, "operator-policy-spec.yaml"},
	}
}

// dashboards are the files of config/grafana that the chart has whole.
func dashboards() []string { return []string{"fleet.json", "target.json"} }

// writeChart writes the generated files of the chart.
func writeChart() error {
	for _, f := range chartFiles() {
		data, err := os.ReadFile(f.from)
		if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		if data, err = part(data, f.key); err != nil {
			return fmt.Errorf("reading %s: %w", f.from, err)
		}
		if err := write(filepath.Join("files", f.to), data); err != nil {
			return err
		}
	}
	for _, name := range dashboards() {
		data, err := os.ReadFile(filepath.Join(dashboardsDir, name))
		if err != nil {
			return fmt.Errorf("reading a dashboard: %w", err)
		}
		if err := write(filepath.Join("files", "dashboard-"+name), data); err != nil {
			return err
		}
	}
	crd, err := os.ReadFile(crdFile)
	if err != nil {
		return fmt.Errorf("reading the CRD: %w", err)
	}
	if crd, err = crdTemplate(crd); err != nil {
		return fmt.Errorf("making a template of %s: %w", crdFile, err)
	}
	return write("templates/crd/hyperliquidparsers.yaml", crd)
}

// write writes a file of the chart.
func write(path string, data []byte) error {
	path = filepath.Join(chartDir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the chart: %w", err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("writing the chart: %w", err)
	}
	return nil
}

// part returns a manifest with one of its keys alone.
func part(manifest []byte, key string) ([]byte, error) {
	object := map[string]any{}
	if err := yaml.UnmarshalStrict(manifest, &object); err != nil {
		return nil, err
	}
	value, ok := object[key]
	if !ok {
		return nil, fmt.Errorf("it has no %s", key)
	}
	return yaml.Marshal(map[string]any{key: value})
}

// crdTemplate makes a template of the CRD: it belongs to the release only if crd.enable is set, and crd.keep preserves
// it when the release is uninstalled. The directory crds of a chart would do neither, since Helm never upgrades what is
// in it.
func crdTemplate(crd []byte) ([]byte, error) {
	const annotations = "metadata:\n  annotations:\n"
	before, after, ok := bytes.Cut(bytes.TrimPrefix(crd, []byte("---\n")), []byte(annotations))
	if !ok {
		return nil, errors.New("it has no annotations")
	}
	escape := strings.NewReplacer("{{", `{{ "{{" }}`)
	var out bytes.Buffer
	out.WriteString("{{- if .Values.crd.enable }}\n")
	out.WriteString(escape.Replace(string(before)))
	out.WriteString(annotations)
	out.WriteString("    {{- if .Values.crd.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n")
	out.WriteString(escape.Replace(string(after)))
	out.WriteString("{{- end }}\n")
	return out.Bytes(), nil
}
