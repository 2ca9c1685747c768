package health_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// unknownBacklogs are streams of a parser that has not read the disk yet, or that leaves out one figure.
var unknownBacklogs = map[string]func(*report.Stream){
	"nothing is known": func(s *report.Stream) { s.UncommittedBytes, s.LagSeconds = nil, nil },
	"no backlog":       func(s *report.Stream) { s.UncommittedBytes = nil },
	"no lag":           func(s *report.Stream) { s.LagSeconds = nil },
	"a parser that waits": func(s *report.Stream) {
		s.UncommittedBytes, s.LagSeconds, s.State = nil, nil, report.WaitingForData
	},
	"the last line is old": func(s *report.Stream) {
		s.UncommittedBytes, s.LagSeconds, s.LastLineAt = nil, nil, new(start.Add(-time.Hour))
	},
	"nothing has ever come": func(s *report.Stream) { s.UncommittedBytes, s.LagSeconds, s.LastLineAt = nil, nil, nil },
}

func TestWhatIsNotKnownIsNeverHealthyAndCuresNothing(t *testing.T) {
	for name, edit := range unknownBacklogs {
		t.Run(name, func(t *testing.T) {
			absent := func(r *report.Report) { edit(&r.Streams[0]) }
			w := watch()
			for range 100 {
				if got := w.poll(absent); got.Verdict != health.Unknown {
					t.Fatalf("%+v", got)
				}
			}
			if got := w.Judgement(); got.Reason != health.ReasonBacklogUnknown {
				t.Errorf("%+v", got)
			}
			if lag, known := w.Lag(); known || lag != 0 {
				t.Errorf("a lag of %s", lag)
			}

			w = watch()
			w.hang(t)
			for i := range 100 {
				if got := w.poll(absent); got.Verdict != health.Stuck || !got.Fading {
					t.Fatalf("poll %d: %+v", i, got)
				}
			}
			for range 12 {
				w.poll(nil)
			}
			if got := w.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("after twelve polls that are known to be clean: %+v", got)
			}
		})
	}
}

func TestOneStreamThatIsNotKnownIsEnough(t *testing.T) {
	w := watch()
	for range 20 {
		w.poll(func(r *report.Report) {
			second := stream(w.now, w.moved)
			second.Name, second.UncommittedBytes = "Fills", nil
			*r.Streams[0].LagSeconds = 3
			r.Streams = append(r.Streams, second)
		})
	}
	if got := w.Judgement(); got.Verdict != health.Unknown || got.Message != "Fills: the backlog is unknown" {
		t.Errorf("%+v", got)
	}
	if lag, known := w.Lag(); !known || lag != 3*time.Second {
		t.Errorf("a lag of %s, %v", lag, known)
	}
}

func TestNoRateIsComputedAcrossWhatIsNotKnown(t *testing.T) {
	w := watch()
	for range 30 {
		w.poll(nil)
	}
	// A minute without figures, in which a backlog of 1 GiB appears: a rate since then would be over a second.
	for range 13 {
		w.poll(func(r *report.Report) { r.Streams[0].UncommittedBytes, r.Streams[0].LagSeconds = nil, nil })
	}
	for i := range 12 {
		got := w.poll(func(r *report.Report) { *r.Streams[0].UncommittedBytes, *r.Streams[0].LagSeconds = 1<<30, 600 })
		if got.Verdict != health.Healthy {
			t.Fatalf("%d polls after, %+v", i, got)
		}
	}
	for _, sample := range w.Evidence() {
		for _, s := range sample.Streams {
			if s.Written == 0 {
				t.Errorf("a figure that is not known is shown as evidence: %+v", s)
			}
		}
	}
}

func TestAStreamThatIsBlockedLeadsToNoRestart(t *testing.T) {
	blocked := map[string]func(*report.Stream){
		"and says by what": func(s *report.Stream) {
			s.State, s.Blocked = report.Blocked, &report.BlockedPath{
				Path: "node_fills/hourly/20260430/9", Error: "open: permission denied", Errno: "EACCES", Count: 1,
			}
		},
		"by what has no errno": func(s *report.Stream) {
			s.State, s.Blocked = report.Blocked, &report.BlockedPath{Path: "x", Error: "a link out of the data directory"}
		},
		"and says only that":         func(s *report.Stream) { s.State, s.Message = report.Blocked, "cannot read x" },
		"while its state is another": func(s *report.Stream) { s.Blocked = &report.BlockedPath{Path: "x", Errno: "EIO"} },
		"and nothing is known": func(s *report.Stream) {
			s.State, s.UncommittedBytes, s.LagSeconds = report.Blocked, nil, nil
		},
	}
	for name, edit := range blocked {
		t.Run(name, func(t *testing.T) {
			w := watch()
			for range 30 {
				w.poll(nil)
			}
			for i := range 200 {
				got := w.poll(func(r *report.Report) {
					still(r)
					*r.Streams[0].LagSeconds = float64(5 * i)
					edit(&r.Streams[0])
				})
				if got.Verdict != health.SourceUnreadable || got.Verdict.Restartable() || !got.Verdict.Bad() {
					t.Fatalf("poll %d: %+v", i, got)
				}
			}
			for range 12 {
				w.poll(nil)
			}
			if got := w.Judgement(); got.Verdict != health.Healthy {
				t.Errorf("after it was cured: %+v", got)
			}
		})
	}
}

func TestTheTimeInWhichAStreamWasBlockedIsNotTakenForAHang(t *testing.T) {
	w := watch()
	for range 60 {
		w.poll(func(r *report.Report) {
			still(r)
			r.Streams[0].LastLineAt = &start
			r.Streams[0].State, r.Streams[0].Blocked = report.Blocked, &report.BlockedPath{Path: "x", Errno: "EIO"}
		})
	}
	if got := w.poll(func(r *report.Report) {
		still(r)
		r.Streams[0].LastLineAt = &start
	}); got.Verdict != health.SourceUnreadable || !got.Fading {
		t.Errorf("the first report after it: %+v", got)
	}
	w.hang(t) // but a hang that follows is one
}

func TestAnAlertDoesNotEndForWantOfFigures(t *testing.T) {
	w := watch()
	w.poll(func(r *report.Report) { *r.Streams[0].LagSeconds = 13 * 3600 })
	if !w.Alerts().NearRetention.Raised() {
		t.Fatal("not raised")
	}
	w.poll(func(r *report.Report) { r.Streams[0].LagSeconds = nil })
	w.poll(func(r *report.Report) {
		second := stream(w.now, w.moved)
		second.Name, second.LagSeconds = "Fills", nil
		r.Streams = append(r.Streams, second)
	})
	if !w.Alerts().NearRetention.Raised() {
		t.Error("ended by a report that does not say how old the oldest line is")
	}
	w.poll(nil)
	if w.Alerts().NearRetention.Raised() {
		t.Error("still raised")
	}
}

func TestMemoryThatIsNotKnownIsNoMeasure(t *testing.T) {
	w := watch()
	for minute := range 90 {
		for range 12 {
			got := w.poll(func(r *report.Report) {
				r.Process.MemoryLimitBytes = 512 << 20
				if minute%2 == 0 { // else nil, which must not pull the course down
					r.Process.RSSBytes = new(int64(330+2*minute) << 20)
				}
			})
			if got.Verdict == health.Leaking {
				return
			}
		}
	}
	t.Error("a leak that is known every other minute is not seen")
}

// Figures that are plain numbers, and not absent, must be read as such.
func TestReportsOfEarlierVersionsAreRead(t *testing.T) {
	var r report.Report
	err := json.Unmarshal([]byte(`{"parser":"hlparser","process":{"rssBytes":60123456},"streams":[
		{"name":"Fills","state":"Running","uncommittedBytes":7,"lagSeconds":1.5,"sink":{"state":"Healthy"}},
		{"name":"Trades","state":"Running","uncommittedBytes":0,"lagSeconds":0,"sink":{"state":"Healthy"}}]}`), &r)
	if err != nil {
		t.Fatal(err)
	}
	w := watch()
	for range 10 {
		w.now = w.now.Add(5 * time.Second)
		r.Now = w.now
		w.ObservePoll(health.Poll{Report: &r}, w.now, settings())
	}
	lag, known := w.Lag()
	if *r.Process.RSSBytes != 60123456 || lag != 1500*time.Millisecond || !known ||
		w.Judgement().Reason == health.ReasonBacklogUnknown {
		t.Errorf("rss %d, lag %s, %+v", *r.Process.RSSBytes, lag, w.Judgement())
	}
}
