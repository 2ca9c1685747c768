package main

import (
	"errors"
	"fmt"
	"slices"
)

// clusterWide are the resources of the operator's role that lie in no namespace.
var clusterWide = []string{"nodes", "namespaces"}

// roleName is what the operator's role is called where a prefix has been put before its name.
const roleName = "hyperliquid-parser-operator-manager-role"

// clusterRole leaves in the operator's role what lies in no namespace.
func clusterRole(role map[string]any) error {
	if err := rename(role); err != nil {
		return err
	}
	return keepRules(role, func(resource string) bool { return slices.Contains(clusterWide, resource) })
}

// watchedRole makes of the operator's role a Role with what lies in namespaces.
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

// keepRules leaves out resources, and rules that have none left.
func keepRules(role map[string]any, keep func(resource string) bool) error {
	rules, _ := role["rules"].([]any)
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
	role["rules"] = kept
	return nil
}
