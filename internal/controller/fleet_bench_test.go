package controller

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
)

// BenchmarkReconcile measures one reconcile of a fleet without reads of the cache and writes: pods are paired with
// targets, judgements read, and a plan and a status computed.
func BenchmarkReconcile(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			obj, s := scene(n)
			s.update.Object = &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "mainnet-new"}}
			s.current = s.update
			for i := range s.Pods {
				pod := &s.Pods[i]
				pod.UID, pod.Status.Phase, pod.Status.PodIP = "uid", corev1.PodRunning, "10.0.0.1"
				pod.Annotations = map[string]string{v1alpha1.AnnotationTarget: s.Targets[i].Name}
				pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "hlparser", State: corev1.ContainerState{
					Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(noon)},
				}}}
			}
			clock := testingclock.NewFakeClock(noon)
			r := &Reconciler{Clock: clock, Poller: poller.New(poller.Options{Clock: clock}),
				Outages:       NewOutages(func(types.NamespacedName) {}),
				FailedBackoff: flowcontrol.NewBackOff(time.Second, time.Minute)}
			var next plan.Result
			b.ReportAllocs()
			for b.Loop() {
				s.pair(obj.Name)
				s.Views = r.Poller.Track(client.ObjectKeyFromObject(obj), growthSettings(obj, len(s.Targets)),
					r.endpoints(obj, s.Fleet))
				next = r.decide(obj, s.Fleet, &s.revisions)
				obj.Status = s.status(obj, next)
			}
			if len(next.Actions) > 0 || int(obj.Status.Ready) != n {
				b.Errorf("%d actions, %+v", len(next.Actions), obj.Status)
			}
		})
	}
}
