package real

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// repository is a git repository on this machine with the branch main.
type repository struct {
	dir string
}

func newRepository(t *testing.T, dir string) *repository {
	t.Helper()
	r := &repository{dir: dir}
	r.git(t, "init", "--quiet", "--initial-branch=main")
	return r
}

func (r *repository) url() string { return "file://" + r.dir }

// commit writes files, removes those that are nil, and commits everything.
func (r *repository) commit(t *testing.T, message string, files map[string][]byte) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(r.dir, filepath.FromSlash(name))
		if files[name] == nil {
			noError(t, os.Remove(file))
			continue
		}
		noError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		noError(t, os.WriteFile(file, files[name], 0o644))
	}
	r.git(t, "add", "--all")
	r.git(t, "commit", "--quiet", "--message="+message)
}

func (r *repository) git(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", r.dir}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=x", "GIT_AUTHOR_EMAIL=x@example.com", "GIT_COMMITTER_NAME=x", "GIT_COMMITTER_EMAIL=x@example.com")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v: %s", args, err, out)
	}
}
