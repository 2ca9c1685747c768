package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestTheLinkersValuesComeBeforeTheRecordedOnes(t *testing.T) {
	recorded := &debug.BuildInfo{
		Main:     debug.Module{Version: "v0.1.0"},
		Settings: []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc"}},
	}
	for name, test := range map[string]struct {
		version, commit string
		build           *debug.BuildInfo
		want            Info
	}{
		"linked":       {"v1.2.3", "def", recorded, Info{"v1.2.3", "def", runtime.Version()}},
		"recorded":     {"", "", recorded, Info{"v0.1.0", "abc", runtime.Version()}},
		"of neither":   {"", "", &debug.BuildInfo{}, Info{"(devel)", "unknown", runtime.Version()}},
		"version only": {"v1.2.3", "", recorded, Info{"v1.2.3", "abc", runtime.Version()}},
	} {
		if got := from(test.version, test.commit, test.build); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

func TestTheMetricHasTheBuildAsLabels(t *testing.T) {
	c := Info{"v1.2.3", "def", "go1.26.0"}.NewCollector("x_build_info", "x")
	want := "# HELP x_build_info Version, revision and Go version of x. Always 1.\n# TYPE x_build_info gauge\n" +
		`x_build_info{goversion="go1.26.0",revision="def",version="v1.2.3"} 1` + "\n"
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestBinariesOfMakeBuildPrintTheirVersion(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "make", "build", "BIN="+dir, "VERSION=v9.8.7-test", "COMMIT=0123abcd")
	build.Dir = "../.."
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKEFLAGS=") && !strings.HasPrefix(v, "MFLAGS=") { // of a make that runs the tests
			build.Env = append(build.Env, v)
		}
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, program := range []string{"manager", "hlparser"} {
		want := program + " v9.8.7-test (commit 0123abcd, " + runtime.Version() + ")\n"
		for _, arg := range []string{"--version", "version"} {
			if program == "manager" && arg == "version" {
				continue // it has no subcommands
			}
			out, err := exec.CommandContext(t.Context(), filepath.Join(dir, program), arg).CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%s %s: %v, printed %q, want %q", program, arg, err, out, want)
			}
		}
	}
}
