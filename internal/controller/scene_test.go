package controller

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// observation is an observed fleet that a test changes, with what a reconcile concludes about it.
type observation struct {
	*observed.Fleet
	revisions
	problem *problem
}

// scene is an object with that many targets, all of them healthy, of revision "new", and a day old at noon.
func scene(n int) (*v1alpha1.HyperliquidParser, *observation) {
	obj := &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet"},
		Spec:       v1alpha1.HyperliquidParserSpec{Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{}}},
	}
	s := &observation{Fleet: &observed.Fleet{Now: noon, Known: true, Views: map[string]poller.View{}}}
	s.update = &observed.Revision{Revision: podspec.Revision{Hash: "new"}}
	for i := range n {
		name := nodeName(i)
		t := target.Target{Name: name, Node: name}
		s.Targets = append(s.Targets, t)
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: podspec.PodName("mainnet", t), CreationTimestamp: metav1.NewTime(noon.Add(-24 * time.Hour)),
			Labels: map[string]string{v1alpha1.LabelRevision: "new"},
		}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		s.Pods = append(s.Pods, pod)
		s.judge(i, health.Healthy)
	}
	s.pair(obj.Name)
	return obj, s
}

func (s *observation) pair(object string) { s.Pairs = observed.PairPods(object, s.Targets, s.Pods) }

func (s *observation) judge(i int, v health.Verdict) {
	s.Views[s.Targets[i].Name] = poller.View{
		Judgement: health.Judgement{Verdict: v, Reason: "Fills", Message: "figures", Since: noon},
		Reports:   10, LagKnown: true,
	}
}

func (s *observation) raise(i int, alerts health.Alerts) {
	view := s.Views[s.Targets[i].Name]
	view.Alerts = alerts
	s.Views[s.Targets[i].Name] = view
}

// status is the status that a reconcile writes.
func (s *observation) status(obj *v1alpha1.HyperliquidParser, next plan.Result) v1alpha1.HyperliquidParserStatus {
	return status.Of(obj, status.Input{
		Fleet: s.Fleet, Update: s.update, Current: s.current, Plan: next, Limits: limits(obj, s.Fleet, &s.revisions),
		Outcome: status.Outcome{Problem: s.problem, Ledger: s.Ledger},
	})
}
