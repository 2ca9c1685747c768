package status

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// reporter is a test, or one draw of a property test.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// watchedFleet is a fleet whose parsers are polled, and whose status is written, at each look, by one operator after
// another.
type watchedFleet struct {
	t        reporter
	obj      *v1alpha1.HyperliquidParser
	s        *scenery
	trackers []health.Tracker
	parsers  []lossyParser
}

// lossyParser is what a process of a parser counts.
type lossyParser struct {
	started       time.Time
	files, blocks int64
	malformed     bool
	verdict       health.Verdict
	silent        bool // the operator has not asked it
}

// day is when the first processes started.
var day = noon.Add(-24 * time.Hour)

func watchFleet(t reporter, targets int) *watchedFleet {
	obj, s := scene(targets)
	s.Now = noon.Add(500 * time.Millisecond)
	f := &watchedFleet{t, obj, s, make([]health.Tracker, targets), make([]lossyParser, targets)}
	for i := range targets {
		f.parsers[i] = lossyParser{started: day, verdict: health.Healthy}
	}
	f.look()
	return f
}

// look lets a minute pass, polls the parsers, writes the status, and reads it back.
func (f *watchedFleet) look() {
	f.t.Helper()
	f.s.Now = f.s.Now.Add(time.Minute)
	for i := range f.parsers {
		f.ask(i)
	}
	text, err := json.Marshal(f.s.status(f.obj, plan.Result{}))
	if err != nil {
		f.t.Fatal(err)
	}
	f.obj.Status = v1alpha1.HyperliquidParserStatus{}
	if err := json.Unmarshal(text, &f.obj.Status); err != nil {
		f.t.Fatal(err)
	}
}

// ask polls a parser as the poller does.
func (f *watchedFleet) ask(i int) {
	p, tracker, name := &f.parsers[i], &f.trackers[i], f.s.Targets[i].Name
	var settings health.Settings
	tracker.ObservePod(health.PodState{UID: p.started.String(), Container: "c", Running: true}, f.s.Now, settings)
	tracker.Acknowledge(AcknowledgedLosses(f.obj, name, f.s.Now))
	verdict := p.verdict
	if p.silent {
		verdict = health.Unknown
	} else {
		r := report.Report{StartedAt: p.started, Now: f.s.Now, Streams: []report.Stream{{
			Name: "Fills", PrunedUnreadTotal: p.files, BlockGapsTotal: p.blocks, LastBlock: 1000,
			LinesTotal: 1000 * int64(tracker.Reports()),
		}}}
		if p.malformed {
			r.Streams[0].MalformedLinesTotal = r.Streams[0].LinesTotal / 2
		}
		tracker.ObservePoll(health.Poll{Report: &r}, f.s.Now, settings)
	}
	f.s.judge(i, verdict)
	view := f.s.Views[name]
	view.Alerts, view.Process, view.KnowsFormat, view.Reports = tracker.Alerts(), tracker.Process(), tracker.KnowsFormat(),
		tracker.Reports()
	f.s.Views[name] = view
}

// rests fails unless further looks leave the status as it is.
func (f *watchedFleet) rests(when string) {
	f.t.Helper()
	before := f.obj.Status
	for range 3 {
		if f.look(); fmt.Sprint(f.obj.Status) != fmt.Sprint(before) {
			f.t.Errorf("%s, at rest\n got %.1000v\nwant %.1000v", when, f.obj.Status, before)
			return
		}
	}
}

// replace gives a target a new pod, whose parser has lost nothing yet.
func (f *watchedFleet) replace(i int) {
	f.parsers[i] = lossyParser{started: f.s.Now, verdict: health.Healthy}
}

// lead has another operator lead, which has asked nobody yet.
func (f *watchedFleet) lead() {
	for i := range f.parsers {
		f.parsers[i].silent = true
		f.trackers[i] = health.Tracker{}
	}
}

// answer makes all parsers answer.
func (f *watchedFleet) answer() {
	for i := range f.parsers {
		f.parsers[i].silent = false
	}
}

// intact is the condition DataIntact.
func (f *watchedFleet) intact() metav1.Condition {
	if c := meta.FindStatusCondition(f.obj.Status.Conditions, v1alpha1.ConditionDataIntact); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// is fails unless DataIntact is "Status/Reason".
func (f *watchedFleet) is(when, want string) {
	f.t.Helper()
	if c := f.intact(); string(c.Status)+"/"+c.Reason != want {
		f.t.Errorf("%s: DataIntact is %s/%s: %s, want %s", when, c.Status, c.Reason, c.Message, want)
	}
}

// acknowledge annotates the object with the name that the condition gives.
func (f *watchedFleet) acknowledge() {
	f.t.Helper()
	text := f.intact().Message
	_, name, ok := strings.Cut(text, v1alpha1.AnnotationAcknowledgeLoss+"=")
	if !ok {
		f.t.Fatalf("%q does not say how to acknowledge the loss", text)
	}
	name, _, _ = strings.Cut(name, ";")
	f.obj.Annotations = map[string]string{v1alpha1.AnnotationAcknowledgeLoss: name}
}

const (
	noLoss = "True/NothingLost"
	lostIt = "False/DataLost"
)

func TestALossIsKeptUntilAPersonAcknowledgesIt(t *testing.T) {
	f := watchFleet(t, 3)
	f.is("at first", noLoss)
	f.parsers[1].files = 2
	f.look()
	f.is("once lost", lostIt)
	f.rests("once lost")
	const story = "node-0001: Fills: 0 B never read, 2 files deleted too early: keep the node's files longer"
	want := story + "; to acknowledge it, annotate the object with " +
		"fleet.hlparser.dev/acknowledge-loss=2026-05-01T12:02:00Z"
	if got := f.intact().Message; got != want {
		t.Errorf("it says %q", got)
	}
	if got := delivering(f.obj.Status); got != "False/DataLost "+story {
		t.Errorf("Delivering is %s", got)
	}
	if got := f.obj.Status; got.State != "DataLost" || got.Story != "unread lines are lost on node-0001" {
		t.Errorf("STATUS %s: %s", got.State, got.Story)
	}
	f.parsers[1].files = 5
	f.rests("while it goes on")

	for _, verdict := range health.Verdicts() {
		f.parsers[1].verdict, f.parsers[2].verdict = verdict, verdict
		f.look()
		f.is("while it is "+string(verdict), lostIt)
	}
	f.lead()
	f.look()
	f.is("with another operator, which has asked nobody", lostIt)
	f.rests("with another operator")
	f.answer()
	f.look()
	f.is("with another operator, which has heard the same", lostIt)
	f.rests("with another operator that has heard the same")
	f.replace(1)
	f.look()
	f.is("with another pod", lostIt)
	f.lead()
	f.answer()
	f.look()
	f.is("with another pod and another operator", lostIt)

	f.acknowledge()
	f.look()
	f.is("once acknowledged", noLoss)
	f.rests("once acknowledged")
	if len(f.obj.Status.Losses) != 0 {
		t.Errorf("kept: %+v", f.obj.Status.Losses)
	}
	f.obj.Annotations = nil
	f.look()
	f.is("when the annotation is taken away again", noLoss)
}

func TestALossThatIsAcknowledgedIsNotFoundOnceMore(t *testing.T) {
	f := watchFleet(t, 3)
	f.parsers[1].files = 2
	f.look()
	f.acknowledge()
	f.look()
	f.is("at once", noLoss)
	if f.s.Views[nodeName(1)].Alerts.DataLost.Raised() {
		t.Error("the alert is raised still")
	}
	f.rests("acknowledged")
	f.lead()
	f.look()
	f.answer()
	f.look()
	f.is("with another operator", noLoss)
	f.obj.Annotations = nil
	f.lead()
	f.answer()
	f.look()
	f.is("with another operator, without the annotation", noLoss)
	f.rests("with another operator")

	f.parsers[1].files = 3
	f.look()
	f.is("one file more", lostIt)
	f.parsers[1].files = 9
	f.acknowledge()
	f.look()
	f.is("what was lost while the first of it was not acknowledged", lostIt)
	f.acknowledge()
	f.look()
	f.is("that too", noLoss)
	f.replace(1)
	f.look()
	if len(f.obj.Status.Losses) != 0 {
		t.Errorf("what another process lost is kept: %+v", f.obj.Status.Losses)
	}
	f.parsers[1].files = 1
	f.look()
	f.is("what another process loses", lostIt)
}

func TestAnAnnotationAcknowledgesWhatItNamesAndNothingElse(t *testing.T) {
	f := watchFleet(t, 3)
	f.parsers[0].files = 1
	f.look()
	f.acknowledge()
	old := f.obj.Annotations[v1alpha1.AnnotationAcknowledgeLoss]
	f.obj.Annotations = nil
	f.s.Now = f.s.Now.Add(time.Hour)
	f.parsers[1].files = 1
	f.look()
	f.replace(0)
	f.replace(1)
	f.look()
	newer := f.obj.Status.Losses[1].Since.UTC()
	for name, test := range map[string]struct{ value, want string }{
		"nothing":                      {"", lostIt},
		"what is no time":              {"yes", lostIt},
		"the older of two losses":      {old, lostIt},
		"a time that is still to come": {newer.Add(24 * time.Hour).Format(time.RFC3339), lostIt},
		"a time before both":           {day.UTC().Format(time.RFC3339), lostIt},
		"a moment before the newer":    {newer.Add(-time.Second).Format(time.RFC3339), lostIt},
		"the newer":                    {newer.Format(time.RFC3339), noLoss},
		"now, in another time zone":    {f.s.Now.In(time.FixedZone("", 7200)).Format(time.RFC3339), noLoss},
	} {
		t.Run(name, func(t *testing.T) {
			now := f.s.Now
			defer func() { f.s.Now = now }()
			g := *f
			g.t, g.obj, g.trackers = t, f.obj.DeepCopy(), slices.Clone(f.trackers)
			g.obj.Annotations = map[string]string{v1alpha1.AnnotationAcknowledgeLoss: test.value}
			g.look()
			g.is("annotated", test.want)
			g.rests("annotated")
		})
	}
	f.obj.Annotations = map[string]string{v1alpha1.AnnotationAcknowledgeLoss: old}
	f.look()
	if got := f.intact().Message; !strings.HasPrefix(got, "node-0001: ") || strings.Contains(got, "more)") {
		t.Errorf("of the one that is left it says %q", got)
	}
}

func TestEveryKindOfLossIsKeptAndTheWorstSpeaks(t *testing.T) {
	f := watchFleet(t, 4)
	f.parsers[0].blocks = 7
	f.look()
	f.is("a gap", "False/DataGap")
	if got := delivering(f.obj.Status); !strings.HasPrefix(got, "True/") {
		t.Errorf("a gap is not the parser's: Delivering is %s", got)
	}
	f.parsers[1].files = 1
	f.look()
	f.is("a gap and a loss", lostIt)
	if got := f.intact().Message; !strings.HasPrefix(got, "node-0001: ") ||
		!strings.Contains(got, " (and 1 target more); to acknowledge it") {
		t.Errorf("it says %q", got)
	}
	f.parsers[2].malformed = true
	for range 10 {
		f.look()
	}
	f.is("a gap, a loss and a drift", lostIt)
	if got := f.intact().Message; !strings.Contains(got, "; node-0002: Fills: 5") {
		t.Errorf("it says %q", got)
	}
	f.rests("with all of them")
	f.acknowledge()
	f.look()
	f.is("a drift alone, which no annotation ends", "False/FormatDrift")
	if got := f.obj.Status; got.State != "FormatDrift" || got.Story != "malformed lines on node-0002" {
		t.Errorf("STATUS %s: %s", got.State, got.Story)
	}
	f.lead()
	f.look()
	f.answer()
	f.look()
	f.is("a drift, with another operator", "False/FormatDrift")
	f.parsers[2].malformed = false
	for range 10 {
		f.look()
	}
	f.is("when all is known again", noLoss)
}

func TestNothingIsSaidToBeIntactThatWasNotAsked(t *testing.T) {
	f := watchFleet(t, 0)
	f.is("without a target", "Unknown/NoTargets")
	f = watchFleet(t, 2)
	f.obj.Status = v1alpha1.HyperliquidParserStatus{}
	f.lead()
	f.parsers[0].silent = false
	f.look()
	f.is("with one that was not asked", "Unknown/NotYetJudged")
	f.answer()
	f.look()
	f.is("with all asked", noLoss)
	f.lead()
	f.look()
	f.is("with another operator", noLoss)
}

// The status of a fleet whose targets have all lost data is as small as any, and has their number.
func TestLossesOfALargeFleet(t *testing.T) {
	const targets = 3000
	f := watchFleet(t, targets)
	for i := range targets {
		f.parsers[i].files = int64(i + 1)
	}
	f.look()
	check := func(when string) {
		t.Helper()
		f.is(when, lostIt)
		text, err := json.Marshal(f.obj.Status)
		if err != nil || len(text) > MaxSize {
			t.Errorf("%s: %d bytes, %v", when, len(text), err)
		}
		if got := targetsWithLoss(f.obj.Status.Losses) + int(f.obj.Status.MoreLosses); got != targets ||
			len(f.obj.Status.Losses) < 10 {
			t.Errorf("%s: %d targets have lost something, %d losses shown", when, got, len(f.obj.Status.Losses))
		}
		if got := f.intact().Message; !strings.Contains(got, "(and 2999 targets more)") {
			t.Errorf("%s: it says %q", when, got)
		}
		f.rests(when)
	}
	check("all")
	f.lead()
	f.look()
	check("with another operator")
	for i := range targets {
		f.replace(i)
	}
	f.look()
	check("with other pods")
	f.acknowledge()
	f.look()
	f.is("acknowledged", noLoss)
	f.rests("acknowledged")
}

func TestAParserThatLiesAboutALossSpoilsNoStatus(t *testing.T) {
	for _, at := range []time.Time{
		{}, time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -12*3600)), time.Unix(-1<<40, 0),
	} {
		f := watchFleet(t, 1)
		f.parsers[0] = lossyParser{started: at, verdict: health.Healthy, files: math.MaxInt64, blocks: math.MaxInt64}
		f.look()
		f.is("a liar's", lostIt)
		for _, l := range f.obj.Status.Losses {
			if l.PrunedFiles > maxFigure || l.MissingBlocks > maxFigure || len(l.Message) > maxLossMessage ||
				l.Process.UTC().Year() > 9999 {
				t.Errorf("%+v", l)
			}
		}
		f.rests("a liar's")
	}
}

// With any order of losses, restarts, leader changes and acknowledgements, DataIntact is false exactly while there is a
// loss that was not shown and then acknowledged.
func TestNoLossIsForgotten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const targets = 3
		f := watchFleet(t, targets)
		type process struct {
			target  int
			started int64
		}
		of := func(i int) process { return process{i, f.parsers[i].started.Unix()} }
		lost, acked := map[process]int64{}, map[process]int64{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, targets-1).Draw(t, "target")
			switch step := rapid.SampledFrom([]string{"lose", "restart", "lead", "acknowledge", "look"}).Draw(t, "step"); step {
			case "lose":
				f.parsers[i].files++
				f.parsers[i].verdict = rapid.SampledFrom(health.Verdicts()).Draw(t, "verdict")
				lost[of(i)] = f.parsers[i].files
			case "restart":
				f.replace(i)
			case "lead":
				f.lead()
				f.look()
				f.answer()
			case "acknowledge":
				shown := slices.DeleteFunc(slices.Clone(f.obj.Status.Losses),
					func(l v1alpha1.LossStatus) bool { return l.Acknowledged })
				if len(shown) == 0 {
					break
				}
				f.acknowledge()
				for _, l := range shown {
					i, _ := f.s.Index(l.Target)
					p := process{i, l.Process.Unix()}
					acked[p] = l.PrunedFiles
					if p != of(i) { // it can say no more
						acked[p] = lost[p]
					}
				}
			}
			f.look()
			open := 0
			for p, n := range lost {
				if n > acked[p] {
					open++
				}
			}
			c := f.intact()
			if (open > 0) != (c.Status == metav1.ConditionFalse) {
				t.Fatalf("%d processes have lost more than was acknowledged, and DataIntact is %s: %s", open, c.Status, c.Message)
			}
		}
	})
}
