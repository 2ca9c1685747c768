package poller_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// delivering returns a sampler that is shown a record all the time.
func delivering(t *testing.T, record string) *sampling.Sampler {
	t.Helper()
	s, end, done := &sampling.Sampler{}, make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end); <-done })
	b := sink.Batch{Data: []byte(record + "\n"), Records: []sink.Record{{End: len(record) + 1}}}
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-end:
				tick.Stop()
				return
			case <-tick.C:
				s.Offer("Fills", b)
			}
		}
	}()
	return s
}

// idle is a source without streams.
type idle struct{}

func (idle) Streams() []report.Stream             { return nil }
func (idle) Ready() bool                          { return true }
func (idle) Distributions() *report.Distributions { return nil }

func TestAParserIsAskedForASampleStacksAndMetrics(t *testing.T) {
	operator, mine := newKey(t), newKey(t)
	p := newParsers(t)
	polls := p.start(poller.Options{})
	real := report.SealedHandler(report.Identity{Pod: "pod-a", StartedAt: time.Now()}, idle{},
		delivering(t, `{"coin":"BTC"}`), guard(t, mine, operator))
	a := endpoint("a", p.serve(real.ServeHTTP))
	a.Plain, a.Key, a.Operator = false, mine.Public(), operator
	ended := endpoint("b", "127.0.0.1")
	ended.Pod.Running = false
	polls.Track(object, settings, []poller.Endpoint{a, ended})

	got, err := polls.Sample(t.Context(), object, "a", sampling.Filter{Coin: "BTC", Records: 2})
	if err != nil || len(got.Records) != 2 || string(got.Records[0].Text) != `{"coin":"BTC"}` || got.LeftOut == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = polls.Sample(t.Context(), object, "a", sampling.Filter{Records: -1}); err == nil {
		t.Error("a bad filter is sent")
	}
	text, err := polls.Stacks(t.Context(), object, "a")
	if err != nil || !strings.Contains(text, "goroutine ") {
		t.Errorf("stacks: %q, %v", text, err)
	}
	text, err = polls.Metrics(t.Context(), object, "a")
	if err != nil || !strings.Contains(text, "\ngo_goroutines ") || !strings.Contains(text, "hlparser_build_info") {
		t.Errorf("metrics: %q, %v", text, err)
	}
	for target, want := range map[string]string{"b": "does not run", "c": "no such target"} {
		_, err := polls.Sample(t.Context(), object, target, sampling.Filter{})
		_, stacks := polls.Stacks(t.Context(), object, target)
		_, metrics := polls.Metrics(t.Context(), object, target)
		for _, err := range []error{err, stacks, metrics} {
			if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, poller.ErrNoTarget) != (target == "c") {
				t.Errorf("%s: %v", target, err)
			}
		}
	}
}

func TestAParserWithoutKeysIsNotAskedForRecords(t *testing.T) {
	p := newParsers(t)
	c := poller.NewClient(p.port)
	defer c.Close()
	var asked atomic.Int32
	e := endpoint("a", p.serve(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	_, err := c.Sample(t.Context(), "ns", e, sampling.Filter{})
	_, metrics := c.Metrics(t.Context(), "ns", e)
	for _, err := range []error{err, metrics} {
		if poller.FailureOf(err) != poller.NoKey || asked.Load() != 0 {
			t.Errorf("%d requests, %v", asked.Load(), err)
		}
	}
}

// Whatever a parser answers, the operator passes on a sample with its bounds, or an error of one line.
func TestOddSamplesAreRefused(t *testing.T) {
	operator, mine := newKey(t), newKey(t)
	p := newParsers(t)
	c := poller.NewClient(p.port)
	defer c.Close()
	many := make([]sampling.Record, sampling.MaxRecords+1)
	for name, test := range map[string]struct {
		answer  any
		refused bool
	}{
		"no sample":        {"text", false},
		"too many records": {sampling.Answer{Sample: sampling.Sample{Records: many}}, false},
		"a record that is too long": {sampling.Answer{Sample: sampling.Sample{Records: []sampling.Record{
			{Text: make([]byte, sampling.MaxRecordBytes+1), Bytes: sampling.MaxRecordBytes + 1},
		}}}, false},
		"a record that is longer than it is": {sampling.Answer{Sample: sampling.Sample{Records: []sampling.Record{
			{Text: []byte("{}"), Bytes: 1},
		}}}, false},
		"a negative figure": {sampling.Answer{Sample: sampling.Sample{LeftOut: -1}}, false},
		"a refusal":         {sampling.Answer{Refused: "others\nread " + strings.Repeat("x", 1<<16)}, true},
	} {
		handler := guard(t, mine, operator).Handler(192<<10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == sampling.Path {
				_ = json.NewEncoder(w).Encode(sampling.Token{Token: "token"})
				return
			}
			_ = json.NewEncoder(w).Encode(test.answer)
		}))
		e := endpoint("a", p.serve(handler.ServeHTTP))
		e.Plain, e.Key, e.Operator = false, mine.Public(), operator
		_, err := c.Sample(t.Context(), "ns", e, sampling.Filter{})
		if err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\n") ||
			errors.Is(err, poller.ErrRefused) != test.refused || !test.refused && poller.FailureOf(err) != poller.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := endpoint("a", p.serve(http.NotFound))
	before.Plain, before.Key, before.Operator = false, mine.Public(), operator
	_, err := c.Sample(t.Context(), "ns", before, sampling.Filter{})
	if err == nil || !strings.Contains(err.Error(), "does not serve the sample: its image is older") {
		t.Errorf("a parser from before samples: %v", err)
	}
	// Another process at its address.
	for name, handler := range map[string]http.Handler{
		"a stranger": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"records":[]}`)
		}),
		"another parser": guard(t, newKey(t), operator).Handler(1<<16, says("pod-a")),
		"a forged token": tokenOfMegabytes(guard(t, mine, operator)),
	} {
		e := endpoint("a", p.serve(handler.ServeHTTP))
		e.Plain, e.Key, e.Operator = false, mine.Public(), operator
		if got, err := c.Sample(t.Context(), "ns", e, sampling.Filter{}); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func tokenOfMegabytes(g *seal.Guard) http.Handler {
	return g.Handler(192<<10, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(sampling.Token{Token: strings.Repeat("/x", 1<<16)})
	}))
}
