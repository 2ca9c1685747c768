package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// maxStacks bounds the manager's own stacks in an answer, in bytes.
const maxStacks = 64 << 10

// Sampler gives samples of what a parser delivers. *poller.Poller implements it.
type Sampler interface {
	Sample(context.Context, types.NamespacedName, string, sampling.Filter) (sampling.Sample, error)
}

// Samples serves, below reports.SamplesPath, a sample of what the parser of one target delivers. It answers as Handler
// does while it does not lead or is busy, and trusts a filter likewise.
func Samples(source Sampler, leads <-chan struct{}) http.Handler {
	return bounded(reports.SamplesPath, maxAsked, leads,
		func(w http.ResponseWriter, r *http.Request, object types.NamespacedName) {
			query := r.URL.Query()
			filter, err := filterOf(query)
			target := query.Get(reports.QueryTarget)
			switch {
			case err != nil:
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			case target == "":
				http.Error(w, "the query must name a "+reports.QueryTarget, http.StatusBadRequest)
				return
			}
			sample, err := source.Sample(r.Context(), object, target, filter)
			switch {
			case errors.Is(err, poller.ErrNoTarget):
				http.Error(w, err.Error(), http.StatusNotFound)
			case errors.Is(err, poller.ErrRefused):
				http.Error(w, err.Error(), http.StatusTooManyRequests)
			case err != nil:
				http.Error(w, err.Error(), http.StatusBadGateway)
			default:
				respond(w, sample)
			}
		})
}

// filterOf returns the filter of a query.
func filterOf(query url.Values) (sampling.Filter, error) {
	f := sampling.Filter{Stream: query.Get(reports.QueryStream), Coin: query.Get(reports.QueryCoin)}
	if text := query.Get(reports.QueryRecords); text != "" {
		var err error
		if f.Records, err = strconv.Atoi(text); err != nil {
			return f, fmt.Errorf("%s is %.20q: write a number", reports.QueryRecords, text)
		}
	}
	return f, f.Check()
}

// Inspector asks a parser what it does. *poller.Poller implements it.
type Inspector interface {
	Stacks(context.Context, types.NamespacedName, string) (string, error)
	Metrics(context.Context, types.NamespacedName, string) (string, error)
}

// Diagnosis serves, below reports.DiagnosisPath, a reports.Diagnosis of the parser of one target, or of the manager. It
// answers as Handler does while it does not lead or is busy, and trusts a filter likewise.
func Diagnosis(source Inspector, leads <-chan struct{}) http.Handler {
	return bounded(reports.DiagnosisPath, maxAsked, leads,
		func(w http.ResponseWriter, r *http.Request, object types.NamespacedName) {
			target := r.URL.Query().Get(reports.QueryTarget)
			if target == "" {
				text := make([]byte, maxStacks)
				respond(w, reports.Diagnosis{Stacks: withoutArguments(string(text[:runtime.Stack(text, true)]))})
				return
			}
			d, err := diagnose(r.Context(), source, object, target)
			if err != nil {
				http.Error(w, err.Error(), http.StatusNotFound)
				return
			}
			respond(w, d)
		})
}

// diagnose asks a parser. It fails if there is no such target. A parser that does not answer is asked once.
func diagnose(ctx context.Context, source Inspector, object types.NamespacedName, target string) (
	d reports.Diagnosis, err error,
) {
	stacks, err := source.Stacks(ctx, object, target)
	switch {
	case errors.Is(err, poller.ErrNoTarget):
		return d, err
	case err != nil:
		d.Missing = append(d.Missing, "stacks and metrics: "+err.Error())
		return d, nil
	}
	d.Stacks = withoutArguments(stacks)
	if d.Metrics, err = source.Metrics(ctx, object, target); err != nil {
		d.Missing = append(d.Missing, "metrics: "+err.Error())
	}
	return d, nil
}

// withoutArguments removes the arguments of calls from goroutines' stacks. They are words of memory, which may be part
// of a key or of a record.
func withoutArguments(stacks string) string {
	var out strings.Builder
	for line := range strings.Lines(stacks) {
		line = strings.TrimSuffix(line, "\n")
		place := strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "goroutine ") ||
			strings.HasPrefix(line, "created by ")
		if open := strings.LastIndexByte(line, '('); !place && open >= 0 {
			line = line[:open] + "(...)"
		}
		out.WriteString(line)
		out.WriteByte('\n')
	}
	return out.String()
}

func respond(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(document) // an error means that the reader is gone
}
