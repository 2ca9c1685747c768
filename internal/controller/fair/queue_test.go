package fair

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/util/workqueue"
	"pgregory.net/rapid"
)

// tenantOfItem returns the part before the slash.
func tenantOfItem(item string) string {
	tenant, _, _ := strings.Cut(item, "/")
	return tenant
}

// take gets an item without waiting.
func take(t *testing.T, q *Queue[string], want string) {
	t.Helper()
	if got, shutdown := q.Get(); got != want || shutdown {
		t.Errorf("got %q, shut down %v, want %q", got, shutdown, want)
	}
}

func TestTenantsHaveTheirTurns(t *testing.T) {
	q := NewQueue(8, tenantOfItem)
	for i := range 3 {
		q.Add(fmt.Sprintf("heavy/%d", i))
	}
	q.Add("light/0")
	q.Add("other/0")
	for _, want := range []string{"heavy/0", "light/0", "other/0", "heavy/1", "heavy/2"} {
		take(t, q, want)
	}
}

func TestOneTenantNeverHoldsAllWorkers(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		synctest.Test(t, func(t *testing.T) {
			q := NewQueue(workers, tenantOfItem)
			for i := range 2 * workers {
				q.Add(fmt.Sprintf("heavy/%d", i))
			}
			got := make(chan string, workers)
			for range workers {
				go func() {
					if item, shutdown := q.Get(); !shutdown {
						got <- item
					}
				}()
			}
			synctest.Wait()
			most := max(workers-1, 1)
			if len(got) != most {
				t.Errorf("of %d workers %d serve one tenant, want %d", workers, len(got), most)
			}
			q.Add("light/0")
			synctest.Wait()
			if want := min(most+1, workers); len(got) != want {
				t.Errorf("of %d workers %d are busy once another tenant has an item, want %d", workers, len(got), want)
			}
			// A worker that calls Done makes room for the tenant's next item.
			q.Done("heavy/0")
			if workers > 1 && q.Wanted("heavy") {
				// All workers of this test have got what they came for: one more comes.
				take(t, q, fmt.Sprintf("heavy/%d", most))
			}
			q.ShutDown()
		})
	}
}

func TestAnItemThatMayRunWakesAWorkerThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(2, tenantOfItem)
		q.Add("a/0")
		q.Add("a/1")
		take(t, q, "a/0")
		got := make(chan string)
		go func() {
			item, _ := q.Get()
			got <- item
		}()
		synctest.Wait() // it waits, though an item is there
		q.Done("a/0")
		if item := <-got; item != "a/1" {
			t.Errorf("got %q", item)
		}
	})
}

func TestABusyWorkerIsWantedByThoseThatItHoldsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(2, tenantOfItem)
		q.Add("a/0")
		take(t, q, "a/0")
		if q.Wanted("a") {
			t.Error("wanted without a waiter")
		}
		go func() { _, _ = q.Get() }()
		synctest.Wait()
		q.Add("a/1") // the tenant holds as many workers as it may, and the other one is free
		synctest.Wait()
		if !q.Wanted("a") || q.Wanted("b") {
			t.Errorf("wanted: of a %v, of b %v, want a's alone", q.Wanted("a"), q.Wanted("b"))
		}
		q.Add("b/0") // goes to the free worker
		synctest.Wait()
		q.Add("c/0") // finds none
		if !q.Wanted("a") || !q.Wanted("b") {
			t.Error("an item finds no free worker, and none is wanted")
		}
		q.ShutDown()
	})
}

// TestItIsAWorkqueue compares the queue with client-go's in the behaviour that users rely on.
func TestItIsAWorkqueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ours, theirs := NewQueue(100, tenantOfItem), workqueue.NewTyped[string]()
		held := map[string]bool{}
		items := []string{"a/0", "a/1", "b/0", "c/0"}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			item := rapid.SampledFrom(items).Draw(t, "item")
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				ours.Add(item)
				theirs.Add(item)
			case 1:
				if theirs.Len() == 0 {
					continue
				}
				// They differ in order, so both give all that they have.
				got, want := map[string]bool{}, map[string]bool{}
				for range theirs.Len() {
					one, _ := ours.Get()
					other, _ := theirs.Get()
					got[one], want[other] = true, true
					held[other] = true
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("got %v, want %v", got, want)
				}
			case 2:
				if held[item] {
					delete(held, item)
					ours.Done(item)
					theirs.Done(item)
				}
			}
			if ours.Len() != theirs.Len() {
				t.Fatalf("%d items wait, want %d", ours.Len(), theirs.Len())
			}
		}
	})
}

func TestClientGosQueuesGoAroundIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := NewQueue(2, tenantOfItem)
		q := workqueue.NewTypedRateLimitingQueueWithConfig(Retries[string](), workqueue.TypedRateLimitingQueueConfig[string]{
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[string]{Queue: inner}),
		})
		begin := time.Now()
		q.AddAfter("a/0", time.Second)
		q.AddAfter("a/0", time.Minute)
		if item, _ := q.Get(); item != "a/0" || time.Since(begin) != time.Second {
			t.Errorf("got %q after %s", item, time.Since(begin))
		}
		last := time.Duration(0)
		for range 5 {
			q.Done("a/0")
			begin = time.Now()
			q.AddRateLimited("a/0")
			if item, _ := q.Get(); item != "a/0" || time.Since(begin) <= last {
				t.Errorf("got %q after %s, and after %s before", item, time.Since(begin), last)
			}
			last = time.Since(begin)
		}
		q.Forget("a/0")
		if n := q.NumRequeues("a/0"); n != 0 {
			t.Errorf("%d failures of what was forgotten", n)
		}
		q.ShutDown()
		if _, shutdown := q.Get(); !shutdown {
			t.Error("it goes on")
		}
	})
}

func TestAQueueThatEndsLetsGoOfItsWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(2, tenantOfItem)
		q.Add("a/0")
		q.Add("a/1")
		take(t, q, "a/0")
		waited := make(chan bool)
		go func() {
			_, shutdown := q.Get() // the tenant has its one worker
			waited <- shutdown
		}()
		synctest.Wait()
		q.ShutDown()
		if !<-waited {
			t.Error("a worker that waited got an item")
		}
		if _, shutdown := q.Get(); !shutdown || !q.ShuttingDown() {
			t.Error("a worker that comes gets an item")
		}
		q.Add("b/0")
		if q.Len() != 1 { // what was left undone
			t.Errorf("%d items wait", q.Len())
		}
	})
}

func TestAQueueThatDrainsGivesOutWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(2, tenantOfItem)
		for _, item := range []string{"a/0", "a/1", "b/0"} {
			q.Add(item)
		}
		done := make(chan int)
		for range 2 {
			go func() {
				n := 0
				for {
					item, shutdown := q.Get()
					if shutdown {
						done <- n
						return
					}
					n++
					time.Sleep(time.Second)
					q.Done(item)
				}
			}()
		}
		q.ShutDownWithDrain()
		if n := <-done + <-done; n != 3 {
			t.Errorf("%d items were processed, want 3", n)
		}
	})
}
