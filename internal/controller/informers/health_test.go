package informers

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	testclock "k8s.io/utils/clock/testing"
)

var (
	noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	pods = Watch{Kind: "Pod"}
)

// Each step is a failure or an opening of a watch at a second, with the state that must follow.
func TestAWatchFailsFromItsFirstFailureUntilOneStaysOpen(t *testing.T) {
	broken := errors.New("broken")
	type step struct {
		at      int
		err     error // nil: it was opened
		failing bool
		unready bool
	}
	for name, steps := range map[string][]step{
		"works": {{0, nil, false, false}, {300, nil, false, false}},
		"never opens": {{0, broken, true, false}, {30, broken, true, false}, {59, broken, true, false},
			{60, broken, true, true}, {900, broken, true, true}},
		"is back": {{0, broken, true, false}, {61, broken, true, true}, {70, nil, true, true},
			{80, nil, false, false}},
		"opens and ends": {{0, broken, true, false}, {5, nil, true, false}, {6, broken, true, false},
			{35, nil, true, false}, {36, broken, true, false}, {66, nil, true, true}},
		"fails again after long": {{0, broken, true, false}, {5, nil, true, false}, {100, broken, true, false},
			{159, broken, true, false}, {160, broken, true, true}},
		"ends as it should": {{0, nil, false, false}, {300, io.EOF, false, false},
			{600, context.Canceled, false, false}},
		"asks for an old version": {{0, nil, false, false}, {300, apierrors.NewResourceExpired("too old"), false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			clock := testclock.NewFakeClock(noon)
			h := NewHealth(clock)
			for _, s := range steps {
				clock.SetTime(noon.Add(time.Duration(s.at) * time.Second))
				if s.err != nil {
					h.failed(pods, s.err)
				} else {
					h.opened(pods)
				}
				value := 0.0
				if s.failing {
					value = 1
				}
				if got := testutil.ToFloat64(h); got != value {
					t.Errorf("after %d s the metric is %v, want %v", s.at, got, value)
				}
				if err := h.Check(nil); (err != nil) != s.unready {
					t.Errorf("after %d s readiness is %v, want unready %v", s.at, err, s.unready)
				}
			}
		})
	}
}

func TestReadinessNamesEachWatchAndWhy(t *testing.T) {
	clock := testclock.NewFakeClock(noon)
	h := NewHealth(clock)
	h.failed(Watch{"Pod", "b"}, errors.New("forbidden"))
	h.failed(Watch{"Node", ""}, errors.New("refused"))
	h.opened(Watch{"ConfigMap", ""})
	clock.Step(2 * time.Minute)
	err := h.Check(nil)
	if err == nil || !strings.Contains(err.Error(), "Node for 2m0s: refused; Pod of namespace b for 2m0s: forbidden") {
		t.Errorf("got %v", err)
	}
	clock.Step(time.Minute)
	h.opened(Watch{"Pod", "b"})
	h.opened(Watch{"Node", ""})
	clock.Step(settle)
	if err := h.Check(nil); err != nil {
		t.Errorf("got %v", err)
	}
}
