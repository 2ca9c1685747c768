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

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/prepare"
)

// parserUser becomes the owner of directories in these tests; stranger is another user.
const parserUser, stranger = 10000, 20000

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may give directories away")
	}
}

// prepared runs the command as the pods do: as root, with no capability but CAP_CHOWN.
func prepared(t *testing.T, dirs ...string) (output string, code int) {
	t.Helper()
	return withCapabilities(t, "-all,+chown", dirs...)
}

func withCapabilities(t *testing.T, capabilities string, dirs ...string) (output string, code int) {
	t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv of util-linux is needed to drop capabilities")
	}
	cmd := hlparser(t.Context(), append([]string{"prepare", "--user", "10000", "--group", "10000"}, dirs...)...)
	cmd.Path = setpriv
	cmd.Args = append([]string{setpriv, "--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs",
		"--clear-groups"}, cmd.Args...)
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

func TestPrepareGivesAwayOnlyWhatAKubeletCreated(t *testing.T) {
	asRoot(t)
	tests := map[string]struct {
		owner      int
		mode       os.FileMode
		files      []string
		want       [2]int
		wantOutput string
	}{
		"a new directory":                    {0, 0o755, nil, parser, "given to user 10000"},
		"a new directory below a closed one": {0, 0o700, nil, parser, "given to user 10000"},
		"one that has its owner already": {parserUser, 0o700, []string{"fills.checkpoint"}, parser,
			"belongs to user 10000"},
		"one of root's that holds something": {0, 0o755, []string{"shadow"}, root,
			"left to root, because it is not empty: if user 10000 cannot write to it"},
		"one of root's that holds only a dot": {0, 0o755, []string{".lock"}, root, "left to root"},
		"an empty one of another user":        {stranger, 0o755, nil, other, "left to user 20000, to whom it belongs"},
		"a closed one of another user":        {stranger, 0o700, []string{"a"}, other, "left to user 20000"},
		"a new one in a volume with a group":  {0, 0o775 | os.ModeSetgid, nil, parser, "given to user 10000"},
		"a new one that all may write into":   {0, 0o777 | os.ModeSticky, nil, parser, "given to user 10000"},
		"a new one with a set-user-id bit":    {0, 0o755 | os.ModeSetuid, nil, parser, "given to user 10000"},
		"one that all write into, in use":     {0, 0o777 | os.ModeSticky, []string{"a"}, root, "left to root"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, test.owner, test.mode, test.files...)
			for range 2 { // twice, as when a pod's sandbox is recreated
				output, code := prepared(t, dir)
				if code != 0 {
					t.Fatalf("exit %d: %s", code, output)
				}
				if got := owner(t, dir); got != test.want {
					t.Errorf("the directory belongs to %v; want %v", got, test.want)
				}
				if test.want != parser && !strings.Contains(output, test.wantOutput) {
					t.Errorf("the output is %q; want %q", output, test.wantOutput)
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
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	// A mount follows the link that it is put on, so the path is then a directory. A link to that link is still
	// refused.
	linked := filepath.Join(filepath.Dir(link), "again")
	if err := os.Symlink(link, linked); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"the directory itself": link, "a directory above it": filepath.Join(link, "inside"), "a link to a link": linked,
		"a file": file, "a directory in a file": filepath.Join(file, "a"), "a pipe": pipe,
	} {
		output, code := prepared(t, dir)
		if code != exitFailure || !strings.Contains(output, " is a symbolic link or not a directory") {
			t.Errorf("%s: exit %d: %s", name, code, output)
		}
	}
	if output, code := prepared(t, filepath.Join(filepath.Dir(link), "missing")); code != exitFailure ||
		!strings.Contains(output, "opening missing") {
		t.Errorf("a missing directory: exit %d: %s", code, output)
	}
	for _, path := range []string{victim, inside, link, linked, file, pipe} {
		if got := owner(t, path); got != root {
			t.Errorf("%s belongs to %v", path, got)
		}
	}
}

// Another user swaps the directory for a link to one of root's, back and forth, as fast as possible.
func TestPrepareIsNotFooledByALinkThatAppearsAndDisappears(t *testing.T) {
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
	held, err := os.Open(dir) // independent of its name
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
			t.Fatalf("refused %d times, given away %d times: the race does not occur", refused, given)
		}
		switch did, err := prepare.Directory(dir, parserUser, parserUser); {
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

// exchange swaps two paths atomically. An attacker has only rename, which leaves no moment without the path either.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func TestPrepareWithoutTheCapabilityFails(t *testing.T) {
	asRoot(t)
	dir := directory(t, 0, 0o755)
	output, code := withCapabilities(t, "-all", dir)
	if code != exitFailure || !strings.Contains(output, "giving it to user 10000: ") ||
		!strings.Contains(output, "operation not permitted") {
		t.Errorf("exit %d: %s", code, output)
	}
	if got := owner(t, dir); got != root {
		t.Errorf("the directory belongs to %v", got)
	}
}

func TestPrepareRefusesInvalidArguments(t *testing.T) {
	for name, args := range map[string][]string{
		"no directory":         {"--user", "1", "--group", "1"},
		"a user below root":    {"--user", "-1", "--group", "1", "/state"},
		"a user of 32 bits":    {"--user", "2147483648", "--group", "1", "/state"},
		"a user left as it is": {"--user", "4294967295", "--group", "1", "/state"},
		"a user that is root":  {"--user", "4294967296", "--group", "1", "/state"},
		"a group of 32 bits":   {"--user", "1", "--group", "2147483648", "/state"},
		"a group that is root": {"--user", "1", "--group", "4294967296", "/state"},
		"root's group":         {"--user", "1", "--group", "0", "/state"},
		"more than 64 bits":    {"--user", "18446744073709551616", "--group", "1", "/state"},
		"a user's name":        {"--user", "hluser", "--group", "1", "/state"},
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
