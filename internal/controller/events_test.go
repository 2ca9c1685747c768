package controller

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// day is a day before noon, when the first processes started.
var (
	noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	day  = noon.Add(-24 * time.Hour)
)

func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

// recordedEvents returns an Events and its clock, and a function that returns the events sent since its last call.
func recordedEvents() (*Events, *testingclock.FakePassiveClock, func() []string) {
	recorder := events.NewFakeRecorder(1000)
	clock := testingclock.NewFakePassiveClock(noon)
	return NewEvents(recorder, clock), clock, func() []string {
		var out []string
		for len(recorder.Events) > 0 {
			out = append(out, <-recorder.Events)
		}
		return out
	}
}

func TestAFaultIsSentOnceAndItsEndOnce(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(3)
	s.judge(1, health.Stuck)
	for range 3 {
		e.judgements(obj, s.Fleet)
	}
	s.judge(1, health.Unknown) // its pod was replaced
	e.judgements(obj, s.Fleet)
	s.judge(1, health.Healthy)
	e.judgements(obj, s.Fleet)
	e.judgements(obj, s.Fleet)
	want := []string{"Warning Stuck node-0001 is Stuck: figures", "Normal Recovered node-0001 is Healthy: figures"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestARestartIsSentAfterTheVerdictThatLedToIt(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(3)
	s.judge(1, health.Stuck)
	e.restarting(obj, plan.Action{Target: nodeName(1), Pod: "pod", UID: "uid",
		Record: plan.Record{Times: []time.Time{noon}}}, s.Views[nodeName(1)].Judgement)
	e.judgements(obj, s.Fleet)
	e.judgements(obj, s.Fleet)
	want := []string{
		"Warning Stuck node-0001 is Stuck: figures",
		"Warning Restarting node-0001: restarting parser pod (1 within the hour), which is Stuck: figures",
	}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// An event is read when it is sent, so it has the figures of that time.
func TestEventsHaveTheFiguresOfTheMoment(t *testing.T) {
	for name, test := range map[string]struct {
		latest health.Judgement
		want   string
	}{
		"nothing newer": {health.Judgement{}, "figures"},
		"newer figures": {health.Judgement{Verdict: health.Stuck, Reason: "Trades", Message: "28 minutes"}, "28 minutes"},
		"it fades":      {health.Judgement{Verdict: health.Healthy, Message: "lines move"}, "figures, at 12:00:00 UTC"},
	} {
		t.Run(name, func(t *testing.T) {
			e, _, sent := recordedEvents()
			obj, s := scene(2)
			s.judge(1, health.Stuck)
			view := s.Views[nodeName(1)]
			view.Latest = test.latest
			s.Views[nodeName(1)] = view
			e.judgements(obj, s.Fleet)
			if got, want := sent(), []string{"Warning Stuck node-0001 is Stuck: " + test.want}; !slices.Equal(got, want) {
				t.Errorf("sent %q, want %q", got, want)
			}
		})
	}
}

func TestARestartThatDidNotHelpIsAnEventWithTheFiguresOfTheMoment(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(3)
	s.judge(1, health.Stuck)
	next := plan.Result{Ineffective: []string{nodeName(1)},
		Waiting: map[string]string{nodeName(1): "no restart before 13:00:00 UTC"}}
	before := s.status(obj, plan.Result{})
	view := s.Views[nodeName(1)]
	view.Latest = health.Judgement{Verdict: health.Stuck, Message: "28 minutes"}
	s.Views[nodeName(1)] = view
	obj.Status = before
	after := s.status(obj, next)
	e.conditions(obj, before, withCurrentFigures(after, s.Fleet, next))
	want := []string{"Warning RestartIneffective node-0001: 28 minutes; no restart before 13:00:00 UTC"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	stable := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionBuffersStable)
	if stable.Message != "node-0001: figures; no restart before 13:00:00 UTC" {
		t.Errorf("the status has %q", stable.Message)
	}
}

func TestEachChangeOfAVerdictAndOfAnAlertIsLoggedOnce(t *testing.T) {
	e, _, _ := recordedEvents()
	obj, s := scene(2)
	lines := func() []string {
		changes := e.changes(obj, s.Fleet)
		out := make([]string, 0, len(changes))
		for _, c := range changes {
			out = append(out, strings.TrimSuffix(fmt.Sprintln(append([]any{c.target, c.text}, c.values...)...), "\n"))
		}
		return out
	}
	check := func(when string, want ...string) {
		t.Helper()
		if got := lines(); !slices.Equal(got, want) {
			t.Errorf("%s: logged %q, want %q", when, got, want)
		}
		if got := lines(); len(got) > 0 {
			t.Errorf("%s: logged once more %q", when, got)
		}
	}
	const healthy = "verdict changed verdict Healthy reason Fills before Unknown message figures"
	check("at first", "node-0000 "+healthy, "node-0001 "+healthy)
	s.judge(1, health.CatchingUp)
	check("what is not bad", "node-0001 verdict changed verdict CatchingUp reason Fills before Healthy message figures")
	s.judge(1, health.Stuck)
	s.raise(1, health.Alerts{FormatDrift: health.Alert{Since: noon, Message: "half of the lines"}})
	check("a verdict and an alert",
		"node-0001 verdict changed verdict Stuck reason Fills before CatchingUp message figures",
		"node-0001 alert raised alert FormatDrift message half of the lines")
	view := s.Views[nodeName(1)]
	view.Judgement.Reason = "Trades"
	s.Views[nodeName(1)] = view
	check("another reason", "node-0001 verdict changed verdict Stuck reason Trades before Stuck message figures")
	s.raise(1, health.Alerts{})
	check("the alert is over", "node-0001 alert over alert FormatDrift")
	delete(s.Views, nodeName(1))
	check("its pod is gone", "node-0001 verdict changed verdict Unknown reason NoPod before Stuck message ")
	s.Targets, s.Pairs = s.Targets[:1], s.Pairs[:1]
	check("it is no target any more")
	s.Known, s.Targets, s.Pairs = false, nil, nil
	check("targets are not known")
}

// In an outage, neither the deliveries of another target nor a new pod prove that a fleet delivers.
func TestAPodThatIsNewInAnOutageProvesNothing(t *testing.T) {
	obj, s := scene(3)
	e, _, sent := recordedEvents()
	see := func() string {
		s.Now = s.Now.Add(time.Minute)
		obj.Status = s.status(obj, plan.Result{})
		e.judgements(obj, s.Fleet)
		return strings.Fields(delivering(obj.Status))[0]
	}
	s.judge(1, health.SinkDown)
	if got := see(); got != "False/SinkDown" {
		t.Error(got)
	}
	s.Pods[1].CreationTimestamp = metav1.NewTime(s.Now)
	s.judge(1, health.Unknown)
	if got := see(); got != "Unknown/NotYetJudged" {
		t.Errorf("with a new pod: %s", got)
	}
	s.judge(1, health.Healthy)
	if got := see(); got != "True/AllDelivering" {
		t.Errorf("once it delivers: %s", got)
	}
	want := []string{"Warning SinkDown node-0001 is SinkDown: figures", "Normal Recovered node-0001 is Healthy: figures"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestAHealthyFleetSendsNoEvents(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(3)
	s.judge(0, health.Unknown)
	e.judgements(obj, s.Fleet)
	s.judge(0, health.Healthy)
	e.judgements(obj, s.Fleet)
	if got := sent(); len(got) > 0 {
		t.Errorf("sent %q", got)
	}
}

func TestAFleetWithOneDeadSinkIsOneEvent(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(2000)
	for i := range s.Targets {
		s.judge(i, health.SinkDown)
	}
	e.judgements(obj, s.Fleet)
	want := []string{"Warning SinkDown 2000 targets are SinkDown: node-0000, node-0001, node-0002 and 1997 more; " +
		"node-0000: figures"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q", got)
	}
}

// A recorder merges events that differ only in their text. A fleet that recovers step by step sends one event for each
// step.
func TestTheSameOfOthersIsAnotherEvent(t *testing.T) {
	clients := fake.NewClientset()
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: clients.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	clock := testingclock.NewFakePassiveClock(noon)
	e := NewEvents(broadcaster.NewRecorder(scheme, "test"), clock)
	const batch, targets, each = 5, 100, 40 // targets a batch, in all, and a minute
	obj, s := scene(targets)
	become := func(v health.Verdict) {
		for i := range targets {
			s.judge(i, v)
			if i%batch == batch-1 {
				e.judgements(obj, s.Fleet)
			}
			if i%each == each-1 {
				clock.SetTime(clock.Now().Add(time.Minute))
				e.judgements(obj, s.Fleet)
			}
		}
	}
	// expect checks that there is an event for each of the given ends, and no other event.
	expect := func(want ...string) {
		t.Helper()
		var notes []string
		for deadline := time.Now().Add(30 * time.Second); len(notes) < len(want) &&
			time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			list, err := clients.EventsV1().Events("ns").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			notes = make([]string, 0, len(list.Items))
			for _, event := range list.Items {
				notes = append(notes, event.Note)
			}
		}
		for _, text := range want {
			if !slices.ContainsFunc(notes, func(note string) bool { return strings.HasSuffix(note, text) }) {
				t.Errorf("nothing was sent that ends with %q", text)
			}
		}
		if len(notes) != len(want) {
			t.Errorf("sent %d events, not %d: %q", len(notes), len(want), notes)
		}
	}
	of := func(targets ...int) (texts []string) {
		for _, i := range targets {
			texts = append(texts, nodeName(i)+": figures")
		}
		return texts
	}

	// Six in the first minute, then the summary and five more, then the summary and the rest.
	become(health.SinkDown)
	want := append(of(0, 5, 10, 15, 20, 25, 40, 45, 50, 55, 60, 80, 85, 90, 95), "minute: 2 × SinkDown",
		"minute: 3 × SinkDown")
	expect(want...)
	// The status was written meanwhile. One more event of that minute, and so on.
	obj.ResourceVersion = "2"
	become(health.Healthy)
	expect(slices.Concat(want, of(0, 40, 45, 50, 55, 60, 80, 85, 90, 95),
		[]string{"minute: 7 × Recovered", "minute: 3 × Recovered"})...)
	for _, action := range clients.Actions() {
		if action.GetVerb() == "patch" {
			t.Errorf("an event is written to again: %v", action)
		}
	}
}

func TestEventsOverTheLimitAreSummarizedWhenTheMinuteEnds(t *testing.T) {
	e, clock, sent := recordedEvents()
	obj, s := scene(20)
	for i := range 10 {
		s.judge(i, health.SinkDown)
		e.judgements(obj, s.Fleet)
	}
	s.judge(0, health.Stuck)
	e.judgements(obj, s.Fleet)
	if got := sent(); len(got) != eventsPerMinute {
		t.Errorf("sent %d events within a minute", len(got))
	}
	due := e.due(client.ObjectKeyFromObject(obj))
	if want := noon.Add(time.Minute); !due.Equal(want) {
		t.Errorf("the rest is due at %s, want %s", due, want)
	}
	clock.SetTime(due)
	e.judgements(obj, s.Fleet)
	want := []string{"Normal MoreEvents events suppressed in the last minute: 4 × SinkDown, 1 × Stuck"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	if due := e.due(client.ObjectKeyFromObject(obj)); !due.IsZero() {
		t.Errorf("something is due at %s still", due)
	}
}

// Two thousand targets fail and recover, a hundred at a time. Each step is a change, and the number of events per
// minute stays bounded.
func TestEventsOfALargeFleetAreBoundedByTheMinute(t *testing.T) {
	e, clock, sent := recordedEvents()
	const targets = 2000
	obj, s := scene(targets)
	total, reasons := 0, []health.Verdict{health.SinkDown, health.NotRunning, health.Stuck, health.Unreachable}
	for minute := range 4 {
		clock.SetTime(noon.Add(time.Duration(minute) * time.Minute))
		n := 0
		for i := range targets {
			s.judge(i, reasons[(i+minute)%len(reasons)])
			if minute == 3 {
				s.judge(i, health.Healthy)
			}
			if i%100 == 99 {
				e.judgements(obj, s.Fleet)
				n += len(sent())
			}
		}
		if n == 0 || n > eventsPerMinute {
			t.Errorf("minute %d: sent %d events", minute, n)
		}
		total += n
	}
	clock.SetTime(noon.Add(4 * time.Minute))
	e.judgements(obj, s.Fleet)
	if got := sent(); len(got) != 1 || !strings.Contains(got[0], "15 × Recovered") {
		t.Errorf("the last minute's rest reads %q", got)
	}
	if total != 4*eventsPerMinute {
		t.Errorf("sent %d events in four minutes", total)
	}
}

func TestAnAlertIsSentOnceWhateverTheVerdict(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, s := scene(5)
	s.judge(1, health.Stuck)
	s.raise(1, health.Alerts{DataLost: health.Alert{Since: noon, Message: "a file vanished"}})
	for i := range 4 {
		s.raise(i, health.Alerts{DataLost: s.Views[nodeName(i)].Alerts.DataLost,
			DataGap: health.Alert{Since: noon, Message: "a block is missing"}})
	}
	e.judgements(obj, s.Fleet)
	e.judgements(obj, s.Fleet)
	want := []string{
		"Warning Stuck node-0001 is Stuck: figures",
		"Warning DataLost node-0001: a file vanished",
		"Warning DataGap 4 targets: node-0000, node-0001, node-0002 and 1 more; node-0000: a block is missing",
	}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	s.raise(1, health.Alerts{}) // its pod was replaced
	e.judgements(obj, s.Fleet)
	s.raise(1, health.Alerts{NearRetention: health.Alert{Since: noon, Message: "lines wait"},
		DataLost: health.Alert{Since: noon, Message: "again"}})
	e.judgements(obj, s.Fleet)
	want = []string{"Warning DataLost node-0001: again", "Warning NearRetention node-0001: lines wait"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// A loss that another leader has recorded sends no event. A further loss does, and so does a loss of another process.
func TestALossThatTheStatusHasSendsNoEvent(t *testing.T) {
	recorded := v1alpha1.LossStatus{Target: nodeName(1), Reason: "DataLost", Process: metav1.NewTime(day), PrunedFiles: 1}
	for name, test := range map[string]struct {
		edit func(*v1alpha1.LossStatus)
		want int
	}{
		"recorded":             {func(*v1alpha1.LossStatus) {}, 0},
		"acknowledged before":  {func(l *v1alpha1.LossStatus) { l.Acknowledged = true }, 1},
		"another process's":    {func(l *v1alpha1.LossStatus) { l.Process = metav1.NewTime(noon) }, 1},
		"another target's":     {func(l *v1alpha1.LossStatus) { l.Target = nodeName(0) }, 1},
		"of another kind":      {func(l *v1alpha1.LossStatus) { l.Reason = "DataGap" }, 1},
		"recorded with no one": {func(l *v1alpha1.LossStatus) { *l = v1alpha1.LossStatus{} }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e, _, sent := recordedEvents()
			obj, s := scene(2)
			loss := recorded
			test.edit(&loss)
			obj.Status.Losses = []v1alpha1.LossStatus{loss}
			s.raise(1, health.Alerts{
				DataLost: health.Alert{Since: noon, Message: "files vanished"}, Lost: health.Loss{Process: day, Files: 2},
			})
			e.judgements(obj, s.Fleet)
			e.judgements(obj, s.Fleet)
			if got := sent(); len(got) != test.want {
				t.Errorf("sent %q", got)
			}
		})
	}
}

// delivering returns the Delivering condition in short.
func delivering(status v1alpha1.HyperliquidParserStatus) string {
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDelivering)
	return fmt.Sprintf("%s/%s %s", c.Status, c.Reason, c.Message)
}

func TestLostDataIsNotDelivered(t *testing.T) {
	obj, s := scene(3)
	see := func() string {
		s.Now = s.Now.Add(time.Minute)
		obj.Status = s.status(obj, plan.Result{})
		return delivering(obj.Status)
	}
	check := func(when, want string) {
		t.Helper()
		if got := see(); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	const all = "True/AllDelivering every parser that runs delivers"
	check("at first", all)
	s.raise(1, health.Alerts{DataGap: health.Alert{Since: noon, Message: "a block is missing"},
		NearRetention: health.Alert{Since: noon, Message: "lines wait"}})
	check("what is not lost", all)
	lost := health.Alerts{DataLost: health.Alert{Since: noon, Message: "a file vanished"}}
	s.raise(1, lost)
	check("once lost, and more than a gap", "False/DataLost node-0001: a file vanished")
	rest := fmt.Sprint(obj.Status)
	if see(); fmt.Sprint(obj.Status) != rest {
		t.Errorf("at rest\n got %+v\nwant %s", obj.Status, rest)
	}
	s.raise(0, lost)
	check("twice", "False/DataLost node-0000: a file vanished (and 1 target more)")
	s.judge(2, health.SinkDown)
	check("with a verdict", "False/SinkDown node-0002: figures")

	s.judge(2, health.Healthy)
	see()
	rest = fmt.Sprint(obj.Status)
	for i := range s.Targets {
		s.judge(i, health.Unknown) // a new leader, which has no reports
	}
	if see(); fmt.Sprint(obj.Status) != rest {
		t.Errorf("a new leader\n got %+v\nwant %s", obj.Status, rest)
	}
	for i := range s.Targets {
		s.judge(i, health.Healthy) // of new pods
	}
	check("with new pods", "False/DataLost node-0000: a file vanished (and 1 target more)")
	obj.Annotations = map[string]string{v1alpha1.AnnotationAcknowledgeLoss: noon.Format(time.RFC3339)}
	check("acknowledged", all)
}

func TestMetricsShowTheAlertsThatAreRaised(t *testing.T) {
	const alerts = "hlparser_fleet_target_alert"
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	obj, s := scene(2)
	s.judge(1, health.Leaking)
	s.raise(1, health.Alerts{DataLost: health.Alert{Since: noon}, NearRetention: health.Alert{Since: noon}})
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	want := `
# HELP hlparser_fleet_target_alert 1 for each raised alert of a target, independent of the verdict: ` +
		`DataLost, DataGap, NearRetention, FormatDrift. A loss stays raised until it is acknowledged, ` +
		`and NearRetention until a parser reports a younger backlog. Absent for an alert that is not raised.
# TYPE hlparser_fleet_target_alert gauge
hlparser_fleet_target_alert{alert="DataLost",name="mainnet",namespace="ns",target="node-0001"} 1
hlparser_fleet_target_alert{alert="NearRetention",name="mainnet",namespace="ns",target="node-0001"} 1
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), alerts); err != nil {
		t.Error(err)
	}
	s.raise(1, health.Alerts{})
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	if n := testutil.CollectAndCount(m, alerts); n != 0 {
		t.Errorf("%d alerts are shown still", n)
	}
	if n := testutil.CollectAndCount(m, "hlparser_fleet_target_bad"); n != 1 {
		t.Errorf("%d bad targets are shown, want one", n)
	}
	kept := v1alpha1.HyperliquidParserStatus{Losses: []v1alpha1.LossStatus{
		{Target: nodeName(1), Reason: "DataLost"}, {Target: nodeName(1), Reason: "DataLost", Acknowledged: true},
		{Target: "node-that-was", Reason: "DataGap"}, {Target: nodeName(0), Reason: "DataLost", Acknowledged: true},
	}}
	m.set(obj, s.Fleet, plan.Result{}, kept)
	if n := testutil.CollectAndCount(m, alerts); n != 2 {
		t.Errorf("%d alerts are shown, want the two losses that are not acknowledged", n)
	}
	s.raise(1, health.Alerts{DataGap: health.Alert{Since: noon}})
	m.set(obj, s.Fleet, plan.Result{}, v1alpha1.HyperliquidParserStatus{})
	m.forget(client.ObjectKeyFromObject(obj))
	if n := testutil.CollectAndCount(m, alerts); n != 0 {
		t.Errorf("%d alerts of an object that is gone are shown", n)
	}
}

func TestEachVerdictIsInTheConditionThatSpeaksOfIt(t *testing.T) {
	for verdict, want := range map[health.Verdict]string{
		health.Healthy: "True True", health.CatchingUp: "True True",
		health.Growing: "False True", health.Leaking: "False True", health.Stuck: "False False",
		health.SinkDown: "True False", health.Overloaded: "True False", health.NotRunning: "True False",
		health.Unreachable:   "True False",
		health.SourceStalled: "True False", health.SourceUnreadable: "True False", health.Unknown: "Unknown Unknown",
	} {
		obj, s := scene(2)
		s.judge(1, verdict)
		status := s.status(obj, plan.Result{})
		is := func(kind string) metav1.ConditionStatus {
			return meta.FindStatusCondition(status.Conditions, kind).Status
		}
		if got := fmt.Sprint(is(v1alpha1.ConditionBuffersStable), " ", is(v1alpha1.ConditionDelivering)); got != want {
			t.Errorf("%s: BuffersStable and Delivering are %s, want %s", verdict, got, want)
		}
		if bad := int(status.Bad); bad != map[bool]int{true: 1, false: 0}[strings.Contains(want, "False")] {
			t.Errorf("%s: %d bad", verdict, bad)
		}
	}
}

func TestANewLeaderKeepsABadVerdictOfTheSamePodUntilItHasItsOwn(t *testing.T) {
	obj, s := scene(2)
	s.judge(0, health.SinkDown)
	obj.Status = s.status(obj, plan.Result{})
	before := obj.Status

	s.Now = noon.Add(time.Hour)
	s.judge(0, health.Unknown)
	s.judge(1, health.Unknown)
	if got := s.status(obj, plan.Result{}); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("while nothing is known\n got %+v\nwant %+v", got, before)
	}
	s.judge(1, health.Healthy)
	if got := s.status(obj, plan.Result{}); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("when another target is known\n got %+v\nwant %+v", got, before)
	}
	s.Pods[0].CreationTimestamp = metav1.NewTime(noon.Add(time.Minute))
	if got := s.status(obj, plan.Result{}); got.Bad != 0 {
		t.Errorf("a new pod has the verdict of the old one: %+v", got.Targets)
	}
}

func TestTheStatusOfALargeFleetStaysSmall(t *testing.T) {
	obj, s := scene(5000)
	for i := range s.Targets {
		s.judge(i, health.SinkDown)
		view := s.Views[s.Targets[i].Name]
		view.Judgement.Message = strings.Repeat("x", 300)
		s.Views[s.Targets[i].Name] = view
	}
	status := s.status(obj, plan.Result{Waiting: map[string]string{"node-0000": "paused: no restart"}})
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 9000 {
		t.Errorf("the status has %d bytes", len(text))
	}
	if got := status.Targets[0].Message; !strings.HasSuffix(got, "x; paused: no restart") ||
		!strings.Contains(got, "x…x") {
		t.Errorf("the message reads %q", got)
	}
	if len(status.Targets) != v1alpha1.MaxStatusTargets || status.Bad != 5000 {
		t.Errorf("%d targets shown, %d bad", len(status.Targets), status.Bad)
	}
}

func TestFiguresThatMoveDoNotMoveTheStatus(t *testing.T) {
	obj, s := scene(3)
	s.judge(1, health.Unreachable)
	obj.Status = s.status(obj, plan.Result{})
	for i := range 10 {
		s.Now = s.Now.Add(time.Minute)
		for name, view := range s.Views {
			view.Lag = time.Duration(i) * time.Second
			s.Views[name] = view
		}
		if got := s.status(obj, plan.Result{}); fmt.Sprint(got) != fmt.Sprint(obj.Status) {
			t.Fatalf("after %d minutes\n got %+v\nwant %+v", i+1, got, obj.Status)
		}
	}
}

func TestRepository(t *testing.T) {
	const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for image, want := range map[string]string{
		"demo":                                  "demo",
		"demo:v1":                               "demo",
		"registry.example:5000/a/b":             "registry.example:5000/a/b",
		"registry.example:5000/a/b:v1":          "registry.example:5000/a/b",
		"docker.io/library/demo:v1":             "demo",
		"registry.example/a" + digest:           "registry.example/a",
		"registry.example/a:v1" + digest:        "registry.example/a",
		"registry.example/a:v1@sha256:01234567": "", // no digest is so short
	} {
		if got := Repository(image); got != want {
			t.Errorf("%s: got %s, want %s", image, got, want)
		}
	}
}

func TestBelow(t *testing.T) {
	for name, test := range map[string]struct {
		root string
		want bool
	}{
		"/data":        {"/data", true},
		"/data/":       {"/data", true},
		"/data/hl":     {"/data/", true},
		"/database":    {"/data", false},
		"/data/../etc": {"/data", false},
		"/dat":         {"/data", false},
		"/anything":    {"/", true},
	} {
		if got := below(name, test.root); got != test.want {
			t.Errorf("%s below %s: got %v", name, test.root, got)
		}
	}
}

func TestAFleetWideFaultIsSentOnceAndItsEndOnce(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, _ := scene(3)
	for range 3 {
		e.outage(obj, plan.Result{FleetWide: true, Outage: "2 of 3 targets are bad"})
	}
	e.outage(obj, plan.Result{})
	e.outage(obj, plan.Result{})
	want := []string{
		"Warning FleetWide 2 of 3 targets are bad: no parser is restarted until fewer targets are bad",
		"Normal FleetWideOver few targets are bad: parsers are restarted again if that may help",
	}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestARolloutSendsEventsAtItsCanariesAndWhenItStops(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, _ := scene(3)
	after := v1alpha1.HyperliquidParserStatus{CurrentRevision: "mainnet-old", UpdateRevision: "mainnet-new"}
	for _, next := range []plan.Result{
		{Phase: plan.PhaseCanary}, {Phase: plan.PhaseCanary, Message: "the soak waits"}, {Phase: plan.PhaseRolling},
		{Phase: plan.PhaseStopped, Message: "node-1 is Stuck"}, {Phase: plan.PhaseStopped, Message: "node-2 is Stuck"},
		{Phase: plan.PhaseRolling},
	} {
		e.rollout(obj, next, after)
	}
	want := []string{
		"Normal CanarySoaking revision mainnet-new runs on its canaries; the other parsers stay at mainnet-old until the " +
			"canaries have soaked",
		"Warning RolloutStopped node-1 is Stuck",
	}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestATargetsMessageSaysWhatIsDoneOrWhyNothingIs(t *testing.T) {
	obj, s := scene(2)
	s.judge(0, health.Stuck)
	s.Pods[0].UID = "uid"
	s.Ledger.Records = plan.Ledger{nodeName(0): plan.Record{UID: "uid", Times: []time.Time{noon}}}
	if got := s.status(obj, plan.Result{}).Targets[0].Message; got != "figures; restarting (1 of 3 this hour)" {
		t.Errorf("while it is restarted: %q", got)
	}
	s.Pods[0].UID = "another"
	if got := s.status(obj, plan.Result{}).Targets[0].Message; got != "figures" {
		t.Errorf("after that: %q", got)
	}
	paused := plan.Result{Waiting: map[string]string{nodeName(0): "paused: no restart"}}
	if got := s.status(obj, paused).Targets[0].Message; got != "figures; paused: no restart" {
		t.Errorf("while paused: %q", got)
	}
}

func TestConditionsSayWhyARestartThatIsDueWouldNotHelp(t *testing.T) {
	obj, s := scene(3)
	s.judge(1, health.Stuck)
	waiting := map[string]string{nodeName(1): "no restart"}
	fleetWide := plan.Result{FleetWide: true, Outage: "2 of 3 targets are bad", Waiting: waiting}
	for name, test := range map[string]struct {
		next plan.Result
		edit func(*v1alpha1.HyperliquidParserSpec)
		want string
	}{
		"a restart":  {plan.Result{}, nil, "Stuck: node-0001: figures"},
		"fleet-wide": {fleetWide, nil, "FleetWide: node-0001: figures; no restart; 2 of 3 targets are bad"},
		"ineffective": {plan.Result{Ineffective: []string{nodeName(1)}, Waiting: waiting}, nil,
			"RestartIneffective: node-0001: figures; no restart"},
		"fleet-wide, paused": {fleetWide, func(s *v1alpha1.HyperliquidParserSpec) { s.Paused = true },
			"Stuck: node-0001: figures; no restart"},
		"fleet-wide, alerted": {fleetWide,
			func(s *v1alpha1.HyperliquidParserSpec) { s.Growth.Action = v1alpha1.GrowthActionAlert },
			"Stuck: node-0001: figures; no restart"},
	} {
		t.Run(name, func(t *testing.T) {
			obj := obj.DeepCopy()
			if test.edit != nil {
				test.edit(&obj.Spec)
			}
			status := s.status(obj, test.next)
			c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionBuffersStable)
			if got := c.Reason + ": " + c.Message; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAMissingSecretStallsTheObjectAndNamesIt(t *testing.T) {
	obj, s := scene(5)
	stalled := func() string {
		status := s.status(obj, plan.Result{})
		c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionStalled)
		return string(c.Status) + "/" + c.Reason + ": " + c.Message
	}
	if got := stalled(); got != "False/NotStalled: the operator can proceed" {
		t.Error(got)
	}
	for _, i := range []int{1, 3} {
		v := s.Views[nodeName(i)]
		v.MissingSecret = "/secrets/nats-creds/nats.creds"
		s.Views[nodeName(i)] = v
	}
	want := "True/SecretMissing: key nats.creds of Secret nats-creds is missing or cannot be used, and the sink of " +
		"node-0001, node-0003 needs it: " +
		"create or correct it in this namespace, and the parsers resume by themselves within a minute or two"
	if got := stalled(); got != want {
		t.Error(got)
	}
}
