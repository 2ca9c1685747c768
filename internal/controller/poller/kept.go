package poller

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// keptStreams bounds the streams of a report that is kept: there are eight kinds of stream.
	keptStreams = 8
	// keptText bounds each of its texts, in bytes: as much as a parser reports. An honest report of two streams takes
	// about 2 KiB, and a forged one at most 32 KiB.
	keptText = 512
)

// lastAnswer is what a target's parser last answered, for people. Judgements do not depend on it.
type lastAnswer struct {
	report  report.Report
	at      time.Time // when the report arrived; zero: none did
	failure string    // of the last poll; "" if it brought a report
}

// keep takes in the outcome of a poll. It copies the report, whose streams the worker reuses, and allocates nothing
// once the streams of a parser are known.
func (a *lastAnswer) keep(p *health.Poll, now time.Time) {
	a.failure = p.Failure
	if p.Report == nil {
		return
	}
	streams := append(a.report.Streams[:0], p.Report.Streams[:min(len(p.Report.Streams), keptStreams)]...)
	a.report, a.at = *p.Report, now
	a.report.Streams = streams
	for _, text := range []*string{&a.report.Version, &a.report.Target, &a.report.Pod, &a.report.Namespace,
		&a.report.PodUID} {
		shorten(text)
	}
	for i := range streams {
		s := &streams[i]
		for _, text := range []*string{&s.Message, &s.File, &s.Position, &s.CommittedPosition, &s.Sink.LastError,
			&s.Sink.MissingSecret} {
			shorten(text)
		}
		if b := s.Blocked; b != nil { // nobody else has this pointer once the poll is over
			for _, text := range []*string{&b.Path, &b.Error, &b.Denies, &b.Bits} {
				shorten(text)
			}
		}
	}
}

// shorten bounds a text, and retains no memory beyond the bound.
func shorten(text *string) {
	if len(*text) > keptText {
		*text = strings.Clone(prose.Line(*text, keptText))
	}
}

// Answer is what is known of a target: the state of the judgement, and the parser's newest report.
type Answer struct {
	Target, Pod string
	// Judgement is the current one, and Latest what the newest poll shows, confirmed or not.
	Judgement, Latest health.Judgement
	Alerts            health.Alerts
	// Reports counts those of the running process, and Missed the latest polls in a row without one.
	Reports, Missed int
	// Failure is why the last poll brought no report; "" if it did, or if there was none.
	Failure string
	// Report is the newest one, which arrived At. Both are zero if the pod's container has sent none.
	Report report.Report
	At     time.Time
	// Streams and Rates are the rates of the streams over the last minute.
	Streams []string
	Rates   []health.Rates
	// Samples are the totals of the last minute, oldest first; nil unless they were asked for.
	Samples []health.Sample
}

// Targets returns the names of an object's targets that have a pod, ordered. It is empty for an object that is not
// known here.
func (p *Poller) Targets(object types.NamespacedName) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, len(p.objects[object]))
	for name := range p.objects[object] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Answer returns what is known of a target of an object, with samples if asked for. ok is false if there is no such
// target. It polls nothing, and shares no memory with the poller that changes later.
func (p *Poller) Answer(object types.NamespacedName, target string, samples bool) (a Answer, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.objects[object][target]
	if e == nil {
		return Answer{}, false
	}
	a = Answer{
		Target: target, Pod: e.endpoint.PodName,
		Judgement: e.tracker.Judgement(), Latest: e.tracker.Latest(), Alerts: e.tracker.Alerts(),
		Reports: e.tracker.Reports(), Missed: e.tracker.Missed(),
		Failure: e.answer.failure, Report: e.answer.report, At: e.answer.at,
	}
	// The next report overwrites the streams, and replaces what they point to.
	a.Report.Streams = slices.Clone(e.answer.report.Streams)
	a.Streams, a.Rates = e.tracker.Rates()
	if samples {
		a.Samples = e.tracker.Evidence()
	}
	return a, true
}
