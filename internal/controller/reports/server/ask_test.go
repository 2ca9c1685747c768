package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// parser answers for every target but "none". With err it fails.
type parser struct {
	err  error
	hold <-chan struct{}
	in   chan<- struct{}
}

func (p parser) answer(target string) error {
	if p.in != nil {
		p.in <- struct{}{}
		<-p.hold
	}
	if target == "none" {
		return poller.ErrNoTarget
	}
	return p.err
}

func (p parser) Sample(_ context.Context, _ types.NamespacedName, target string, f sampling.Filter) (
	sampling.Sample, error,
) {
	return sampling.Sample{
		Records:   []sampling.Record{{Stream: f.Stream, Text: []byte(f.Coin), Bytes: f.Records}},
		Delivered: 5, Filtered: 3, LeftOut: 1,
	}, p.answer(target)
}

const trace = `goroutine 7 [chan receive, 5 minutes]:
golang.org/x/crypto/nacl/box.Seal({0xc000123450, 0x18, 0x20}, {0x61, 0x62})
	/src/box.go:12 +0x1d
net/http.(*conn).serve(0xc0000a0000, {0x12, 0x34})
	/src/server.go:99 +0x5
created by net/http.(*Server).Serve in goroutine 1
	/src/server.go:5 +0x2

goroutine 8 [running]:
main.f(0x5ec12e7, 0x5ec`

func (p parser) Stacks(_ context.Context, _ types.NamespacedName, target string) (string, error) {
	return trace, p.answer(target)
}

func (p parser) Metrics(context.Context, types.NamespacedName, string) (string, error) {
	return "go_goroutines 7\n", p.err
}

func TestWhatASampleIsAskedWith(t *testing.T) {
	handler := server.Samples(parser{}, closed())
	w := get(t, handler, http.MethodGet, "/samples/ns/mainnet?target=node-1&stream=Fills&coin=BTC&records=7")
	var got sampling.Sample
	if err := reports.ReadOne(w.Body, &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d, %v", w.Code, err)
	}
	if len(got.Records) != 1 || got.Records[0].Stream != "Fills" || string(got.Records[0].Text) != "BTC" ||
		got.Records[0].Bytes != 7 || got.Delivered != 5 || got.Filtered != 3 || got.LeftOut != 1 {
		t.Errorf("%+v", got)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v", w.Header())
	}
}

func TestWhichSamplesAndDiagnosesAreRefused(t *testing.T) {
	refused := fmt.Errorf("%w: others read", poller.ErrRefused)
	for name, test := range map[string]struct {
		source       parser
		method, path string
		code         int
		says         string
	}{
		"no target":                   {parser{}, "GET", "/samples/ns/mainnet", 400, "must name a target"},
		"an unknown stream":           {parser{}, "GET", "/samples/ns/mainnet?target=a&stream=x", 400, "write one of"},
		"no number":                   {parser{}, "GET", "/samples/ns/mainnet?target=a&records=x", 400, "write a number"},
		"too many records":            {parser{}, "GET", "/samples/ns/mainnet?target=a&records=1000", 400, "write 1 to"},
		"a target that there is not":  {parser{}, "GET", "/samples/ns/mainnet?target=none", 404, "no such target"},
		"a parser that others sample": {parser{err: refused}, "GET", "/samples/ns/mainnet?target=a", 429, "others"},
		"a parser that does not answer": {parser{err: errors.New("away")}, "GET", "/samples/ns/mainnet?target=a", 502,
			"away"},
		"a write":                    {parser{}, "POST", "/samples/ns/mainnet?target=a", 405, ""},
		"a longer path":              {parser{}, "GET", "/samples/ns/mainnet/x?target=a", 404, ""},
		"another prefix":             {parser{}, "GET", "/reports/ns/mainnet?target=a", 404, ""},
		"a diagnosis of what is not": {parser{}, "GET", "/diagnosis/ns/mainnet?target=none", 404, "no such target"},
		"a diagnosis, as a write":    {parser{}, "PUT", "/diagnosis/ns/mainnet", 405, ""},
	} {
		handler := server.Samples(test.source, closed())
		if strings.HasPrefix(test.path, reports.DiagnosisPath) {
			handler = server.Diagnosis(test.source, closed())
		}
		w := get(t, handler, test.method, test.path)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.says) {
			t.Errorf("%s: %d, %s", name, w.Code, w.Body)
		}
	}
	follower := make(chan struct{})
	for path, handler := range map[string]http.Handler{
		"/samples/ns/mainnet?target=a": server.Samples(parser{}, follower),
		"/diagnosis/ns/mainnet":        server.Diagnosis(parser{}, follower),
	} {
		w := get(t, handler, http.MethodGet, path)
		if w.Code != 503 || !strings.Contains(w.Body.String(), reports.NotLeading) {
			t.Errorf("%s of a manager that does not lead: %d, %s", path, w.Code, w.Body)
		}
	}
}

func TestFewParsersAreAskedAtOnce(t *testing.T) {
	in, hold, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	source := parser{in: in, hold: hold}
	handler := server.Samples(source, closed())
	const most, path = 4, "/samples/ns/mainnet?target=a"
	for range most {
		go func() {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
			done <- struct{}{}
		}()
		<-in
	}
	if w := get(t, handler, http.MethodGet, path); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", w.Code)
	}
	close(hold)
	for range most {
		<-done
	}
}

func TestADiagnosisHasNoArgumentsOfCalls(t *testing.T) {
	for path, wants := range map[string][]string{
		"/diagnosis/ns/mainnet": {"goroutine ", "TestADiagnosisHasNoArgumentsOfCalls(...)\n\t"},
		"/diagnosis/ns/mainnet?target=node-1": {
			"goroutine 7 [chan receive, 5 minutes]:\ngolang.org/x/crypto/nacl/box.Seal(...)\n\t/src/box.go:12 +0x1d\n",
			"net/http.(*conn).serve(...)\n", "created by net/http.(*Server).Serve in goroutine 1\n", "main.f(...)\n",
		},
	} {
		w := get(t, server.Diagnosis(parser{}, closed()), http.MethodGet, path)
		var d reports.Diagnosis
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != http.StatusOK || len(d.Missing) > 0 {
			t.Fatalf("%d, %+v, %v", w.Code, d, err)
		}
		for _, want := range wants {
			if !strings.Contains(d.Stacks, want) {
				t.Errorf("%s lacks %q:\n%s", path, want, d.Stacks)
			}
		}
		for line := range strings.Lines(d.Stacks) {
			if !strings.HasPrefix(line, "\t") && (strings.Contains(line, "0x") || strings.Contains(line, "{")) {
				t.Errorf("%s has an argument: %s", path, line)
			}
		}
		if len(d.Stacks) > 64<<10+len(trace) {
			t.Errorf("%d bytes", len(d.Stacks))
		}
		if hasMetrics := strings.Contains(path, "target"); hasMetrics != (d.Metrics != "") {
			t.Errorf("%s: metrics %q", path, d.Metrics)
		}
	}
}

func TestADiagnosisSaysWhatIsMissing(t *testing.T) {
	w := get(t, server.Diagnosis(parser{err: errors.New("no answer within 2s")}, closed()), http.MethodGet,
		"/diagnosis/ns/mainnet?target=node-1")
	var d reports.Diagnosis
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || d.Stacks != "" || d.Metrics != "" || len(d.Missing) != 1 ||
		!strings.Contains(d.Missing[0], "no answer within 2s") {
		t.Errorf("%d, %+v, %v", w.Code, d, err)
	}
}
