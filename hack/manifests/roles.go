package main

import (
	"errors"
	"fmt"
	"slices"
)

// clusterWide holds the cluster-scoped resources of the operator's role.
var clusterWide = []string{"nodes", "namespaces"}

// roleName is the name of the operator's role with the prefix of config/default.
const roleName = "hyperliquid-parser-operator-manager-role"

// clusterRole keeps the cluster-scoped resources of the operator's role.
func clusterRole(role map[string]any) error {
	if err := rename(role); err != nil {
		return err
	}
	return keepRules(role, func(resource string) bool { return slices.Contains(clusterWide, resource) })
}

// watchedRole converts the operator's role to a Role with its namespaced resources.
func watchedRole(role map[string]any) error {
	if err := rename(role); err != nil {
		return err
	}
	role["kind"] = "Role"
	return keepRules(role, func(resource string) bool { return !slices.Contains(clusterWide, resource) })
}

func rename(role map[string]any) error {
	meta, ok := role["metadata"].(map[string]any)
	if !ok {
		return errors.New("the role has no metadata")
	}
	meta["name"] = roleName
	return nil
}

// keepRules removes the resources that keep refuses, and rules without resources.
func keepRules(role map[string]any, keep func(resource string) bool) error {
	rules, _ := role[rulesKey].([]any)
	var kept []any
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		resources, ok := rule["resources"].([]any)
		if !ok {
			return fmt.Errorf("a rule has no resources: %v", r)
		}
		resources = slices.DeleteFunc(slices.Clone(resources), func(name any) bool { return !keep(fmt.Sprint(name)) })
		if len(resources) > 0 {
			rule["resources"] = resources
			kept = append(kept, rule)
		}
	}
	if len(kept) == 0 {
		return errors.New("no rule is left")
	}
	role[rulesKey] = kept
	return nil
}
