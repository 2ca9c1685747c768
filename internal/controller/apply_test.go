package controller

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// TestPodsAreCreatedFewAtFirst drives rampUp against an API server of any speed, which fails or refuses some pods.
func TestPodsAreCreatedFewAtFirst(test *testing.T) {
	refused := fmt.Errorf("the API server refuses the pod: %w", errors.New("exceeded quota"))
	taken := &heldBack{problem: &problem{Reason: v1alpha1.ReasonNameTaken}}
	rapid.Check(test, func(t *rapid.T) {
		n := rapid.IntRange(0, 1500).Draw(t, "pods")
		slowest := rapid.IntRange(1, 100).Draw(t, "slowest in ms")
		wrong := rapid.MapOfN(rapid.IntRange(0, 1500), rapid.SampledFrom([]error{errors.New("no answer"), refused, taken}), 0,
			3).Draw(t, "wrong")
		cut := rapid.IntRange(1, 3000).Draw(t, "cut")
		actions := make([]plan.Action, n)
		for i := range actions {
			actions[i].Target = fmt.Sprint(i)
		}
		took := make([]time.Duration, n)
		for i := range took {
			took[i] = time.Duration(1+(i*7919)%slowest) * time.Millisecond
		}
		synctest.Test(test, func(*testing.T) {
			var begun, well, running atomic.Int64
			var stopped atomic.Bool
			started := make([]bool, n)
			asked := 0
			over := func() bool {
				asked++
				return asked > cut
			}
			errs, first := rampUp(actions, over, func(a plan.Action) error {
				var i int
				if _, err := fmt.Sscan(a.Target, &i); err != nil {
					return err
				}
				started[i] = true
				if b, w := begun.Add(1), well.Load(); b > 1+rampUpBy*w {
					t.Errorf("%d are begun when %d went well", b, w)
				}
				if now := running.Add(1); now > parallelWrites {
					t.Errorf("%d at once", now)
				}
				if stopped.Load() {
					t.Errorf("%d is begun after one that went wrong", i)
				}
				time.Sleep(took[i])
				running.Add(-1)
				err := wrong[i]
				if err == nil || errors.Is(err, taken) {
					well.Add(1)
					return err
				}
				go func() {
					time.Sleep(time.Microsecond) // by then it was processed
					stopped.Store(true)
				}()
				return err
			})
			time.Sleep(time.Millisecond) // the goroutines above end
			if first != int(begun.Load()) || first > cut {
				t.Errorf("%d were begun, and %d are reported; the slice is of %d", begun.Load(), first, cut)
			}
			for i := range n {
				if started[i] != (i < first) {
					t.Errorf("not the first %d were begun: %d", first, i)
					break
				}
			}
			if len(errs) != n {
				t.Errorf("%d results of %d", len(errs), n)
				return // Fatalf would panic in another goroutine than rapid's
			}
			bad := false
			for i, err := range errs {
				if started[i] && !errors.Is(err, wrong[i]) || !started[i] && err != nil {
					t.Errorf("%d came to %v", i, err)
				}
				bad = bad || err != nil && !errors.Is(err, taken)
			}
			if !bad && int(begun.Load()) != min(n, cut) {
				t.Errorf("%d of %d are begun though nothing went wrong", begun.Load(), n)
			}
		})
	})
}
