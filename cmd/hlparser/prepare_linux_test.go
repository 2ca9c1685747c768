package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parserUser is who the directories of these tests are given to; stranger is somebody else.
const parserUser, stranger = 10000, 20000

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may give directories away")
	}
}

// prepared runs the command as its pods do: as root, with no capability but CAP_CHOWN.
func prepared(t *testing.T, dirs ...string) (said string, code int) {
	t.Helper()
	return withCapabilities(t, "-all,+chown", dirs...)
}

func withCapabilities(t *testing.T, capabilities string, dirs ...string) (said string, code int) {
	t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv of util-linux takes capabilities away")
	}
	cmd := hlparser(t.Context(), append([]string{"prepare", "--user", "10000", "--group", "10000"}, dirs...)...)
	cmd.Path = setpriv
	cmd.Args = append([]string{setpriv, "--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs", "--clear-groups"}, cmd.Args...)
	out, err := cmd.CombinedOutput()
	return string(out), exitCode(err)
}

func directory(t *testing.T, owner int, mode os.FileMode, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// owner is who a path belongs to, as user and group; a link is not followed.
func owner(t *testing.T, path string) [2]int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return [2]int{int(stat.Uid), int(stat.Gid)}
}

var root, parser, other = [2]int{0, 0}, [2]int{parserUser, parserUser}, [2]int{stranger, stranger}

func TestPrepareGivesAwayWhatAKubeletMadeAndNothingElse(t *testing.T) {
	asRoot(t)
	tests := map[string]struct {
		owner int
		mode  os.FileMode
		files []string
		want  [2]int
		says  string
	}{
		"a new directory":                        {0, 0o755, nil, parser, "given to user 10000"},
		"a new directory below a closed one":     {0, 0o700, nil, parser, "given to user 10000"},
		"one that has its owner already":         {parserUser, 0o700, []string{"fills.checkpoint"}, parser, "belongs to user 10000"},
		"one of root's that holds something":     {0, 0o755, []string{"shadow"}, root, "left to root, since it is not empty: if user 10000 cannot write there"},
		"one of root's that holds only a dot":    {0, 0o755, []string{".lock"}, root, "left to root"},
		"an empty one of somebody else":          {stranger, 0o755, nil, other, "left to user 20000, to whom it belongs"},
		"one of somebody else that nobody reads": {stranger, 0o700, []string{"a"}, other, "left to user 20000"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, test.owner, test.mode, test.files...)
			for range 2 { // again, as when a pod's sandbox is made anew
				said, code := prepared(t, dir)
				if code != 0 {
					t.Fatalf("exit %d: %s", code, said)
				}
				if got := owner(t, dir); got != test.want {
					t.Errorf("it belongs to %v, want %v", got, test.want)
				}
				if test.want != parser && !strings.Contains(said, test.says) {
					t.Errorf("it said %q, want %q", said, test.says)
				}
			}
			for _, file := range test.files {
				if got := owner(t, filepath.Join(dir, file)); got != root {
					t.Errorf("%s in it belongs to %v", file, got)
				}
			}
		})
	}
}

func TestPrepareFollowsNoLink(t *testing.T) {
	asRoot(t)
	victim := directory(t, 0, 0o755)
	inside := filepath.Join(victim, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"the directory itself": link, "a directory above it": filepath.Join(link, "inside")} {
		said, code := prepared(t, dir)
		if code != exitFailure || !strings.Contains(said, "link is a symbolic link or no directory") {
			t.Errorf("%s: exit %d: %s", name, code, said)
		}
	}
	for _, path := range []string{victim, inside, link} {
		if got := owner(t, path); got != root {
			t.Errorf("%s belongs to %v", path, got)
		}
	}
}

// Somebody swaps the directory for a link to one of root's, back and forth, as fast as they can.
func TestPrepareIsNotFooledByALinkThatComesAndGoes(t *testing.T) {
	asRoot(t)
	victim := directory(t, 0, 0o755)
	above := t.TempDir()
	dir, aside := filepath.Join(above, "state"), filepath.Join(above, "aside")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, aside); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(dir) // whatever its name
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	swapping, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for swapping.Err() == nil {
			if err := exchange(dir, aside); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() { stop(); <-ended }()
	refused, given := 0, 0
	for begin := time.Now(); refused < 1000 || given < 1000; {
		if time.Since(begin) > time.Minute {
			t.Fatalf("refused %d times, given away %d times: the two do not meet", refused, given)
		}
		switch did, err := prepare(dir, parserUser, parserUser); {
		case err != nil:
			refused++
		case did == "given to user 10000":
			given++
			if err := held.Chown(0, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := owner(t, victim); got != root {
			t.Fatalf("the directory that the link points to belongs to %v", got)
		}
	}
}

// exchange gives each of two paths the other's name, in one step: a rename is what an attacker has, and leaves no moment without.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func TestPrepareWithoutTheRightSaysSo(t *testing.T) {
	asRoot(t)
	dir := directory(t, 0, 0o755)
	said, code := withCapabilities(t, "-all", dir)
	if code != exitFailure || !strings.Contains(said, "giving it to user 10000: ") || !strings.Contains(said, "operation not permitted") {
		t.Errorf("exit %d: %s", code, said)
	}
	if got := owner(t, dir); got != root {
		t.Errorf("it belongs to %v", got)
	}
}

func TestPrepareIsToldWhatToDo(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":         {"--user", "1", "--group", "1"},
		"root as the new user": {"--user", "0", "--group", "1", "/state"},
		"no group":             {"--user", "1", "/state"},
		"a relative path":      {"--user", "1", "--group", "1", "state"},
		"a path that climbs":   {"--user", "1", "--group", "1", "/state/../etc"},
	} {
		out, err := hlparser(t.Context(), append([]string{"prepare"}, args...)...).CombinedOutput()
		if code := exitCode(err); code != exitUsage || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: exit %d: %s", name, code, out)
		}
	}
}
