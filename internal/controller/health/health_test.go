package health_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var start = time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)

func settings() health.Settings {
	return health.Settings{
		PollInterval: 5 * time.Second, Lag: 30 * time.Second, StuckAfter: 30 * time.Second, Retention: 24 * time.Hour,
		BufferLimit: limit,
	}
}

// running returns the state of a pod whose container runs.
func running() health.PodState {
	return health.PodState{UID: "pod-1", Container: "container-1", Running: true, Since: start}
}

// stream returns a stream that works: lines come and go, and the sink is healthy.
func stream(now time.Time, moved int64) report.Stream {
	return report.Stream{
		Name: "OrderStatuses", State: report.Running, BufferLimitBytes: 32 << 20, LargestLineBytes: 600,
		UncommittedBytes: new(int64), LagSeconds: new(float64),
		ReadBytesTotal: moved, ParsedBytesTotal: moved, AckedBytesTotal: moved,
		Sink: report.Sink{State: report.SinkHealthy, Since: &start, LastAckAt: &now},
	}
}

// watched is a tracker with reports every five seconds.
type watched struct {
	health.Tracker
	now   time.Time
	moved int64
}

func watch() *watched {
	w := &watched{now: start}
	w.ObservePod(running(), w.now, settings())
	return w
}

// poll lets an interval pass and observes a report that edit has changed.
func (w *watched) poll(edit func(*report.Report)) health.Judgement {
	w.now = w.now.Add(5 * time.Second)
	w.moved += 1_000_000
	r := report.Report{Parser: "hlparser", Now: w.now, Streams: []report.Stream{stream(w.now, w.moved)}}
	if edit != nil {
		edit(&r)
	}
	w.ObservePoll(health.Poll{Report: &r}, w.now, settings())
	return w.Judgement()
}

// hang polls a parser that hangs until it is Stuck. It fails after ten minutes.
func (w *watched) hang(t *testing.T) {
	t.Helper()
	for range 120 {
		if w.poll(still).Verdict == health.Stuck {
			return
		}
	}
	t.Fatalf("never Stuck, but %+v", w.Judgement())
}

// still keeps every stage where it was, with lines waiting.
func still(r *report.Report) {
	s := &r.Streams[0]
	s.ReadBytesTotal, s.ParsedBytesTotal, s.AckedBytesTotal = 7_000_000, 7_000_000, 7_000_000
	*s.UncommittedBytes = 3 << 20
	*s.LagSeconds = 12
}

// lines puts n lines into the live buffer and the batch.
func lines(r *report.Report, n int64) {
	s := &r.Streams[0]
	s.BufferLines, s.InFlightLines = n/2, n-n/2
	s.BufferBytes, s.InFlightBytes = s.BufferLines*lineBytes, s.InFlightLines*lineBytes
}

func TestPolicies(t *testing.T) {
	now := start.Add(time.Hour)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	// window returns a window of n equal reports, five seconds apart.
	window := func(n int, s health.Stream) health.Window {
		return health.Window{
			Reports: n, At: now, First: now.Add(-5 * time.Second * time.Duration(n-1)), Bound: 100 << 20,
			Streams: []health.Stream{s},
		}
	}
	ok := health.Stream{Name: "Fills", State: report.Running, SinkState: report.SinkHealthy}
	with := func(edit func(*health.Stream)) health.Stream { s := ok; edit(&s); return s }
	// behind returns a window of a minute with a stream that is 41 s behind.
	behind := func(edit func(*health.Window, *health.Rates)) health.Window {
		w := window(13, with(func(s *health.Stream) {
			s.Lag, s.Uncommitted = 41*time.Second, 300<<20
			s.Rates = health.Rates{Known: true, Written: 5 << 20, Acked: 2 << 20}
		}))
		w.Process.Cores = 2
		edit(&w, &w.Streams[0].Rates)
		return w
	}
	leak := func(limit, newest int64, slope, lower float64) health.Window {
		w := window(500, ok)
		w.Memory = health.Memory{
			Limit: limit << 20, Newest: newest << 20, Slope: slope * (1 << 20), Lower: lower * (1 << 20), Minutes: 35,
		}
		return w
	}
	const healthy = "buffers are bounded and lines move"
	tests := map[string]struct {
		pod     health.PodState
		window  health.Window
		verdict health.Verdict
		reason  string
		message string
	}{
		"a pod that was just made is starting": {
			pod:     health.PodState{Starting: true, Reason: "ContainerCreating", Since: *ago(29 * time.Second)},
			verdict: health.Unknown, reason: "Starting", message: "the container is starting",
		},
		"a pod that takes long to start is not running": {
			pod: health.PodState{
				Starting: true, Reason: "Unschedulable", Detail: "0/3 nodes are available", Since: *ago(95 * time.Second)},
			verdict: health.NotRunning, reason: "Unschedulable",
			message: "not running 1m35s after the pod was created: 0/3 nodes are available",
		},
		"a container that crashes is not running at once": {
			pod:     health.PodState{Reason: "CrashLoopBackOff", Since: *ago(time.Second)},
			verdict: health.NotRunning, reason: "CrashLoopBackOff", message: "the container is not running",
		},
		"two polls without a report are no news": {
			pod: running(), window: health.Window{Reports: 50, Missed: 2, Failure: "no answer within 2s"},
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"three polls without a report are unreachable": {
			pod: running(), window: health.Window{Reports: 50, Missed: 3, Failure: "no answer within 2s"},
			verdict: health.Unreachable, reason: "NoReport", message: "no report in the last 3 polls: no answer within 2s",
		},
		"a stream that failed is not running, and not Stuck": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.State, s.Message, s.Uncommitted = report.Failed, "the checkpoint is corrupt: see state/Fills.bad", 1<<20
				s.UnmovedSince, s.UnmovedReports = start, 20
			})),
			verdict: health.NotRunning, reason: health.ReasonStreamFailed,
			message: "Fills has failed: the checkpoint is corrupt: see state/Fills.bad",
		},
		"files that cannot be read explain that nothing moves, from the first report on": {
			pod: running(), window: window(1, with(func(s *health.Stream) {
				s.State, s.Unreadable, s.Uncommitted = report.Blocked, "node_fills/hourly/20260430/9: EACCES", 1<<20
				s.UnmovedSince, s.UnmovedReports = start, 20
			})),
			verdict: health.SourceUnreadable, reason: "Fills",
			message: "cannot read the files of Fills: node_fills/hourly/20260430/9: EACCES",
		},
		"a stream that failed is worse than files that cannot be read": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.State, s.Message, s.Unreadable = report.Failed, "no checkpoint", "node_fills: EIO"
			})),
			verdict: health.NotRunning, reason: health.ReasonStreamFailed, message: "Fills has failed: no checkpoint",
		},
		"what waits is not known: nothing is wrong, and nothing is known to be right": {
			pod: running(),
			window: window(
				20, with(func(s *health.Stream) { s.BacklogUnknown, s.Message = true, "another parser uses the state directory" }),
			),
			verdict: health.Unknown, reason: health.ReasonBacklogUnknown,
			message: "Fills: the backlog is unknown: another parser uses the state directory",
		},
		"nor with another stream that catches up": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				r.Acked, r.Shrinking = 50<<20, true
				w.Streams = append(w.Streams, with(func(s *health.Stream) { s.Name, s.BacklogUnknown = "Trades", true }))
			}),
			verdict: health.Unknown, reason: health.ReasonBacklogUnknown, message: "Trades: the backlog is unknown",
		},
		"a sink that is down is so whatever waits": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.BacklogUnknown, s.SinkState, s.SinkSince, s.SinkSilent, s.SinkError = true, report.SinkRetrying, time.Minute,
					time.Minute, "refused"
			})),
			verdict: health.SinkDown, reason: "Fills",
			message: "the sink of Fills has acknowledged nothing for 1m0s, backlog unknown: refused",
		},
		"a secret that is missing explains the first report": {
			pod: running(), window: window(1, with(func(s *health.Stream) { s.MissingSecret = "/secrets/nats/nats.creds" })),
			verdict: health.SinkDown, reason: health.ReasonSecretMissing,
			message: "a secret that the sink of Fills needs is missing: /secrets/nats/nats.creds",
		},
		"five reports are too few": {
			pod: running(), window: window(5, ok),
			verdict: health.Unknown, reason: "TooFewReports", message: "waiting for 6 reports",
		},
		"six are enough": {
			pod: running(), window: window(6, ok),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"a sink that is retried for less than 30 s is not down": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, 29*time.Second, time.Hour
			})),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"a sink that is retried for 30 s, and acknowledged something meanwhile, is not down": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, time.Minute, 2*time.Second
			})),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"a sink that is retried for 30 s without acknowledgement is down": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.SinkState, s.SinkSince, s.SinkSilent, s.SinkError, s.Uncommitted = report.SinkRetrying, 31*time.Second,
					31*time.Second, "disk full", 5<<20
			})),
			verdict: health.SinkDown, reason: "Fills",
			message: "the sink of Fills has acknowledged nothing for 31s, 5.0 MiB waiting: disk full",
		},
		"a long error of a sink, which names a file twice, keeps its cause at the end": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				const path = "/out/order-statuses/20261202-02-node_order_statuses-0a521d6a-000000003031928-000000.part"
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, 31*time.Second, 31*time.Second
				s.SinkError = "checking " + path + ": stat " + path + ": input/output error, as the disk is failing"
			})),
			verdict: health.SinkDown, reason: "Fills",
			message: "the sink of Fills has acknowledged nothing for 31s, 0 B waiting: " +
				"checking /out/order-statuses/20261202-02-node_order_statuses-0a521d6a-000000003031928-000000.part: " +
				"…de_order_statuses-0a521d6a-000000003031928-000000.part: input/output error, as the disk is failing",
		},
		"a dead sink explains that nothing moves": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.SinkState, s.SinkSince, s.SinkSilent = report.SinkRetrying, time.Minute, time.Minute
				s.UnmovedSince, s.UnmovedReports = start, 20
			})),
			verdict: health.SinkDown, reason: "Fills",
			message: "the sink of Fills has acknowledged nothing for 1m0s, 0 B waiting",
		},
		"two reports far apart do not show a hang": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.UnmovedSince, s.UnmovedReports = start, 2
			})),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"29 s behind is not far": {
			pod: running(), window: behind(func(w *health.Window, _ *health.Rates) { w.Streams[0].Lag = 29 * time.Second }),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"twelve reports do not show how fast a stream moves": {
			pod: running(), window: behind(func(w *health.Window, _ *health.Rates) { w.Reports = 12 }),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"nor do thirteen that came too soon after one another": {
			pod: running(), window: behind(func(_ *health.Window, r *health.Rates) { r.Known = false }),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"a tenth more than what is written catches up": {
			pod: running(),
			window: behind(
				func(_ *health.Window, r *health.Rates) { r.Acked, r.Shrinking, r.SinkBusy = 5.51*(1<<20), true, 1 },
			),
			verdict: health.CatchingUp, reason: "Fills",
			message: "Fills: 41s behind, 300 MiB waiting, gaining 522 KiB/s: caught up in about 9m48s",
		},
		"less does not": {
			pod: running(),
			window: behind(
				func(_ *health.Window, r *health.Rates) { r.Acked, r.Shrinking, r.SinkBusy = 5.49*(1<<20), true, 1 },
			),
			verdict: health.Overloaded, reason: health.ReasonSink,
			message: "Fills: 41s behind and not catching up, sink 100 % busy: the sink is too slow for 5.0 MiB/s of lines",
		},
		"nothing written and nothing acknowledged does not": {
			pod: running(), window: behind(func(_ *health.Window, r *health.Rates) { *r = health.Rates{Known: true} }),
			verdict: health.Growing, reason: health.ReasonParserSlow,
			message: "Fills: 41s behind and not catching up, sink idle, CPU 0 %: the parser is slow",
		},
		"what is acknowledged again and again, and never committed, does not": {
			pod: running(), window: behind(func(_ *health.Window, r *health.Rates) { r.Acked, r.SinkBusy = 50<<20, 0.6 }),
			verdict: health.Overloaded, reason: health.ReasonSink,
			message: "Fills: 41s behind and not catching up, sink 60 % busy: the sink is too slow for 5.0 MiB/s of lines",
		},
		"a sink that is busy half of the time explains it": {
			pod:     running(),
			window:  behind(func(w *health.Window, r *health.Rates) { r.SinkBusy, w.Process.CPU, r.ReadWait = 0.5, 0.89, 0.49 }),
			verdict: health.Overloaded, reason: health.ReasonSink,
			message: "Fills: 41s behind and losing 3.0 MiB/s, sink 50 % busy: the sink is too slow for 5.0 MiB/s of lines",
		},
		"nine tenths of the processor explain it": {
			pod:     running(),
			window:  behind(func(w *health.Window, r *health.Rates) { r.SinkBusy, w.Process.CPU, r.ReadWait = 0.49, 0.9, 0.49 }),
			verdict: health.Overloaded, reason: health.ReasonCPU,
			message: "Fills: 41s behind and losing 3.0 MiB/s, CPU 90 % of 2 cores: raise the CPU limit or filter more",
		},
		"of several explanations it is the one that has least left to give": {
			pod:     running(),
			window:  behind(func(w *health.Window, r *health.Rates) { r.SinkBusy, w.Process.CPU, r.ReadWait = 0.8, 0.97, 0.6 }),
			verdict: health.Overloaded, reason: health.ReasonCPU,
			message: "Fills: 41s behind and losing 3.0 MiB/s, CPU 97 % of 2 cores: raise the CPU limit or filter more",
		},
		"a parser that works all of its time, and as fast as ever, has too much to do": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				r.SinkBusy, w.Process.CPU, w.Process.Cores, w.Streams[0].BestAcked = 0.2, 0.05, 16, 2.2*(1<<20)
			}),
			verdict: health.Overloaded, reason: health.ReasonCPU,
			message: "Fills: 41s behind and losing 3.0 MiB/s, 0.8 of 16 cores used, at its highest rate so far: raise the CPU " +
				"limit or workers, or filter more",
		},
		"so has one that may use half a processor and works all the time that its sink leaves it": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				r.SinkBusy, w.Process.CPU, w.Process.Cores, w.Streams[0].BestAcked = 0.36, 0.65, 0.5, 2<<20
			}),
			verdict: health.Overloaded, reason: health.ReasonCPU,
			message: "Fills: 41s behind and losing 3.0 MiB/s, 0.3 of 0.5 cores used, at its highest rate so far: raise the " +
				"CPU limit or workers, or filter more",
		},
		"one that works all of its time, and was faster before, is slow": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				w.Process.CPU, w.Process.Cores, w.Streams[0].BestAcked = 0.1, 16, 2.3*(1<<20)
			}),
			verdict: health.Growing, reason: health.ReasonParserSlow,
			message: "Fills: 41s behind and losing 3.0 MiB/s, sink idle, CPU 10 %: the parser is slow",
		},
		"half of the time waiting for reads explains it": {
			pod:     running(),
			window:  behind(func(w *health.Window, r *health.Rates) { r.SinkBusy, w.Process.CPU, r.ReadWait = 0.49, 0.89, 0.5 }),
			verdict: health.Overloaded, reason: health.ReasonDisk,
			message: "Fills: 41s behind and losing 3.0 MiB/s, waiting for reads 50 % of the time: the disk is too slow",
		},
		"otherwise it is the parser": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				r.SinkBusy, w.Process.CPU, r.ReadWait, w.Streams[0].BestAcked = 0.49, 0.4, 0.49, 5<<20
			}),
			verdict: health.Growing, reason: health.ReasonParserSlow,
			message: "Fills: 41s behind and losing 3.0 MiB/s, sink 49 % busy, CPU 40 %: the parser is slow",
		},
		"the worst stream speaks, and what is outside of the parser before it": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				catching, slow := w.Streams[0], w.Streams[0]
				catching.Rates.Acked, catching.Rates.Shrinking, catching.Lag = 10<<20, true, time.Hour
				slow.Lag = time.Hour
				w.Streams = append(w.Streams, catching, slow)
				w.Streams[0].Rates.SinkBusy = 0.5
			}),
			verdict: health.Overloaded, reason: health.ReasonSink,
			message: "Fills: 41s behind and losing 3.0 MiB/s, sink 50 % busy: the sink is too slow for 5.0 MiB/s of lines",
		},
		"memory that rises for certain and is full in 30 minutes leaks": {
			pod: running(), window: leak(512, 362, 5, 4),
			verdict: health.Leaking, reason: health.ReasonMemory,
			message: "memory is at 362 MiB of 512 MiB and has grown by 5.0 MiB/min for 35 min: full in about 30m0s",
		},
		"memory that is full in 31 minutes does not yet": {
			pod: running(), window: leak(512, 357, 5, 4), verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"memory below six tenths of its limit does not, however fast it rises": {
			pod: running(), window: leak(512, 307, 50, 40), verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"memory whose rise may be chance does not": {
			pod: running(), window: leak(512, 500, 5, 0), verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"memory without a limit does not": {
			pod: running(), window: leak(0, 500, 5, 4), verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"order statuses rest for a minute at most": {
			pod:     running(),
			window:  window(20, with(func(s *health.Stream) { s.Name, s.SourceIdle = "OrderStatuses", time.Minute })),
			verdict: health.SourceStalled, reason: "OrderStatuses",
			message: "OrderStatuses: no new line for 1m0s: check the Hyperliquid node",
		},
		"so does a stream written block by block": {
			pod: running(), window: window(20, with(func(s *health.Stream) { s.Mode, s.SourceIdle = "ByBlock", time.Minute })),
			verdict: health.SourceStalled, reason: "Fills", message: "Fills: no new line for 1m0s: check the Hyperliquid node",
		},
		"fills may rest for as long as they like": {
			pod:     running(),
			window:  window(20, with(func(s *health.Stream) { s.Mode, s.SourceIdle = "Streaming", 24*time.Hour })),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"unless asked": {
			pod: running(), window: window(20, with(func(s *health.Stream) { s.Name, s.SourceIdle = "Trades", 5*time.Minute })),
			verdict: health.SourceStalled, reason: "Trades", message: "Trades: no new line for 5m0s: check the Hyperliquid node",
		},
		"and so may book diffs, where it is set": {
			pod:     running(),
			window:  window(20, with(func(s *health.Stream) { s.Name, s.SourceIdle = "RawBookDiffs", 24*time.Hour })),
			verdict: health.Healthy, reason: "Healthy", message: healthy,
		},
		"a directory that is not there is a source that stalls": {
			pod: running(), window: window(20, with(func(s *health.Stream) {
				s.Name, s.SourceIdle, s.State, s.Message = "OrderStatuses", 95*time.Second, report.WaitingForData,
					"no file of the stream is on disk yet"
			})),
			verdict: health.SourceStalled, reason: "OrderStatuses",
			message: "OrderStatuses: nothing to read for 1m35s: no file of the stream is on disk yet",
		},
		"a node that stopped while the parser is catching up is no news yet": {
			pod: running(), window: behind(func(w *health.Window, r *health.Rates) {
				w.Streams[0].Name, w.Streams[0].SourceIdle = "OrderStatuses", time.Hour
				r.Written, r.Shrinking = 0, true
			}),
			verdict: health.CatchingUp, reason: "OrderStatuses",
			message: "OrderStatuses: 41s behind, 300 MiB waiting, gaining 2.0 MiB/s: caught up in about 2m30s",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			settings := settings()
			settings.SourceStalledAfter = map[string]time.Duration{"Trades": 5 * time.Minute, "RawBookDiffs": 0}
			got := health.NewChain().Judge(&health.Input{Now: now, Pod: test.pod, Window: &test.window, Settings: settings})
			want := health.Judgement{Verdict: test.verdict, Reason: test.reason, Message: test.message, Since: now}
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
	if got := w.poll(over); got.Verdict != health.Growing {
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
	if got.Verdict != health.Growing {
		t.Errorf("two streams with 100 MiB each: %+v", got)
	}
}

func TestTheBoundAllowsForTheLongestLine(t *testing.T) {
	w := watch()
	for range 20 {
		got := w.poll(func(r *report.Report) {
			lines(r, 100<<20/lineBytes)
			r.Streams[0].LargestLineBytes = 20 << 20 // 2 × (32 + 20) + 4 = 108 MiB
		})
		if got.Verdict.Bad() {
			t.Fatalf("%+v", got)
		}
	}
}

func TestABadVerdictIsLeftAfterTwelveCleanPollsAndMeanwhileFades(t *testing.T) {
	w := watch()
	w.hang(t)
	entered := w.Judgement()
	for i := range 11 {
		got := w.poll(nil)
		if got.Verdict != health.Stuck || !got.Fading || got.Since != entered.Since || got.Message != entered.Message {
			t.Fatalf("clean poll %d: %+v", i+1, got)
		}
	}
	if got := w.poll(nil); got.Verdict != health.Healthy || got.Fading {
		t.Errorf("clean poll 12: %+v", got)
	}
}

func TestAFaultThatComesBackBeforeTwelveCleanPollsIsTheSameFault(t *testing.T) {
	w := watch()
	w.hang(t)
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
	if got := w.Judgement(); got.Verdict != health.Stuck {
		t.Errorf("the count of clean polls was not reset: %+v", got)
	}
}

func TestAPollWithoutAReportIsNotClean(t *testing.T) {
	w := watch()
	w.hang(t)
	for i := range 11 {
		w.poll(nil)
		w.ObservePoll(health.Poll{Failure: "refused"}, w.now, settings())
		if got := w.Judgement(); got.Verdict != health.Stuck {
			t.Fatalf("left after %d clean reports: %+v", i+1, got)
		}
	}
	if got := w.poll(nil); got.Verdict != health.Healthy {
		t.Errorf("after twelve: %+v", got)
	}
}

func TestFiguresThatWobbleChangeNothing(t *testing.T) {
	w := watch()
	w.hang(t)
	before := w.Judgement()
	for i := range 50 {
		w.now = w.now.Add(5 * time.Second)
		r := report.Report{Now: w.now, Streams: []report.Stream{stream(w.now, 0)}}
		still(&r)
		*r.Streams[0].UncommittedBytes += int64(i) * 1000
		if w.ObservePoll(health.Poll{Report: &r}, w.now, settings()) {
			t.Fatalf("poll %d woke the object: %+v", i, w.Judgement())
		}
	}
	if w.Judgement() != before {
		t.Errorf("got %+v, want %+v", w.Judgement(), before)
	}
}

func TestANewPodKnowsNothingOfTheOldOne(t *testing.T) {
	w := watch()
	w.hang(t)
	pod := running()
	pod.UID, pod.Container = "pod-2", "container-2"
	w.ObservePod(pod, w.now, settings())
	if got := w.Judgement(); got.Verdict != health.Unknown {
		t.Errorf("got %+v", got)
	}
	if w.Reports() != 0 {
		t.Errorf("the window has %d reports", w.Reports())
	}
}

// The lines wait on the target's disk, whichever pod reads them: a new pod ends the alert by its first report with a
// younger backlog, and by nothing else.
func TestNearRetentionOutlivesThePod(t *testing.T) {
	old := func(r *report.Report) { *r.Streams[0].LagSeconds = 13 * 3600 }
	w := watch()
	w.poll(old)
	raised := w.Alerts().NearRetention
	for i, next := range []func(*report.Report){
		old, func(r *report.Report) { r.Streams[0].LagSeconds, r.Streams[0].UncommittedBytes = nil, nil }, nil,
	} {
		pod := running()
		pod.UID = "pod-" + string(rune('2'+i))
		pod.Container = "container-" + string(rune('2'+i))
		w.ObservePod(pod, w.now, settings())
		if got := w.Alerts(); got != (health.Alerts{NearRetention: raised}) {
			t.Fatalf("pod %s has the alerts %+v, want %+v", pod.UID, got, raised)
		}
		w.ObservePoll(health.Poll{Failure: "no route to host"}, w.now, settings())
		w.poll(next)
		if got := w.Alerts().NearRetention; next != nil && got != raised || next == nil && got.Raised() {
			t.Errorf("after a report of pod %s: %+v", pod.UID, got)
		}
	}
}

func TestARestartedContainerBeginsAWindowAndStaysBadUntilPollsAreClean(t *testing.T) {
	w := watch()
	crashed := running()
	crashed.Running, crashed.Reason = false, "CrashLoopBackOff"
	w.ObservePod(crashed, w.now, settings())
	for i := range 3 {
		again := running()
		again.Container = "container-" + string(rune('2'+i))
		w.ObservePod(again, w.now, settings())
		if got := w.Judgement(); got.Verdict != health.NotRunning {
			t.Fatalf("run %d: %+v", i, got)
		}
		if w.Reports() != 0 {
			t.Fatalf("run %d: the window has %d reports", i, w.Reports())
		}
		w.poll(nil)
		again.Running, again.Reason = false, "CrashLoopBackOff"
		if w.ObservePod(again, w.now, settings()) && w.Judgement().Verdict != health.NotRunning {
			t.Fatalf("run %d: %+v", i, w.Judgement())
		}
	}
	last := running()
	last.Container = "container-5"
	w.ObservePod(last, w.now, settings())
	for range 12 {
		w.poll(nil)
	}
	if got := w.Judgement(); got.Verdict.Bad() {
		t.Errorf("after twelve clean polls: %+v", got)
	}
}

func TestASlowStartIsOverOnceItHasStarted(t *testing.T) {
	w := &watched{now: start.Add(time.Minute)}
	pulling := health.PodState{UID: "pod-1", Starting: true, Reason: "ContainerCreating", Since: start}
	w.ObservePod(pulling, w.now, settings())
	if got := w.Judgement(); got.Verdict != health.NotRunning {
		t.Fatalf("a minute after creation: %+v", got)
	}
	w.ObservePod(running(), w.now, settings())
	if got := w.Judgement(); got.Verdict != health.Unknown {
		t.Errorf("once it runs: %+v", got)
	}
}

func TestATerminatingPodIsNotJudged(t *testing.T) {
	w := watch()
	w.hang(t)
	before := w.Judgement()
	pod := running()
	pod.Terminating, pod.Running, pod.Reason = true, false, "Error"
	if w.ObservePod(pod, w.now, settings()) || w.Judgement() != before {
		t.Errorf("got %+v, want %+v", w.Judgement(), before)
	}
}

func TestStateOf(t *testing.T) {
	pod := func(phase corev1.PodPhase, state, last corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: "u"},
			Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{
				Name: v1alpha1.ContainerName, ContainerID: "c", State: state, LastTerminationState: last,
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
		"runs": {
			pod(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, none), true, false, "",
		},
		"is being made": {
			pod(corev1.PodPending, waiting("ContainerCreating"), none), false, true, "ContainerCreating",
		},
		"has no status yet": {&corev1.Pod{}, false, true, "Pending"},
		"finds no node":     {unscheduled, false, true, "Unschedulable"},
		"fails to pull": {
			pod(corev1.PodPending, waiting("ErrImagePull"), none), false, false, "ImagePullBackOff",
		},
		"waits to pull again": {
			pod(corev1.PodPending, waiting("ImagePullBackOff"), none), false, false, "ImagePullBackOff",
		},
		"has crashed": {
			pod(corev1.PodRunning, ended("Error"), none), false, false, "CrashLoopBackOff",
		},
		"waits to run again": {
			pod(corev1.PodRunning, waiting("CrashLoopBackOff"), ended("Error")), false, false, "CrashLoopBackOff",
		},
		"waits to run again, out of memory": {
			pod(corev1.PodRunning, waiting("CrashLoopBackOff"), ended("OOMKilled")), false, false, "OOMKilled",
		},
		"is out of memory": {pod(corev1.PodRunning, ended("OOMKilled"), none), false, false, "OOMKilled"},
		"has a config that cannot be mapped": {
			pod(corev1.PodPending, waiting("CreateContainerConfigError"), none), false, false, "CreateContainerConfigError",
		},
		"is being prepared":     {initial(running, none), false, true, "PodInitializing"},
		"could not be prepared": {initial(failed, none), false, false, "CrashLoopBackOff"},
		"waits to be prepared again": {
			initial(waiting("CrashLoopBackOff"), failed), false, false, "CrashLoopBackOff",
		},
		"fails to pull what prepares it": {initial(waiting("ErrImagePull"), none), false, false, "ImagePullBackOff"},
		"was prepared and runs":          {prepared, true, false, ""},
		"was evicted":                    {evicted, false, false, "Evicted"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := health.StateOf(test.pod)
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
			*r.Streams[0].LagSeconds, r.Streams[0].Sink.OutstandingSeconds = f, f
			r.Streams[0].BufferBytes, *r.Streams[0].UncommittedBytes = -1<<62, -1
		})
	}
}
