// Command argocd writes what Argo CD needs to know about HyperliquidParsers into a ConfigMap:
//
//	go run ./hack/argocd
//
// It runs in the project's root. The health script and the actions are in config/argocd/resource_customizations, in the
// layout of Argo CD's own repository. Argo CD reads them from two keys of its ConfigMap argocd-cm, the actions as YAML
// inside of YAML, which no kustomize generator writes.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

const (
	customization = "config/argocd/resource_customizations/fleet.hlparser.dev/HyperliquidParser"
	configMapFile = "config/argocd/argocd-cm.yaml"
	groupKind     = "fleet.hlparser.dev_HyperliquidParser"

	healthScript    = "health.lua"
	actionsDir      = "actions"
	discoveryScript = "discovery.lua"
	actionScript    = "action.lua"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "argocd: "+err.Error())
		os.Exit(1)
	}
}

func run() error {
	text, err := configMap(customization)
	if err != nil {
		return err
	}
	if err := os.WriteFile(configMapFile, text, 0o644); err != nil {
		return fmt.Errorf("writing the ConfigMap: %w", err)
	}
	return nil
}

// actions are the actions of a kind, as argocd-cm has them.
type actions struct {
	Discovery   string   `json:"discovery.lua"`
	Definitions []action `json:"definitions"`
}

type action struct {
	Name   string `json:"name"`
	Script string `json:"action.lua"`
}

// configMap returns the ConfigMap argocd-cm with the scripts of a directory, and with nothing else: it is applied as a
// patch.
func configMap(dir string) ([]byte, error) {
	health, err := os.ReadFile(filepath.Join(dir, healthScript))
	if err != nil {
		return nil, fmt.Errorf("reading the health script: %w", err)
	}
	discovery, err := os.ReadFile(filepath.Join(dir, actionsDir, discoveryScript))
	if err != nil {
		return nil, fmt.Errorf("reading the script that lists actions: %w", err)
	}
	all := actions{Discovery: string(discovery)}
	names, err := actionNames(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		script, err := os.ReadFile(filepath.Join(dir, actionsDir, name, actionScript))
		if err != nil {
			return nil, fmt.Errorf("reading the action %s: %w", name, err)
		}
		all.Definitions = append(all.Definitions, action{name, string(script)})
	}
	inner, err := yaml.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("encoding the actions: %w", err)
	}
	outer, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata": map[string]any{
			"name":      "argocd-cm",
			"namespace": "argocd",
			"labels":    map[string]string{"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"},
		},
		"data": map[string]string{
			"resource.customizations.health." + groupKind:  string(health),
			"resource.customizations.actions." + groupKind: string(inner),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the ConfigMap: %w", err)
	}
	const head = "# Generated from resource_customizations by go run ./hack/argocd.\n"
	return append([]byte(head), outer...), nil
}

// actionNames returns the directories that hold an action, by name.
func actionNames(dir string) ([]string, error) {
	scripts, err := filepath.Glob(filepath.Join(dir, actionsDir, "*", actionScript))
	if err != nil {
		return nil, fmt.Errorf("listing actions: %w", err)
	}
	var out []string
	for _, script := range scripts { // Glob sorts them
		out = append(out, filepath.Base(filepath.Dir(script)))
	}
	return out, nil
}
