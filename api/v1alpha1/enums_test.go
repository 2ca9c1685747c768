package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every value of an enum has a constant, and every constant is a value.
func TestEnumsHaveConstants(t *testing.T) {
	files, err := filepath.Glob("*_types.go")
	if err != nil {
		t.Fatal(err)
	}
	values, constants := map[string][]string{}, map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range group.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if list := enumOf(group.Doc); list != nil {
						values[spec.Name.Name] = list
					}
				case *ast.ValueSpec:
					if of, ok := spec.Type.(*ast.Ident); ok && group.Tok == token.CONST {
						text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
						if err != nil {
							t.Fatal(err)
						}
						constants[of.Name] = append(constants[of.Name], text)
					}
				}
			}
		}
	}
	if len(values) < 10 {
		t.Fatalf("found only %d enums: adapt the test", len(values))
	}
	for name, want := range values {
		if got := constants[name]; !slices.Equal(got, want) {
			t.Errorf("the constants of %s are %v, its values are %v", name, got, want)
		}
	}
}

// enumOf returns the values of the Enum marker in a type's comment.
func enumOf(doc *ast.CommentGroup) []string {
	if doc == nil {
		return nil
	}
	for _, line := range doc.List {
		if list, ok := strings.CutPrefix(line.Text, "// +kubebuilder:validation:Enum="); ok {
			return strings.Split(list, ";")
		}
	}
	return nil
}
