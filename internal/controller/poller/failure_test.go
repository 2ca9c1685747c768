package poller_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

func TestEachFailureOfAPollHasItsReason(t *testing.T) {
	p := newParsers(t)
	closed := endpoint("x", "127.0.0.1")
	closed.IP = "127.64.0.1" // nothing listens there
	sealed := endpoint("x", "127.64.0.1")
	sealed.Plain = false
	for want, e := range map[poller.Failure]poller.Endpoint{
		poller.Timeout:    endpoint("x", p.serve(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })),
		poller.Connection: closed,
		poller.NoKey:      sealed,
		poller.BadStatus:  endpoint("x", p.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })),
		poller.WrongPod:   endpoint("x", p.serve(good("pod-y"))),
		poller.Invalid: endpoint("x", p.serve(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("{"))
		})),
		"": endpoint("x", p.serve(good("pod-x"))),
	} {
		client := poller.NewClient(p.port)
		t.Cleanup(client.Close)
		var r report.Report
		err := client.Fetch(t.Context(), "ns", e, interval, &r)
		if got := poller.FailureOf(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
	if got := poller.FailureOf(errors.New("opening a tunnel")); got != poller.Connection {
		t.Errorf("an error without a class is %q", got)
	}
}

// A parser that does not answer reports no backlog: its last figures are not those of now.
func TestTheBacklogOfAFleetIsOfParsersThatAnswer(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	polls.Track(object, settings, []poller.Endpoint{
		endpoint("a", p.serve(behind("pod-a", 70, 1.5))), endpoint("b", p.serve(behind("pod-b", 30, 4))),
		endpoint("c", "127.64.0.1"),
	})
	want := poller.Backlog{Lag: 4 * time.Second, Uncommitted: 100, Worst: 70}
	var got map[types.NamespacedName]poller.Backlog
	for deadline := time.Now().Add(10 * time.Second); got[object] != want; time.Sleep(5 * time.Millisecond) {
		if got = polls.Backlogs(); time.Now().After(deadline) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	}
	polls.Track(object, settings, []poller.Endpoint{endpoint("c", "127.64.0.1")})
	if got := polls.Backlogs(); len(got) > 0 {
		t.Errorf("without a parser that answers: %+v", got)
	}
}
