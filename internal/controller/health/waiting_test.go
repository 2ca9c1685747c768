package health_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// nothingYet returns a second stream with nothing to read.
func nothingYet(name string) report.Stream {
	return report.Stream{
		Name: name, Mode: "Auto", State: report.WaitingForData, Message: "no file of the stream is on disk yet: node_fills",
		UncommittedBytes: new(int64), LagSeconds: new(float64), Sink: report.Sink{State: report.SinkHealthy, Since: &start},
	}
}

func TestAStreamWithNothingToReadIsStalledOnceTheNodeWritesOthersForMinutes(t *testing.T) {
	type edit = func(now time.Time, r *report.Report)
	writes := func(now time.Time, r *report.Report) { r.Streams[0].LastLineAt = &now }
	for name, test := range map[string]struct {
		waits   string
		first   edit // of the stream beside it
		after   map[string]time.Duration
		within  time.Duration // 0: never
		message string
	}{
		"fills, beside order statuses": {
			"Fills", writes, nil, 130 * time.Second,
			"Fills: nothing to read for 2m0s while the node writes other streams: " +
				"no file of the stream is on disk yet: node_fills",
		},
		"any stream": {"MiscEvents", writes, nil, 130 * time.Second, ""},
		"one for which it is not set": {
			"Trades", writes, map[string]time.Duration{"Fills": time.Hour}, 130 * time.Second, "",
		},
		"later, where that is set": {
			"Fills", writes, map[string]time.Duration{"Fills": 5 * time.Minute}, 310 * time.Second, "",
		},
		"never, where that is set": {"Fills", writes, map[string]time.Duration{"Fills": 0}, 0, ""},
		"lines show in figures alone": {
			"Fills", func(_ time.Time, r *report.Report) { r.Streams[0].LastLineAt = nil }, nil, 130 * time.Second, "",
		},
		"the node writes nothing": {
			"Fills", func(_ time.Time, r *report.Report) { r.Streams[0] = nothingYet("Trades") }, nil, 0, "",
		},
		"what the other has is old": {
			"Fills", func(now time.Time, r *report.Report) {
				s := &r.Streams[0]
				s.Name, s.LastLineAt = "Trades", &start
				read := int64(now.Sub(start).Seconds()) * 1_000_000
				s.ReadBytesTotal, s.ParsedBytesTotal, s.AckedBytesTotal, s.CommittedBytesTotal = read, read, read, read
				s.UncommittedBytes, s.LagSeconds = new(10_000_000_000-read), new(1.0)
			}, nil, 0, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := settings()
			settings.SourceStalledAfter = test.after
			w := watch()
			for range 120 {
				w.now, w.moved = w.now.Add(5*time.Second), w.moved+1_000_000
				r := report.Report{Now: w.now, Streams: []report.Stream{stream(w.now, w.moved), nothingYet(test.waits)}}
				test.first(w.now, &r)
				w.ObservePoll(health.Poll{Report: &r}, w.now, settings)
				got := w.Judgement()
				if !got.Verdict.Bad() {
					continue
				}
				if got.Verdict != health.SourceStalled || got.Reason != test.waits || w.now.Sub(start) > test.within ||
					test.message != "" && got.Message != test.message {
					t.Errorf("after %s: %+v", w.now.Sub(start), got)
				}
				return
			}
			if test.within > 0 {
				t.Errorf("never stalled: %+v", w.Judgement())
			}
		})
	}
}

func TestAStreamThatNobodyCanSeeIsNotSaidToWait(t *testing.T) {
	for name, edit := range map[string]func(*report.Stream){
		"nothing is known": func(s *report.Stream) { s.UncommittedBytes, s.LagSeconds = nil, nil },
		"blocked":          func(s *report.Stream) { s.Blocked = &report.BlockedPath{Path: ".", Errno: "EACCES"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := watch()
			for range 60 {
				got := w.poll(func(r *report.Report) {
					r.Streams[0].LastLineAt = &w.now
					r.Streams = append(r.Streams, nothingYet("Fills"))
					edit(&r.Streams[1])
				})
				if got.Verdict == health.SourceStalled || got.Verdict == health.Healthy {
					t.Fatalf("%+v", got)
				}
			}
		})
	}
}

func TestNothingIsHealthyBeforeSomethingWasAcknowledged(t *testing.T) {
	// A sink that is dead from the start in a way that no state shows: it receives request after request, each for a
	// moment.
	dead := func(r *report.Report) {
		s := &r.Streams[0]
		s.Name = "Fills"
		waits(s, 0)
		s.ReadBytesTotal = 3 << 20
		since := r.Now.Add(-4 * time.Second)
		s.Sink = report.Sink{
			State: report.SinkRetrying, Since: &since, LastError: "connection refused", OutstandingSeconds: 1,
		}
	}
	t.Run("a new pod is Unknown", func(t *testing.T) {
		w := watch()
		for i := range 60 {
			if got := w.poll(dead); got.Verdict != health.Unknown {
				t.Fatalf("poll %d: %+v", i, got)
			}
		}
		got := w.Judgement()
		want := "Fills: 3.0 MiB waiting, nothing acknowledged since the parser started: connection refused"
		if got.Reason != health.ReasonNothingAcknowledged || got.Message != want {
			t.Errorf("%+v", got)
		}
		if got := w.poll(nil); got.Verdict != health.Healthy {
			t.Errorf("once something was acknowledged: %+v", got)
		}
	})
	t.Run("a bad verdict is not left", func(t *testing.T) {
		w := watch()
		w.hang(t)
		again := running()
		again.Container = "container-2"
		w.ObservePod(again, w.now, settings())
		for i := range 60 {
			if got := w.poll(dead); got.Verdict != health.Stuck || !got.Fading {
				t.Fatalf("poll %d: %+v", i, got)
			}
		}
		for range 12 {
			w.poll(nil)
		}
		if got := w.Judgement(); got.Verdict != health.Healthy {
			t.Errorf("after twelve polls with something acknowledged: %+v", got)
		}
	})
	t.Run("one stream is enough", func(t *testing.T) {
		w := watch()
		for range 20 {
			w.poll(func(r *report.Report) {
				second := report.Report{Now: r.Now, Streams: []report.Stream{stream(w.now, 0)}}
				dead(&second)
				r.Streams = append(r.Streams, second.Streams...)
			})
		}
		if got := w.Judgement(); got.Verdict != health.Unknown || !strings.HasPrefix(got.Message, "Fills: ") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("with nothing to deliver it is", func(t *testing.T) {
		w := watch()
		for range 20 {
			w.poll(func(r *report.Report) {
				s := &r.Streams[0]
				s.Name, s.ReadBytesTotal, s.ParsedBytesTotal, s.AckedBytesTotal = "Fills", 0, 0, 0
			})
		}
		if got := w.Judgement(); got.Verdict != health.Healthy {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a report without streams is no proof", func(t *testing.T) {
		w := watch()
		for range 20 {
			w.poll(func(r *report.Report) { r.Streams = nil })
		}
		if got := w.Judgement(); got.Verdict != health.Unknown || got.Message != "the report contains no streams" {
			t.Errorf("%+v", got)
		}
	})
}

func TestTheLatestJudgementHasTheFiguresOfNow(t *testing.T) {
	w := watch()
	w.hang(t)
	reached := w.Judgement()
	for range 120 {
		w.poll(still)
	}
	if w.Judgement() != reached {
		t.Errorf("the judgement follows its figures: %+v", w.Judgement())
	}
	got := w.Latest()
	if got.Verdict != health.Stuck || !strings.Contains(got.Message, "nothing parsed or acknowledged for 10m30s") {
		t.Errorf("%+v", got)
	}
	if w.poll(nil); w.Latest().Verdict != health.Healthy || w.Judgement().Verdict != health.Stuck {
		t.Errorf("%+v while %+v", w.Latest(), w.Judgement())
	}
}
