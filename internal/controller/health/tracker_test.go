package health_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// slow polls a stream that is far behind and stays so, after a minute of health. why returns the cause of each poll.
func slow(t *testing.T, w *watched, polls int, why func(poll int) string) []health.Judgement {
	t.Helper()
	var busy, cpu, wait float64
	out := make([]health.Judgement, 0, polls)
	for i := range polls {
		out = append(out, w.poll(func(r *report.Report) {
			s := &r.Streams[0]
			*s.LagSeconds, *s.UncommittedBytes = 40, 100<<20+int64(i)*10<<20 // ten MiB more each time, one acknowledged
			// Rates are over a minute: a share changes at once only if the total makes up for the minute before.
			base := 60.0
			r.Process.CPULimit = 2
			switch why(i) {
			case health.ReasonSink:
				busy = busy + base
			case health.ReasonCPU:
				cpu = cpu + base*r.Process.CPULimit
			case health.ReasonDisk:
				wait = wait + base
			}
			s.Sink.BusySecondsTotal, r.Process.CPUSecondsTotal, s.ReadWaitSecondsTotal = busy, cpu, wait
		}))
	}
	return out
}

// entered returns the first poll with a bad judgement, from 1, and the judgement; 0 for none.
func entered(js []health.Judgement) (poll int, what string) {
	for i, j := range js {
		if j.Verdict.Bad() {
			return i + 1, string(j.Verdict) + "/" + j.Reason
		}
	}
	return 0, ""
}

func TestASlowParserIsBelievedAfterSixPollsRunning(t *testing.T) {
	w := watch()
	for range 30 {
		w.poll(nil)
	}
	if poll, what := entered(slow(t, w, 40, func(int) string { return "" })); poll != 6 || what != "Growing/ParserSlow" {
		t.Errorf("%s after %d polls", what, poll)
	}

	w = watch()
	for range 30 {
		w.poll(nil)
	}
	for range 10 {
		for _, j := range slow(t, w, 5, func(int) string { return "" }) {
			if j.Verdict.Bad() {
				t.Fatalf("five polls running: %+v", j)
			}
		}
		w.poll(nil)
	}
}

func TestAnOverloadedParserIsBelievedAtEighteenOfTheLastTwentyFour(t *testing.T) {
	for _, reason := range []string{health.ReasonSink, health.ReasonCPU, health.ReasonDisk} {
		w := watch()
		for range 30 {
			w.poll(nil)
		}
		if poll, what := entered(slow(t, w, 40, func(int) string { return reason })); poll != 18 ||
			what != "Overloaded/"+reason {
			t.Errorf("%s after %d polls, want Overloaded/%s", what, poll, reason)
		}
	}
}

func TestOneGoodPollInFourDelaysOverloadedAndOneInThreeHoldsItOff(t *testing.T) {
	for every, want := range map[int]int{4: 23, 3: 0} {
		w := watch()
		for range 30 {
			w.poll(nil)
		}
		first := 0
		for i := 1; i <= 100 && first == 0; i++ {
			got := w.poll(func(r *report.Report) {
				s := &r.Streams[0]
				*s.LagSeconds, *s.UncommittedBytes = 40, 100<<20+int64(i)*10<<20
				s.Sink.BusySecondsTotal = 60 * float64(i)
				if i%every == 0 {
					*s.LagSeconds = 0
				}
			})
			if got.Verdict.Bad() {
				first = i
			}
		}
		if first != want {
			t.Errorf("one good poll in %d: after %d polls, want %d", every, first, want)
		}
	}
}

func TestWhatFallsBehindByTurnsForTwoReasonsIsOverloadedAndNotRestarted(t *testing.T) {
	w := watch()
	for range 30 {
		w.poll(nil)
	}
	// The share of the last minute decides: two polls of a busy sink, then a minute of a slow parser.
	busy := 0.0
	verdicts := map[string]int{}
	for i := range 200 {
		j := w.poll(func(r *report.Report) {
			s := &r.Streams[0]
			*s.LagSeconds, *s.UncommittedBytes = 40, 100<<20+int64(i)*10<<20
			if i%17 == 0 {
				busy += 40
			}
			s.Sink.BusySecondsTotal = busy
		})
		verdicts[string(j.Verdict)+"/"+j.Reason]++
	}
	if verdicts["Growing/ParserSlow"] > 0 || verdicts["Overloaded/Sink"] == 0 {
		t.Errorf("polls by verdict: %v", verdicts)
	}
}

func TestAParserThatBeganAnewBeginsAWindow(t *testing.T) {
	w := watch()
	w.hang(t)
	if w.Reports() != 7 {
		t.Fatalf("%d reports", w.Reports())
	}
	got := w.poll(func(r *report.Report) { r.StartedAt = start.Add(time.Second) })
	if w.Reports() != 1 || got.Verdict != health.Stuck || !got.Fading {
		t.Errorf("%d reports, %+v", w.Reports(), got)
	}
}

func TestRatesAreOverAMinuteHoweverOftenAParserIsPolled(t *testing.T) {
	for _, interval := range []time.Duration{
		time.Second, 3 * time.Second, 5 * time.Second, 7 * time.Second, 30 * time.Second, 2 * time.Minute,
	} {
		t.Run(interval.String(), func(t *testing.T) {
			p := newParser(steady(busy))
			p.sinkSpeed = busy * lineBytes / 2
			o := observe(p)
			settings := settings()
			settings.PollInterval = interval
			for range 200 {
				o.run(interval)
				r := o.report()
				o.ObservePoll(health.Poll{Report: &r}, o.now, settings)
				if j := o.Judgement(); j.Verdict == health.Overloaded {
					if j.Reason != health.ReasonSink {
						t.Errorf("%+v", j)
					}
					evidence := o.Evidence()
					if span := evidence[len(evidence)-1].At.Sub(evidence[0].At); span < time.Minute || len(evidence) > 16 {
						t.Errorf("%d moments over %s", len(evidence), span)
					}
					return
				}
			}
			t.Errorf("%+v", o.Judgement())
		})
	}
}

func TestASinkThatRefusesMostRequestsExplainsALag(t *testing.T) {
	p := newParser(steady(busy))
	o := observe(p)
	o.only(t, 10*time.Minute, fine...)
	// It waits between attempts: the sink receives few requests and is the cause all the same. One second in six is not
	// enough.
	p.sinkSpeed = busy * lineBytes * 5
	for i := range 60 {
		p.sink = answers
		p.run(time.Second)
		p.sink = refuses
		switch j := o.poll(nil); {
		case j.Verdict == health.Overloaded && j.Reason == health.ReasonSink:
			return
		case j.Verdict.Bad():
			t.Fatalf("poll %d: %+v", i, j)
		}
	}
	t.Errorf("%+v", o.Judgement())
}

func TestAlerts(t *testing.T) {
	tests := map[string]struct {
		edit func(*report.Stream)
		kind health.AlertKind // empty: none
		text string
	}{
		"nothing": {func(*report.Stream) {}, "", ""},
		"a file vanished": {
			func(s *report.Stream) { s.PrunedUnreadTotal, s.SkippedBytesTotal = 1, 3<<20 },
			health.DataLost, "OrderStatuses: 3.0 MiB never read, 1 file deleted too early: keep the node's files longer",
		},
		"files vanished": {
			func(s *report.Stream) { s.PrunedUnreadTotal = 2 },
			health.DataLost, "OrderStatuses: 0 B never read, 2 files deleted too early: keep the node's files longer",
		},
		"bytes were skipped": {
			func(s *report.Stream) { s.SkippedBytesTotal = 1 },
			health.DataLost, "OrderStatuses: 1 B never read, 0 files deleted too early: keep the node's files longer",
		},
		"blocks are missing": {
			func(s *report.Stream) { s.BlockGapsTotal, s.LastBlock = 1200, 978995377 },
			health.DataGap, "OrderStatuses: the node left out 1,200 blocks up to block 978995377: check the node's peers",
		},
		"lines wait for twelve hours of the day that they are kept": {
			func(s *report.Stream) { *s.LagSeconds = 12 * 3600 },
			health.NearRetention,
			"OrderStatuses: lines have waited for 12h0m0s, and files are kept for 24h0m0s: deliver the lines or keep the " +
				"files longer",
		},
		"lines wait for a little less": {func(s *report.Stream) { *s.LagSeconds = 12*3600 - 1 }, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := watch()
			w.poll(func(r *report.Report) { test.edit(&r.Streams[0]) })
			for _, kind := range health.AlertKinds() {
				want := health.Alert{}
				if kind == test.kind {
					want = health.Alert{Since: w.now, Message: test.text}
				}
				if got := w.Alerts().Of(kind); got != want || got.Raised() != (kind == test.kind) {
					t.Errorf("%s is %+v, want %+v", kind, got, want)
				}
			}
		})
	}
}

func TestAnAlertIsRaisedOnceWithTheFiguresOfThatMomentAndStaysForTheLifeOfThePod(t *testing.T) {
	w := watch()
	lost := func(r *report.Report) { r.Streams[0].PrunedUnreadTotal = 1 }
	w.poll(nil)
	w.poll(lost)
	raised := w.Alerts()
	more := report.Report{Now: w.now, Streams: []report.Stream{stream(w.now, 0)}}
	more.Streams[0].PrunedUnreadTotal = 7
	if w.ObservePoll(health.Poll{Report: &more}, w.now, settings()) || w.Alerts() != raised {
		t.Errorf("another file: %+v, want %+v", w.Alerts(), raised)
	}
	again := running()
	again.Container = "container-2"
	w.ObservePod(again, w.now, settings())
	w.poll(nil)
	if w.Alerts() != raised {
		t.Errorf("a new container: %+v, want %+v", w.Alerts(), raised)
	}
	again.UID = "pod-2"
	w.ObservePod(again, w.now, settings())
	w.poll(nil)
	if w.Alerts() != (health.Alerts{}) {
		t.Errorf("a new pod: %+v", w.Alerts())
	}
}

func TestAnAlertWakesThoughTheVerdictStays(t *testing.T) {
	w := watch()
	for range 20 {
		w.poll(nil)
	}
	see := func(edit func(*report.Stream)) bool {
		w.now = w.now.Add(5 * time.Second)
		w.moved += 1000
		r := report.Report{Now: w.now, Streams: []report.Stream{stream(w.now, w.moved)}}
		edit(&r.Streams[0])
		return w.ObservePoll(health.Poll{Report: &r}, w.now, settings())
	}
	if see(func(*report.Stream) {}) {
		t.Error("nothing new woke the object")
	}
	if !see(func(s *report.Stream) { s.BlockGapsTotal = 1 }) {
		t.Error("a gap did not wake the object")
	}
	if see(func(s *report.Stream) { s.BlockGapsTotal = 2 }) {
		t.Error("a second gap woke the object")
	}
}

func TestAnAgeAboutHalfTheRetentionDoesNotComeAndGo(t *testing.T) {
	w := watch()
	at := func(hours float64) bool {
		w.poll(func(r *report.Report) { *r.Streams[0].LagSeconds = hours * 3600 })
		return w.Alerts().NearRetention.Raised()
	}
	for _, step := range []struct {
		hours float64
		want  bool
	}{{11.9, false}, {12, true}, {11.9, true}, {9.7, true}, {9.5, false}, {11.9, false}, {13, true}} {
		if got := at(step.hours); got != step.want {
			t.Errorf("%.1f h: raised is %v", step.hours, got)
		}
	}
}

func TestTakingInAReportAllocatesNothing(t *testing.T) {
	var tracker health.Tracker
	now, moved := start, int64(0)
	tracker.ObservePod(running(), now, settings())
	r := report.Report{Streams: []report.Stream{stream(now, 0), stream(now, 0)}}
	r.Streams[1].Name = "Fills"
	next := func() {
		now, moved = now.Add(5*time.Second), moved+1000
		r.Now = now
		for i := range r.Streams {
			r.Streams[i].ReadBytesTotal, r.Streams[i].ParsedBytesTotal, r.Streams[i].AckedBytesTotal = moved, moved, moved
		}
		tracker.ObservePoll(health.Poll{Report: &r}, now, settings())
	}
	for range 30 {
		next()
	}
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Errorf("%.1f allocations a report", n)
	}
	if got := tracker.Judgement(); got.Verdict != health.Healthy {
		t.Errorf("%+v", got)
	}
}

// BenchmarkFleet observes 5,000 targets with seven streams each: at the default interval 1,000 reports per second. It
// reports the bytes kept per target.
func BenchmarkFleet(b *testing.B) {
	const targets, streams = 5000, 7
	now := start
	r := report.Report{Process: report.Process{CPULimit: 2, RSSBytes: new(int64(400 << 20)), MemoryLimitBytes: 512 << 20}}
	for i := range streams {
		s := stream(now, 0)
		s.Name = fmt.Sprintf("stream-%d", i)
		r.Streams = append(r.Streams, s)
	}
	before := heap()
	trackers := make([]health.Tracker, targets)
	see := func(i int) {
		r.Now = now
		trackers[i%targets].ObservePoll(health.Poll{Report: &r}, now, settings())
		if i%targets == 0 {
			now = now.Add(5 * time.Second)
			for s := range r.Streams {
				r.Streams[s].ReadBytesTotal += 1000
			}
		}
	}
	for i := range trackers {
		trackers[i].ObservePod(running(), now, settings())
	}
	for i := range 20 * targets {
		see(i)
	}
	kept := float64(heap()-before) / targets
	i := 0
	for b.Loop() {
		see(i)
		i++
	}
	b.ReportMetric(kept, "B/target")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAParserIsSeenDeliveringByTwoReportsOfOneProcess(t *testing.T) {
	start := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	says := func(process time.Time, delivered ...int64) health.Poll {
		r := &report.Report{StartedAt: process}
		for i, n := range delivered {
			r.Streams = append(r.Streams, report.Stream{Name: string(rune('a' + i)), DeliveredTotal: n})
		}
		return health.Poll{Report: r}
	}
	later := start.Add(time.Hour)
	for _, test := range []struct {
		what  string
		polls []health.Poll
		want  bool
	}{
		{"one report says what may be long ago", []health.Poll{says(start, 100)}, false},
		{"none is more", []health.Poll{says(start, 100), says(start, 100)}, false},
		{"one more", []health.Poll{says(start, 100), says(start, 101)}, true},
		{"of the second stream", []health.Poll{says(start, 5, 0), says(start, 5, 1)}, true},
		{"of another process", []health.Poll{says(start, 5), says(later, 7)}, false},
		{"and then of that", []health.Poll{says(start, 5), says(later, 0), says(later, 1)}, true},
		{"a stream that comes later", []health.Poll{says(start, 5), says(start, 5, 9)}, false},
		{"it stays seen", []health.Poll{says(start, 0), says(start, 1), {Failure: "no answer"}, says(later, 0)}, true},
	} {
		var tracker health.Tracker
		for i, poll := range test.polls {
			tracker.ObservePoll(poll, start.Add(time.Duration(i)*time.Second), health.Settings{})
		}
		if got := tracker.Delivered(); got != test.want {
			t.Errorf("%s: delivered %v", test.what, got)
		}
		if tracker.ObservePod(health.PodState{UID: "another"}, later, health.Settings{}); tracker.Delivered() {
			t.Errorf("%s: another pod's sink was not seen", test.what)
		}
	}
}
