package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bounds of leaves without a bound. Those of labels are Kubernetes' own. The numbers of terms and values bound the work
// of a reconcile for each node: 8 × 16 × 128 comparisons of strings take some 80 µs.
const (
	maxInt32 = 1<<31 - 1
	// maxInt is the largest integer that is exact as a floating-point number, which the API server may read it as.
	maxInt      = 1<<53 - 1
	maxKey      = 317 // of a label: a DNS name of 253, a slash, a name of 63
	maxLabel    = 63
	maxName     = 253
	maxItems    = 32
	maxMapItems = 32
)

// Patterns of types that decode themselves. Every text that they match decodes. That does not hold for the patterns of
// controller-gen and the API server: the exponent of the quantity "1e99999999999999999999" overflows an int64.
const (
	quantityPattern = `^([0-9]{1,18}([.][0-9]{0,9})?|[.][0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$`
	// timePattern is in addition to format date-time, which checks the lengths of months.
	timePattern = `^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])` +
		`T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`
)

// describedDepth is the depth to which fields of an affinity keep their descriptions. Deeper ones repeat
// kubectl explain pod.spec.affinity, and would be an eighth of a CRD that must stay below 200 KB.
const describedDepth = 3

// items holds the maximum number of items by the name of the list. Other lists have at most maxItems.
var items = map[string]int{
	"nodeSelectorTerms": 8,
	"matchExpressions":  16,
	"matchFields":       16,
	"values":            128,
	"preferredDuringSchedulingIgnoredDuringExecution": 16,
	"requiredDuringSchedulingIgnoredDuringExecution":  16,
	"matchLabelKeys":    8,
	"mismatchLabelKeys": 8,
	"claims":            16,
}

// lengths holds the maximum number of characters by the name of the string. Other strings have at most maxName.
var lengths = map[string]int{
	"key": maxKey, "topologyKey": maxKey, "operator": maxLabel, "effect": maxLabel, "value": maxLabel,
}

// boundCRD adds the missing bounds to the leaves of the CRD's spec and status.
func boundCRD(crd map[string]any) error {
	spec, _ := crd[specKey].(map[string]any)
	versions, _ := spec["versions"].([]any)
	if len(versions) == 0 {
		return errors.New("the CRD has no versions")
	}
	for _, v := range versions {
		version, _ := v.(map[string]any)
		schema, _ := version["schema"].(map[string]any)
		root, _ := schema["openAPIV3Schema"].(map[string]any)
		fields, _ := root["properties"].(map[string]any)
		for _, name := range []string{specKey, "status"} {
			field, ok := fields[name].(map[string]any)
			if !ok {
				return fmt.Errorf("the schema of version %v has no %s", version["name"], name)
			}
			if err := bound(field, []string{name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// bound adds the missing bounds to a schema and to all schemas below it. The path holds the names of fields; "*" stands
// for the items of a list or map.
func bound(schema map[string]any, path []string) error {
	if _, ok := schema["x-kubernetes-preserve-unknown-fields"]; ok {
		return fmt.Errorf("%s takes anything", strings.Join(path, "."))
	}
	name := path[len(path)-1]
	if len(path) > describedDepth && path[1] == "affinity" {
		delete(schema, "description")
	}
	if schema["x-kubernetes-int-or-string"] == true {
		boundIntOrString(schema)
		return nil
	}
	switch schema["type"] {
	case "integer":
		limit := float64(maxInt)
		if schema["format"] == "int32" {
			limit = maxInt32
		}
		setDefault(schema, "maximum", limit)
		setDefault(schema, "minimum", -limit)
	case "string":
		boundString(schema, path)
	case "boolean":
	case "array":
		most, ok := items[name]
		if !ok {
			most = maxItems
		}
		if name == "matchExpressions" && slices.Contains(path, "target") {
			most = maxItems // as the field's rule says
		}
		setDefault(schema, "maxItems", most)
		return boundBelow(schema, "items", append(slices.Clone(path), "*"))
	case "object":
		if _, ok := schema["additionalProperties"]; ok {
			setDefault(schema, "maxProperties", maxMapItems)
			addRule(schema, fmt.Sprintf("self.all(k, size(k) <= %d)", maxKey),
				fmt.Sprintf("write names of at most %d characters", maxKey))
			return boundBelow(schema, "additionalProperties", append(slices.Clone(path), "*"))
		}
		fields, _ := schema["properties"].(map[string]any)
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			if err := boundBelow(fields, field, append(slices.Clone(path), field)); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%s is of type %v, for which there is no bound", strings.Join(path, "."), schema["type"])
	}
	return nil
}

func boundBelow(schema map[string]any, name string, path []string) error {
	below, ok := schema[name].(map[string]any)
	if !ok {
		return fmt.Errorf("%s has no schema", strings.Join(path, "."))
	}
	return bound(below, path)
}

// boundIntOrString bounds quantities, which have a pattern from controller-gen, and numbers that may be percentages,
// which have a rule.
func boundIntOrString(schema map[string]any) {
	if _, ok := schema["pattern"]; ok {
		schema["pattern"] = quantityPattern
		setDefault(schema, "maximum", float64(maxInt))
		setDefault(schema, "minimum", 0)
		setDefault(schema, "maxLength", maxName)
		return
	}
	setDefault(schema, "maximum", maxInt32)
	setDefault(schema, "minimum", 0)
	setDefault(schema, "maxLength", maxLabel)
}

func boundString(schema map[string]any, path []string) {
	if _, ok := schema["enum"]; ok {
		return
	}
	if schema["format"] == "date-time" {
		schema["pattern"] = timePattern
		// The API server accepts an empty list for a string with a format. To CEL it is no time.
		addRule(schema, "self.getFullYear() >= 0", "write a time such as 2026-11-30T12:00:00Z")
	}
	name := path[len(path)-1]
	most, ok := lengths[name]
	if !ok {
		most = maxName
	}
	if name == "*" {
		switch path[len(path)-2] {
		case "matchLabels":
			most = maxLabel
		case "values":
			if !slices.Contains(path, "matchFields") {
				most = maxLabel
			}
		}
	}
	setDefault(schema, "maxLength", most)
}

// addRule adds a CEL rule, once.
func addRule(schema map[string]any, rule, message string) {
	rules, _ := schema["x-kubernetes-validations"].([]any)
	for _, r := range rules {
		if m, ok := r.(map[string]any); ok && m["rule"] == rule {
			return
		}
	}
	schema["x-kubernetes-validations"] = append(rules, map[string]any{"rule": rule, "message": message})
}

func setDefault(schema map[string]any, name string, value any) {
	if _, ok := schema[name]; !ok {
		schema[name] = value
	}
}
