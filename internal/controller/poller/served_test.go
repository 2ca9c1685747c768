package poller_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
)

func TestWhatAParserLastAnsweredIsKept(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	works := good("pod-a")
	var fails atomic.Bool
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) {
		if fails.Load() {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		works(w, r)
	})
	silent := endpoint("b", "")
	silent.Pod.Running = false
	polls.Track(object, settings, []poller.Endpoint{endpoint("a", ip), silent})
	if got := polls.Targets(object); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Errorf("the targets are %q", got)
	}
	var first poller.Answer
	eventually(t, "a report", func() bool {
		first, _ = polls.Answer(object, "a", true)
		return !first.At.IsZero() && first.Judgement.Verdict == health.Healthy
	})
	if first.Report.Target != "a" || first.Pod != "pod-a" || len(first.Report.Streams) != 1 || first.Failure != "" {
		t.Errorf("the answer is %+v", first)
	}
	acked := first.Report.Streams[0].AckedBytesTotal
	eventually(t, "another report", func() bool {
		next, _ := polls.Answer(object, "a", false)
		return next.Report.Streams[0].AckedBytesTotal > acked
	})
	if first.Report.Streams[0].AckedBytesTotal != acked {
		t.Error("the next report has changed an answer that was given away")
	}
	if len(first.Samples) == 0 {
		t.Error("there are no samples")
	}

	fails.Store(true)
	eventually(t, "a failure beside the last report", func() bool {
		a, _ := polls.Answer(object, "a", false)
		return a.Failure == "GET /status returned 500" && !a.At.IsZero()
	})
	if b, ok := polls.Answer(object, "b", false); !ok || !b.At.IsZero() || b.Report.Streams != nil {
		t.Errorf("a parser that does not run has answered %+v", b)
	}
	replaced := endpoint("a", ip)
	replaced.Pod.UID = "uid-2"
	polls.Track(object, settings, []poller.Endpoint{replaced})
	if a, ok := polls.Answer(object, "a", false); !ok || !a.At.IsZero() {
		t.Errorf("the report of the pod before is kept: %+v", a)
	}
	if _, ok := polls.Answer(object, "b", false); ok {
		t.Error("a target that is gone is known")
	}
}
