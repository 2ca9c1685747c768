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
	// settle is how long a watch must be open before it is taken for one that works: one that cannot decode what it gets opens well, and
	// ends a moment later.
	settle = 10 * time.Second
	// unreadyAfter is how long a watch fails before the operator is not ready. An API server that is restarted is back before.
	unreadyAfter = time.Minute
)

// Watch names a watch: the kind, and the namespace in which it is; "" for all.
type Watch struct{ Kind, Namespace string }

func (w Watch) String() string { return describe(w.Kind, w.Namespace) }

// state is how a watch fares.
type state struct {
	since  time.Time // of the failure, zero while there is none
	opened time.Time // since then; zero while it is not open
	err    error     // the last
}

// fails reports whether the watch fails, as seen now.
func (s state) fails(now time.Time) bool {
	return !s.since.IsZero() && (s.opened.IsZero() || now.Sub(s.opened) < settle)
}

// failed is the state after a failure.
func (s state) failed(now time.Time, err error) state {
	if !s.fails(now) {
		s.since = now
	}
	return state{since: s.since, err: err}
}

// open is the state after the watch was opened.
func (s state) open(now time.Time) state {
	if !s.fails(now) {
		return state{}
	}
	s.opened = now
	return s
}

// Health knows which of the operator's watches fail, and since when. It is a prometheus.Collector and a readiness check. It is safe for
// concurrent use.
type Health struct {
	clock clock.PassiveClock
	desc  *prometheus.Desc

	mu      sync.Mutex
	watches map[Watch]state
}

// NewHealth returns a Health that knows of no watch.
func NewHealth(now clock.PassiveClock) *Health {
	return &Health{
		clock:   now,
		watches: map[Watch]state{},
		desc: prometheus.NewDesc("hlparser_fleet_watch_failing",
			"1 while objects of the kind cannot be listed or watched, so that changes of them are not seen, else 0.",
			[]string{"kind", "watched_namespace"}, nil),
	}
}

func (h *Health) failed(w Watch, err error) {
	if err == nil || errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, context.Canceled) {
		return // the API server ends watches now and then, and forgets old versions; the next list is at once
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

// Check fails when a watch has been failing for a while, and says which and why. It is a healthz.Checker.
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
	return fmt.Errorf("changes are not seen: cannot list and watch %s", strings.Join(failing, "; "))
}

// Describe is a prometheus.Collector's.
func (h *Health) Describe(out chan<- *prometheus.Desc) { out <- h.desc }

// Collect is a prometheus.Collector's.
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
