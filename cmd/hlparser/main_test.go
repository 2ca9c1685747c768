package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/file"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// The tests run this test binary as the real hlparser, so that it can be killed.
const (
	asCommand    = "HLPARSER_TEST_AS_COMMAND"
	asTouchEvery = "HLPARSER_TEST_TOUCH_EVERY" // replaces the engine's default
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		if every := os.Getenv(asTouchEvery); every != "" {
			var err error
			if touchEvery, err = time.ParseDuration(every); err != nil {
				panic(err)
			}
		}
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hlparser returns a command that runs the program. The free space of this machine's disk does not affect it, unless
// the test asks for that.
func hlparser(ctx context.Context, args ...string) *exec.Cmd {
	toFile := func(arg string) bool { return strings.HasPrefix(arg, "file:") }
	if args[0] == "run" && slices.ContainsFunc(args, toFile) && !slices.Contains(args, "--min-free-percent") {
		args = append(slices.Clone(args), "--min-free-percent", "0")
	}
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestABadSettingExitsWith2AndOneLineThatNamesTheField(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := []string{"--data-dir", dir, "--state-dir", dir, "--stream", "fills", "--sink", "stdout"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no setting at all":  {nil, "dataDir: is missing"},
		"no state directory": {[]string{"--data-dir", dir}, "stateDir: is missing"},
		"no stream": {[]string{"--data-dir", dir, "--state-dir", dir},
			"streams: is empty: name at least one of OrderStatuses"},
		"no sink": {[]string{"--data-dir", dir, "--state-dir", dir, "--stream", "fills"},
			"sink: is missing: set one of stdout, file"},
		"an unknown stream": {append(good, "--stream", "orders"),
			`stream: "orders" is unknown: write one of order-statuses`},
		"an unknown mode": {append(good, "--stream", "trades:hourly"),
			`stream: "hourly" is unknown: write one of auto`},
		"a stream twice": {append(good, "--stream", "fills:line", "--stream", "fills"),
			"streams[1].name: Fills is listed twice"},
		"an unknown sink": {append(good, "--sink", "s3://x"),
			`sink: "s3://x" is unknown: write stdout, file:DIR, nats:`},
		"an unknown format": {append(good, "--format", "xml"),
			`format: "Xml" is unknown: write one of Raw, Enveloped, EnvelopedRows, Normalized`},
		"an invalid size": {append(good, "--buffer-limit", "lots"), `"lots" is not a size`},
		"a buffer too small": {append(good, "--buffer-limit", "1Ki"),
			"engine.bufferLimit: 1.0 KiB is out of range"},
		"an unknown start": {append(good, "--start-at", "middle"),
			`engine.startAt: "Middle" is unknown: write End, Beginning or Block`},
		"a start at no block": {append(good, "--start-at", "block"), `start-at: "block" names no block`},
		"a start at a block that is no number": {append(good, "--start-at", "block:x"),
			`start-at: "block:x" is unknown: write end, beginning or block:NUMBER`},
		"a start at a block in line mode": {append(good, "--start-at", "block:7", "--stream", "trades:line"),
			"engine.startAt: Trades has mode Line, whose lines do not name their block"},
		"an invalid user": {append(good, "--user", "bob"), `filter.users[0]: "bob" is not an address`},
		"an invalid side": {append(good, "--side", "buy"),
			`filter.sides[0]: "buy" is not a side: write A (ask) or B (bid)`},
		"an unknown market": {append(good, "--market", "futures"),
			`filter.markets[0]: "Futures" is unknown: write one of Perp, Spot, Hip3, Outcome`},
		"a filter that a stream cannot apply": {append(good, "--stream", "misc-events", "--side", "A"),
			"filter.sides: events of MiscEvents have no such field, so all would pass: set streams[1].filter"},
		"an invalid notional": {append(good, "--min-notional", "1e4"),
			`filter.minNotional: "1e4" is not a decimal`},
		"a star in the middle": {append(good, "--coin", "B*C"),
			`filter.coins[0]: "B*C": a star is allowed only`},
		"an unknown flag":         {append(good, "--bogus"), "unknown flag: --bogus"},
		"an argument":             {append(good, "now"), `"now" is not a setting of run`},
		"max-size without a file": {append(good, "--max-size", "1Mi"), "only the file sink has these settings"},
		"max-total-size without a file": {append(good, "--max-total-size", "1Gi"),
			"only the file sink has these settings"},
		"min-free-percent without a file": {append(good, "--min-free-percent", "5"),
			"only the file sink has these settings"},
		"max-total-size too small": {append(good, "--sink", "file:"+dir, "--max-total-size", "1Gi"),
			"sink.file.maxTotalSize: 1.0 GiB is too small: at least 2.0 GiB, twice maxSize"},
		"min-free-percent too large": {append(good, "--sink", "file:"+dir, "--min-free-percent", "91"),
			"sink.file.minFreePercent: 91 is out of range"},
		"rotate without a file":   {append(good, "--rotate", "hour"), "only the file sink has these settings"},
		"compress without a file": {append(good, "--compress", "zstd"), "only the file sink has these settings"},
		"an unknown rotation": {append(good, "--sink", "file:"+dir, "--rotate", "daily"),
			`sink.file.rotate: "Daily" is unknown: write Size or Hour`},
		"an unknown compression": {append(good, "--sink", "file:"+dir, "--compress", "gzip"),
			`sink.file.compress: "gzip" is unknown: write zstd`},
		"a missing configuration": {[]string{"--config", filepath.Join(dir, "none.yaml")},
			"none.yaml: no such file"},
		"an unknown field": {[]string{"--config",
			write("typo.yaml", "dataDir: /x\nfilters: {coins: [BTC]}\n")}, `unknown field "filters"`},
		"a field of another type": {[]string{"--config", write("type.yaml", "dataDir: [1]\n")}, "dataDir"},
		"two sinks": {[]string{"--config",
			write("two.yaml", "dataDir: /x\nstateDir: /y\nstreams: [{name: Fills}]\nsink: {stdout: {}, file: {path: /z}}\n")},
			"sink: has 2: set only one of stdout, file, nats, kafka"},
		"an address that cannot be used": {append(good, "--listen", "256.0.0.1:1"), "listen: "},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := hlparser(t.Context(), append([]string{"run"}, c.args...)...)
			cmd.Stderr = &stderr
			err := cmd.Run()
			line := stderr.String()
			if got := exitCode(err); got != 2 || strings.Count(line, "\n") != 1 || !strings.Contains(line, c.want) {
				t.Fatalf("exit %d with %q; want exit 2 with one line that contains %q", got, line, c.want)
			}
		})
	}
}

func TestCheckPrintsWhatWouldRun(t *testing.T) {
	out, err := hlparser(t.Context(), "check", "--data-dir", "/d", "--state-dir", "/s", "--stream",
		"order-statuses:by-block",
		"--sink", "file:/o", "--coin", "BTC", "--format", "raw", "--id", "node-7").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"target: node-7", "dataDir: /d", "name: OrderStatuses", "mode: ByBlock", "- BTC",
		"format: Raw", "startAt: End", "bufferLimit: 33554432"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

func status(i int) string {
	return fmt.Sprintf(`{"time":"2026-04-30T20:46:43.304461819","user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",`+
		`"hash":null,"builder":null,`+
		`"status":"open","order":{"coin":"BTC","side":"A","limitPx":"76466.0","sz":"0.0686","oid":%d,`+
		`"timestamp":1777582003304}}`, i)
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestSIGTERMStopsItWithStatus0AndTheReportShowsWhatItDid(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8"), status(1)+"\n"+status(2)+"\n")
	cmd := hlparser(t.Context(), "run", "--data-dir", filepath.Join(dir, "data"), "--state-dir",
		filepath.Join(dir, "state"),
		"--stream", "order-statuses", "--start-at", "beginning", "--sink", "stdout", "--format", "raw", "--listen",
		"127.0.0.1:0", "--id", "node-1")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	var seen strings.Builder
	for address == "" {
		b := make([]byte, 4096)
		n, err := logs.Read(b)
		seen.Write(b[:n])
		if err != nil {
			t.Fatalf("the parser's log: %s", &seen)
		}
		if _, after, ok := strings.Cut(seen.String(), "address="); ok && strings.Contains(after, "\n") {
			address = strings.Fields(after)[0]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()

	var r report.Report
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/status")
		if err != nil {
			t.Fatal(err)
		}
		r = report.Report{}
		err = json.NewDecoder(resp.Body).Decode(&r)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Streams) == 1 && r.Streams[0].DeliveredTotal == 2 && r.Streams[0].UncommittedBytes != nil &&
			*r.Streams[0].UncommittedBytes == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the report says %+v", r)
		}
	}
	if r.Target != "node-1" || r.Process.RSSBytes == nil || r.Process.Goroutines == 0 ||
		r.Streams[0].State != report.Running {
		t.Errorf("the report says %+v", r)
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok",
		"/metrics": `hlparser_delivered_total{stream="OrderStatuses"} 2`} {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s answers %d %.200s; want %q in it", path, resp.StatusCode, body, want)
		}
	}
	if resp, err := http.Post("http://"+address+"/debug/fault/hang", "", nil); err != nil || resp.StatusCode < 400 {
		t.Errorf("a release build accepts faults: %v, %v", resp, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("after SIGTERM the parser ended with %v", err)
	}
	if want := status(1) + "\n" + status(2) + "\n"; stdout.String() != want {
		t.Fatalf("delivered %q; want %q", stdout.String(), want)
	}
}

func TestAnOutputThatCannotBeCreatedEndsItWithStatus1AndAReason(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "out"), "a file where the directory should be")
	msg, err := hlparser(t.Context(), "run", "--data-dir", dir, "--state-dir", filepath.Join(dir, "state"),
		"--stream", "fills", "--sink", "file:"+filepath.Join(dir, "out")).CombinedOutput()
	if exitCode(err) != 1 || !strings.Contains(string(msg), "opening the output directory") {
		t.Fatalf("exit %d with %s", exitCode(err), msg)
	}
}

// Two streams have a sink each. One of the sinks cannot be opened for a while, and its stream continues when it can.
func TestAnOutputThatCannotBeOpenedForAWhileIsAnOutageOfItsStream(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8"), status(1)+"\n")
	if err := os.MkdirAll(filepath.Join(dir, "data/node_trades/hourly/20260430"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The link leads nowhere yet: its directory can be neither read nor created, whatever the user.
	if err := os.Symlink(filepath.Join(dir, "volume"), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(dir, "parser.yaml")
	appendTo(t, settings, fmt.Sprintf(`
dataDir: %[1]s/data
stateDir: %[1]s/state
format: Raw
streams: [{name: OrderStatuses, mode: Line, sink: archive}, {name: Trades, mode: Line, sink: live}]
sinks: [{name: archive, file: {path: %[1]s/out}}, {name: live, stdout: {}}]
engine: {startAt: Beginning}
`, dir))
	cmd := hlparser(t.Context(), "run", "--config", settings)
	logs := &lockedBuffer{}
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not happen; the parser's log: %s", what, logs)
			}
		}
	}
	until("a retry", func() bool { return strings.Contains(logs.String(), "opening the output directory") })
	if err := os.Mkdir(filepath.Join(dir, "volume"), 0o755); err != nil {
		t.Fatal(err)
	}
	delivered := func() string {
		names, err := filepath.Glob(filepath.Join(dir, "volume/order-statuses/*"))
		if err != nil || len(names) != 1 {
			return ""
		}
		text, err := os.ReadFile(names[0])
		if err != nil {
			return ""
		}
		return string(text)
	}
	until("delivery", func() bool { return delivered() == status(1)+"\n" })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("after SIGTERM the parser ended with %v; its log: %s", err, logs)
	}
}

// lockedBuffer collects the output of a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAnOutputDirectoryThatAnotherParserUsesIsReportedAndNotWaitedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	other, err := file.New(t.Context(), vfs.OS, dir, file.Options{}, func() { t.Error("New waits for the lock") })
	if err != nil {
		t.Fatal(err)
	}
	settings := &config.FileSink{Path: dir, MinFreePercent: new(0)}
	for range 2 {
		_, err = openFiles(t.Context(), settings)
		if !errors.Is(err, vfs.ErrLocked) || errors.Is(err, sink.ErrFailed) || !strings.Contains(err.Error(), dir) {
			t.Errorf("openFiles returns %v", err)
		}
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := openFiles(stopped, settings); !errors.Is(err, context.Canceled) || errors.Is(err, vfs.ErrLocked) {
		t.Errorf("while the parser stops, openFiles returns %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	mine, err := openFiles(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Close(); err != nil {
		t.Error(err)
	}
}

func TestCompressedArchivesByHour(t *testing.T) {
	dir := t.TempDir()
	for hour := range 3 {
		for i := range 100 {
			appendTo(t, filepath.Join(dir, "data/node_order_statuses/hourly/20260430", fmt.Sprint(hour)),
				status(100*hour+i)+"\n")
		}
	}
	out := filepath.Join(dir, "out")
	if msg, err := hlparser(t.Context(), "run", "--once", "--data-dir", filepath.Join(dir, "data"), "--state-dir",
		filepath.Join(dir, "state"),
		"--stream", "order-statuses", "--format", "raw", "--sink", "file:"+out, "--rotate", "hour", "--compress",
		"zstd").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	files, err := filepath.Glob(filepath.Join(out, "order-statuses", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("the files are %q, %v", files, err)
	}
	for hour, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := zstd.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		r.Close()
		_ = f.Close()
		if lines := strings.Split(string(text), "\n"); err != nil || len(lines) != 101 || lines[0] != status(100*hour) ||
			lines[99] != status(100*hour+99) {
			t.Errorf("%s holds %d lines, %v", name, len(lines)-1, err)
		}
		if !strings.HasSuffix(name, ".jsonl.zst") || !strings.HasPrefix(filepath.Base(name),
			fmt.Sprintf("20260430-%02d-", hour)) {
			t.Errorf("the name of an archive is %s", name)
		}
	}
}

func TestASecondParserWaitsForTheFirstToExitAndServesMeanwhile(t *testing.T) {
	dir := t.TempDir()
	start := func() (cmd *exec.Cmd, address string) {
		cmd = hlparser(t.Context(), "run", "--data-dir", filepath.Join(dir, "data"), "--state-dir",
			filepath.Join(dir, "state"),
			"--stream", "order-statuses", "--start-at", "beginning", "--sink", "file:"+filepath.Join(dir, "out"), "--listen",
			"127.0.0.1:0")
		logs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(logs)
		for lines.Scan() {
			if _, after, ok := strings.Cut(lines.Text(), "address="); ok {
				go func() { _, _ = io.Copy(io.Discard, logs) }()
				return cmd, after
			}
		}
		t.Fatal("the parser did not log its address")
		return nil, ""
	}
	ready := func(address string, want int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			resp, err := http.Get("http://" + address + "/readyz")
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("/readyz answers %d; want %d", resp.StatusCode, want)
			}
		}
	}
	first, address := start()
	ready(address, http.StatusOK)
	second, waiting := start()
	ready(waiting, http.StatusServiceUnavailable)
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	ready(waiting, http.StatusOK)
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestAClosedPipeEndsItWithStatus1(t *testing.T) {
	dir := t.TempDir()
	appendTo(t, filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8"), strings.Repeat(status(1)+"\n", 1000))
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := hlparser(t.Context(), "run", "--data-dir", filepath.Join(dir, "data"), "--state-dir",
		filepath.Join(dir, "state"),
		"--stream", "order-statuses", "--start-at", "beginning", "--sink", "stdout")
	cmd.Stdout = write
	_ = read.Close()
	if got := exitCode(cmd.Run()); got != 1 {
		t.Fatalf("exit %d; want 1", got)
	}
	_ = write.Close()
}

// The real binary is killed at random moments while a node writes. In the end the file sink holds every event once, in
// order.
func TestNothingIsLostOrDoubledThroughKill9(t *testing.T) {
	kills := 15
	if testing.Short() {
		kills = 3
	}
	dir := t.TempDir()
	data, out, state := filepath.Join(dir, "data"), filepath.Join(dir, "out"), filepath.Join(dir, "state")
	args := []string{"run", "--data-dir", data, "--state-dir", state, "--stream", "order-statuses", "--start-at",
		"beginning",
		"--sink", "file:" + out, "--max-size", "64Ki", "--format", "raw"}

	ctx, stop := context.WithCancel(t.Context())
	written := make(chan int)
	go func() { // the node: whole lines and torn ones, over three hours
		r := rand.New(rand.NewPCG(1, 2))
		n := 0
		defer func() { written <- n }()
		for ctx.Err() == nil || n == 0 {
			var text strings.Builder
			for range 1 + r.IntN(200) {
				text.WriteString(status(n) + "\n")
				n++
			}
			path := filepath.Join(data, "node_order_statuses/hourly/20260430", fmt.Sprint(8+min(n/20_000, 2)))
			half := r.IntN(text.Len())
			appendTo(t, path, text.String()[:half])
			time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
			appendTo(t, path, text.String()[half:])
		}
	}()

	r := rand.New(rand.NewPCG(3, 4))
	for i := range kills {
		cmd := hlparser(t.Context(), args...)
		var logs bytes.Buffer
		cmd.Stderr = &logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("run %d ended without a signal: %v\n%s", i, err, &logs)
		case <-time.After(time.Duration(50+r.IntN(1500)) * time.Millisecond):
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Fatalf("run %d was killed and ended without an error", i)
		}
	}
	stop()
	n := <-written
	if msg, err := hlparser(t.Context(), append(args, "--once")...).CombinedOutput(); err != nil {
		t.Fatalf("the last run: %v\n%s", err, msg)
	}
	names, err := filepath.Glob(filepath.Join(out, "order-statuses", "*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	next := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".jsonl") {
			t.Errorf("%s was left behind", filepath.Base(name))
		}
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			if string(line) != status(next)+"\n" {
				t.Fatalf("%s: got %.200q in place of event %d", filepath.Base(name), line, next)
			}
			next++
		}
	}
	if next != n {
		t.Fatalf("%d events were delivered; %d were written", next, n)
	}
	t.Logf("%d events through %d kills, in %d files", n, kills, len(names))
}

func TestAPositionCanBeShownAndSet(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	appendTo(t, filepath.Join(dir, "data/node_order_statuses/hourly/20260430/8"), status(1)+"\n"+status(2)+"\n")
	once := func() string {
		out, err := hlparser(t.Context(), "run", "--once", "--data-dir", filepath.Join(dir, "data"), "--state-dir", state,
			"--stream", "order-statuses", "--sink", "stdout", "--format", "raw").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got := strings.Count(once(), "\n"); got != 2 {
		t.Fatalf("%d records; want 2", got)
	}
	show, err := hlparser(t.Context(), "checkpoint", "show", "--state-dir", state).Output()
	if err != nil {
		t.Fatal(err)
	}
	var states map[string]struct {
		Files []struct {
			Directory, Date, Generation string
			Hour, Offset                int
		}
	}
	if err := json.Unmarshal(show, &states); err != nil {
		t.Fatal(err)
	}
	f := states["order-statuses"].Files[0]
	position := fmt.Sprintf("%s/%s/%d@%s:%d:0", f.Directory, f.Date, f.Hour, f.Generation, len(status(1))+1)
	if out, err := hlparser(t.Context(), "checkpoint", "set", "--state-dir", state, "--stream", "order-statuses",
		"--position", position).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := once(); got != status(2)+"\n" {
		t.Fatalf("after moving back by one line got %q", got)
	}
}
