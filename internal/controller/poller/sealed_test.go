package poller_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

func newKey(t testing.TB) *seal.Key {
	t.Helper()
	k, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// guard returns the guard of a pod that knows the given keys of the operator.
func guard(t testing.TB, pod *seal.Key, operators ...*seal.Key) *seal.Guard {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	public := make([]seal.PublicKey, 0, len(operators))
	for _, k := range operators {
		public = append(public, k.Public())
	}
	if err := os.WriteFile(path, []byte(seal.FormatOperators(public, make([]string, len(public)))), 0o600); err != nil {
		t.Fatal(err)
	}
	return seal.NewGuard(pod, path, slog.New(slog.DiscardHandler))
}

// says is a parser's handler for both documents.
func says(pod string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == report.StackPath {
			_, _ = io.WriteString(w, "goroutine 1 of "+pod)
			return
		}
		_ = json.NewEncoder(w).Encode(
			report.Report{Parser: "hlparser", Pod: pod, Target: "a", Streams: []report.Stream{{Name: "Fills"}}},
		)
	})
}

// Who answers at a pod's address, and whether the operator accepts the answer. Over plain HTTP it would accept
// everything that is refused here.
func TestOnlyAPodsOwnParserIsBelieved(t *testing.T) {
	operator, old, mine, other := newKey(t), newKey(t), newKey(t), newKey(t)
	own := guard(t, mine, operator).Handler(1<<16, says("pod-a"))
	e := poller.Endpoint{
		Target: "a", PodName: "pod-a", Pod: health.PodState{UID: "u", Running: true}, Key: mine.Public(), Operator: operator,
	}
	with := func(change func(*poller.Endpoint)) poller.Endpoint {
		changed := e
		change(&changed)
		return changed
	}
	// recorded is the response to an earlier request of the operator.
	var recorded []byte
	recorder := func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		own.ServeHTTP(answer, r)
		recorded = bytes.Clone(answer.Body.Bytes())
		_, _ = w.Write(recorded)
	}
	p := newParsers(t)
	c := poller.NewClient(p.port)
	defer c.Close()
	var r report.Report
	first := e
	first.IP = p.serve(recorder)
	if err := c.Fetch(t.Context(), "ns", first, time.Minute, &r); err != nil || len(recorded) == 0 {
		t.Fatal(err)
	}

	const notSealed = "not sealed by the pod's parser"
	for name, test := range map[string]struct {
		endpoint poller.Endpoint
		answers  http.Handler
		want     string
	}{
		"its parser":           {e, own, ""},
		"its parser, in plain": {e, says("pod-a"), notSealed},
		"an answer of before": {
			e, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(recorded) }), notSealed,
		},
		"the request, sent back": {e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get(seal.Header))
		}), notSealed},
		"a namesake in another namespace": {
			e, guard(t, other, operator).Handler(1<<16, says("pod-a")), "does not know the operator's key",
		},
		"a namesake that lets everybody in": {e, reversed(t, other, operator, says("pod-a")), notSealed},
		"a forger that requests another path": {e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = map[string]string{report.StatusPath: report.StackPath, report.StackPath: report.StatusPath}[r.URL.Path]
			own.ServeHTTP(w, r)
		}), "does not know the operator's key"},
		"its parser cut short": {e, cut(own, 10), notSealed},
		"its parser and more":  {e, and(own, "x"), notSealed},
		"a parser that does not know the key yet": {
			e, guard(t, mine).Handler(1<<16, says("pod-a")), "does not know the operator's key",
		},
		"a parser with a key that was replaced": {
			with(func(e *poller.Endpoint) { e.Operator = old }), own, "does not know the operator's key",
		},
		"a pod whose key is not known": {
			with(func(e *poller.Endpoint) { e.Key = seal.PublicKey{} }), says("pod-a"), "no public key",
		},
		"a pod whose key is none": {
			with(func(e *poller.Endpoint) { e.Key = seal.PublicKey{1} }), says("pod-a"), "no public key",
		},
		"without a key of the operator": {
			with(func(e *poller.Endpoint) { e.Operator = nil }), says("pod-a"), "the operator has no key",
		},
		"a pod that has none, in plain": {with(func(e *poller.Endpoint) { e.Plain = true }), says("pod-a"), ""},
		"a pod that has none, sealed":   {with(func(e *poller.Endpoint) { e.Plain = true }), own, "401"},
		"another pod's report, sealed by this": {
			e, guard(t, mine, operator).Handler(1<<16, says("pod-b")), "the report is from pod",
		},
		"nothing about keys at all": {
			poller.Endpoint{Target: "a", PodName: "pod-a"}, says("pod-a"), "no public key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.endpoint.IP = p.serve(test.answers.ServeHTTP)
			err := c.Fetch(t.Context(), "ns", test.endpoint, time.Minute, &r)
			_, stacksErr := c.Stacks(t.Context(), "ns", test.endpoint)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want == "":
				if stacksErr != nil {
					t.Errorf("its stacks: %v", stacksErr)
				}
			case err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n"):
				t.Errorf("got %v, want %s", err, test.want)
			case stacksErr == nil && !strings.Contains(test.want, "the report is"):
				t.Error("its stacks are believed")
			}
		})
	}
}

// reversed answers like a guard with that key, for a client that knows only the operator's public key.
func reversed(t *testing.T, pod, operator *seal.Key, next http.Handler) http.Handler {
	session, err := seal.NewOperatorSession(operator, pod.Public())
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, pod, operator).Handler(1<<16, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header, _, err := session.Request(r.URL.Path)
		if err != nil {
			t.Error(err)
		}
		r.Header.Set(seal.Header, header)
		g.ServeHTTP(w, r)
	})
}

// cut passes on a part of a handler's response as if it were complete.
func cut(h http.Handler, without int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()-without])
	})
}

func and(h http.Handler, more string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		_, _ = io.WriteString(w, answer.Body.String()+more)
	})
}

func TestAReportThatIsTooLongIsRefusedSealedOrNot(t *testing.T) {
	operator, mine := newKey(t), newKey(t)
	long := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 300<<10)) })
	p := newParsers(t)
	c := poller.NewClient(p.port)
	defer c.Close()
	for _, e := range []poller.Endpoint{
		{IP: p.serve(guard(t, mine, operator).Handler(1<<20, long).ServeHTTP), Key: mine.Public(), Operator: operator},
		{IP: p.serve(long), Plain: true},
	} {
		var r report.Report
		if err := c.Fetch(t.Context(), "ns", e, time.Minute, &r); err == nil ||
			!strings.Contains(err.Error(), "longer than 256 KiB") {
			t.Errorf("plain %v: %v", e.Plain, err)
		}
		text, err := c.Stacks(t.Context(), "ns", e)
		if e.Plain && (err != nil || len(text) != 64<<10) || !e.Plain && err == nil {
			t.Errorf("plain %v: %d bytes of stacks, %v", e.Plain, len(text), err)
		}
	}
}

// The keys change while a poller runs: the pod is replaced, or the operator's key is.
func TestAPollerFollowsTheKeys(t *testing.T) {
	operator, next, mine, later := newKey(t), newKey(t), newKey(t), newKey(t)
	p := newParsers(t)
	polls := p.start(poller.Options{})
	var asked, sealedAsked atomic.Int32
	count := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sealedAsked.Add(1); h.ServeHTTP(w, r) })
	}
	var handler atomic.Pointer[http.Handler]
	set := func(h http.Handler) { handler.Store(&h) }
	set(guard(t, mine, operator).Handler(1<<16, count(good("pod-a"))))
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); (*handler.Load()).ServeHTTP(w, r) })
	e := endpoint("a", ip)
	e.Plain, e.Key, e.Operator = false, mine.Public(), operator
	more := func(what string) {
		t.Helper()
		before := sealedAsked.Load()
		eventually(t, what, func() bool { return sealedAsked.Load() >= before+3 })
	}
	polls.Track(object, settings, []poller.Endpoint{e})
	more("polls with the first keys")

	set(guard(t, mine, operator, next).Handler(1<<16, count(good("pod-a"))))
	e.Operator = next
	polls.Track(object, settings, []poller.Endpoint{e})
	more("polls with the operator's next key")

	set(guard(t, later, next).Handler(1<<16, count(good("pod-a"))))
	e.Key, e.Pod.UID = later.Public(), "uid-later"
	polls.Track(object, settings, []poller.Endpoint{e})
	more("polls of the next pod")

	e.Key = seal.PublicKey{}
	polls.Track(object, settings, []poller.Endpoint{e})
	eventually(t, "Unreachable, without a key", func() bool {
		j := polls.Track(object, settings, []poller.Endpoint{e})["a"].Judgement
		return j.Verdict == health.Unreachable && strings.Contains(j.Message, "no public key")
	})
	before := asked.Load()
	time.Sleep(3 * interval) // without a poll
	if asked.Load() != before {
		t.Error("a parser without a key is asked")
	}
}

// BenchmarkPoll polls a report of two streams over loopback. It includes both ends.
func BenchmarkPoll(b *testing.B) {
	operator, mine := newKey(b), newKey(b)
	stream := report.Stream{
		Name: "OrderStatuses", Mode: "Streaming", State: report.Running, File: strings.Repeat("x", 50),
		Position:          strings.Repeat("x", 60),
		CommittedPosition: strings.Repeat("x", 60), LastBlock: 1 << 40, LinesTotal: 1 << 40, ReadBytesTotal: 1 << 40,
	}
	body, err := json.Marshal(
		report.Report{Parser: "hlparser", Pod: "pod-a", Target: "a", Streams: []report.Stream{stream, stream}},
	)
	if err != nil {
		b.Fatal(err)
	}
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	for name, test := range map[string]struct {
		handler  http.Handler
		endpoint poller.Endpoint
	}{
		"plain":  {answers, poller.Endpoint{Plain: true}},
		"sealed": {guard(b, mine, operator).Handler(1<<16, answers), poller.Endpoint{Key: mine.Public(), Operator: operator}},
	} {
		b.Run(name, func(b *testing.B) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			host, port, found := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
			if !found {
				b.Fatal(errors.New(server.URL))
			}
			e := test.endpoint
			e.Target, e.PodName, e.IP = "a", "pod-a", host
			b.ReportAllocs()
			poller.Fetches(b, port, e)
		})
	}
}

// Objects of one name have pods of the same names in each namespace, and addresses are reused. A report must match its
// pod, sealed or not. For a report without a UID the start of the process must match.
func TestAReportIsTakenFromNoNamesake(t *testing.T) {
	operator, mine := newKey(t), newKey(t)
	began := time.Date(2026, 11, 30, 12, 0, 7, 0, time.UTC) // of the container, as a kubelet gives it
	e := poller.Endpoint{
		Target: "node-1", PodName: "mainnet-7pui9g6e1h", Started: began, Pod: health.PodState{UID: "u-1", Running: true},
		Key: mine.Public(), Operator: operator,
	}
	own := report.Report{
		Parser: "hlparser", Target: e.Target, Pod: e.PodName, Namespace: "team-a", PodUID: "u-1",
		StartedAt: began.Add(300 * time.Millisecond),
		Streams:   []report.Stream{{Name: "Fills"}},
	}
	const start = "did not start when"
	for name, test := range map[string]struct {
		change        func(*report.Report)
		plain, sealed string // why it is refused
		forget        bool   // when the container started
	}{
		"its own": {func(*report.Report) {}, "", "", false},
		"another namespace's": {func(r *report.Report) { r.Namespace, r.PodUID = "team-b", "u-2" },
			`from a pod in namespace "team-b"`, `from a pod in namespace "team-b"`, false},
		"another namespace's, of the same UID": {
			func(r *report.Report) { r.Namespace = "team-b" }, "namespace", "namespace", false,
		},
		"one of before, of the same name": {
			func(r *report.Report) { r.PodUID = "u-0" }, "its UID differs", "its UID differs", false,
		},
		"another's, who leaves out the namespace": {
			func(r *report.Report) { r.Namespace, r.PodUID = "", "u-2" }, "its UID differs", "its UID differs", false,
		},
		"another's, who leaves out the UID": {
			func(r *report.Report) { r.Namespace, r.PodUID = "team-b", "" }, "namespace", "namespace", false,
		},
		"an old parser's": {
			func(r *report.Report) { r.Namespace, r.PodUID = "", "" }, "", "", false,
		},
		"an old parser's that was slow to begin": {
			func(r *report.Report) { r.PodUID, r.StartedAt = "", began.Add(59*time.Second) }, "", "", false,
		},
		"an old parser's in the container's second": {
			func(r *report.Report) { r.PodUID, r.StartedAt = "", began.Add(-999*time.Millisecond) }, "", "", false,
		},
		"an old namesake's from before": {
			func(r *report.Report) { r.Namespace, r.PodUID, r.StartedAt = "", "", began.Add(-time.Hour) }, start, "", false,
		},
		"an old namesake's from afterwards": {
			func(r *report.Report) { r.Namespace, r.PodUID, r.StartedAt = "", "", began.Add(time.Hour) }, start, "", false,
		},
		"one that does not say when it began": {
			func(r *report.Report) { r.Namespace, r.PodUID, r.StartedAt = "", "", time.Time{} }, start, "", false,
		},
		"an old one's, where the start is not known": {
			func(r *report.Report) { r.Namespace, r.PodUID, r.StartedAt = "", "", time.Time{} }, "", "", true,
		},
		"another namespace's, the start not known too": {
			func(r *report.Report) { r.Namespace, r.PodUID = "team-b", "u-2" }, "namespace", "namespace", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := own
			test.change(&said)
			body, err := json.Marshal(said)
			if err != nil {
				t.Fatal(err)
			}
			answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
			p := newParsers(t)
			c := poller.NewClient(p.port)
			defer c.Close()
			for _, plain := range []bool{true, false} {
				asked, want, handler := e, test.sealed, guard(t, mine, operator).Handler(1<<16, answers)
				if plain {
					asked.Plain, want, handler = true, test.plain, answers
				}
				if test.forget {
					asked.Started = time.Time{}
				}
				asked.IP = p.serve(handler.ServeHTTP)
				var r report.Report
				err := c.Fetch(t.Context(), "team-a", asked, time.Minute, &r)
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("plain %v: got %v, want %q", plain, err, want)
				}
			}
		})
	}
}
