// Package server answers people's requests about an object's parsers. Reports are what the poller holds. Samples of
// records, stacks and metrics are asked of one parser.
//
// It must never ask a parser for reports, never decide who may ask without the API server, never keep a record, and
// never hold up the poller: it takes one target at a time.
package server

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/clock"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
)

const (
	// maxRequests bounds the requests that are answered at once. Each holds one target and a compressor, about a MiB.
	maxRequests = 8
	// longestAnswer bounds an answer, so that slow readers do not hold all requests. 5,000 targets take a second.
	longestAnswer = 30 * time.Second
	// maxAsked bounds the requests for which a parser is asked at once. Each takes seconds, and at most a MiB.
	maxAsked = 4
)

// Source is what a Handler serves. *poller.Poller implements it.
type Source interface {
	Targets(object types.NamespacedName) []string
	Answer(object types.NamespacedName, target string, samples bool) (poller.Answer, bool)
}

// Handler serves the reports of objects below reports.Path. It answers 503 until leads is closed, because only the
// leader polls, and while it answers as many requests as it may. It trusts that a filter has authorized the request.
func Handler(source Source, leads <-chan struct{}, now clock.PassiveClock) http.Handler {
	return bounded(reports.Path, maxRequests, leads,
		func(w http.ResponseWriter, r *http.Request, object types.NamespacedName) {
			answer(w, r, source, object, now)
		})
}

// bounded passes on the requests for an object that has a path below prefix, at most that many at once.
func bounded(
	prefix string, most int, leads <-chan struct{},
	next func(http.ResponseWriter, *http.Request, types.NamespacedName),
) http.Handler {
	slots := make(chan struct{}, most)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		object, ok := objectBelow(prefix, r.URL.Path)
		switch {
		case r.Method != http.MethodGet:
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "only GET is supported", http.StatusMethodNotAllowed)
			return
		case !ok:
			http.Error(w, "the path must be "+prefix+"NAMESPACE/NAME", http.StatusNotFound)
			return
		}
		select {
		case <-leads:
		default:
			http.Error(w, reports.NotLeading, http.StatusServiceUnavailable)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
			return
		}
		next(w, r, object)
	})
}

// objectBelow returns the object that a path below prefix names. ok is false for a path that names none.
func objectBelow(prefix, path string) (object types.NamespacedName, ok bool) {
	namespace, name, found := strings.Cut(strings.TrimPrefix(path, prefix), "/")
	if !strings.HasPrefix(path, prefix) || !found ||
		len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, true
}

// answer streams the documents of an object's targets.
func answer(
	w http.ResponseWriter, r *http.Request, source Source, object types.NamespacedName, now clock.PassiveClock,
) {
	names := source.Targets(object)
	if wanted := r.URL.Query()[reports.QueryTarget]; len(wanted) > 0 {
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(wanted, name) })
	}
	w.Header().Set("Content-Type", reports.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Vary", "Accept-Encoding")
	var out io.Writer = w
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		packed, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		defer func() { _ = packed.Close() }()
		out = packed
	}
	// A writer without deadlines, as in a test, reads at once.
	_ = http.NewResponseController(w).SetWriteDeadline(now.Now().Add(longestAnswer))
	encode := json.NewEncoder(out)
	head := reports.Head{Namespace: object.Namespace, Name: object.Name, Now: now.Now().UTC(), Targets: len(names)}
	if encode.Encode(head) != nil {
		return // the reader is gone
	}
	samples := r.URL.Query().Has(reports.QuerySamples)
	for _, name := range names {
		a, ok := source.Answer(object, name, samples)
		if !ok { // it was removed meanwhile
			a = poller.Answer{Target: name}
		}
		if encode.Encode(document(&a)) != nil {
			return
		}
	}
}

// document returns what is served of a target.
func document(a *poller.Answer) reports.Target {
	j := a.Judgement
	out := reports.Target{
		Target: a.Target, Pod: a.Pod,
		Verdict: string(j.Verdict), Reason: j.Reason, Message: j.Message, Since: j.Since.UTC(), Fading: j.Fading,
		Reports: a.Reports, Missed: a.Missed, Failure: a.Failure, At: a.At.UTC(),
	}
	if j.Verdict == "" {
		out.Verdict = string(health.Unknown)
	}
	if a.Latest.Verdict != "" {
		out.Shows = &reports.Judgement{
			Verdict: string(a.Latest.Verdict), Reason: a.Latest.Reason, Message: a.Latest.Message,
		}
	}
	for _, kind := range health.AlertKinds() {
		if alert := a.Alerts.Of(kind); alert.Raised() {
			out.Alerts = append(out.Alerts,
				reports.Alert{Alert: string(kind), Since: alert.Since.UTC(), Message: alert.Message})
		}
	}
	if !a.At.IsZero() {
		out.Report = &a.Report
	}
	for i, r := range a.Rates {
		if r.Known {
			out.Rates = append(out.Rates, reports.Rate{
				Stream: a.Streams[i], Written: r.Written, Acked: r.Acked, SinkBusy: r.SinkBusy, ReadWait: r.ReadWait,
			})
		}
	}
	for i := range a.Samples {
		for _, s := range a.Samples[i].Streams {
			out.Samples = append(out.Samples, reports.Sample{
				At: a.Samples[i].At.UTC(), Stream: s.Name, Written: s.Written, Uncommitted: s.Uncommitted, Acked: s.Acked,
			})
		}
	}
	return out
}
