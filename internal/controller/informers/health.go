package informers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
)

const (
	// settle is how long a watch must stay open before it counts as working. A watch that cannot decode its events opens,
	// and ends a moment later.
	settle = 10 * time.Second
	// unreadyAfter is how long a watch fails before the operator is not ready. It is longer than a restart of the API
	// server.
	unreadyAfter = time.Minute
)

// Watch identifies a watch by its kind and namespace. The namespace is "" for all namespaces.
type Watch struct{ Kind, Namespace string }

func (w Watch) String() string { return describe(w.Kind, w.Namespace) }

// state is the state of a watch.
type state struct {
	since  time.Time // when it started to fail; zero if it does not fail
	opened time.Time // when it was opened after that; zero if it is not open
	err    error     // the last error
}

// fails reports whether the watch is failing now.
func (s state) fails(now time.Time) bool {
	return !s.since.IsZero() && (s.opened.IsZero() || now.Sub(s.opened) < settle)
}

// failed returns the state after a failure.
func (s state) failed(now time.Time, err error) state {
	if !s.fails(now) {
		s.since = now
	}
	return state{since: s.since, err: err}
}

// open returns the state after the watch was opened.
func (s state) open(now time.Time) state {
	if !s.fails(now) {
		return state{}
	}
	s.opened = now
	return s
}

// Health tracks which of the operator's watches fail, and since when. It is a prometheus.Collector and a readiness
// check. It is safe for concurrent use.
type Health struct {
	clock clock.PassiveClock
	desc  *prometheus.Desc

	mu      sync.Mutex
	watches map[Watch]state
}

// NewHealth returns a Health without watches.
func NewHealth(now clock.PassiveClock) *Health {
	return &Health{
		clock:   now,
		watches: map[Watch]state{},
		desc: prometheus.NewDesc("hlparser_fleet_watch_failing",
			"1 while objects of the kind cannot be listed or watched, so that their changes are not observed, else 0.",
			[]string{"kind", "watched_namespace"}, nil),
	}
}

func (h *Health) failed(w Watch, err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) ||
		apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return // the API server routinely ends watches and drops old versions; the next list follows at once
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[w] = h.watches[w].failed(h.clock.Now(), err)
}

func (h *Health) opened(w Watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[w] = h.watches[w].open(h.clock.Now())
}

// Check implements healthz.Checker. It returns an error with each watch that has been failing for unreadyAfter, and
// why.
func (h *Health) Check(*http.Request) error {
	now := h.clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	var failing []string
	for w, s := range h.watches {
		if s.fails(now) && now.Sub(s.since) >= unreadyAfter {
			failing = append(failing, fmt.Sprintf("%s for %s: %v", w, now.Sub(s.since).Round(time.Second), s.err))
		}
	}
	if len(failing) == 0 {
		return nil
	}
	slices.Sort(failing)
	return fmt.Errorf("changes are not observed: cannot list and watch %s", strings.Join(failing, "; "))
}

// Describe implements prometheus.Collector.
func (h *Health) Describe(out chan<- *prometheus.Desc) { out <- h.desc }

// Collect implements prometheus.Collector.
func (h *Health) Collect(out chan<- prometheus.Metric) {
	now := h.clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Watch, 0, len(h.watches))
	for w := range h.watches {
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b Watch) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace))
	})
	for _, w := range all {
		value := 0.0
		if h.watches[w].fails(now) {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(h.desc, prometheus.GaugeValue, value, w.Kind, w.Namespace)
	}
}
