// Package ci tests the scripts of .ci, which the go command does not enter.
package ci

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hlparser/hyperliquid-parser-operator/"

// clone is a git repository with the scripts of .ci.
type clone struct {
	t   *testing.T
	dir string
	env []string
}

// newClone returns a repository whose one commit holds the scripts and a file of the broker's step.
func newClone(t *testing.T) *clone {
	t.Helper()
	c := &clone{t: t, dir: t.TempDir()}
	for _, name := range os.Environ() {
		if key, _, _ := strings.Cut(name, "="); !strings.HasPrefix(key, "CI") && !strings.HasPrefix(key, "GIT_") {
			c.env = append(c.env, name)
		}
	}
	c.env = append(c.env, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com")
	if err := os.CopyFS(filepath.Join(c.dir, ".ci"), os.DirFS("../../.ci")); err != nil {
		t.Fatal(err)
	}
	c.git("init", "--quiet", "--initial-branch=main")
	c.commit("internal/parser/sink/sink.go")
	return c
}

// run runs a program in the repository, and returns its output and exit code.
func (c *clone) run(program string, args ...string) (string, int) {
	c.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	output, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		c.t.Fatal(err)
	}
	return string(output), cmd.ProcessState.ExitCode()
}

func (c *clone) git(args ...string) string {
	c.t.Helper()
	output, code := c.run("git", args...)
	if code != 0 {
		c.t.Fatalf("git %q: %s", args, output)
	}
	return strings.TrimSpace(output)
}

func (c *clone) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
		c.t.Fatal(err)
	}
}

// commit changes a file and commits everything.
func (c *clone) commit(name string) {
	c.t.Helper()
	old, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	c.write(name, string(old)+"x\n")
	c.git("add", "--all")
	c.git("commit", "--quiet", "--message", name)
}

// wants checks whether the brokers' step runs, and the reason.
func (c *clone) wants(run bool, reason string) {
	c.t.Helper()
	output, code := c.run(".ci/changed", "brokers")
	if run != (code == 0) || code > 1 || !strings.Contains(output, reason) {
		c.t.Errorf("exit code %d, %q; want %v, %q", code, output, run, reason)
	}
}

const doc, sink = "docs/design.md", "internal/parser/sink/sink.go"

func TestAStepRunsUnlessItIsKnownThatNothingOfItHasChanged(t *testing.T) {
	branch := func(c *clone) { c.git("update-ref", "refs/remotes/origin/main", "HEAD") }
	for name, test := range map[string]struct {
		prepare func(c *clone)
		run     bool
		reason  string
	}{
		"a single commit":      {func(*clone) {}, true, "no commit to compare with"},
		"the tip of main":      {func(c *clone) { c.commit(doc); branch(c) }, true, "no commit to compare with"},
		"a branch without it":  {func(c *clone) { branch(c); c.commit(doc) }, false, "since where the branch left"},
		"a branch with it":     {func(c *clone) { branch(c); c.commit(sink); c.commit(doc) }, true, sink + " has changed"},
		"a removal":            {func(c *clone) { branch(c); c.git("rm", "-q", sink); c.commit(doc) }, true, sink + " has"},
		"a move away":          {func(c *clone) { branch(c); c.git("mv", sink, "x.go"); c.commit(doc) }, true, sink + " has"},
		"a file not committed": {func(c *clone) { branch(c); c.commit(doc); c.write(sink, "y") }, true, sink + " has"},
		"an untracked file": {func(c *clone) { branch(c); c.commit(doc); c.write("hack/kafka/x.go", "") }, true,
			"hack/kafka/x.go has changed"},
		"a list that has changed": {func(c *clone) { branch(c); c.commit(".ci/paths/brokers") }, true, ".ci/paths"},
		"many files": {func(c *clone) {
			branch(c)
			for i := range 2000 {
				c.write("internal/parser/"+strings.Repeat("a", 100)+string(rune('0'+i%10))+"/"+strings.Repeat("b", i/10+1), "")
			}
			c.commit(sink)
		}, true, "has changed since"},
		"everything is wanted": {func(c *clone) { branch(c); c.commit(doc); c.env = append(c.env, "CI_FULL=1") }, true, "CI"},
		"a base": {func(c *clone) {
			c.env = append(c.env, "CI_BASE="+c.git("rev-parse", "HEAD"))
			c.commit(doc)
		}, false, "since CI_BASE"},
		"a base before the change": {func(c *clone) {
			c.env = append(c.env, "CI_BASE="+c.git("rev-parse", "HEAD"))
			c.commit(sink)
			branch(c)
			c.commit(doc)
		}, true, sink + " has changed since CI_BASE"},
		"a base that the clone lacks": {func(c *clone) {
			branch(c)
			c.commit(doc)
			c.env = append(c.env, "CI_BASE="+strings.Repeat("1", 40))
		}, true, "is not in this clone"},
		"a release, and nothing since": {func(c *clone) { c.git("tag", "v1.0.0"); c.commit(doc) }, false, "since v1.0.0"},
		"a release, and a change":      {func(c *clone) { c.git("tag", "v1.0.0"); c.commit(sink) }, true, "since v1.0.0"},
		"the release itself":           {func(c *clone) { c.commit(doc); c.git("tag", "v1.0.0") }, true, "no commit"},
		"another tag":                  {func(c *clone) { c.git("tag", "nightly"); c.commit(doc) }, true, "no commit"},
		"no list": {func(c *clone) {
			branch(c)
			c.commit(doc)
			c.git("rm", "-q", ".ci/paths/brokers")
		}, true, "names no paths"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClone(t)
			test.prepare(c)
			c.wants(test.run, test.reason)
		})
	}
}

func TestAShallowCloneRunsTheStep(t *testing.T) {
	c := newClone(t)
	c.git("tag", "v1.0.0")
	c.commit(doc)
	shallow := &clone{t: t, dir: filepath.Join(t.TempDir(), "shallow"), env: c.env}
	c.git("clone", "--quiet", "--depth=1", "--no-tags", "file://"+c.dir, shallow.dir)
	shallow.wants(true, "no commit to compare with")
}

// Each package that the brokers' tests are built of is below a path of the list, and each path exists or will.
func TestThePathsOfTheBrokersHoldAllThatTheirTestsAreBuiltOf(t *testing.T) {
	data, err := os.ReadFile("../../.ci/paths/brokers")
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(data))
	roots := []string{"./internal/parser/sink/kafka", "./internal/parser/sink/nats"}
	for _, dir := range []string{"hack/kafka", "hack/nats"} {
		if _, err := os.Stat("../../" + dir); err == nil {
			roots = append(roots, "./"+dir+"/...")
		}
	}
	list := exec.Command("go", append([]string{"list", "-deps", "-test", "-f", "{{.ImportPath}}"}, roots...)...)
	list.Dir = "../.."
	var stderr bytes.Buffer
	list.Stderr = &stderr
	output, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	for line := range strings.Lines(string(output)) {
		name, ours := strings.CutPrefix(strings.TrimSpace(line), module)
		if !ours {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		if !slices.ContainsFunc(paths, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") }) {
			t.Errorf("%s is not below a path of .ci/paths/brokers", name)
		}
	}
}

// Each path of the lists of Argo CD's and Prometheus' steps is there.
func TestThePathsOfArgoCDAndPrometheusExist(t *testing.T) {
	for _, step := range []string{"argocd", "prometheus"} {
		data, err := os.ReadFile("../../.ci/paths/" + step)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if _, err := os.Stat(filepath.Join("../..", line)); err != nil {
				t.Error(err)
			}
		}
	}
}

// argocdModule names a toolchain, as the file of the repository does.
const argocdModule, argocdModuleText = "hack/argocd/module/go.mod", "module x\n\ngo 1.99.0\n\ntoolchain go1.99.1\n"

func TestTheModuleOfArgoCDNamesItsToolchain(t *testing.T) {
	data, err := os.ReadFile("../../" + argocdModule)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "\ntoolchain go1.") {
		t.Error(".ci/run and hack/argocd/build read the toolchain from the file, and it names none")
	}
}

// fakes are programs in the place of those that .ci/run calls. make fails for the target that FAILS names. go has the
// toolchain of Argo CD unless NO_TOOLCHAIN is set, and fails in its module without it.
var fakes = map[string]string{
	"make": "echo made $*; [ \"$1\" != \"${FAILS:-}\" ] || { echo '--- FAIL: TestOf'$1; exit 1; }",
	"go": `echo "go $* with ${GOTOOLCHAIN:-}"
case "$*:${GOTOOLCHAIN:-}:${NO_TOOLCHAIN:-}" in
	"-C hack/argocd/module"*:go1.99.1:) exit 0;;
	"-C hack/argocd/module"*|*:go1.99.1:*) exit 1;;
esac`,
	"curl": "exit 7",
	"id":   "echo 1000",
}

// fake puts the fakes into the PATH, and a module of Argo CD into the repository.
func (c *clone) fake() {
	c.t.Helper()
	for name, body := range fakes {
		c.write("bin/"+name, "#!/bin/sh\n"+body+"\n")
	}
	c.write(argocdModule, argocdModuleText)
	c.git("add", argocdModule)
	c.env = append(c.env, "PATH="+filepath.Join(c.dir, "bin")+":"+os.Getenv("PATH"))
}

func TestCIRunTakesEveryStepAndSaysWhatItDidNotRun(t *testing.T) {
	steps := []string{"generated", "lint", "modules", "platforms", "tests", "brokers", "argocd", "prometheus"}
	for fails, failed := range map[string]string{
		"": "", "lint": "lint", "manifests": "generated", "platforms": "platforms", "test": "tests", "brokers": "brokers",
		"test-argocd": "argocd", "test-prometheus": "prometheus",
	} {
		t.Run("fails: "+fails, func(t *testing.T) {
			t.Parallel()
			c := newClone(t)
			c.fake()
			c.env = append(c.env, "FAILS="+fails)
			output, code := c.run(".ci/run")
			rest, table, _ := strings.Cut(output, "step         seconds")
			if _, named, _ := strings.Cut(rest, "what failed in "+failed); failed != "" &&
				!strings.Contains(named, "--- FAIL: TestOf"+fails) {
				t.Error("the end does not name the failed test")
			}
			for _, name := range steps {
				outcome := "passed"
				if name == failed {
					outcome = "FAILED with exit code 1"
				}
				found := false
				for line := range strings.Lines(table) {
					fields := strings.Fields(line)
					found = found || len(fields) > 2 && fields[0] == name && strings.Join(fields[2:], " ") == outcome
				}
				if !found {
					t.Errorf("%s has not %s", name, outcome)
				}
			}
			for _, want := range []string{"NOT RUN: e2e: it needs root", "NOT RUN: vulncheck: https://vuln.go.dev"} {
				if !strings.Contains(table, want) {
					t.Errorf("the end does not say %q", want)
				}
			}
			if (code == 1) != (failed != "") || code > 1 || strings.Contains(table, "FAILED: "+failed) != (failed != "") {
				t.Errorf("the exit code is %d", code)
			}
			if t.Failed() {
				t.Log(output)
			}
		})
	}
}

func TestCIRunTakesTheNamedStepsAndFailsIfOneCannotRun(t *testing.T) {
	c := newClone(t)
	c.fake()
	output, code := c.run(".ci/run", "lint", "modules")
	if code != 0 || !strings.Contains(output, "made lint") || strings.Contains(output, "made test") {
		t.Errorf("exit code %d: %s", code, output)
	}
	if output, code := c.run(".ci/run", "e2e"); code != 1 || !strings.Contains(output, "FAILED: e2e") {
		t.Errorf("exit code %d: %s", code, output)
	}
}

func TestCIRunSaysWhatItLeavesOutWithoutArgoCDsGo(t *testing.T) {
	const why = "go1.99.1 cannot be downloaded"
	for name, test := range map[string]struct {
		steps []string
		code  int
	}{
		"all steps":   {nil, 0},
		"those steps": {[]string{"modules", "argocd"}, 1}, // a step that is named must run
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClone(t)
			c.fake()
			c.env = append(c.env, "NO_TOOLCHAIN=1")
			output, code := c.run(".ci/run", test.steps...)
			_, table, _ := strings.Cut(output, "step         seconds")
			for _, want := range []string{"NOT RUN: argocd: " + why, "NOT RUN: modules of hack/argocd/module: " + why} {
				if !strings.Contains(table, want) {
					t.Errorf("the end does not say %q", want)
				}
			}
			if code != test.code || strings.Contains(output, "made test-argocd") {
				t.Errorf("the exit code is %d", code)
			}
			if t.Failed() {
				t.Log(output)
			}
		})
	}
}
