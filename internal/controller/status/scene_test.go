package status

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// scenery is the input of a status, which a test changes.
type scenery struct {
	*observed.Fleet
	Input
}

// scene is an object with that many targets, all of them healthy, of revision "new", and a day old at noon.
func scene(n int) (*v1alpha1.HyperliquidParser, *scenery) {
	obj := &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "mainnet"},
		Spec:       v1alpha1.HyperliquidParserSpec{Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{}}},
	}
	s := &scenery{Fleet: &observed.Fleet{Now: noon, Known: true, Views: map[string]poller.View{}}}
	s.Update = &observed.Revision{Revision: podspec.Revision{Hash: "new"}}
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
	s.Pairs = observed.PairPods(obj.Name, s.Targets, s.Pods)
	return obj, s
}

func nodeName(i int) string { return fmt.Sprintf("node-%04d", i) }

// delivering is the condition Delivering, as "Status/Reason message".
func delivering(status v1alpha1.HyperliquidParserStatus) string {
	c := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDelivering)
	return string(c.Status) + "/" + c.Reason + " " + c.Message
}

// status is the status of the object with that plan.
func (s *scenery) status(obj *v1alpha1.HyperliquidParser, next plan.Result) v1alpha1.HyperliquidParserStatus {
	s.Input.Fleet, s.Plan = s.Fleet, next
	return Of(obj, s.Input)
}

func (s *scenery) judge(i int, v health.Verdict) {
	s.Views[s.Targets[i].Name] = poller.View{
		Judgement: health.Judgement{Verdict: v, Reason: "Fills", Message: "figures", Since: noon},
		Reports:   10, LagKnown: true,
	}
}

func (s *scenery) raise(i int, alerts health.Alerts) {
	view := s.Views[s.Targets[i].Name]
	view.Alerts = alerts
	s.Views[s.Targets[i].Name] = view
}

// fails is of a target whose container does not run.
func (s *scenery) fails(i int, reason string) {
	s.judge(i, health.NotRunning)
	view := s.Views[s.Targets[i].Name]
	view.Judgement.Reason, view.Reports = reason, 0
	s.Views[s.Targets[i].Name] = view
}

func (s *scenery) unready(i int) { s.Pods[i].Status.Conditions[0].Status = corev1.ConditionFalse }

// older is of targets with pods of an older revision.
func (s *scenery) older(targets ...int) {
	for _, i := range targets {
		s.Pods[i].Labels[v1alpha1.LabelRevision] = "old"
	}
}

// without is of a target that has no pod.
func (s *scenery) without(i int) {
	s.Pairs[i].Pod = nil
	delete(s.Views, s.Targets[i].Name)
}
