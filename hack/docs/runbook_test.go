package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

const runbook = "docs/runbook.md"

// TestTheRunbookHasASectionForEachAlertAndVerdict: with what it means, what the operator does, what to check and how it
// ends. Each runbook_url leads to one, and no section is left of an alert that is gone.
func TestTheRunbookHasASectionForEachAlertAndVerdict(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "config/prometheus/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert       string
					Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}
	page := readPage(t, runbook)
	want := map[string]bool{}
	for _, g := range rules.Spec.Groups {
		for _, r := range g.Rules {
			want[r.Alert] = true
			_, anchor, ok := strings.Cut(r.Annotations["runbook_url"], "/"+runbook+"#")
			if !ok || !slices.Contains(page.anchors, anchor) {
				t.Errorf("%s: the runbook_url %q leads to no section", r.Alert, r.Annotations["runbook_url"])
			}
		}
	}
	for _, v := range health.Verdicts() {
		want[string(v)] = true
	}

	text, err := os.ReadFile(filepath.Join(root, runbook))
	if err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^### `).Split(string(text), -1)[1:]
	seen := map[string]bool{}
	for _, section := range sections {
		heading, body, _ := strings.Cut(section, "\n")
		seen[heading] = true
		if !want[heading] {
			t.Errorf("%s has a section for %s, which is neither an alert nor a verdict", runbook, heading)
		}
		for _, part := range []string{"- **Means**", "- **The operator**", "- **Check**", "- **Ends**"} {
			if strings.Count(body, part) != 1 {
				t.Errorf("the section of %s has no part, or several, that begins with %q", heading, part)
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s has no section for %s", runbook, name)
		}
	}
}
