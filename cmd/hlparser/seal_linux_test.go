package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// prepareForSealing runs prepare as the pods do, and returns the public key that the kubelet would read.
func prepareForSealing(t *testing.T, key string) seal.PublicKey {
	t.Helper()
	message := filepath.Join(t.TempDir(), "termination-log")
	if err := os.WriteFile(message, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(message, 0o666); err != nil { // as a kubelet creates it
		t.Fatal(err)
	}
	t.Setenv("HLPARSER_SEAL_KEY", key)
	t.Setenv("HLPARSER_PUBLIC_KEY", message)
	output, code := prepared(t)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, output)
	}
	text, err := os.ReadFile(message)
	if err != nil {
		t.Fatal(err)
	}
	public := seal.OfMessage(string(text))
	if public == (seal.PublicKey{}) || len(text) > 100 {
		t.Fatalf("the message is %q", text)
	}
	return public
}

func TestPrepareCreatesAKeyOnceForTheParserAlone(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // as a kubelet creates an emptyDir
		t.Fatal(err)
	}
	file := filepath.Join(dir, "key")
	first := prepareForSealing(t, file)
	for range 2 { // as when the pod's sandbox is recreated
		if again := prepareForSealing(t, file); again != first {
			t.Errorf("another key: %s, then %s", first, again)
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := owner(t, file); got != [2]int{parserUser, 0} || info.Mode().Perm() != 0o440 {
		t.Errorf("the key belongs to %v with mode %v", got, info.Mode())
	}
	as := func(user string) error {
		return exec.Command("setpriv", "--reuid", user, "--regid", user, "--clear-groups", "cat", file).Run()
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := as(strconv.Itoa(parserUser)); err != nil {
		t.Errorf("the parser cannot read the key: %v", err)
	}
	if err := as(strconv.Itoa(stranger)); err == nil {
		t.Error("another user can read the key")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the directory contains %v, %v", left, err)
	}
	if err := os.Remove(file); err != nil { // the node was rebooted: the memory-backed volume is empty
		t.Fatal(err)
	}
	if prepareForSealing(t, file) == first {
		t.Error("the new key equals the old one")
	}
}

// sealedParser is a running hlparser with keys.
type sealedParser struct {
	cmd     *exec.Cmd
	address string
	session *seal.Session
}

func startSealed(t *testing.T, extra ...string) *sealedParser {
	t.Helper()
	dir := t.TempDir()
	pod, err := seal.EnsureKey(filepath.Join(dir, "key"), func(*os.File) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	operator, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	operators := seal.FormatOperators([]seal.PublicKey{operator.Public()}, []string{""})
	if err := os.WriteFile(filepath.Join(dir, "operators"), []byte(operators), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &sealedParser{}
	if p.session, err = seal.NewOperatorSession(operator, pod.Public()); err != nil {
		t.Fatal(err)
	}
	p.cmd = hlparser(t.Context(), append([]string{
		"run", "--data-dir", dir, "--state-dir", filepath.Join(dir, "state"), "--stream", "fills", "--sink", "stdout",
		"--listen", "127.0.0.1:0",
		"--id", "node-1", "--seal-key", filepath.Join(dir, "key"), "--operator-keys", filepath.Join(dir, "operators"),
	}, extra...)...)
	logs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait()
	})
	lines := bufio.NewScanner(logs)
	for p.address == "" && lines.Scan() {
		if _, after, found := strings.Cut(lines.Text(), "address="); found {
			p.address = strings.Fields(after)[0]
			if !strings.Contains(lines.Text(), "sealed=true") {
				t.Errorf("the log line is %s", lines.Text())
			}
		}
	}
	if p.address == "" {
		t.Fatal("the parser does not listen")
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	return p
}

// get sends a request to the parser, with or without a key.
func (p *sealedParser) get(t *testing.T, path string, sealed bool) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	header, challenge, err := p.session.Request(path)
	if err != nil {
		t.Fatal(err)
	}
	if sealed {
		r.Header.Set(seal.Header, header)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if sealed && answer.StatusCode == http.StatusOK {
		if text, err = p.session.Open(nil, text, challenge); err != nil {
			t.Fatal(err)
		}
	}
	return answer.StatusCode, text
}

func TestAParserWithKeysAnswersTheirHoldersOnly(t *testing.T) {
	p := startSealed(t)
	for path, want := range map[string]int{"/status": 401, "/debug/stack": 401, "/healthz": 200, "/metrics": 200} {
		if got, text := p.get(t, path, false); got != want {
			t.Errorf("a stranger gets %s: %d %.100s", path, got, text)
		}
	}
	status, text := p.get(t, "/status", true)
	var r report.Report
	if err := json.Unmarshal(text, &r); err != nil || r.Target != "node-1" || status != http.StatusOK {
		t.Errorf("the operator gets %d %s, %v", status, text, err)
	}
	if status, text := p.get(t, "/debug/stack", true); status != http.StatusOK ||
		!strings.HasPrefix(string(text), "goroutine ") {
		t.Errorf("the operator gets %d %.100s", status, text)
	}
}

func TestUnusableKeysEndAParserImmediately(t *testing.T) {
	dir := t.TempDir()
	spoilt := filepath.Join(dir, "key")
	if err := os.WriteFile(spoilt, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := []string{"run", "--data-dir", dir, "--state-dir", dir, "--stream", "fills", "--sink", "stdout"}
	for name, test := range map[string]struct {
		args       []string
		wantOutput string
	}{
		"a key alone":       {[]string{"--listen", "127.0.0.1:0", "--seal-key", spoilt}, "must be set together"},
		"operators alone":   {[]string{"--listen", "127.0.0.1:0", "--operator-keys", spoilt}, "must be set together"},
		"nothing is served": {[]string{"--seal-key", spoilt, "--operator-keys", spoilt}, "add --listen"},
		"a malformed file": {[]string{"--listen", "127.0.0.1:0", "--seal-key", spoilt, "--operator-keys", spoilt},
			"reading a private key"},
		"no file": {[]string{"--listen", "127.0.0.1:0", "--seal-key", spoilt + "s", "--operator-keys", spoilt},
			"no such file"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := hlparser(ctx, append(run, test.args...)...).CombinedOutput()
		cancel()
		if code := exitCode(err); code != exitUsage || !strings.Contains(string(out), test.wantOutput) ||
			strings.Count(string(out), "\n") != 1 {
			t.Errorf("%s: exit %d: %s", name, code, out)
		}
	}
}

// resident returns the resident memory of a process, in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Opens 3,500 connections of strangers that send nothing, half a request, or whole requests.
func TestStrangersConnectionsTakeNoMemory(t *testing.T) {
	p := startSealed(t)
	p.get(t, "/status", true)
	before := resident(t, p.cmd.Process.Pid)
	say := []string{"", "GET /status HTTP/1.1\r\nX: ", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"}
	const count, most = 3500, 48 << 10 // unbounded they take 80 MiB, and more with the race detector
	for i := range count {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 7, byte(i%5), byte(1+i%250))}}
		conn, err := from.DialContext(t.Context(), "tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, say[i%len(say)]) // the connection may be closed already
		if i%500 == 0 {
			if status, _ := p.get(t, "/healthz", false); status != http.StatusOK {
				t.Errorf("with %d connections: %d", i, status)
			}
		}
	}
	if status, text := p.get(t, "/status", true); status != http.StatusOK || len(text) == 0 {
		t.Errorf("the operator gets %d", status)
	}
	after := resident(t, p.cmd.Process.Pid)
	t.Logf("%d KiB before, %d KiB with %d connections", before, after, count)
	if after > before+most {
		t.Errorf("the memory grew by %d KiB", after-before)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil || len(files) > 64+50 {
		t.Errorf("%d files are open, %v", len(files), err)
	}
}
