package server_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// fleet is a source with n targets of one object. Every third has never answered.
type fleet struct {
	object types.NamespacedName
	n      int
}

func (f fleet) Targets(object types.NamespacedName) (names []string) {
	if object != f.object {
		return nil
	}
	for i := range f.n {
		names = append(names, fmt.Sprintf("node-%05d", i))
	}
	return names
}

func (f fleet) Answer(_ types.NamespacedName, target string, samples bool) (poller.Answer, bool) {
	var i int
	if _, err := fmt.Sscanf(target, "node-%d", &i); err != nil {
		return poller.Answer{}, false
	}
	a := poller.Answer{
		Target: target, Pod: "mainnet-" + target,
		Judgement: health.Judgement{Verdict: health.SinkDown, Reason: "Fills", Message: "refused", Since: noon},
		Latest:    health.Judgement{Verdict: health.Healthy},
		Alerts:    health.Alerts{DataLost: health.Alert{Since: noon, Message: "3 files"}},
		Streams:   []string{"Fills", "Trades"},
		Rates:     []health.Rates{{Known: true, Written: 1000, Acked: 10}, {}},
	}
	if i%3 == 0 {
		a.Failure, a.Missed = "no answer within 2s", 3
		return a, true
	}
	a.At = noon
	a.Report = report.Report{Parser: "hlparser", Target: target, Streams: []report.Stream{
		{Name: "Fills", AckedBytesTotal: 5, LagSeconds: new(1.5)}, {Name: "Trades"},
	}}
	if samples {
		a.Samples = []health.Sample{{At: noon, Streams: []health.StreamSample{{Name: "Fills", Written: 7, Acked: 5}}}}
	}
	return a, true
}

var mainnet = types.NamespacedName{Namespace: "ns", Name: "mainnet"}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func get(t *testing.T, handler http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

func TestFiveThousandReportsInOneRequest(t *testing.T) {
	const n = 5000
	handler := server.Handler(fleet{mainnet, n}, closed(), clocktesting.NewFakePassiveClock(noon))
	start := time.Now()
	w := get(t, handler, http.MethodGet, "/reports/ns/mainnet", "Accept-Encoding", "gzip")
	if w.Code != http.StatusOK || w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("%d, %v", w.Code, w.Header())
	}
	size := w.Body.Len()
	unpacked, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	head, targets, err := reports.Read(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in %s", size, time.Since(start))
	if head.Targets != n || len(targets) != n || head.Name != "mainnet" || !head.Now.Equal(noon) {
		t.Errorf("%+v, %d targets", head, len(targets))
	}
	if size > 2<<20 {
		t.Errorf("%d bytes", size)
	}
	silent, answers := targets[0], targets[1]
	if silent.Report != nil || !silent.At.IsZero() || silent.Failure == "" || silent.Verdict != "SinkDown" {
		t.Errorf("one that does not answer: %+v", silent)
	}
	if answers.Report == nil || *answers.Report.Streams[0].LagSeconds != 1.5 ||
		answers.Report.Streams[0].UncommittedBytes != nil {
		t.Errorf("one that answers: %+v", answers)
	}
	if len(answers.Rates) != 1 || answers.Rates[0].Written != 1000 || len(answers.Alerts) != 1 ||
		answers.Shows == nil || answers.Shows.Verdict != "Healthy" || answers.Samples != nil {
		t.Errorf("one that answers: %+v", answers)
	}
}

func TestWhichTargetsAreServed(t *testing.T) {
	handler := server.Handler(fleet{mainnet, 5}, closed(), clocktesting.NewFakePassiveClock(noon))
	w := get(t, handler, http.MethodGet, "/reports/ns/mainnet?target=node-00001&target=node-00004&target=other&samples")
	_, targets, err := reports.Read(w.Body)
	if err != nil || len(targets) != 2 || targets[0].Target != "node-00001" || targets[1].Target != "node-00004" {
		t.Errorf("%+v, %v", targets, err)
	}
	if len(targets[0].Samples) != 1 || targets[0].Samples[0].Written != 7 {
		t.Errorf("the samples are %+v", targets[0].Samples)
	}
	_, targets, err = reports.Read(get(t, handler, http.MethodGet, "/reports/other/mainnet").Body)
	if err != nil || len(targets) != 0 {
		t.Errorf("another object: %+v, %v", targets, err)
	}
}

func TestWhichRequestsAreRefused(t *testing.T) {
	source, now := fleet{mainnet, 5}, clocktesting.NewFakePassiveClock(noon)
	for name, test := range map[string]struct {
		leads        <-chan struct{}
		method, path string
		code         int
	}{
		"a manager that does not lead": {make(chan struct{}), http.MethodGet, "/reports/ns/mainnet", 503},
		"a write":                      {closed(), http.MethodPost, "/reports/ns/mainnet", 405},
		"no name":                      {closed(), http.MethodGet, "/reports/ns", 404},
		"an empty name":                {closed(), http.MethodGet, "/reports/ns/", 404},
		"a longer path":                {closed(), http.MethodGet, "/reports/ns/mainnet/x", 404},
		"a namespace that is none":     {closed(), http.MethodGet, "/reports/n.s/mainnet", 404},
	} {
		if w := get(t, server.Handler(source, test.leads, now), test.method, test.path); w.Code != test.code {
			t.Errorf("%s: %d, want %d", name, w.Code, test.code)
		}
	}
}

// stuck is a writer that takes nothing until it is released.
type stuck struct {
	http.ResponseWriter
	entered chan<- struct{}
	hold    <-chan struct{}
}

func (s stuck) Write(p []byte) (int, error) {
	s.entered <- struct{}{}
	<-s.hold
	return len(p), nil
}

func TestSlowReadersAreBounded(t *testing.T) {
	handler := server.Handler(fleet{mainnet, 0}, closed(), clocktesting.NewFakePassiveClock(noon))
	entered, hold, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	const most = 8
	for range most {
		go func() {
			handler.ServeHTTP(stuck{httptest.NewRecorder(), entered, hold},
				httptest.NewRequest(http.MethodGet, "/reports/ns/mainnet", nil))
			done <- struct{}{}
		}()
		<-entered
	}
	if w := get(t, handler, http.MethodGet, "/reports/ns/mainnet"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", w.Code)
	}
	close(hold)
	for range most {
		<-done
	}
	if w := get(t, handler, http.MethodGet, "/reports/ns/mainnet"); w.Code != http.StatusOK {
		t.Errorf("once they are gone: %d", w.Code)
	}
}

func TestAnAnswerThatIsCutOffIsNoAnswer(t *testing.T) {
	handler := server.Handler(fleet{mainnet, 3}, closed(), clocktesting.NewFakePassiveClock(noon))
	whole := get(t, handler, http.MethodGet, "/reports/ns/mainnet").Body.Bytes()
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for n := range 4 {
		if _, _, err := reports.Read(bytes.NewReader(bytes.Join(lines[:n], nil))); !errors.Is(err, reports.ErrTruncated) {
			t.Errorf("%d of 4 documents: %v", n, err)
		}
	}
	if _, _, err := reports.Read(io.LimitReader(bytes.NewReader(whole), int64(len(whole)-20))); err == nil {
		t.Error("half a document is accepted")
	}
}
