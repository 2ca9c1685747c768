package v1alpha1_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

const (
	namesFile = "names.go"
	docsFile  = "../../docs/labels-annotations.md"
	operator  = "../../internal/controller"
)

// Every label, annotation, component, condition, reason and state must be explained to users.
func TestEveryNameIsDocumented(t *testing.T) {
	docs := documented(t)
	names := namesOf(t)
	if len(names) < 60 {
		t.Fatalf("%s has only %d names: %v", namesFile, len(names), names)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !docs[names[name]] {
			t.Errorf("%s (%s) is missing in %s", names[name], name, docsFile)
		}
	}
}

// The operator's verdicts, alerts and the reasons that it adds are in the status and in events. They are read from its
// source, since this package must not depend on it.
func TestEveryVerdictAndReasonOfTheOperatorIsDocumented(t *testing.T) {
	kinds := map[string]*regexp.Regexp{
		"verdict": regexp.MustCompile(`(?m)^\s*\w+\s+Verdict\s+= "(\w+)"`),
		"alert":   regexp.MustCompile(`(?m)^\s*\w+\s+AlertKind\s+= "(\w+)"`),
		"reason":  regexp.MustCompile(`(?m)^\s*[rR]eason\w+\s+= "(\w+)"`),
	}
	least := map[string]int{"verdict": 12, "alert": 4, "reason": 15}
	// How a container ended: in messages only.
	messages := []string{"Error", "Completed"}
	docs, found := documented(t), map[string]int{}
	err := filepath.WalkDir(operator, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for kind, pattern := range kinds {
			for _, match := range pattern.FindAllSubmatch(text, -1) {
				found[kind]++
				if name := string(match[1]); !docs[name] && !slices.Contains(messages, name) {
					t.Errorf("%s %s (%s) is missing in %s", kind, name, path, docsFile)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range least {
		if found[kind] < n {
			t.Errorf("found %d constants of kind %s in %s, want at least %d: adapt the pattern", found[kind], kind, operator, n)
		}
	}
}

func TestConditionsListsEveryCondition(t *testing.T) {
	var want []string
	for name, value := range namesOf(t) {
		if strings.HasPrefix(name, "Condition") {
			want = append(want, value)
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(v1alpha1.Conditions())); !slices.Equal(got, want) {
		t.Errorf("Conditions() lists %v, want %v", got, want)
	}
}

// documented returns the words that stand in a first or second column of a table, each in backquotes.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	quoted := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, cell := range cells[1:3] {
			for _, match := range quoted.FindAllStringSubmatch(cell, -1) {
				out[match[1]] = true
			}
		}
	}
	return out
}

// namesOf returns the string constants of names.go by their names.
func namesOf(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), namesFile, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			values := spec.(*ast.ValueSpec)
			for i, name := range values.Names {
				value, err := evaluate(values.Values[i])
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				out[name.Name] = value
			}
		}
	}
	return out
}

// evaluate returns the value of a string literal, or of Group with a literal behind it.
func evaluate(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.StringVal(constant.MakeFromLiteral(e.Value, e.Kind, 0)), nil
	case *ast.Ident:
		if e.Name == "Group" {
			return v1alpha1.Group, nil
		}
	case *ast.BinaryExpr:
		x, err := evaluate(e.X)
		if err != nil {
			return "", err
		}
		y, err := evaluate(e.Y)
		return x + y, err
	}
	return "", fmt.Errorf("%T is no string of the kind that this test knows", e)
}
