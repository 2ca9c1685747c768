package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// asking runs a test in a synctest bubble with a started Background.
func asking(t *testing.T, test func(t *testing.T, b *Background, woken func() string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &wakes{}
		b := NewBackground(func(name types.NamespacedName, _ time.Duration) { w.wake(name) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- b.Start(ctx) }()
		synctest.Wait()
		test(t, b, w.take)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAQuestionIsAskedOnceAndItsAnswerWakesTheObject(t *testing.T) {
	asking(t, func(t *testing.T, b *Background, woken func() string) {
		var asked atomic.Int32
		question := func(context.Context) {
			asked.Add(1)
			time.Sleep(time.Second)
		}
		for range 3 {
			b.run(anObject, "claims", question)
		}
		synctest.Wait()
		b.run(anObject, "claims", question) // it is running
		if got := woken(); got != "" {
			t.Errorf("woken before the answer: %s", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := woken(); got != "ns/a×1" || asked.Load() != 1 {
			t.Errorf("asked %d times, woken %q", asked.Load(), got)
		}
		b.run(anObject, "claims", question)
		time.Sleep(2 * time.Second)
		if asked.Load() != 2 {
			t.Error("not asked again after the answer")
		}
	})
}

func TestATaskThatHangsDelaysNoOther(t *testing.T) {
	asking(t, func(t *testing.T, b *Background, woken func() string) {
		var ended atomic.Int32
		for i := range 100 {
			b.run(types.NamespacedName{Namespace: "heavy", Name: fmt.Sprint(i)}, "events", func(ctx context.Context) {
				<-ctx.Done()
				ended.Add(1)
			})
		}
		synctest.Wait()
		began := time.Now()
		b.run(anObject, "claims", func(context.Context) {})
		synctest.Wait()
		if got := woken(); got != "ns/a×1" || time.Since(began) != 0 {
			t.Errorf("after %s: woken %q", time.Since(began), got)
		}
		time.Sleep(taskTimeout)
		synctest.Wait()
		if ended.Load() != backgroundWorkers-1 {
			t.Errorf("%d questions have ended", ended.Load())
		}
	})
}

// claimReader is an API server with claims.
type claimReader struct {
	client.Reader
	modes map[string]corev1.PersistentVolumeAccessMode
	fails error
	asked atomic.Int32
}

func (c *claimReader) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	c.asked.Add(1)
	if c.fails != nil {
		return c.fails
	}
	obj.(*corev1.PersistentVolumeClaim).Spec.AccessModes = []corev1.PersistentVolumeAccessMode{c.modes[key.Name]}
	return nil
}

func TestClaimsAreAskedForInTheBackground(t *testing.T) {
	asking(t, func(t *testing.T, b *Background, woken func() string) {
		server := &claimReader{modes: map[string]corev1.PersistentVolumeAccessMode{"claim-7": corev1.ReadWriteOncePod}}
		r := &Reconciler{APIReader: server, Claims: NewClaims(), Background: b, Clock: clock.RealClock{}}
		obj := sharing("a", "", "node")
		const pods = 250
		look := func() (unseen, alone int, f *observed.Fleet, tried *attempts) {
			f, tried = &observed.Fleet{Now: time.Now()}, &attempts{}
			for i := range pods {
				f.Targets = append(f.Targets, target.Target{Name: fmt.Sprintf("hl-%03d", i), UID: fmt.Sprint(i), Node: "n",
					Claim: fmt.Sprintf("claim-%d", i)})
			}
			f.Pairs = observed.PairPods(obj.Name, f.Targets, f.Pods)
			f.Pairs[0].Pod = &corev1.Pod{} // which runs: its claim is no question any more
			began := time.Now()
			r.checkClaims(obj, f, tried)
			if time.Since(began) != 0 {
				t.Errorf("it waits %s", time.Since(began))
			}
			for _, is := range f.Targets {
				switch is.Waits {
				case target.ClaimUnseen:
					unseen++
				case target.NotShareable:
					alone++
				}
			}
			synctest.Wait()
			return unseen, alone, f, tried
		}
		for i, want := range []int{249, 149, 49, 0} {
			unseen, alone, _, _ := look()
			if unseen != want {
				t.Errorf("look %d: %d claims are unknown, want %d", i, unseen, want)
			}
			if want == 0 && alone != 1 {
				t.Errorf("%d claims cannot be shared", alone)
			}
			if got := woken(); (got == "ns/a×1") != (want > 0) {
				t.Errorf("look %d: woken %q", i, got)
			}
		}
		if n := server.asked.Load(); n != pods-1 {
			t.Errorf("%d requests for %d claims", n, pods-1)
		}

		r.Claims.Forget(anObject)
		server.fails = errors.New("no answer")
		look()
		_, _, f, tried := look()
		if wait := f.RecheckAt.Sub(f.Now); server.asked.Load() != pods || wait < claimsBackoff || wait > claimsBackoff*3/2 {
			t.Errorf("after an error: %d requests, and again after %s", server.asked.Load()-pods+1, wait)
		}
		if _, failing := r.reportFailures(obj, tried); failing != nil {
			t.Errorf("at once is said: %+v", failing)
		}
		time.Sleep(reportAfter)
		_, _, _, tried = look()
		if _, failing := r.reportFailures(obj, tried); failing == nil || !strings.HasSuffix(failing.Message, ": no answer") {
			t.Errorf("said is %+v", failing)
		}
		server.fails = nil
		time.Sleep(2 * claimsBackoff)
		if look(); server.asked.Load() != pods+claimsPerRead {
			t.Errorf("%d requests once it answers again", server.asked.Load()-pods)
		}
		if _, _, _, tried = look(); len(tried.unread) > 0 {
			t.Errorf("said is %+v", tried.unread)
		}
	})
}

func TestARestartWaitsForLastWordsAndNotForEver(t *testing.T) {
	l := NewLastWords()
	pods := []corev1.Pod{{}, {}}
	pods[0].UID, pods[1].UID = "hangs", "speaks"
	for _, uid := range []types.UID{"hangs", "speaks"} {
		if asked, until := l.wait(anObject, uid, noon); asked || !until.Equal(noon.Add(longestWords)) {
			t.Errorf("%s: asked %v, wait until %s", uid, asked, until)
		}
	}
	l.answered(anObject, "speaks")
	l.answered(anObject, "unheard of")
	l.keep(anObject, pods)
	for _, test := range []struct {
		uid   types.UID
		after time.Duration
		waits bool
	}{
		{"speaks", 0, false}, {"hangs", time.Second, true}, {"hangs", longestWords - 1, true}, {"hangs", longestWords, false},
	} {
		asked, until := l.wait(anObject, test.uid, noon.Add(test.after))
		if !asked || until.IsZero() == test.waits {
			t.Errorf("%s after %s: asked %v, until %s", test.uid, test.after, asked, until)
		}
	}
	l.keep(anObject, pods[1:])
	if asked, _ := l.wait(anObject, "hangs", noon); asked {
		t.Error("a pod that is gone is remembered")
	}
	l.Forget(anObject)
	if len(l.objects) != 0 {
		t.Error("an object that is gone is remembered")
	}
}

func TestASliceGoesOnWhereTheLastOneEnded(t *testing.T) {
	c := NewCursors()
	actions := []plan.Action{{Target: "a"}, {Target: "b"}, {Target: "c"}, {Target: "d"}}
	text := func(turn []plan.Action) string {
		out := ""
		for _, a := range turn {
			out += a.Target
		}
		return out
	}
	turn, retry := c.order(anObject, actions)
	if text(turn) != "abcd" || retry != 0 {
		t.Errorf("first %s, %s", text(turn), retry)
	}
	c.stop(anObject, "b", time.Second)
	if turn, retry = c.order(anObject, actions); text(turn) != "cd" || retry != time.Second {
		t.Errorf("then %s, %s", text(turn), retry)
	}
	if turn, retry = c.order(anObject, actions[:2]); text(turn) != "ab" || retry != 0 {
		t.Errorf("when nothing is left beyond: %s, %s", text(turn), retry)
	}
	if turn, _ = c.order(types.NamespacedName{Name: "other"}, actions); text(turn) != "abcd" {
		t.Errorf("of another object: %s", text(turn))
	}
	c.Forget(anObject)
	if turn, _ = c.order(anObject, actions); text(turn) != "abcd" {
		t.Errorf("in the end %s", text(turn))
	}
}

func TestASliceEndsForThoseThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wanted := map[string]bool{}
		r := &Reconciler{Clock: clock.RealClock{}, Wanted: func(namespace string) bool { return wanted[namespace] }}
		for _, test := range []struct {
			after  time.Duration
			wanted bool
			over   bool
		}{
			{0, true, false}, {minSlice - 1, true, false}, {minSlice, false, false}, {minSlice, true, true},
			{maxSlice - 1, false, false}, {maxSlice, false, true},
		} {
			over := r.slice("ns")
			wanted["ns"] = test.wanted
			time.Sleep(test.after)
			if got := over(); got != test.over {
				t.Errorf("after %s, wanted %v: over %v", test.after, test.wanted, got)
			}
		}
	})
}

func TestAnObjectThatWaitsForItsClaimsIsBeingCreated(t *testing.T) {
	obj, s := scene(0)
	s.Targets = []target.Target{{Name: "hl-0", Node: "n", Waits: target.ClaimUnseen}}
	s.pair(obj.Name)
	c := meta.FindStatusCondition(s.status(obj, plan.Result{}).Conditions, v1alpha1.ConditionReconciling)
	if c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonCreatingPods {
		t.Errorf("Reconciling is %s: %s", c.Status, c.Reason)
	}
}
