package kubectl

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var update = flag.Bool("update", false, "write the golden files")

// noon is when the screens are seen.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s has changed; go test ./internal/kubectl -update writes it.\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func set(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(ago(5 * time.Minute)),
	}
}

// mainnet is an object with a sink that is down on one node, an old loss on another, and a node without a parser.
func mainnet() *v1alpha1.HyperliquidParser {
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: "hl", Name: "mainnet", UID: "uid", Generation: 3},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{"role": "node"}}, DataPath: "/data",
			}},
			Streams: []v1alpha1.Stream{{Name: "Fills"}},
			Sink:    v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/out"}},
		},
		Status: v1alpha1.HyperliquidParserStatus{
			ObservedGeneration: 3, State: "SinkDown", Story: "the sink does not answer on node-2", Desired: 5, Current: 4,
			Ready: 4, Updated: 4, Bad: 2, Restarts: 1, UpdateRevision: "mainnet-b", CurrentRevision: "mainnet-a",
			Conditions: []metav1.Condition{
				set("Ready", "False", "PodsNotReady", "node-5 waits: NodeCordoned"),
				set("Delivering", "False", "SinkDown", "1 of 5 targets"),
				set("Reconciling", "False", "UpToDate", "no change is in progress"),
				set("DataIntact", "False", "DataLost", "1 file was deleted before it was read"),
				set("Stalled", "False", "NotStalled", "the operator can proceed"),
			},
			Targets: []v1alpha1.TargetStatus{{
				Target: "node-2", Pod: "mainnet-node-2", Verdict: "SinkDown", Reason: "Fills",
				Message: "nothing acknowledged for 4m0s: dial tcp: connection refused", Since: metav1.NewTime(ago(4 * time.Minute)),
			}, {
				Target: "node-4", Pod: "mainnet-node-4", Verdict: "Unreachable", Reason: "NoReport",
				Message: "no answer within 2s", Since: metav1.NewTime(ago(90 * time.Second)),
			}},
			Losses: []v1alpha1.LossStatus{{
				Target: "node-3", Reason: "DataLost", Message: "1 file", Since: metav1.NewTime(ago(26 * time.Hour)),
				SkippedBytes: 69206016, PrunedFiles: 1,
			}},
		},
	}
}

func stream(written, acked int64, lag float64, sink report.Sink) report.Stream {
	return report.Stream{
		Name: "Fills", Mode: "ByBlock", State: report.Running,
		BufferBytes: 3 << 20, InFlightBytes: 1 << 20, ReadBytesTotal: acked + 4<<20, ParsedBytesTotal: acked + 1<<20,
		AckedBytesTotal: acked, CommittedBytesTotal: acked - 1<<18, UncommittedBytes: ptr.To(written - acked + 1<<18),
		LagSeconds: &lag, Sink: sink,
	}
}

func reported(target string, streams ...report.Stream) reports.Target {
	return reports.Target{
		Target: target, Pod: "mainnet-" + target, Verdict: "Healthy", Since: ago(3 * time.Hour), Reports: 400,
		At: ago(2 * time.Second),
		Report: &report.Report{
			Version: "v1.2.0", Parser: "hlparser", Target: target, StartedAt: ago(26 * time.Hour), Now: ago(2 * time.Second),
			Process: report.Process{RSSBytes: ptr.To[int64](96 << 20), MemoryLimitBytes: 512 << 20}, Streams: streams,
		},
	}
}

// served is what a manager serves of mainnet.
func served() []reports.Target {
	good := reported("node-1", stream(5<<30, 5<<30-1<<20, 0.4,
		report.Sink{State: report.SinkHealthy, LastAckAt: ptr.To(ago(3 * time.Second))}))
	good.Rates = []reports.Rate{{Stream: "Fills", Written: 3 << 20, Acked: 3 << 20, SinkBusy: 0.1}}
	down := reported("node-2", stream(6<<30, 5<<30, 240, report.Sink{
		State: report.SinkRetrying, Since: ptr.To(ago(4 * time.Minute)),
		LastError: "dial tcp 192.0.2.7:4222: connection refused",
		LastAckAt: ptr.To(ago(4 * time.Minute)),
	}))
	down.Verdict, down.Reason, down.Since = "SinkDown", "Fills", ago(4*time.Minute)
	down.Message = "nothing acknowledged for 4m0s: dial tcp: connection refused"
	down.Rates = []reports.Rate{{Stream: "Fills", Written: 4 << 20, Acked: 0, SinkBusy: 1}}
	for i := range 6 {
		down.Samples = append(down.Samples, reports.Sample{
			At: ago(time.Duration(30-5*i) * time.Second), Stream: "Fills", Written: 5<<30 + int64(i*i)<<22, Acked: 5 << 30,
			Uncommitted: int64(i*i) << 22,
		})
	}
	lost := reported("node-3", stream(4<<30, 4<<30-1<<19, 0.2, report.Sink{State: report.SinkHealthy}))
	lost.Report.Streams[0].SkippedBytesTotal, lost.Report.Streams[0].PrunedUnreadTotal = 69206016, 1
	// A figure that the parser does not know, and one that is too young for a rate.
	lost.Report.Streams[0].UncommittedBytes, lost.Report.Streams[0].LagSeconds = nil, nil
	lost.Alerts = []reports.Alert{{
		Alert: "DataLost", Since: ago(26 * time.Hour), Message: "1 file deleted before it was read",
	}}
	silent := reports.Target{
		Target: "node-4", Pod: "mainnet-node-4", Verdict: "Unreachable", Reason: "NoReport", Message: "no answer within 2s",
		Since: ago(90 * time.Second), Missed: 9, Failure: "no answer within 2s",
	}
	return []reports.Target{good, down, lost, silent}
}

func pods() (out []corev1.Pod) {
	for _, target := range []string{"node-1", "node-2", "node-3", "node-4"} {
		out = append(out, corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "hl", Name: "mainnet-" + target,
			Annotations: map[string]string{v1alpha1.AnnotationTarget: target},
			Labels:      map[string]string{v1alpha1.LabelParser: "mainnet", v1alpha1.LabelRevision: "b"},
		}})
	}
	return out
}

func watched() fleet { return fleet{object: mainnet(), targets: served(), pods: pods(), now: noon} }

// unserved is the same without a manager.
func unserved() fleet {
	return fleet{object: mainnet(), missing: "no manager leads", pods: pods(), now: noon}
}

func top(t *testing.T, s screen, f fleet, sortBy string, o topOptions) string {
	t.Helper()
	rows := rowsOf(&f)
	if err := sortRows(rows, sortBy); err != nil {
		t.Fatal(err)
	}
	text, err := renderTop(s, []fleet{f}, rows, o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTop(t *testing.T) {
	golden(t, "top.txt", top(t, screen{}, watched(), "verdict", topOptions{}))
	golden(t, "top-wide.txt", top(t, screen{}, watched(), "target", topOptions{output: "wide", objects: true}))
	golden(t, "top-narrow.txt", top(t, screen{width: 80, height: 24}, watched(), "lag", topOptions{}))
	golden(t, "top-colour.txt", top(t, screen{width: 80, height: 24, colour: true}, watched(), "verdict", topOptions{}))
	golden(t, "top-unserved.txt", top(t, screen{}, unserved(), "verdict", topOptions{}))
	golden(t, "top.json", top(t, screen{}, watched(), "target", topOptions{output: "json"}))
	golden(t, "top-name.txt", top(t, screen{}, watched(), "verdict", topOptions{output: "name"}))
	if _, err := renderTop(screen{}, nil, nil, topOptions{output: "xml"}); Exit(err, io.Discard) != ExitUsage {
		t.Errorf("--output=xml: %v", err)
	}
}

func TestNoLineIsWiderThanTheWindow(t *testing.T) {
	for _, width := range []int{10, 40, 79, 120} {
		for _, o := range []string{"", "wide"} {
			text := top(t, screen{width: width}, watched(), "verdict", topOptions{output: o, objects: true})
			for line := range strings.Lines(text) {
				if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width {
					t.Errorf("width %d: %d columns: %s", width, n, line)
				}
			}
		}
	}
}

func TestTopShowsTheFirstTargetsAndCountsTheRest(t *testing.T) {
	f := watched()
	f.targets = nil
	for i := range 30 {
		target := reported("node-"+strings.Repeat("x", i+1), stream(1, 1, 0, report.Sink{}))
		f.targets = append(f.targets, target)
	}
	f.pods = nil
	text := top(t, screen{}, f, "verdict", topOptions{})
	if !strings.Contains(text, "\nand 12 targets more: --all shows them\n") { // two more are in the status
		t.Error(text)
	}
	if text = top(t, screen{}, f, "verdict", topOptions{all: true}); strings.Contains(text, "more") {
		t.Error(text)
	}
	text = top(t, screen{width: 80, height: 12}, f, "verdict", topOptions{})
	if n := strings.Count(text, "\n"); n > 12 {
		t.Errorf("%d lines in a window of 12:\n%s", n, text)
	}
}

func TestWhy(t *testing.T) {
	for file, test := range map[string]struct {
		f      fleet
		target string
	}{
		"why.txt":           {watched(), ""},
		"why-sinkdown.txt":  {watched(), "node-2"},
		"why-lost.txt":      {watched(), "node-3"},
		"why-silent.txt":    {watched(), "node-4"},
		"why-unserved.txt":  {unserved(), ""},
		"why-unserved1.txt": {unserved(), "node-1"},
	} {
		text, err := renderWhy(screen{width: 100}, &test.f, test.target)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, file, text)
	}
	f := watched()
	if _, err := renderWhy(screen{}, &f, "node-9"); err == nil {
		t.Error("a target that does not exist is explained")
	}
}

// revised returns three revisions; the first has no fields.
func revised() []appsv1.ControllerRevision {
	out := make([]appsv1.ControllerRevision, 0, 3)
	for i, spec := range []string{
		"",
		`{"target":{"nodes":{"selector":{},"dataPath":"/data"}},"streams":[{"name":"Fills"}],"image":"hlparser:v1",` +
			`"sink":{}}`,
		`{"target":{"nodes":{"selector":{},"dataPath":"/data"}},"streams":[{"name":"Fills"}],"image":"hlparser:v2",` +
			`"sink":{},"engine":{"workers":4}}`,
	} {
		r := appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{
			Namespace: "hl", Name: "mainnet-" + []string{"z", "a", "b"}[i],
			Labels:            map[string]string{v1alpha1.LabelRevision: []string{"z", "a", "b"}[i]},
			CreationTimestamp: metav1.NewTime(ago(time.Duration(50-20*i) * time.Hour)),
			OwnerReferences:   []metav1.OwnerReference{{UID: "uid", Controller: ptr.To(true)}},
			Annotations:       map[string]string{v1alpha1.AnnotationSpec: spec},
		}, Revision: int64(i + 1)}
		out = append(out, r)
	}
	return append(out, appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "somebody-elses"}, Revision: 9})
}

func TestHistory(t *testing.T) {
	obj := mainnet()
	golden(t, "history.txt", renderHistory(screen{}, obj, revisionsOf(obj, revised(), pods()), noon))
}

func TestEventsOfABundle(t *testing.T) {
	f := watched()
	event := func(kind, name, message string, at time.Time) corev1.Event {
		return corev1.Event{
			InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name}, Type: "Warning", Reason: "SinkDown",
			Message: message, LastTimestamp: metav1.NewTime(at),
		}
	}
	got := renderEvents(&f, []corev1.Event{
		event("Pod", "mainnet-node-2", "second", ago(time.Minute)),
		event("HyperliquidParser", "mainnet", "first\nforged line", ago(time.Hour)),
		event("Pod", "another", "no", noon), event("HyperliquidParser", "testnet", "no", noon),
	})
	want := "2026-05-01T11:00:00Z Warning HyperliquidParser/mainnet SinkDown: first\ufffdforged line\n" +
		"2026-05-01T11:59:00Z Warning Pod/mainnet-node-2 SinkDown: second\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReadmeOfABundle(t *testing.T) {
	f := watched()
	text, err := renderReadme(&f, []document{{name: "object.yaml"}, {name: "logs/mainnet-node-2.log"}},
		[]string{"events: forbidden"}, noon)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "readme.txt", text)
}
