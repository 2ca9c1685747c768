package controller_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// guard matches the check of a size that a rule does before it parses the size.
var guard = regexp.MustCompile(
	`^!?string\(([a-zA-Z.]+)\)\.matches\('\^\[0-9\.\]\{1,28\}\(.*\[eE\]\[\+-\]\?\[0-9\]\{1,2\}\)\?\$'\)$`)

// The API server computes a size with a large exponent digit by digit, for hours, and a pattern that does not match
// does not keep it from evaluating rules.
func TestNoRuleParsesASizeOfAnyExponent(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases",
		"fleet.hlparser.dev_hyperliquidparsers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensions.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	parsed := regexp.MustCompile(`uantity\(string\(([a-zA-Z.]+)\)\)`)
	rules := 0
	var walk func(path string, of *apiextensions.JSONSchemaProps)
	walk = func(path string, of *apiextensions.JSONSchemaProps) {
		for _, rule := range of.XValidations {
			for _, size := range parsed.FindAllStringSubmatchIndex(rule.Rule, -1) {
				rules++
				name := rule.Rule[size[2]:size[3]]
				guarded := false
				for _, term := range regexp.MustCompile(` (&&|\|\|) `).Split(rule.Rule[:size[0]], -1) {
					m := guard.FindStringSubmatch(strings.TrimLeft(term, "("))
					guarded = guarded || m != nil && m[1] == name
				}
				if !guarded {
					t.Errorf("%s: %s is parsed before its form is known: %s", path, name, rule.Rule)
				}
			}
		}
		for name, property := range of.Properties {
			walk(path+"."+name, &property)
		}
		if of.Items != nil {
			walk(path+"[]", of.Items.Schema)
		}
		if of.AdditionalProperties != nil && of.AdditionalProperties.Schema != nil {
			walk(path+"{}", of.AdditionalProperties.Schema)
		}
	}
	walk("", crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	if rules < 10 {
		t.Errorf("only %d sizes are parsed: the test finds none", rules)
	}
}
