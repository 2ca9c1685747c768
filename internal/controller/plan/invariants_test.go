package plan_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// world is a fleet that carries out plans: a model of what the API server and the kubelets do.
type world struct {
	plan.Input
	uids int
	// taken counts, by target, the restarts that were carried out, with their times.
	taken map[string][]time.Time
	// down are the targets whose ready pod we took, and why, until they have a ready one again.
	down map[string]string
	// dies makes the operator end after the record of a restart, before its delete.
	dies bool
}

// carryOut does what a plan says, then checks what must hold after each step.
func (w *world) carryOut(t *rapid.T) {
	before := w.unavailableByUs()
	shuffled := w.Input
	shuffled.Pods, shuffled.Targets = slices.Clone(w.Pods), slices.Clone(w.Targets)
	rand.New(rand.NewSource(1)).Shuffle(len(shuffled.Pods), func(i, j int) {
		shuffled.Pods[i], shuffled.Pods[j] = shuffled.Pods[j], shuffled.Pods[i]
	})
	slices.Reverse(shuffled.Targets)
	result := plan.Next(w.Input)
	if again := plan.Next(shuffled); !reflect.DeepEqual(again, result) {
		t.Fatalf("the order of inputs matters:\n%v\n%v", result, again)
	}
	if !result.NextTime.IsZero() && !result.NextTime.After(w.Now) {
		t.Fatalf("asks to be woken at %s, and it is %s", result.NextTime, w.Now)
	}
	if result.Trials != nil {
		w.Trials = *result.Trials
	}
	if result.Rollout != nil {
		w.Rollout = *result.Rollout
	}
	w.FleetWide = result.FleetWide
	touched := map[string]bool{}
	for _, a := range result.Actions {
		if touched[a.Pod] {
			t.Fatalf("two actions on %s: %v", a.Pod, result.Actions)
		}
		touched[a.Pod] = true
		if !w.do(t, a) {
			w.dies = false
			return
		}
	}
	if result.Complete {
		w.Current, w.Rollout = w.Update, plan.Rollout{}
	}
	for _, name := range result.Forget {
		delete(w.Ledger, name)
	}
	limit := plan.Budget(w.Limits.MaxUnavailable, len(w.Targets))
	if after := w.unavailableByUs(); after > max(before, limit) {
		t.Fatalf("%d targets unavailable by our doing, %d before, %d allowed: %v", after, before, limit, tell(result.Actions))
	}
}

// do carries out one action; false means that the operator ended in the middle of it.
func (w *world) do(t *rapid.T, a plan.Action) bool {
	i := slices.IndexFunc(w.Pods, func(p plan.Pod) bool { return p.Name == a.Pod })
	if a.Kind == plan.Create {
		if i >= 0 {
			t.Fatalf("a second pod %s", a.Pod)
		}
		w.uids++
		w.Pods = append(w.Pods, plan.Pod{Name: a.Pod, UID: fmt.Sprint(w.uids), Target: a.Target, Revision: a.Revision, Created: w.Now})
		return true
	}
	if i < 0 || w.Pods[i].UID != a.UID || w.Pods[i].Terminating {
		t.Fatalf("a delete of a pod that is not there: %+v", a)
	}
	if a.Kind == plan.Restart {
		j := w.Judgements[a.Target]
		if !j.Verdict.Restartable() || j.Fading || w.Limits.AlertOnly || w.Limits.Paused || w.Limits.Hold {
			t.Fatalf("a restart that nobody wants: %+v of %+v", a, j)
		}
		w.Ledger[a.Target] = a.Record
		w.checkTimes(t, a.Target)
		if w.dies {
			return false
		}
	}
	if w.Pods[i].Ready {
		w.down[a.Target] = a.Why
	}
	w.Pods[i].Terminating = true
	return true
}

// checkTimes holds restarts against the cooldown and the hourly cap, from a record of its own.
func (w *world) checkTimes(t *rapid.T, target string) {
	times := w.taken[target]
	if n := len(times); n > 0 && w.Now.Sub(times[n-1]) < w.Limits.Cooldown-time.Second {
		t.Fatalf("%s restarted at %s and %s", target, times[n-1], w.Now)
	}
	times = append(times, w.Now)
	w.taken[target] = times
	if n := w.Limits.MaxPerHour; len(times) > n && w.Now.Sub(times[len(times)-1-n]) < plan.LedgerMemory-time.Second {
		t.Fatalf("%s restarted %d times within an hour: %v", target, n+1, times)
	}
}

// unavailableByUs counts targets on able nodes whose ready parser we took away, and whose new one is not ready yet.
func (w *world) unavailableByUs() int {
	n := 0
	for _, target := range w.Targets {
		i := slices.IndexFunc(w.Pods, func(p plan.Pod) bool { return p.Name == target.Pod })
		if i >= 0 && w.Pods[i].Ready && !w.Pods[i].Terminating {
			delete(w.down, target.Name)
		}
		// A rollout's pod that has not become ready for long is no longer put down to us: it stops the rollout, not the restarts.
		settled := i >= 0 && w.down[target.Name] == plan.WhyOutdated && w.Now.Sub(w.Pods[i].Created) >= plan.Settle
		if target.Able && w.down[target.Name] != "" && !settled {
			n++
		}
	}
	return n
}

func TestWhateverHappensInvariantsHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{Input: fleet(rapid.IntRange(1, 12).Draw(t, "targets")), taken: map[string][]time.Time{}, down: map[string]string{}}
		w.Limits.MaxUnavailable = intstr.FromInt32(int32(rapid.IntRange(1, 4).Draw(t, "maxUnavailable")))
		w.Limits.MaxConcurrent = intstr.FromInt32(int32(rapid.IntRange(1, 4).Draw(t, "maxConcurrent")))
		verdict := rapid.SampledFrom(growth.Verdicts())
		pod := func(t *rapid.T) *plan.Pod {
			if len(w.Pods) == 0 {
				t.Skip("no pods")
			}
			return &w.Pods[rapid.IntRange(0, len(w.Pods)-1).Draw(t, "pod")]
		}
		target := func(t *rapid.T) *plan.Target {
			return &w.Targets[rapid.IntRange(0, len(w.Targets)-1).Draw(t, "target")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) { w.Now = w.Now.Add(time.Duration(rapid.IntRange(1, 1800).Draw(t, "s")) * time.Second) },
			"a kubelet ends a pod": func(t *rapid.T) {
				w.Pods = slices.DeleteFunc(w.Pods, func(p plan.Pod) bool { return p.Terminating })
			},
			"pods become ready": func(*rapid.T) {
				for i := range w.Pods {
					w.Pods[i].Ready = !w.Pods[i].Failed
				}
			},
			"a pod becomes unready": func(t *rapid.T) { pod(t).Ready = false },
			"a pod fails":           func(t *rapid.T) { p := pod(t); p.Ready, p.Failed = false, true },
			"a pod is killed":       func(t *rapid.T) { p := pod(t); p.Terminating, p.Ready = true, false },
			"a verdict changes": func(t *rapid.T) {
				w.Judgements[target(t).Name] = growth.Judgement{Verdict: verdict.Draw(t, "verdict"), Since: w.Now, Fading: rapid.Bool().Draw(t, "fading")}
			},
			"a node changes": func(t *rapid.T) {
				n := target(t)
				n.NodeReady = rapid.Bool().Draw(t, "ready")
				n.Able = n.NodeReady && rapid.Bool().Draw(t, "able")
			},
			"the spec changes": func(t *rapid.T) {
				w.Rollout = plan.Rollout{}
				w.Update = rapid.SampledFrom([]string{"new", "newer", "newest"}).Draw(t, "revision")
			},
			"it is paused":       func(t *rapid.T) { w.Limits.Paused = rapid.Bool().Draw(t, "paused") },
			"it is about to end": func(*rapid.T) { w.dies = true },
			"only alerts":        func(t *rapid.T) { w.Limits.AlertOnly = rapid.Bool().Draw(t, "alert") },
			"":                   func(t *rapid.T) { w.carryOut(t) },
		})
	})
}

func TestAFleetAlwaysComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "targets")
		w := &world{Input: fleet(n), taken: map[string][]time.Time{}, down: map[string]string{}}
		w.Update = rapid.SampledFrom([]string{"new", "newer"}).Draw(t, "revision")
		ill := rapid.IntRange(0, n-1).Draw(t, "ill")
		for i := range w.Pods {
			w.Pods[i].Ready = rapid.Bool().Draw(t, "ready")
			w.Pods[i].Failed = !w.Pods[i].Ready && rapid.Bool().Draw(t, "failed")
			if i == ill { // were there more it might be the whole fleet's fault
				w.Judgements[w.Pods[i].Target] = growth.Judgement{Verdict: rapid.SampledFrom([]growth.Verdict{growth.Healthy, growth.Stuck, growth.Growing}).Draw(t, "v"), Since: w.Now}
			}
		}
		for range 4*n + 4 {
			w.carryOut(t)
			// Kubelets do their work, and a new parser is a healthy one.
			w.Pods = slices.DeleteFunc(w.Pods, func(p plan.Pod) bool { return p.Terminating })
			for i := range w.Pods {
				if w.Pods[i].Created.Equal(w.Now) {
					w.Pods[i].Ready = true
					w.Judgements[w.Pods[i].Target] = growth.Judgement{Verdict: growth.Healthy, Since: w.Now}
				}
			}
			w.Now = w.Now.Add(time.Second)
		}
		if left := plan.Next(w.Input).Actions; len(left) > 0 {
			t.Fatalf("still to do: %v", tell(left))
		}
		for _, p := range w.Pods {
			if p.Revision != w.Update || w.Judgements[p.Target].Verdict != growth.Healthy {
				t.Fatalf("left as it was: %+v, %+v", p, w.Judgements[p.Target])
			}
		}
	})
}
