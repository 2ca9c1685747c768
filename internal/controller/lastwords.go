package controller

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// longestWords is how long a restart waits for a parser to say where it stands. One that hangs may never say.
const longestWords = 10 * time.Second

// LastWords remembers which parsers that are about to be restarted were asked where they stand: afterwards that is lost. It
// is safe for concurrent use.
type LastWords struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]map[types.UID]*words
}

// words are a pod's.
type words struct {
	asked time.Time
	heard bool
}

// NewLastWords returns a LastWords that has asked nobody.
func NewLastWords() *LastWords {
	return &LastWords{objects: map[types.NamespacedName]map[types.UID]*words{}}
}

// Forget drops what is remembered of an object that is gone.
func (l *LastWords) Forget(object types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.objects, object)
}

// keep drops what is remembered of pods that are gone.
func (l *LastWords) keep(object types.NamespacedName, pods []corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.objects[object]
	if len(before) == 0 {
		return
	}
	after := map[types.UID]*words{}
	for i := range pods {
		if w := before[pods[i].UID]; w != nil {
			after[pods[i].UID] = w
		}
	}
	l.objects[object] = after
}

// wait reports whether a pod was asked before, and until when its answer is worth waiting for; zero when it is not any more.
func (l *LastWords) wait(object types.NamespacedName, pod types.UID, now time.Time) (asked bool, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.objects[object][pod]
	if w == nil {
		if l.objects[object] == nil {
			l.objects[object] = map[types.UID]*words{}
		}
		l.objects[object][pod] = &words{asked: now}
		return false, now.Add(longestWords)
	}
	if until = w.asked.Add(longestWords); w.heard || !now.Before(until) {
		return true, time.Time{}
	}
	return true, until
}

// heard takes in that a pod has answered, or cannot.
func (l *LastWords) heard(object types.NamespacedName, pod types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.objects[object][pod]; w != nil {
		w.heard = true
	}
}

// lastWords has a parser that is about to be restarted asked where it stands, which is logged, and returns until when the restart waits
// for that; zero when it need not. The answer wakes the object. The restart is recorded, and the leader at that time completes it.
func (r *Reconciler) lastWords(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen, pod *corev1.Pod, a plan.Action) time.Time {
	if pod == nil || pod.Status.PodIP == "" {
		return time.Time{}
	}
	key, uid := client.ObjectKeyFromObject(obj), pod.UID
	asked, until := r.LastWords.wait(key, uid, r.Clock.Now())
	if asked {
		return until
	}
	log, from := loggerFor(ctx, a), r.endpoint(obj, s, a.Target, pod)
	r.Background.ask(key, "stacks of "+string(uid), func(ctx context.Context) {
		defer r.LastWords.heard(key, uid)
		text, err := r.Parsers.Stacks(ctx, key.Namespace, from)
		if err != nil {
			log.Info("its stacks cannot be had", "error", err.Error())
			return
		}
		log.Info("stacks before the restart", "stacks", text)
	})
	return until
}
