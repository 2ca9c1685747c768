package growth_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var start = time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)

const lineBytes = 500

func settings() growth.Settings {
	return growth.Settings{PollInterval: 5 * time.Second, StuckAfter: 30 * time.Second, BufferLimit: 32 << 20}
}

// running is the state of a pod whose container runs.
func running() growth.PodState {
	return growth.PodState{UID: "pod-1", Container: "container-1", Running: true, Since: start}
}

// stream is one that works: lines come and go, the sink is healthy.
func stream(now time.Time, moved int64) report.Stream {
	return report.Stream{
		Name: "OrderStatuses", State: report.Running, BufferLimitBytes: 32 << 20, LargestLineBytes: 600,
		ReadBytesTotal: moved, ParsedBytesTotal: moved, AckedBytesTotal: moved,
		Sink: report.Sink{State: report.SinkHealthy, Since: &start, LastAckAt: &now},
	}
}

// watched is a tracker that is polled every five seconds.
type watched struct {
	growth.Tracker
	now   time.Time
	moved int64
}

func watch() *watched {
	w := &watched{now: start}
	w.SeePod(running(), w.now, settings())
	return w
}

// poll lets an interval pass and takes in a report that edit has changed.
func (w *watched) poll(edit func(*report.Report)) growth.Judgement {
	w.now = w.now.Add(5 * time.Second)
	w.moved += 1_000_000
	r := report.Report{Parser: "hlparser", Now: w.now, Streams: []report.Stream{stream(w.now, w.moved)}}
	if edit != nil {
		edit(&r)
	}
	w.SeePoll(growth.Poll{Report: &r}, w.now, settings())
	return w.Judgement()
}

// until polls until the verdict is reached, and returns how long that took; it fails after ten minutes.
func (w *watched) until(t *testing.T, want growth.Verdict, edit func(*report.Report)) time.Duration {
	t.Helper()
	for range 120 {
		if w.poll(edit).Verdict == want {
			return w.now.Sub(start)
		}
	}
	t.Fatalf("never %s, but %+v", want, w.Judgement())
	return 0
}

// always polls n times and fails at a verdict that is none of the wanted.
func (w *watched) always(t *testing.T, n int, edit func(i int, r *report.Report), want ...growth.Verdict) {
	t.Helper()
	for i := range n {
		got := w.poll(func(r *report.Report) { edit(i, r) })
		ok := false
		for _, v := range want {
			ok = ok || got.Verdict == v
		}
		if !ok {
			t.Fatalf("poll %d: %+v, want one of %v", i, got, want)
		}
	}
}

// still holds every stage where it was, with lines waiting.
func still(r *report.Report) {
	s := &r.Streams[0]
	s.ReadBytesTotal, s.ParsedBytesTotal, s.AckedBytesTotal = 7_000_000, 7_000_000, 7_000_000
	s.UncommittedBytes = 3 << 20
	s.LagSeconds = 12
}

// lines puts n lines into the live buffer and the batch.
func lines(r *report.Report, n int64) {
	s := &r.Streams[0]
	s.BufferLines, s.InFlightLines = n/2, n-n/2
	s.BufferBytes, s.InFlightBytes = s.BufferLines*lineBytes, s.InFlightLines*lineBytes
}

func TestRightAnswers(t *testing.T) {
	fine := []growth.Verdict{growth.Unknown, growth.Healthy}
	tests := map[string]func(*testing.T){
		"batches of 1174 1175 1176 1177 … lines are Healthy": func(t *testing.T) {
			watch().always(t, 100, func(i int, r *report.Report) { lines(r, 1174+int64(i)) }, fine...)
		},
		"1000 10000 100000 1000000 is Growing by the fourth": func(t *testing.T) {
			w := watch()
			for _, n := range []int64{1000, 10_000, 100_000} {
				if got := w.poll(func(r *report.Report) { lines(r, n) }); got.Verdict.Bad() {
					t.Fatalf("%d lines: %+v", n, got)
				}
			}
			got := w.poll(func(r *report.Report) { lines(r, 1_000_000) })
			want := "buffers hold 477 MiB in 1,000,000 lines, more than the 68 MiB that they may ever hold"
			if got.Verdict != growth.Growing || got.Reason != growth.ReasonUnbounded || got.Message != want {
				t.Errorf("got %+v", got)
			}
		},
		"43878206 lines are Growing on the first report": func(t *testing.T) {
			if got := watch().poll(func(r *report.Report) { lines(r, 43_878_206) }); got.Verdict != growth.Growing {
				t.Errorf("got %+v", got)
			}
		},
		"a buffer at its limit, with a batch as large in flight, is Healthy": func(t *testing.T) {
			watch().always(t, 100, func(_ int, r *report.Report) { lines(r, 2*(32<<20)/lineBytes) }, fine...)
		},
		"a saw-tooth of 0 to 9,000 lines is Healthy": func(t *testing.T) {
			watch().always(t, 100, func(i int, r *report.Report) { lines(r, int64(i%10)*1000) }, fine...)
		},
		"a burst to 200,000 lines that drains in a minute, batch by batch, is Healthy": func(t *testing.T) {
			watch().always(t, 30, func(i int, r *report.Report) {
				waiting := max(0, 200_000-int64(i)*17_000)
				lines(r, min(waiting, 60_000))
				r.Streams[0].UncommittedBytes, r.Streams[0].LagSeconds = waiting*lineBytes, 20
			}, fine...)
		},
		"a filter that lets nothing pass is Healthy, though the sink is never used": func(t *testing.T) {
			watch().always(t, 100, func(_ int, r *report.Report) {
				r.Streams[0].Sink = report.Sink{State: report.SinkHealthy}
				r.Streams[0].UncommittedBytes = 1 << 20
			}, fine...)
		},
		"a quiet stream is Healthy": func(t *testing.T) {
			watch().always(t, 100, func(_ int, r *report.Report) {
				still(r)
				r.Streams[0].UncommittedBytes, r.Streams[0].LagSeconds = 0, 0
			}, fine...)
		},
		"a torn tail for an hour is Healthy: it is no waiting line": func(t *testing.T) {
			watch().always(t, 720, func(_ int, r *report.Report) {
				still(r)
				r.Streams[0].UncommittedBytes = 0
			}, fine...)
		},
		"a 40 M-line backlog that is worked off is not bad": func(t *testing.T) {
			watch().always(t, 200, func(i int, r *report.Report) {
				r.Streams[0].UncommittedBytes, r.Streams[0].LagSeconds = 20e9-int64(i)*9e7, 3600
			}, fine...)
		},
		"a slow sink within one batch is not down: records are acknowledged": func(t *testing.T) {
			watch().always(t, 100, func(_ int, r *report.Report) { r.Streams[0].Sink.OutstandingSeconds = 20 }, fine...)
		},
		"a parser that only reads, only parses or only delivers is not Stuck": func(t *testing.T) {
			for i := range 3 {
				watch().always(t, 50, func(n int, r *report.Report) {
					still(r)
					s := &r.Streams[0]
					*[]*int64{&s.ReadBytesTotal, &s.ParsedBytesTotal, &s.AckedBytesTotal}[i] += int64(n)
				}, fine...)
			}
		},
		"a parser that waits for its sink's answer, or to try again, is not Stuck": func(t *testing.T) {
			watch().always(t, 50, func(n int, r *report.Report) {
				still(r)
				r.Streams[0].Sink.LastAckAt = &r.Now
				if n%2 == 0 {
					r.Streams[0].Sink.OutstandingSeconds = 3
				} else {
					r.Streams[0].Sink.State, r.Streams[0].Sink.Since = report.SinkRetrying, &r.Now
				}
			}, fine...)
		},
		"a black hole is SinkDown within 40 s": func(t *testing.T) {
			w := watch()
			lastAck := start
			took := w.until(t, growth.SinkDown, func(r *report.Report) {
				still(r)
				r.Streams[0].Sink.LastAckAt = &lastAck
				r.Streams[0].Sink.OutstandingSeconds = r.Now.Sub(start).Seconds()
			})
			if took > 40*time.Second {
				t.Errorf("took %s", took)
			}
		},
		"a hang is Stuck within 40 s though its reader goes on filling the buffer": func(t *testing.T) {
			w := watch()
			read := int64(7_000_000)
			took := w.until(t, growth.Stuck, func(r *report.Report) {
				still(r)
				read += 130 * lineBytes
				lines(r, (read-7_000_000)/lineBytes)
				r.Streams[0].ReadBytesTotal = read
			})
			if took > 40*time.Second {
				t.Errorf("took %s", took)
			}
		},
		"a hang is Stuck within 40 s": func(t *testing.T) {
			w := watch()
			if took := w.until(t, growth.Stuck, still); took > 40*time.Second {
				t.Errorf("took %s", took)
			}
			want := "OrderStatuses: 3.0 MiB of whole lines wait, 12s behind, and nothing was parsed or acknowledged for 30s; the sink is idle"
			if got := w.Judgement(); got.Reason != "OrderStatuses" || got.Message != want {
				t.Errorf("got %+v", got)
			}
		},
	}
	for name, test := range tests {
		t.Run(name, test)
	}
}

func TestPolicies(t *testing.T) {
	now := start.Add(time.Hour)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	// window is one of n equal reports.
	window := func(n int, s growth.StreamSample) growth.Window {
		w := growth.Window{Reports: n}
		for range min(n, 13) {
			w.Samples = append(w.Samples, growth.Sample{At: now, Bound: 100 << 20, Streams: []growth.StreamSample{s}})
		}
		return w
	}
	ok := growth.StreamSample{Name: "Fills", State: report.Running, SinkState: report.SinkHealthy}
	with := func(edit func(*growth.StreamSample)) growth.StreamSample { s := ok; edit(&s); return s }
	tests := map[string]struct {
		in      growth.Input
		verdict growth.Verdict
		reason  string
		message string
	}{
		"a pod that was just made is starting": {
			in:      growth.Input{Pod: growth.PodState{Starting: true, Reason: "ContainerCreating", Since: *ago(29 * time.Second)}},
			verdict: growth.Unknown, reason: "Starting", message: "the container is starting",
		},
		"a pod that takes long to start is not running": {
			in: growth.Input{Pod: growth.PodState{
				Starting: true, Reason: "Unschedulable", Detail: "0/3 nodes are available", Since: *ago(95 * time.Second)}},
			verdict: growth.NotRunning, reason: "Unschedulable", message: "not running 1m35s after the pod was created: 0/3 nodes are available",
		},
		"a container that crashes is not running at once": {
			in:      growth.Input{Pod: growth.PodState{Reason: "CrashLoopBackOff", Since: *ago(time.Second)}},
			verdict: growth.NotRunning, reason: "CrashLoopBackOff", message: "the container does not run",
		},
		"two polls without a report are no news": {
			in:      growth.Input{Pod: running(), Window: growth.Window{Reports: 50, Missed: 2, Failure: "no answer within 2s"}},
			verdict: growth.Healthy, reason: "Healthy", message: "buffers are bounded and lines move",
		},
		"three polls without a report are unreachable": {
			in:      growth.Input{Pod: running(), Window: growth.Window{Reports: 50, Missed: 3, Failure: "no answer within 2s"}},
			verdict: growth.Unreachable, reason: "NoReport", message: "3 polls in a row without a report: no answer within 2s",
		},
		"a stream that failed is not running, and not Stuck": {
			in: growth.Input{Pod: running(), Window: window(20, with(func(s *growth.StreamSample) {
				s.State, s.Message, s.Uncommitted = report.Failed, "the checkpoint is corrupt: see state/Fills.bad", 1<<20
				s.StillSince, s.StillReports = start, 20
			}))},
			verdict: growth.NotRunning, reason: growth.ReasonStreamFailed, message: "Fills has failed: the checkpoint is corrupt: see state/Fills.bad",
		},
		"five reports are too few": {
			in:      growth.Input{Pod: running(), Window: window(5, ok)},
			verdict: growth.Unknown, reason: "TooFewReports", message: "waiting for 6 reports",
		},
		"six are enough": {
			in:      growth.Input{Pod: running(), Window: window(6, ok)},
			verdict: growth.Healthy, reason: "Healthy", message: "buffers are bounded and lines move",
		},
		"a sink that is retried for less than 30 s is not down": {
			in: growth.Input{Pod: running(), Window: window(20, with(func(s *growth.StreamSample) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, 29*time.Second, time.Hour
			}))},
			verdict: growth.Healthy, reason: "Healthy", message: "buffers are bounded and lines move",
		},
		"a sink that is retried for 30 s, and acknowledged something meanwhile, is not down": {
			in: growth.Input{Pod: running(), Window: window(20, with(func(s *growth.StreamSample) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, time.Minute, 2*time.Second
			}))},
			verdict: growth.Healthy, reason: "Healthy", message: "buffers are bounded and lines move",
		},
		"a sink that is retried for 30 s without acknowledgement is down": {
			in: growth.Input{Pod: running(), Window: window(20, with(func(s *growth.StreamSample) {
				s.SinkState, s.SinkSince, s.SinkSilent, s.SinkError, s.Uncommitted = report.SinkRetrying, 31*time.Second, 31*time.Second, "disk full", 5<<20
			}))},
			verdict: growth.SinkDown, reason: "Fills", message: "the sink of Fills has acknowledged nothing for 31s, 5.0 MiB waits: disk full",
		},
		"a dead sink explains that nothing moves": {
			in: growth.Input{Pod: running(), Settings: settings(), Window: window(20, with(func(s *growth.StreamSample) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, time.Minute, time.Minute
				s.StillSince, s.StillReports = start, 20
			}))},
			verdict: growth.SinkDown, reason: "Fills", message: "the sink of Fills has acknowledged nothing for 1m0s, 0 B waits",
		},
		"two reports far apart do not tell a hang": {
			in: growth.Input{Pod: running(), Settings: settings(), Window: window(20, with(func(s *growth.StreamSample) {
				s.StillSince, s.StillReports = start, 2
			}))},
			verdict: growth.Healthy, reason: "Healthy", message: "buffers are bounded and lines move",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.in.Now = now
			got := growth.NewChain().Judge(test.in)
			want := growth.Judgement{Verdict: test.verdict, Reason: test.reason, Message: test.message, Since: now}
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestABrokenBoundIsSeenInThreeReportsOrAtTwiceTheBoundInOne(t *testing.T) {
	w := watch()
	over := func(r *report.Report) { lines(r, 80<<20/lineBytes) } // over 68 MiB, under 136 MiB
	for i := range 2 {
		if got := w.poll(over); got.Verdict.Bad() {
			t.Fatalf("report %d: %+v", i, got)
		}
	}
	w.poll(nil)
	for i := range 2 {
		if got := w.poll(over); got.Verdict.Bad() {
			t.Fatalf("after a report within the bound, report %d: %+v", i, got)
		}
	}
	if got := w.poll(over); got.Verdict != growth.Growing {
		t.Errorf("the third report running: %+v", got)
	}
}

func TestTheBoundIsTheProcesssAndCountsAllStreams(t *testing.T) {
	w := watch()
	got := w.poll(func(r *report.Report) {
		lines(r, 100<<20/lineBytes)
		second := r.Streams[0]
		second.Name = "Fills"
		r.Streams = append(r.Streams, second)
	})
	if got.Verdict != growth.Growing {
		t.Errorf("two streams with 100 MiB each: %+v", got)
	}
}

func TestTheBoundAllowsForTheLongestLine(t *testing.T) {
	watch().always(t, 20, func(_ int, r *report.Report) {
		lines(r, 100<<20/lineBytes)
		r.Streams[0].LargestLineBytes = 20 << 20 // 2 × (32 + 20) + 4 = 108 MiB
	}, growth.Unknown, growth.Healthy)
}

func TestABadVerdictIsLeftAfterTwelveCleanPollsAndMeanwhileFades(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	entered := w.Judgement()
	for i := range 11 {
		got := w.poll(nil)
		if got.Verdict != growth.Stuck || !got.Fading || got.Since != entered.Since || got.Message != entered.Message {
			t.Fatalf("clean poll %d: %+v", i+1, got)
		}
	}
	if got := w.poll(nil); got.Verdict != growth.Healthy || got.Fading {
		t.Errorf("clean poll 12: %+v", got)
	}
}

func TestAFaultThatComesBackBeforeTwelveCleanPollsIsTheSameFault(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	entered := w.Judgement()
	for range 4 {
		w.poll(nil)
	}
	for range 10 {
		w.poll(still) // it takes seven to see that it hangs again
	}
	if got := w.Judgement(); got != entered {
		t.Errorf("got %+v, want %+v", got, entered)
	}
	for range 11 {
		w.poll(nil)
	}
	if got := w.Judgement(); got.Verdict != growth.Stuck {
		t.Errorf("the count of clean polls was not begun anew: %+v", got)
	}
}

func TestAPollWithoutAReportIsNotClean(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	for i := range 11 {
		w.poll(nil)
		w.SeePoll(growth.Poll{Failure: "refused"}, w.now, settings())
		if got := w.Judgement(); got.Verdict != growth.Stuck {
			t.Fatalf("left after %d clean reports: %+v", i+1, got)
		}
	}
	if got := w.poll(nil); got.Verdict != growth.Healthy {
		t.Errorf("after twelve: %+v", got)
	}
}

func TestFiguresThatWobbleChangeNothing(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	before := w.Judgement()
	for i := range 50 {
		w.now = w.now.Add(5 * time.Second)
		r := report.Report{Now: w.now, Streams: []report.Stream{stream(w.now, 0)}}
		still(&r)
		r.Streams[0].UncommittedBytes += int64(i) * 1000
		if w.SeePoll(growth.Poll{Report: &r}, w.now, settings()) {
			t.Fatalf("poll %d woke the object: %+v", i, w.Judgement())
		}
	}
	if w.Judgement() != before {
		t.Errorf("got %+v, want %+v", w.Judgement(), before)
	}
}

func TestANewPodKnowsNothingOfTheOldOne(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	pod := running()
	pod.UID, pod.Container = "pod-2", "container-2"
	w.SeePod(pod, w.now, settings())
	if got := w.Judgement(); got.Verdict != growth.Unknown {
		t.Errorf("got %+v", got)
	}
	if w.Window().Reports != 0 {
		t.Errorf("the window has %d reports", w.Window().Reports)
	}
}

func TestARestartedContainerBeginsAWindowAndStaysBadUntilPollsAreClean(t *testing.T) {
	w := watch()
	crashed := running()
	crashed.Running, crashed.Reason = false, "CrashLoopBackOff"
	w.SeePod(crashed, w.now, settings())
	for i := range 3 {
		again := running()
		again.Container = "container-" + string(rune('2'+i))
		w.SeePod(again, w.now, settings())
		if got := w.Judgement(); got.Verdict != growth.NotRunning {
			t.Fatalf("run %d: %+v", i, got)
		}
		if w.Window().Reports != 0 {
			t.Fatalf("run %d: the window has %d reports", i, w.Window().Reports)
		}
		w.poll(nil)
		again.Running, again.Reason = false, "CrashLoopBackOff"
		if w.SeePod(again, w.now, settings()) && w.Judgement().Verdict != growth.NotRunning {
			t.Fatalf("run %d: %+v", i, w.Judgement())
		}
	}
	last := running()
	last.Container = "container-5"
	w.SeePod(last, w.now, settings())
	for range 12 {
		w.poll(nil)
	}
	if got := w.Judgement(); got.Verdict.Bad() {
		t.Errorf("after twelve clean polls: %+v", got)
	}
}

func TestASlowStartIsOverOnceItHasStarted(t *testing.T) {
	w := &watched{now: start.Add(time.Minute)}
	pulling := growth.PodState{UID: "pod-1", Starting: true, Reason: "ContainerCreating", Since: start}
	w.SeePod(pulling, w.now, settings())
	if got := w.Judgement(); got.Verdict != growth.NotRunning {
		t.Fatalf("a minute after creation: %+v", got)
	}
	w.SeePod(running(), w.now, settings())
	if got := w.Judgement(); got.Verdict != growth.Unknown {
		t.Errorf("once it runs: %+v", got)
	}
}

func TestATerminatingPodIsNotJudged(t *testing.T) {
	w := watch()
	w.until(t, growth.Stuck, still)
	before := w.Judgement()
	pod := running()
	pod.Terminating, pod.Running, pod.Reason = true, false, "Error"
	if w.SeePod(pod, w.now, settings()) || w.Judgement() != before {
		t.Errorf("got %+v, want %+v", w.Judgement(), before)
	}
}

func TestStateOf(t *testing.T) {
	pod := func(phase corev1.PodPhase, state, last corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: "u"},
			Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
				Name: growth.ContainerName, ContainerID: "c", State: state, LastTerminationState: last,
			}}},
		}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason}}
	}
	none := corev1.ContainerState{}
	unscheduled := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}}}
	initial := func(state, last corev1.ContainerState) *corev1.Pod {
		p := pod(corev1.PodPending, waiting("PodInitializing"), none)
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", State: state, LastTerminationState: last}}
		return p
	}
	failed := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 1}}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	prepared := pod(corev1.PodRunning, running, none)
	prepared.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "prepare", State: ended("Completed")}}
	evicted := pod(corev1.PodFailed, none, none)
	evicted.Status.Reason = "Evicted"
	tests := map[string]struct {
		pod                       *corev1.Pod
		running, starting, reason any
	}{
		"runs":                               {pod(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, none), true, false, ""},
		"is being made":                      {pod(corev1.PodPending, waiting("ContainerCreating"), none), false, true, "ContainerCreating"},
		"has no status yet":                  {&corev1.Pod{}, false, true, "Pending"},
		"finds no node":                      {unscheduled, false, true, "Unschedulable"},
		"fails to pull":                      {pod(corev1.PodPending, waiting("ErrImagePull"), none), false, false, "ImagePullBackOff"},
		"waits to pull again":                {pod(corev1.PodPending, waiting("ImagePullBackOff"), none), false, false, "ImagePullBackOff"},
		"has crashed":                        {pod(corev1.PodRunning, ended("Error"), none), false, false, "CrashLoopBackOff"},
		"waits to run again":                 {pod(corev1.PodRunning, waiting("CrashLoopBackOff"), ended("Error")), false, false, "CrashLoopBackOff"},
		"waits to run again, out of memory":  {pod(corev1.PodRunning, waiting("CrashLoopBackOff"), ended("OOMKilled")), false, false, "OOMKilled"},
		"is out of memory":                   {pod(corev1.PodRunning, ended("OOMKilled"), none), false, false, "OOMKilled"},
		"has a config that cannot be mapped": {pod(corev1.PodPending, waiting("CreateContainerConfigError"), none), false, false, "CreateContainerConfigError"},
		"is being prepared":                  {initial(running, none), false, true, "PodInitializing"},
		"could not be prepared":              {initial(failed, none), false, false, "CrashLoopBackOff"},
		"waits to be prepared again":         {initial(waiting("CrashLoopBackOff"), failed), false, false, "CrashLoopBackOff"},
		"fails to pull what prepares it":     {initial(waiting("ErrImagePull"), none), false, false, "ImagePullBackOff"},
		"was prepared and runs":              {prepared, true, false, ""},
		"was evicted":                        {evicted, false, false, "Evicted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := growth.StateOf(test.pod)
			if got.Running != test.running || got.Starting != test.starting || got.Reason != test.reason {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestFiguresThatNoParserMeansDoNotPanic(t *testing.T) {
	w := watch()
	for _, f := range []float64{-1, 1e300} {
		w.poll(func(r *report.Report) {
			r.Streams[0].LagSeconds, r.Streams[0].Sink.OutstandingSeconds = f, f
			r.Streams[0].BufferBytes, r.Streams[0].UncommittedBytes = -1<<62, -1
		})
	}
}
