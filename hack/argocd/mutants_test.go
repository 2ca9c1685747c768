package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// mutant is a script with one change.
type mutant struct{ name, script string }

// replacements are what mutants change: comparisons, operators, and the words that decide.
var replacements = []struct{ from, to string }{
	{" == ", " ~= "}, {" ~= ", " == "}, {" and ", " or "}, {" or ", " and "}, {"not ", ""}, {" > ", " < "},
	{`"True"`, `"False"`}, {`"False"`, `"True"`},
	{`"Healthy"`, `"Degraded"`}, {`"Degraded"`, `"Healthy"`}, {`"Progressing"`, `"Healthy"`}, {`"Suspended"`, `"Healthy"`},
	{"true", "false"}, {"nil", `""`},
}

// mutants returns all variants of a script with one replacement, one line left out that does something by itself, or
// one of its names changed.
func mutants(script string) []mutant {
	lines := strings.Split(script, "\n")
	var out []mutant
	add := func(i int, line string) {
		changed := slices.Clone(lines)
		changed[i] = line
		out = append(out, mutant{strconv.Itoa(i+1) + ": " + strings.TrimSpace(line), strings.Join(changed, "\n")})
	}
	name := regexp.MustCompile(`"[A-Za-z][^"]{3,}"|(?:^  |\.)[A-Za-z]{4,}`)
	for i, line := range lines {
		if text := strings.TrimSpace(line); text == "" || strings.HasPrefix(text, "--") {
			continue
		}
		for _, r := range replacements {
			for at := 0; ; {
				found := strings.Index(line[at:], r.from)
				if found < 0 {
					break
				}
				at += found
				add(i, line[:at]+r.to+line[at+len(r.from):])
				at += len(r.from)
			}
		}
		for _, m := range name.FindAllStringIndex(line, -1) {
			add(i, line[:m[1]-1]+"X"+line[m[1]-1:])
		}
		text := strings.TrimSpace(line)
		if strings.HasPrefix(text, "return ") && !strings.HasPrefix(line, "return") || strings.Contains(text, "] = ") ||
			strings.HasPrefix(text, "passing = ") || strings.HasPrefix(text, "message = ") {
			add(i, "")
		}
	}
	return out
}

// Each change of a script must be noticed by a test.
func TestEveryMutantFails(t *testing.T) {
	type scripted struct {
		path     string
		failures func(script string) bool
	}
	healths, cases := readHealthCases(t), readActionCases(t)
	objects := make([]*unstructured.Unstructured, 0, len(healths))
	for _, c := range healths {
		objects = append(objects, object(t, scripts, c.Input))
	}
	lacking := bare(t)
	names, err := actionNames(scripts)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]scripted, 0, len(names)+2)
	all = append(all, scripted{healthScript, func(script string) bool {
		for i, c := range healths {
			if got, err := healthOf(script, objects[i]); err != nil || got != c.Health {
				return true
			}
		}
		for u, want := range lacking {
			if got, err := healthOf(script, u); err != nil || got != want {
				return true
			}
		}
		return false
	}}, scripted{actionsDir + "/" + discoveryScript, func(script string) bool {
		return len(discoveryFailures(t, cases, script)) > 0
	}})
	for _, name := range names {
		all = append(all, scripted{actionsDir + "/" + name + "/" + actionScript, func(script string) bool {
			return len(actionFailures(t, cases, name, script, false)) > 0
		}})
	}
	for _, s := range all {
		script := read(t, scripts, s.path)
		if s.failures(script) {
			t.Fatalf("%s fails without a change", s.path)
		}
		killed := 0
		for _, m := range mutants(script) {
			if s.failures(m.script) {
				killed++
				continue
			}
			t.Errorf("%s: no test notices line %s", s.path, m.name)
		}
		t.Logf("%s: %d mutants were noticed", s.path, killed)
	}
}
