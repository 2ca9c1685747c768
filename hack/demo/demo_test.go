//go:build unix

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
)

// TestHungParserIsRestartedAndNoEventIsLost runs a short demo: two nodes, a few seconds of traffic, real processes.
func TestHungParserIsRestartedAndNoEventIsLost(t *testing.T) { playInShort(t, hangStory(), fileSink) }

// TestHungParserIsRestartedAndNATSHasEachEventOnce is the same with the parsers' records in a NATS server.
func TestHungParserIsRestartedAndNATSHasEachEventOnce(t *testing.T) {
	playInShort(t, hangStory(), natsSink)
}

// TestASinkThatIsDownIsReportedAndNoParserIsRestarted runs beside the next ones, since they mostly wait.
func TestASinkThatIsDownIsReportedAndNoParserIsRestarted(t *testing.T) {
	t.Parallel()
	playInShort(t, sinkDownStory(), natsSink)
}

func TestABadRevisionStopsAtItsCanary(t *testing.T) {
	t.Parallel()
	playInShort(t, canaryStory(), fileSink)
}

// TestASlowSinkIsDistinguishedFromABacklogThatShrinks takes two minutes, because rates are judged over one.
func TestASlowSinkIsDistinguishedFromABacklogThatShrinks(t *testing.T) {
	if os.Getenv("HLPARSER_DEMO_SLOW") == "" {
		t.Skip("HLPARSER_DEMO_SLOW is not set: this takes two minutes")
	}
	t.Parallel()
	playInShort(t, slowStory(), natsSink)
}

// playInShort plays a story with two nodes.
func playInShort(t *testing.T, story story, sink string) {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Skip("KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver: run `make test`")
	}
	tree, err := sourceTree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	programs, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := newScene(options{
		dir: dir, tree: tree, assets: assets,
		manager: filepath.Join(programs, "manager"), parser: filepath.Join(programs, "hlparser"),
		nodes: 2, statusRate: 1300, trafficFor: 15 * time.Second, hangAt: 4 * time.Second, hourEvery: 3 * time.Second,
		story: story, sink: sink,
	}, &screen{out: t.Output(), begin: time.Now()}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	defer s.close()

	out, err := s.play(t.Context())
	if err != nil {
		t.Error(err)
		for _, log := range []string{s.operatorLog(), filepath.Join(dir, "nodes", "*", "logs", "*.log")} {
			showLogs(t, log)
		}
	}
	if out == nil {
		return
	}
	if out.result.Events < 10_000 {
		t.Errorf("only %d events were compared", out.result.Events)
	}
	t.Log(out)
}

// built is the directory of the programs that the stories run; empty until one needs them.
var built string

// buildOnce compiles the manager and the parser, and returns their directory.
var buildOnce = sync.OnceValues(func() (string, error) {
	tree, err := sourceTree(context.Background())
	if err != nil {
		return "", err
	}
	if built, err = os.MkdirTemp("", "hlparser-demo-test-"); err != nil {
		return "", err
	}
	for _, args := range [][]string{{"./cmd/manager"}, {"-tags=faultinject", "./cmd/hlparser"}} {
		cmd := exec.Command("go", append([]string{"build", "-o", built + "/"}, args...)...)
		cmd.Dir = tree
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %v: %w\n%s", args, err, out)
		}
	}
	return built, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		if err := os.RemoveAll(built); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// showLogs prints the ends of logs, which are removed with the test's directory.
func showLogs(t *testing.T, pattern string) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			continue
		}
		const maxBytes = 4000
		t.Logf("%s:\n%s", filepath.Base(path), text[max(len(text)-maxBytes, 0):])
	}
}

func TestAnUnknownSceneNamesThoseThatExist(t *testing.T) {
	_, err := storyNamed("nightmare")
	const want = `invalid --scene "nightmare": want one of hang, sink-down, canary, slow`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestASceneHasItsOwnSinkAndRefusesOthers(t *testing.T) {
	for _, c := range []struct{ scene, flag, want, err string }{
		{scene: "hang", want: fileSink},
		{scene: "hang", flag: natsSink, want: natsSink},
		{scene: "canary", flag: natsSink, want: natsSink},
		{scene: "sink-down", want: natsSink},
		{scene: "sink-down", flag: fileSink, err: `invalid --sink "file": --scene=sink-down works only with --sink=nats`},
		{scene: "slow", flag: fileSink, err: `invalid --sink "file": --scene=slow works only with --sink=nats`},
		{scene: "hang", flag: "paper", err: `invalid --sink "paper": want file or nats`},
	} {
		story, err := storyNamed(c.scene)
		if err != nil {
			t.Fatal(err)
		}
		got, err := story.chooseSink(c.flag)
		if text := fmt.Sprint(err); got != c.want || c.err == "" && err != nil || c.err != "" && text != c.err {
			t.Errorf("--scene=%s --sink=%s: got %q, %v; want %q, %q", c.scene, c.flag, got, err, c.want, c.err)
		}
	}
}

func TestScreenCutsLinesToTheTerminalsWidth(t *testing.T) {
	s := &screen{width: 10}
	for line, want := range map[string]string{
		"short":                    "short",
		"123456789":                "123456789",
		"12345678901":              "123456789\x1b[0m",
		"\x1b[31m123\x1b[0m456789": "\x1b[31m123\x1b[0m456789",
		"▁▂▃▄▅▆▇█▁▂▃":              "▁▂▃▄▅▆▇█▁\x1b[0m",
	} {
		if got := s.cut(line); got != want {
			t.Errorf("cut(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestTableIsErasedByItsHeightAndLinesStayAboveIt(t *testing.T) {
	var out strings.Builder
	s := &screen{out: &out, width: 80, begin: time.Now()}
	s.draw([]string{"a", "b"})
	s.say("message")
	s.draw([]string{"c"})
	s.keepTable()
	s.say("end")
	const up2 = "\x1b[2A\x1b[J"
	if want := "a\nb\n" + up2 + "0:00  message\na\nb\n" + up2 + "c\n0:00  end\n"; out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestLongLinesContinueBelowTheirText(t *testing.T) {
	s := &screen{width: 20}
	if got, want := s.wrap("0:00  one two three four five"), "0:00  one two three\n      four five"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCurveHasAFloor(t *testing.T) {
	for want, values := range map[string][]int64{
		"":     nil,
		"▁▁":   {0, 100_000},
		"▁▅█":  {0, 2 << 20, 4 << 20},
		"█▅▁▁": {10 << 20, 5 << 20, 100_000, -1},
	} {
		if got := curve(values); got != want {
			t.Errorf("curve(%v) = %s, want %s", values, got, want)
		}
	}
}

func TestDescribeReadsLikeKubectl(t *testing.T) {
	l := snapshot{}
	l.object.Name = fleetName
	text := describe(&l, "NAME \n", []eventsv1.Event{{Type: "Warning", Reason: "Restarting", Note: "node-1: hung"}})
	for _, want := range []string{"NAME ", "Conditions:", "Events:", "Warning  Restarting", "node-1: hung"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestInterruptedPlayEndsAndLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newScene(options{dir: t.TempDir(), assets: "nowhere", story: hangStory()}, &screen{out: t.Output()},
		slog.New(slog.DiscardHandler))
	if _, err := s.play(ctx); err == nil {
		t.Error("a cancelled demo succeeded")
	}
	s.close()
}
