package controller

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// longestWords bounds how long a restart waits for the stacks of a parser. A parser that hangs may never answer.
const longestWords = 10 * time.Second

// LastWords remembers which parsers were asked for their stacks before a restart, which loses them. It is safe for
// concurrent use.
type LastWords struct {
	mu      sync.Mutex
	objects map[types.NamespacedName]map[types.UID]*words
}

// words is the request to one pod.
type words struct {
	asked    time.Time
	answered bool
}

// NewLastWords returns an empty LastWords.
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

// wait reports whether a pod was asked before, and until when to wait for its answer; zero for no longer. It records
// the request otherwise.
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
	if until = w.asked.Add(longestWords); w.answered || !now.Before(until) {
		return true, time.Time{}
	}
	return true, until
}

// answered records that a pod has answered, or cannot.
func (l *LastWords) answered(object types.NamespacedName, pod types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.objects[object][pod]; w != nil {
		w.answered = true
	}
}

// lastWords asks a parser that is about to be restarted for its stacks, in the background, and logs them. It returns
// until when the restart waits for them; zero if it does not. The answer requeues the object. The restart is recorded,
// so that any leader completes it.
func (r *Reconciler) lastWords(
	ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet, pod *corev1.Pod, a plan.Action,
) time.Time {
	if pod == nil || pod.Status.PodIP == "" {
		return time.Time{}
	}
	key, uid := client.ObjectKeyFromObject(obj), pod.UID
	asked, until := r.LastWords.wait(key, uid, r.Clock.Now())
	if asked {
		return until
	}
	log, from := loggerFor(ctx, a), r.endpoint(obj, f, a.Target, pod)
	r.Background.run(key, "stacks of "+string(uid), func(ctx context.Context) {
		defer r.LastWords.answered(key, uid)
		text, err := r.Parsers.Stacks(ctx, key.Namespace, from)
		if err != nil {
			log.Info("reading its stacks failed", "error", err.Error())
			return
		}
		log.Info("stacks before the restart", "stacks", text)
	})
	return until
}
