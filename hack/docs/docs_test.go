// Package docs checks the documentation against the tree: links, anchors, and the functions and tests that it names.
package docs

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "correct the file of each function that moved within its folder")

const root = "../.."

// maxColumns is the width of a line of text. Tables and code may be wider.
const maxColumns = 120

// page is a Markdown file without its code blocks.
type page struct {
	path       string // from the root, with slashes
	lines      []line
	paragraphs []line // joined lines, numbered by their first
	anchors    []string
}

type line struct {
	number int
	text   string
}

// pages returns all Markdown files of the tree.
func pages(t *testing.T) map[string]*page {
	t.Helper()
	all := map[string]*page{}
	walk(t, func(name string) {
		if path.Ext(name) == ".md" {
			all[name] = readPage(t, name)
		}
	})
	if all["README.md"] == nil {
		t.Fatal("README.md is not found: is the root of the tree where this test expects it?")
	}
	return all
}

// walk calls visit for each file of the tree, except what git and the build leave there.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	skip := []string{".git", "bin", "dist", "testdata", "node_modules"}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(skip, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		name, err = filepath.Rel(root, name)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readPage(t *testing.T, name string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{path: name}
	fence := ""
	used := map[string]int{}
	for i, text := range strings.Split(string(text), "\n") {
		mark := strings.TrimLeft(text, " >-*0123456789.")
		switch {
		case fence == "" && strings.HasPrefix(mark, "```"):
			fence = mark[:len(mark)-len(strings.TrimLeft(mark, "`"))]
			continue
		case fence != "":
			if strings.TrimSpace(text) == fence {
				fence = ""
			}
			continue
		}
		p.add(line{i + 1, text})
		heading := strings.TrimLeft(text, "#")
		if heading != text && strings.HasPrefix(heading, " ") {
			anchor := anchorOf(heading)
			if n := used[anchor]; n > 0 {
				p.anchors = append(p.anchors, fmt.Sprintf("%s-%d", anchor, n))
			} else {
				p.anchors = append(p.anchors, anchor)
			}
			used[anchor]++
		}
		for _, m := range anchorTag.FindAllStringSubmatch(text, -1) {
			p.anchors = append(p.anchors, m[1])
		}
	}
	return p
}

// add appends a line, and continues a paragraph with it unless it begins another block.
func (p *page) add(l line) {
	text := strings.TrimSpace(l.text)
	continues := len(p.lines) > 0 && text != "" && !newBlock.MatchString(text)
	if continues {
		last := p.lines[len(p.lines)-1]
		continues = last.number == l.number-1 && last.text != ""
	}
	if continues {
		p.paragraphs[len(p.paragraphs)-1].text += " " + text
	} else {
		p.paragraphs = append(p.paragraphs, l)
	}
	p.lines = append(p.lines, l)
}

var newBlock = regexp.MustCompile(`^(\||#|[-*] |\d+\. |\[[^\]]+\]: )`)

var anchorTag = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)

// anchorOf returns the anchor that GitHub gives a heading.
func anchorOf(heading string) string {
	heading = linkTarget.ReplaceAllString(heading, "$1")
	var anchor strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			anchor.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			anchor.WriteRune(r)
		}
	}
	return anchor.String()
}

var (
	linkTarget = regexp.MustCompile(`!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)`)
	reference  = regexp.MustCompile(`^\[[^\]]+\]: (\S+)$`)
	codeSpan   = regexp.MustCompile("`[^`]+`")
)

// TestLinksLeadSomewhere resolves each relative link and each anchor of each page.
func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	checked := 0
	for _, p := range all {
		for _, l := range p.paragraphs {
			for _, target := range targets(l.text) {
				if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
					continue
				}
				checked++
				if problem := resolve(all, p, target); problem != "" {
					t.Errorf("%s:%d: %s: %s", p.path, l.number, target, problem)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d relative links were found", checked)
	}
}

// targets returns the targets of the links of a line, also of images within links.
func targets(text string) []string {
	text = codeSpan.ReplaceAllStringFunc(text, func(code string) string { return strings.Repeat("c", len(code)) })
	var found []string
	for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
		found = append(found, m[2])
		found = append(found, targets(m[1])...)
	}
	if m := reference.FindStringSubmatch(text); m != nil {
		found = append(found, m[1])
	}
	return found
}

// resolve returns what is wrong with a link of p, or nothing.
func resolve(all map[string]*page, p *page, target string) string {
	file, anchor, _ := strings.Cut(target, "#")
	name := p.path
	if file != "" {
		name = path.Join(path.Dir(p.path), file)
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil {
			return "there is no such file"
		}
	}
	if anchor == "" || path.Ext(name) != ".md" {
		return ""
	}
	if !slices.Contains(all[name].anchors, anchor) {
		return "there is no such heading"
	}
	return ""
}

// TestTextIsWrapped keeps text within maxColumns, so that diffs stay readable. A word that is longer cannot be wrapped.
func TestTextIsWrapped(t *testing.T) {
	generated := []string{"docs/benchmarks.md", "docs/api.md"}
	for _, p := range pages(t) {
		if slices.Contains(generated, p.path) || strings.HasPrefix(p.path, ".github/") { // GitHub keeps line breaks of forms
			continue
		}
		for _, l := range p.lines {
			text := strings.TrimSpace(l.text)
			if len([]rune(l.text)) > maxColumns && !unwrappable.MatchString(text) {
				t.Errorf("%s:%d: %d columns", p.path, l.number, len([]rune(l.text)))
			}
		}
	}
}

// unwrappable matches rows of tables, badges, and lines of one word.
var unwrappable = regexp.MustCompile(`^(\||\[!|\S+$)`)

// source is what the Go files declare.
type source struct {
	files map[string][]string // file → functions, methods (Type.Method), types, constants and variables
	tests map[string]bool     // tests, fuzz targets, benchmarks and examples
	texts []string            // string literals of the tests, which name specs
	words map[string]bool     // string literals of the programs, such as names of metrics
}

func readSource(t *testing.T) *source {
	t.Helper()
	s := &source{files: map[string][]string{}, tests: map[string]bool{}, words: map[string]bool{}}
	walk(t, func(name string) {
		if path.Ext(name) != ".go" {
			return
		}
		full := filepath.Join(root, filepath.FromSlash(name))
		file, err := parser.ParseFile(token.NewFileSet(), full, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("reading %s: %v", name, err)
			return
		}
		isTest := strings.HasSuffix(name, "_test.go") || strings.Contains(name, "sinktest/")
		for _, decl := range file.Decls {
			s.files[name] = append(s.files[name], names(decl)...)
		}
		if isTest {
			for _, decl := range s.files[name] {
				s.tests[decl] = true
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			expr, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, ok := textOf(expr)
			switch {
			case !ok:
				return true
			case isTest:
				s.texts = append(s.texts, text)
			default:
				s.words[text] = true
			}
			return false
		})
	})
	return s
}

// textOf returns the text of a string literal, or of several that are joined by +.
func textOf(expr ast.Expr) (string, bool) {
	switch expr := expr.(type) {
	case *ast.BasicLit:
		return strings.Trim(expr.Value, "\"`"), expr.Kind == token.STRING
	case *ast.BinaryExpr:
		left, ok := textOf(expr.X)
		if !ok || expr.Op != token.ADD {
			return "", false
		}
		right, ok := textOf(expr.Y)
		return left + right, ok
	}
	return "", false
}

// names returns what a declaration declares.
func names(decl ast.Decl) []string {
	var found []string
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		name := decl.Name.Name
		if decl.Recv != nil {
			name = receiver(decl.Recv.List[0].Type) + "." + name
		}
		return []string{name}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				found = append(found, spec.Name.Name)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					found = append(found, name.Name)
				}
			}
		}
	}
	return found
}

func receiver(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		return receiver(expr.X)
	case *ast.IndexExpr:
		return receiver(expr.X)
	case *ast.IndexListExpr:
		return receiver(expr.X)
	case *ast.Ident:
		return expr.Name
	}
	return ""
}

// withPath returns the files whose path ends with name.
func (s *source) withPath(name string) []string {
	var found []string
	for file := range s.files {
		if file == name || strings.HasSuffix(file, "/"+name) {
			found = append(found, file)
		}
	}
	slices.Sort(found)
	return found
}

// declaring returns the files that declare a name, those of a folder called dir if there are some.
func (s *source) declaring(name, dir string) []string {
	var inDir, elsewhere []string
	for file, names := range s.files {
		switch {
		case strings.HasSuffix(file, "_test.go") || !slices.Contains(names, name):
		case path.Base(path.Dir(file)) == dir:
			inDir = append(inDir, file)
		default:
			elsewhere = append(elsewhere, file)
		}
	}
	if len(inDir) > 0 {
		elsewhere = inDir
	}
	slices.Sort(elsewhere)
	return elsewhere
}

var (
	function = regexp.MustCompile("`([A-Za-z0-9_/.-]+\\.go):([A-Za-z_][A-Za-z0-9_.]*)`")
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark|Example)[A-Z][A-Za-z0-9_]+`)
	specName = regexp.MustCompile(`\bspecs? ("[^"]+"(?:(?:, (?:and )?| and )"[^"]+")*)`)
	quoted   = regexp.MustCompile(`"([^"]+)"`)
)

// TestNamedFunctionsExist checks each `file.go:Name` of the documentation. With -update it corrects the file of a name
// that is declared elsewhere in the same folder.
func TestNamedFunctionsExist(t *testing.T) {
	s := readSource(t)
	checked := 0
	for _, p := range pages(t) {
		corrections := map[string]string{}
		for _, l := range p.paragraphs {
			for _, m := range function.FindAllStringSubmatch(l.text, -1) {
				checked++
				problem, correct := s.check(m[1], m[2])
				if problem == "" {
					continue
				}
				if *update && correct != "" {
					corrections[m[1]+":"+m[2]] = correct + ":" + m[2]
					continue
				}
				t.Errorf("%s:%d: %s:%s: %s", p.path, l.number, m[1], m[2], problem)
			}
		}
		correctPage(t, p, corrections)
	}
	if checked < 50 {
		t.Errorf("only %d functions were found", checked)
	}
}

// check returns what is wrong with a reference, and the path that would be right, if it is known.
func (s *source) check(file, name string) (problem, correct string) {
	matching := s.withPath(file)
	for _, full := range matching {
		if slices.Contains(s.files[full], name) {
			if len(matching) > 1 {
				return fmt.Sprintf("ambiguous: %s", strings.Join(matching, ", ")), ""
			}
			return "", ""
		}
	}
	found := s.declaring(name, path.Base(path.Dir(file)))
	what := "there is no such file"
	if len(matching) > 0 {
		what = "the file does not declare it"
	}
	if len(found) == 0 {
		return what, ""
	}
	if len(found) == 1 {
		correct = shorten(found[0], strings.Count(file, "/"))
	}
	return fmt.Sprintf("%s; declared in %s", what, strings.Join(found, ", ")), correct
}

// shorten keeps the last folders of a path.
func shorten(file string, folders int) string {
	parts := strings.Split(file, "/")
	return strings.Join(parts[max(0, len(parts)-1-folders):], "/")
}

func correctPage(t *testing.T, p *page, corrections map[string]string) {
	t.Helper()
	if len(corrections) == 0 {
		return
	}
	name := filepath.Join(root, filepath.FromSlash(p.path))
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for wrong, right := range corrections {
		changed = strings.ReplaceAll(changed, "`"+wrong+"`", "`"+right+"`")
		t.Logf("%s: %s → %s", p.path, wrong, right)
	}
	if err := os.WriteFile(name, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestNamedTestsExist checks each test that the documentation names, and each quoted name after "spec".
func TestNamedTestsExist(t *testing.T) {
	s := readSource(t)
	texts := strings.Join(s.texts, "\n")
	checked := 0
	for _, p := range pages(t) {
		// CONTRIBUTING and the like show names of tests that are to be written.
		if path.Dir(p.path) != "docs" {
			continue
		}
		for _, l := range p.paragraphs {
			for _, code := range codeSpan.FindAllString(l.text, -1) {
				for _, name := range testName.FindAllString(code, -1) {
					checked++
					if !s.tests[name] {
						t.Errorf("%s:%d: there is no test %s%s", p.path, l.number, name, s.similar(name))
					}
				}
			}
			for _, m := range specName.FindAllStringSubmatch(l.text, -1) {
				for _, name := range quoted.FindAllStringSubmatch(m[1], -1) {
					checked++
					if !s.hasSpec(texts, strings.Trim(name[1], "… ")) {
						t.Errorf("%s:%d: there is no spec %q", p.path, l.number, name[1])
					}
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d tests were found", checked)
	}
}

var (
	metricName = regexp.MustCompile("`hlparser_([a-z_]+)`")
	makeTarget = regexp.MustCompile("`make (?:-s )?([a-z0-9-]+)[^`]*`")
	targetLine = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
)

// TestNamedMetricsAndTargetsExist checks each metric and each target of make that a page names.
func TestNamedMetricsAndTargetsExist(t *testing.T) {
	s := readSource(t)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, m := range targetLine.FindAllStringSubmatch(string(makefile), -1) {
		exists[m[1]] = true
	}
	checked := 0
	for _, p := range pages(t) {
		for _, l := range p.paragraphs {
			for _, m := range metricName.FindAllStringSubmatch(l.text, -1) {
				checked++
				if !s.words[m[1]] && !s.words["hlparser_"+m[1]] {
					t.Errorf("%s:%d: there is no metric hlparser_%s", p.path, l.number, m[1])
				}
			}
			for _, m := range makeTarget.FindAllStringSubmatch(l.text, -1) {
				checked++
				if !exists[m[1]] {
					t.Errorf("%s:%d: there is no target %s", p.path, l.number, m[1])
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d metrics and targets were found", checked)
	}
}

// hasSpec reports whether a spec has that name, or a container and a spec in it have its two parts.
func (s *source) hasSpec(texts, name string) bool {
	if strings.Contains(texts, name) {
		return true
	}
	for i, r := range name {
		if r == ' ' && slices.Contains(s.texts, name[:i]) && slices.Contains(s.texts, name[i+1:]) {
			return true
		}
	}
	return false
}

// similar names the test that shares the longest beginning with name, if it is long.
func (s *source) similar(name string) string {
	best := slices.MaxFunc(append(slices.Collect(maps.Keys(s.tests)), ""), func(a, b string) int {
		return cmp.Or(cmp.Compare(common(a, name), common(b, name)), cmp.Compare(b, a))
	})
	if common(best, name) < len("TestAParserThat") {
		return ""
	}
	return "; is it " + best + "?"
}

func common(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

func TestAnchorsAreGitHubs(t *testing.T) {
	for heading, want := range map[string]string{
		" The node's disk":                     "the-nodes-disk",
		" C: a cluster":                        "c-a-cluster",
		" `SinkDown`, and then":                "sinkdown-and-then",
		" Security: who is trusted":            "security-who-is-trusted",
		" A [link](x.md) in it":                "a-link-in-it",
		" kill -9":                             "kill--9",
		" Stalled, reason `NameTaken`, by one": "stalled-reason-nametaken-by-one",
	} {
		if got := anchorOf(heading); got != want {
			t.Errorf("anchorOf(%q) = %q, want %q", heading, got, want)
		}
	}
}
