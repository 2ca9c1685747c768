package fair

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequestsComeAtTheRateAndInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const qps, burst = 10, 5
		l := NewLimiter(qps, burst)
		heavy, light := WithTenant(t.Context(), "heavy"), WithTenant(t.Context(), "light")
		begin := time.Now()
		var mu sync.Mutex
		var went []time.Duration
		var all sync.WaitGroup
		for range 250 {
			all.Go(func() {
				if err := l.Wait(heavy); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				went = append(went, time.Since(begin))
			})
		}
		synctest.Wait()
		// Each of a stranger's requests, one after another, waits for one of those 250.
		for range 4 {
			before := time.Now()
			if err := l.Wait(light); err != nil {
				t.Error(err)
			}
			if waited := time.Since(before); waited > 2*time.Second/qps {
				t.Errorf("a stranger waited %s", waited)
			}
		}
		all.Wait()
		slices.Sort(went)
		if got, want := went[len(went)-1], time.Duration(250+4-burst)*time.Second/qps; got < want-time.Millisecond ||
			got > want+time.Second/qps {
			t.Errorf("all went within %s, want %s", got, want)
		}
		if went[burst-1] != 0 || went[burst] == 0 {
			t.Errorf("%v came at once, want %d", went[:burst+1], burst)
		}
	})
}

func TestARequestThatIsGivenUpTakesNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1, 1)
		if !l.TryAccept() || l.TryAccept() {
			t.Error("want the burst, and no more")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var given sync.WaitGroup
		for range 100 {
			given.Go(func() {
				if err := l.Wait(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		given.Wait()
		begin := time.Now()
		l.Accept()
		if waited := time.Since(begin); waited > 2*time.Second {
			t.Errorf("waited %s behind canceled requests", waited)
		}
		// Without waiters it runs no goroutine: synctest fails if one is left.
	})
}

func TestRetriesAreSpread(t *testing.T) {
	limiter := Retries[int]()
	waits := map[time.Duration]bool{}
	for item := range 20 {
		wait := limiter.When(item)
		if wait < minBackoff || wait > minBackoff*3/2 {
			t.Errorf("the first retry is after %s", wait)
		}
		waits[wait] = true
		for range 60 {
			wait = limiter.When(item)
		}
		if wait < maxBackoff || wait > maxBackoff*3/2 {
			t.Errorf("the last retry is after %s", wait)
		}
	}
	if len(waits) < 2 {
		t.Error("items that failed together are tried together")
	}
}
