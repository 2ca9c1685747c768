package health_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// loses edits a report: the start of the process, and the totals of one stream.
func loses(process time.Time, files, skipped, gaps int64) func(*report.Report) {
	return func(r *report.Report) {
		r.StartedAt = process
		s := &r.Streams[0]
		s.PrunedUnreadTotal, s.SkippedBytesTotal, s.BlockGapsTotal = files, skipped, gaps
	}
}

func TestAnAcknowledgedLossRaisesNothingAndMoreOfItDoes(t *testing.T) {
	another := start.Add(time.Hour)
	type figures = health.Loss
	for name, test := range map[string]struct {
		lost, gap          figures
		process            time.Time
		files, bytes, gaps int64
		wantLost, wantGap  bool
	}{
		"nothing acknowledged": {process: start, files: 2, wantLost: true},
		"as much":              {lost: figures{Process: start, Files: 2}, process: start, files: 2},
		"by the second": {
			lost: figures{Process: start, Files: 2}, process: start.Add(300 * time.Millisecond), files: 2,
		},
		"one file more": {lost: figures{Process: start, Files: 2}, process: start, files: 3, wantLost: true},
		"as many files and bytes": {
			lost: figures{Process: start, Files: 2}, process: start, files: 2, bytes: 1, wantLost: true,
		},
		"another process as much": {lost: figures{Process: start, Files: 2}, process: another, files: 2, wantLost: true},
		"a gap is another matter": {
			lost: figures{Process: start, Files: 2}, process: start, files: 2, gaps: 7, wantGap: true,
		},
		"a gap":        {gap: figures{Process: start, Blocks: 7}, process: start, gaps: 7},
		"a larger gap": {gap: figures{Process: start, Blocks: 7}, process: start, gaps: 8, wantGap: true},
		"a file beside a gap": {
			gap: figures{Process: start, Blocks: 7}, process: start, files: 1, gaps: 7, wantLost: true,
		},
		"less, as of another's totals": {lost: figures{Process: start, Files: 9}, process: start, files: 2},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(when string, w *watched) {
				t.Helper()
				got := w.Alerts()
				if got.DataLost.Raised() != test.wantLost || got.DataGap.Raised() != test.wantGap {
					t.Errorf("%s: %+v", when, got)
				}
				if test.wantLost &&
					(got.Lost.Files != test.files || got.Lost.Bytes != test.bytes || !got.Lost.Process.Equal(test.process)) {
					t.Errorf("%s: it is about %+v", when, got.Lost)
				}
			}
			w := watch()
			w.Acknowledge(test.lost, test.gap)
			w.poll(loses(test.process, test.files, test.bytes, test.gaps))
			check("acknowledged before the report", w)

			w = watch()
			w.poll(loses(test.process, test.files, test.bytes, test.gaps))
			w.Acknowledge(test.lost, test.gap)
			check("acknowledged after it", w)
			w.poll(loses(test.process, test.files, test.bytes, test.gaps))
			check("at the next report", w)
		})
	}
}

// Whatever is lost, and whatever part of it is acknowledged: an alert is raised exactly while there is an
// unacknowledged loss.
func TestALossIsKnownUntilAllOfItIsAcknowledged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := watch()
		process, files, seen := start, int64(0), health.Loss{}
		w.poll(loses(process, files, 0, 0))
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"lose", "poll", "acknowledge", "restart"}).Draw(t, "step") {
			case "lose":
				files += rapid.Int64Range(1, 3).Draw(t, "files")
			case "acknowledge":
				if got := w.Alerts(); got.DataLost.Raised() {
					seen = got.Lost
				}
			case "restart":
				process, files = process.Add(time.Minute), 0
				pod := running()
				pod.Container = process.String()
				w.ObservePod(pod, w.now, settings())
			}
			w.Acknowledge(seen, health.Loss{})
			w.poll(loses(process, files, 0, 0))
			known := int64(0)
			if seen.Process.Equal(process) {
				known = seen.Files
			}
			got := w.Alerts()
			if files > known && !got.DataLost.Raised() {
				t.Fatalf("%d files are lost, %d acknowledged, and nothing is raised", files, known)
			}
			if got.DataLost.Raised() && seen.Covers(got.Lost) {
				t.Fatalf("raised for %+v, which is acknowledged", got.Lost)
			}
		}
	})
}

func TestTheWorstStreamSpeaksOfALoss(t *testing.T) {
	w := watch()
	w.poll(func(r *report.Report) {
		for _, name := range []string{"Fills", "Trades"} {
			r.Streams = append(r.Streams, stream(w.now, w.moved))
			r.Streams[len(r.Streams)-1].Name = name
		}
		r.Streams[0].SkippedBytesTotal, r.Streams[1].SkippedBytesTotal, r.Streams[2].BlockGapsTotal = 1<<20, 3<<20, 5
	})
	got := w.Alerts()
	if !strings.HasPrefix(got.DataLost.Message, "Fills: 3.0 MiB never read") || got.Lost.Bytes != 4<<20 ||
		!strings.HasPrefix(got.DataGap.Message, "Trades: the node left out 5 blocks") {
		t.Errorf("%+v", got)
	}
}

func TestFormatDrift(t *testing.T) {
	// traffic is the number of lines of each poll, and of those that are malformed.
	type traffic struct{ lines, bad func(poll int) int64 }
	each := func(n int64) func(int) int64 { return func(int) int64 { return n } }
	between := func(first, after int, n int64) func(int) int64 {
		return func(i int) int64 {
			if i < first || i >= after {
				return 0
			}
			return n
		}
	}
	from := func(first int, n int64) func(int) int64 { return between(first, 1000, n) }
	minutely := func(i int) int64 {
		if i%12 == 0 {
			return 1
		}
		return 0
	}
	for name, test := range map[string]struct {
		traffic
		raised int // the first poll after which it is raised; 0: never
		ends   int // the first after that at which it is not; 0: not
	}{
		"no line is malformed":       {traffic: traffic{each(100), each(0)}},
		"a tenth is":                 {traffic{each(100), each(10)}, 61, 0},
		"a little less":              {traffic: traffic{each(100), each(9)}},
		"all are":                    {traffic{each(100), each(100)}, 61, 0},
		"from the tenth minute on":   {traffic{each(100), from(120, 100)}, 145, 0},
		"for ten minutes":            {traffic{each(100), between(120, 240, 100)}, 145, 310},
		"one burst":                  {traffic: traffic{each(1), between(90, 98, 1)}},
		"one line, malformed":        {traffic: traffic{between(100, 101, 1), between(100, 101, 1)}},
		"a line a minute, malformed": {traffic{minutely, minutely}, 73, 0},
		"no lines at all":            {traffic: traffic{each(0), each(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch()
			var lines, bad int64
			raised, ends := 0, 0
			for i := 1; i <= 400; i++ {
				lines, bad = lines+test.lines(i), bad+test.bad(i)
				w.poll(func(r *report.Report) {
					r.StartedAt = start
					r.Streams[0].LinesTotal, r.Streams[0].MalformedLinesTotal = lines, bad
				})
				switch is := w.Alerts().FormatDrift.Raised(); {
				case is && raised == 0:
					raised = i
				case !is && raised > 0 && ends == 0:
					ends = i
				}
			}
			if (raised > 0) != (test.raised > 0) || raised > test.raised || (ends > 0) != (test.ends > 0) || ends > test.ends {
				t.Errorf("raised at poll %d, want %d at the latest; over at %d, want %d", raised, test.raised, ends, test.ends)
			}
		})
	}
}

func TestADriftStaysUntilItsStreamIsKnownToBeFine(t *testing.T) {
	w := watch()
	var lines, bad int64
	poll := func(n, malformed int64) {
		lines, bad = lines+n, bad+malformed
		w.poll(func(r *report.Report) { r.Streams[0].LinesTotal, r.Streams[0].MalformedLinesTotal = lines, bad })
	}
	for range 70 {
		poll(100, 50)
	}
	want := "OrderStatuses: 50 % of the lines in the last 5m0s are malformed and in the dead letter: " +
		"the node may write a new format, which needs a newer parser"
	raised := w.Alerts().FormatDrift
	if raised.Message != want {
		t.Fatalf("%+v", raised)
	}
	for range 100 {
		poll(0, 0)
	}
	if w.Alerts().FormatDrift != raised {
		t.Error("it ended while nothing came")
	}
	again := running()
	again.Container, lines, bad = "container-2", 0, 0
	w.ObservePod(again, w.now, settings())
	for range 50 {
		poll(100, 0)
	}
	if w.Alerts().FormatDrift != raised || w.KnowsFormat() {
		t.Error("it ended before five minutes of the new process were known")
	}
	for range 20 {
		poll(100, 0)
	}
	if w.Alerts().FormatDrift.Raised() || !w.KnowsFormat() {
		t.Error("it is raised still")
	}
}
