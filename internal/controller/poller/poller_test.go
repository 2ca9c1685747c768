package poller_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	testclock "k8s.io/utils/clock/testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const interval = 50 * time.Millisecond

var (
	object   = types.NamespacedName{Namespace: "ns", Name: "mainnet"}
	settings = health.Settings{PollInterval: interval, StuckAfter: 3 * interval, BufferLimit: 32 << 20}
	address  atomic.Int32
)

// parsers serves reports, each parser at an address of its own, all at one port.
type parsers struct {
	t    *testing.T
	port int
}

func newParsers(t *testing.T) *parsers {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return &parsers{t: t, port: listener.Addr().(*net.TCPAddr).Port}
}

// serve starts a server at a new address and returns the address.
func (p *parsers) serve(handler http.HandlerFunc) string {
	p.t.Helper()
	n := address.Add(1)
	ip := fmt.Sprintf("127.%d.%d.%d", 65+n/250, os.Getpid()%250, n%250+1)
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(p.port)))
	if err != nil {
		p.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	p.t.Cleanup(server.Close)
	return ip
}

// good serves the reports of a parser that works and makes progress.
func good(pod string) http.HandlerFunc { return behind(pod, 0, 0) }

// behind serves those of a parser with a backlog.
func behind(pod string, uncommitted int64, lag float64) http.HandlerFunc {
	var moved atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		now, n := time.Now(), moved.Add(1000)
		_ = json.NewEncoder(w).Encode(report.Report{
			Parser: "hlparser", Target: strings.TrimPrefix(pod, "pod-"), Pod: pod, Now: now,
			Streams: []report.Stream{{
				Name: "Fills", State: report.Running, BufferLimitBytes: 32 << 20,
				UncommittedBytes: &uncommitted, LagSeconds: &lag,
				ReadBytesTotal: n, ParsedBytesTotal: n, AckedBytesTotal: n, Sink: report.Sink{State: report.SinkHealthy},
			}},
		})
	}
}

func endpoint(name, ip string) poller.Endpoint {
	return poller.Endpoint{
		Target: name, PodName: "pod-" + name, IP: ip, Pod: health.PodState{UID: "uid-" + name, Container: "c", Running: true},
		Plain: true,
	}
}

// start runs a poller until the test ends.
func (p *parsers) start(options poller.Options) *poller.Poller {
	p.t.Helper()
	options.Client = poller.NewClient(p.port)
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.Workers == 0 {
		options.Workers = 4
	}
	polls := poller.New(options)
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan error, 1)
	go func() { done <- polls.Start(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				p.t.Errorf("the poller ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			p.t.Error("the poller does not end")
		}
	})
	return polls
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(interval / 5) {
		if condition() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func TestVerdictsFollowFromWhatParsersAnswer(t *testing.T) {
	p := newParsers(t)
	packed()
	polls := p.start(poller.Options{Workers: 16})
	slow := settings
	slow.PollInterval = 500 * time.Millisecond // none but those that hang may take that long, also on a busy machine
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	endpoints := map[string]struct {
		handler http.HandlerFunc
		verdict health.Verdict
		message string
	}{
		"works": {good("pod-works"), health.Healthy, "buffers are bounded"},
		"hangs": {
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, health.Unreachable, "no answer within 500ms",
		},
		"drips": {drip, health.Unreachable, "no answer within 500ms"},
		"huge": {
			answer(`{"parser":"` + strings.Repeat("x", 1<<20)), health.Unreachable, "the report is longer than 256 KiB",
		},
		"endless": {endless, health.Unreachable, "the report is longer than 256 KiB"},
		"garbage": {
			answer(`<html>`), health.Unreachable, "the response is not a report: jsontext: invalid character",
		},
		"wrong types":     {answer(`{"parser":1}`), health.Unreachable, "the response is not a report"},
		"another program": {answer(`{}`), health.Unreachable, "the response is not a parser's report"},
		"another pod":     {good("another-pod"), health.Unreachable, `the report is from pod "another-pod"`},
		"no streams": {
			answer(`{"parser":"hlparser","target":"no streams","pod":"pod-no streams"}`), health.Unreachable,
			"the report has no streams",
		},
		"many streams": {answer(`{"streams":[` + strings.Repeat("{},", 80_000) + `{}]}`), health.Unreachable,
			"more than 64 streams"},
		"another target": {
			answer(`{"parser":"hlparser","pod":"pod-another target","target":"x","streams":[{}]}`), health.Unreachable,
			`the report is for target "x"`,
		},
		"a swollen name": {
			answer(forged("a swollen name", strings.Repeat("x", 1000), "")), health.Unreachable, "the report of stream",
		},
		"a swollen word": {
			answer(forged("a swollen word", "Fills", strings.Repeat("x", 100_000))), health.Unreachable, "the report of stream",
		},
		"deep": {
			answer(`{"streams":` + strings.Repeat("[", 100_000)), health.Unreachable, "the response is not a report",
		},
		"a gzip bomb":   {bomb, health.Unreachable, `the report is compressed ("gzip")`},
		"a hidden bomb": {hiddenBomb, health.Unreachable, "the response is not a report: jsontext: invalid character"},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"parser":`))
		}, health.Unreachable, "reading the report: unexpected EOF"},
		"promises much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000000000")
			_, _ = w.Write([]byte(`{"parser":`))
		}, health.Unreachable, "reading the report: unexpected EOF"},
		"refuses": {
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, health.Unreachable,
			"returned 503",
		},
		"sends us away": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, health.Unreachable, "returned 302"},
		"closes": {
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, health.Unreachable, "EOF",
		},
		"has long headers": {
			func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, health.Unreachable,
			"requesting the report",
		},
	}
	list := make([]poller.Endpoint, 0, len(endpoints)+1)
	for name, e := range endpoints {
		list = append(list, endpoint(name, p.serve(e.handler)))
	}
	list = append(list, endpoint("no server", "127.65.255.254"))
	views := func() map[string]poller.View { return polls.Track(object, slow, list) }
	for name, e := range endpoints {
		eventually(t, name+" is "+string(e.verdict), func() bool { return views()[name].Judgement.Verdict == e.verdict })
		if got := views()[name].Judgement.Message; !strings.Contains(got, e.message) {
			t.Errorf("%s: got %q, want %q in it", name, got, e.message)
		}
	}
	eventually(
		t, "no server is Unreachable", func() bool { return views()["no server"].Judgement.Verdict == health.Unreachable },
	)
	if got := views()["no server"].Judgement.Message; !strings.Contains(got, "connection refused") ||
		strings.Contains(got, "127.") {
		t.Errorf("no server: got %q", got)
	}
}

// forged is a report of the right pod with one stream whose strings are too long.
func forged(target, stream, message string) string {
	body, _ := json.Marshal(report.Report{
		Parser: "hlparser", Target: target, Pod: "pod-" + target,
		Streams: []report.Stream{{Name: stream, Message: message, Sink: report.Sink{LastError: message}}},
	})
	return string(body)
}

// bomb is a small body that expands to a hundred megabytes, with a Content-Encoding.
func bomb(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	hiddenBomb(w, r)
}

// hiddenBomb is the same without a Content-Encoding.
func hiddenBomb(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(packed()) }

var packed = sync.OnceValue(func() []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	for range 100 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	return out.Bytes()
})

// endless sends as fast as it can, for ever.
func endless(w http.ResponseWriter, r *http.Request) {
	for chunk := make([]byte, 32<<10); r.Context().Err() == nil; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// drip sends a byte now and then, for ever.
func drip(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte(" "))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(interval / 10):
		}
	}
}

func TestAnObjectIsWokenWhenAJudgementChangesAndNotByFigures(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	var broken atomic.Bool
	works := good("pod-a")
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		works(w, r)
	})
	polls.Track(object, settings, []poller.Endpoint{endpoint("a", ip)})
	woken := func(within time.Duration) bool {
		select {
		case e := <-polls.Changes():
			return e.Object == object
		case <-time.After(within):
			return false
		}
	}
	if !woken(5 * time.Second) {
		t.Fatal("not woken when it was first judged")
	}
	if woken(10 * interval) {
		t.Error("woken by figures")
	}
	broken.Store(true)
	if !woken(5 * time.Second) {
		t.Error("not woken when it broke")
	}
}

func TestAPodThatIsNotRunningIsNotAskedAndIsJudgedByTime(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	var asked atomic.Int32
	ip := p.serve(func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	e := endpoint("a", ip)
	// It becomes NotRunning while nothing but time passes.
	e.Pod = health.PodState{
		UID: "u", Starting: true, Reason: "ContainerCreating", Since: time.Now().Add(-30*time.Second + 4*interval),
	}
	if got := polls.Track(object, settings, []poller.Endpoint{e})["a"].Judgement; got.Verdict != health.Unknown {
		t.Fatalf("at first: %+v", got)
	}
	select {
	case <-polls.Changes():
	case <-time.After(5 * time.Second):
		t.Fatal("not woken when it took too long")
	}
	if got := polls.Track(object, settings, []poller.Endpoint{e})["a"].Judgement; got.Verdict != health.NotRunning {
		t.Errorf("then: %+v", got)
	}
	if asked.Load() != 0 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// stepped is a poller with a fake clock. Every target falls due once per interval.
type stepped struct {
	*poller.Poller
	clock  *testclock.FakeClock
	polled atomic.Int32 // polls that are over
}

func (p *parsers) stepped(workers int) *stepped {
	s := &stepped{clock: testclock.NewFakeClock(time.Now())}
	s.Poller = p.start(
		poller.Options{Clock: s.clock, Workers: workers, Polled: func(types.NamespacedName, time.Duration, poller.Failure) {
			s.polled.Add(1)
		}},
	)
	return s
}

// step advances the clock once both lanes wait for it.
func (s *stepped) step(t *testing.T, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); s.clock.Waiters() < 2; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("the poller does not wait")
		}
	}
	s.clock.Step(d)
}

func TestAParserThatDoesNotAnswerIsAskedEveryOtherTimeOnceItIsUnreachableAndEveryTimeOnceItIsBack(t *testing.T) {
	p := newParsers(t)
	polls := p.stepped(1)
	var asked atomic.Int32
	var back atomic.Bool
	works := good("pod-a")
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !back.Load() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		works(w, r)
	})
	list := []poller.Endpoint{endpoint("a", ip)}
	polls.Track(object, settings, list)
	var want int32
	step := func(isAsked bool) {
		t.Helper()
		if polls.step(t, interval); isAsked {
			want++
		}
		// A poll too many shows at the next step, or at the end.
		eventually(t, fmt.Sprintf("poll %d", want), func() bool { return polls.polled.Load() >= want })
		if n := asked.Load(); n != want {
			t.Fatalf("asked %d times, want %d", n, want)
		}
	}
	verdict := func() health.Verdict { return polls.Track(object, settings, list)["a"].Judgement.Verdict }
	for range 3 {
		step(true)
	}
	eventually(t, "Unreachable after three intervals", func() bool { return verdict() == health.Unreachable })
	for range 20 {
		step(false)
		step(true)
	}
	step(false)
	back.Store(true)
	for range 10 {
		step(true)
	}
}

func TestParsersThatHangKeepTheOthersFromNothing(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{Workers: 2})
	slow := settings
	slow.PollInterval = time.Second // which is what a hanging one takes
	list := make([]poller.Endpoint, 0, 21)
	var hung, answered atomic.Int32
	for i := range 20 {
		list = append(list, endpoint(fmt.Sprint("hangs-", i), p.serve(func(_ http.ResponseWriter, r *http.Request) {
			hung.Add(1)
			<-r.Context().Done()
		})))
	}
	polls.Track(object, slow, list)
	eventually(t, "each has hung once", func() bool { return hung.Load() >= 20 })
	works := good("pod-works")
	list = append(
		list, endpoint("works", p.serve(func(w http.ResponseWriter, r *http.Request) { answered.Add(1); works(w, r) })),
	)
	polls.Track(object, slow, list)
	begin := time.Now()
	eventually(t, "four answers", func() bool { return answered.Load() >= 4 })
	// Two workers take ten seconds to poll all parsers that hang.
	if took := time.Since(begin); took > 7*time.Second {
		t.Errorf("four polls took %s", took)
	}
}

func TestAPodThatComesBackIsAskedAtOnceAndItsOldAnswersAreNotItsOwn(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	hold := make(chan struct{})
	works := good("pod-a")
	var asked atomic.Int32
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-hold
		}
		works(w, r)
	})
	slow := settings
	slow.PollInterval = time.Second
	polls.Track(object, slow, []poller.Endpoint{endpoint("a", ip)})
	eventually(t, "the first poll", func() bool { return asked.Load() == 1 })
	next := endpoint("a", ip)
	next.Pod.UID = "uid-2"
	polls.Track(object, slow, []poller.Endpoint{next})
	close(hold)
	eventually(t, "the second poll", func() bool { return asked.Load() >= 2 })
	eventually(t, "a report of the new pod", func() bool {
		return polls.Track(object, slow, []poller.Endpoint{next})["a"].Reports > 0
	})
	if got := polls.Track(object, slow, []poller.Endpoint{next})["a"].Reports; got != 1 {
		t.Errorf("%d reports: the answer of the old pod was taken for the new one's", got)
	}
}

func TestATargetThatIsNewBeginsWithTheAlertOfItsEarlierPod(t *testing.T) {
	polls := poller.New(poller.Options{Clock: clock.RealClock{}})
	near := health.Alert{Since: time.Unix(1, 0), Message: "lines wait"}
	next := endpoint("a", "")
	next.NearRetention = near
	if got := polls.Track(object, settings, []poller.Endpoint{next})["a"].Alerts; got.NearRetention != near {
		t.Errorf("it begins with %+v", got)
	}
	next.NearRetention = health.Alert{Since: time.Unix(2, 0)}
	if got := polls.Track(object, settings, []poller.Endpoint{next})["a"].Alerts; got.NearRetention != near {
		t.Errorf("what the poller knows by itself became %+v", got)
	}
}

func TestPollsAreBoundedInNumberAndReuseTheirConnections(t *testing.T) {
	p := newParsers(t)
	var most, now atomic.Int32
	polls := p.start(poller.Options{Workers: 3})
	list := make([]poller.Endpoint, 0, 20)
	var mu sync.Mutex
	remotes := map[string]bool{}
	var total atomic.Int32
	for i := range 20 {
		name := fmt.Sprint(i)
		works := good("pod-" + name)
		list = append(list, endpoint(name, p.serve(func(w http.ResponseWriter, r *http.Request) {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Millisecond)
			mu.Lock()
			remotes[r.RemoteAddr] = true
			mu.Unlock()
			works(w, r)
			now.Add(-1)
			total.Add(1)
		})))
	}
	patient := settings
	patient.PollInterval = 500 * time.Millisecond // which bounds a poll: one that is cut off would take another connection
	polls.Track(object, patient, list)
	eventually(t, "100 polls", func() bool { return total.Load() >= 100 })
	if m := most.Load(); m > 3 {
		t.Errorf("%d polls at once", m)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(remotes) > 30 {
		t.Errorf("%d connections for %d polls of 20 parsers", len(remotes), total.Load())
	}
}

func TestWhatIsForgottenIsNotAskedAnyMore(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	var asked [2]atomic.Int32
	list := make([]poller.Endpoint, 0, 2)
	for i := range 2 {
		works := good(fmt.Sprintf("pod-%d", i))
		list = append(
			list,
			endpoint(fmt.Sprint(i), p.serve(func(w http.ResponseWriter, r *http.Request) { asked[i].Add(1); works(w, r) })),
		)
	}
	polls.Track(object, settings, list)
	eventually(t, "both are asked", func() bool { return asked[0].Load() > 0 && asked[1].Load() > 0 })
	polls.Track(object, settings, list[:1])
	time.Sleep(2 * interval) // what was under way may still arrive
	gone, kept := asked[1].Load(), asked[0].Load()
	eventually(t, "the other is asked on", func() bool { return asked[0].Load() > kept+5 })
	if asked[1].Load() != gone {
		t.Error("a target that is gone is still asked")
	}
	polls.Forget(object)
	time.Sleep(2 * interval)
	kept = asked[0].Load()
	time.Sleep(5 * interval)
	if asked[0].Load() != kept {
		t.Error("an object that is gone is still polled")
	}
}

func TestWhatIsForgottenInTheMiddleOfAPollIsNotAskedAgain(t *testing.T) {
	p := newParsers(t)
	polls := p.start(poller.Options{})
	slow := settings
	slow.PollInterval = time.Second
	var asked atomic.Int32
	hold := make(chan struct{})
	works := good("pod-a")
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-hold
		works(w, r)
	})
	polls.Track(object, slow, []poller.Endpoint{endpoint("a", ip)})
	eventually(t, "the first poll", func() bool { return asked.Load() == 1 })
	polls.Forget(object)
	close(hold)
	time.Sleep(2200 * time.Millisecond) // two intervals in which nothing may come
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestAPollerThatEndsLeavesNoConnection(t *testing.T) {
	p := newParsers(t)
	var asked atomic.Int32
	works := good("pod-a")
	ip := p.serve(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); works(w, r) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	polls := poller.New(poller.Options{Client: poller.NewClient(p.port), Clock: clock.RealClock{}, Workers: 1})
	go func() { done <- polls.Start(ctx) }()
	polls.Track(object, settings, []poller.Endpoint{endpoint("a", ip)})
	eventually(t, "some polls", func() bool { return asked.Load() > 3 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The server is still running: any connection left belongs to the poller.
	eventually(t, "no connection of a client", func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "net/http.(*persistConn).readLoop")
	})
}

func TestPollsAreStaggeredOverTheInterval(t *testing.T) {
	p := newParsers(t)
	polls := p.stepped(1)
	list := make([]poller.Endpoint, 0, 60)
	for i := range 60 {
		name := fmt.Sprint(i)
		list = append(list, endpoint(name, p.serve(good("pod-"+name))))
	}
	polls.Track(object, settings, list)
	const least = 4 // of 60, in each quarter
	for quarter := range int32(4) {
		polls.step(t, interval/4)
		eventually(
			t, fmt.Sprintf("the polls of quarter %d", quarter), func() bool { return polls.polled.Load() >= least*(quarter+1) },
		)
		for n := int32(-1); n != polls.polled.Load(); time.Sleep(interval) {
			n = polls.polled.Load() // more that are due now may be under way
		}
		if n := polls.polled.Load(); n > 60-least*(3-quarter) {
			t.Errorf("%d of 60 polls by the end of quarter %d", n, quarter)
		}
	}
	eventually(t, "all are asked", func() bool { return polls.polled.Load() == 60 })
}
