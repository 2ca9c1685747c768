// Command manifests completes the manifests that controller-gen generates from the markers in the code:
//
//	go run ./hack/manifests
//
// It runs in the project's root, after controller-gen. It is idempotent.
//
//   - Every leaf of the CRD without a bound gets one, because markers cannot reach into types of other packages, such
//     as an affinity, and are forgotten. The API server then admits only values that the Go types can hold and that
//     cost the operator little.
//   - The operator's ClusterRole is split for config/namespaced: namespaced resources move to a Role.
//   - The Helm chart gets its copies of what config has.
package main

import (
	"bytes"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

const (
	crdFile         = "config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml"
	roleFile        = "config/rbac/role.yaml"
	clusterRoleFile = "config/namespaced/cluster_role_patch.yaml"
	watchedRoleFile = "config/namespaced/watched/role.yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "manifests: "+err.Error())
		os.Exit(1)
	}
}

// manifest is a file that is generated from another file, or from itself.
type manifest struct {
	from, to string
	make     func(map[string]any) error
}

func manifests() []manifest {
	return []manifest{
		{crdFile, crdFile, boundCRD},
		{roleFile, clusterRoleFile, clusterRole},
		{roleFile, watchedRoleFile, watchedRole},
	}
}

func run() error {
	for _, f := range manifests() {
		data, err := os.ReadFile(f.from)
		if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		if data, err = remake(data, f.make); err != nil {
			return fmt.Errorf("generating %s from %s: %w", f.to, f.from, err)
		}
		if err := os.WriteFile(f.to, data, 0o644); err != nil {
			return fmt.Errorf("writing a manifest: %w", err)
		}
	}
	return writeChart()
}

// remake applies a change to one YAML document.
func remake(data []byte, change func(map[string]any) error) ([]byte, error) {
	object := map[string]any{}
	if err := yaml.UnmarshalStrict(data, &object); err != nil {
		return nil, err
	}
	if err := change(object); err != nil {
		return nil, err
	}
	out, err := yaml.Marshal(object)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{[]byte("---\n"), out}, nil), nil
}
