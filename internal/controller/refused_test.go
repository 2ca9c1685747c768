package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// halfAMinute bounds how long the operator takes to detect the end of a refusal on a busy machine.
const halfAMinute = 45 * time.Second

// denies makes the API server refuse the creation of a resource in the farm's namespace unless an expression holds. It
// returns once that is in force.
func (f *farm) denies(ctx context.Context, what, unless, message string, probe client.Object) (lift func()) {
	GinkgoHelper()
	name := f.namespace + "-" + what
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: ptr.To(admissionv1.Fail),
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{corev1.LabelMetadataName: f.namespace},
				},
				ResourceRules: []admissionv1.NamedRuleWithOperations{
					{RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Create},
						Rule: admissionv1.Rule{
							APIGroups:   []string{"*"},
							APIVersions: []string{"*"},
							Resources:   []string{what},
						},
					}},
				},
			},
			Validations: []admissionv1.Validation{{Expression: unless, Message: message}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	lift = func() {
		for _, o := range []client.Object{binding.DeepCopy(), policy.DeepCopy()} {
			Expect(client.IgnoreNotFound(k8s.Delete(context.Background(), o))).To(Succeed())
		}
	}
	DeferCleanup(lift)
	Expect(k8s.Create(ctx, policy)).To(Succeed())
	Expect(k8s.Create(ctx, binding)).To(Succeed())
	f.refuses(ctx, probe)
	return lift
}

// refuses waits until the API server refuses to make an object.
func (f *farm) refuses(ctx context.Context, probe client.Object) {
	GinkgoHelper()
	probe.SetNamespace(f.namespace)
	Eventually(ctx, func() error {
		return k8s.Create(ctx, probe.DeepCopyObject().(client.Object), client.DryRunAll)
	}).ShouldNot(Succeed())
}

func aPod() client.Object {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "probe",
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

// limits bounds a countable resource of the farm's namespace, as the quota controller does once it has counted.
func (f *farm) limits(ctx context.Context, of corev1.ResourceName, hard, used string) *corev1.ResourceQuota {
	GinkgoHelper()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "bound"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{of: resource.MustParse(hard)}},
	}
	Expect(k8s.Create(ctx, quota)).To(Succeed())
	quota.Status.Hard = quota.Spec.Hard
	quota.Status.Used = corev1.ResourceList{of: resource.MustParse(used)}
	Expect(k8s.Status().Update(ctx, quota)).To(Succeed())
	return quota
}

// heard returns all that is reported about an object: conditions, targets and events.
func heard(ctx context.Context, obj *v1alpha1.HyperliquidParser) string {
	GinkgoHelper()
	now := current(ctx, obj)
	var b strings.Builder
	for _, c := range now.Status.Conditions {
		fmt.Fprintf(&b, "condition %s=%s/%s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, t := range now.Status.Targets {
		fmt.Fprintf(&b, "target %s %s/%s: %s\n", t.Target, t.Verdict, t.Reason, t.Message)
	}
	var list corev1.EventList
	Expect(k8s.List(ctx, &list, client.InNamespace(obj.Namespace))).To(Succeed())
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == "HyperliquidParser" {
			fmt.Fprintf(&b, "event %s %s: %s\n", e.Type, e.Reason, e.Message)
		}
	}
	return b.String()
}

var _ = Describe("what the API server refuses", func() {
	It("of ConfigMaps, for a quota, is said, and is over soon after the quota", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		quota := f.limits(ctx, corev1.ResourceConfigMaps, "0", "0")
		f.refuses(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe"}})
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPodRejected, soon)
		Expect(
			conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled),
		).To(ContainSubstring("exceeded quota: bound"))
		Eventually(
			ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonPodRejected) },
		).Should(ConsistOf(ContainSubstring("exceeded quota")))
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		Eventually(ctx, func() int { return len(f.uids(ctx)) }).WithTimeout(halfAMinute).Should(Equal(2))
		allReady(ctx, obj)
	})

	It("because a webhook does not answer is said, is no end, and is over soon after that", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		hook := &admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: f.namespace},
			Webhooks: []admissionv1.ValidatingWebhook{
				{
					Name:                    "policy.example.com",
					AdmissionReviewVersions: []string{"v1"},
					SideEffects:             ptr.To(admissionv1.SideEffectClassNone),
					FailurePolicy:           ptr.To(admissionv1.Fail),
					TimeoutSeconds:          ptr.To[int32](1),
					ClientConfig: admissionv1.WebhookClientConfig{
						URL: ptr.To("https://127.0.0.1:1/validate"),
					},
					NamespaceSelector: &metav1.LabelSelector{
						MatchLabels: map[string]string{corev1.LabelMetadataName: f.namespace},
					},
					Rules: []admissionv1.RuleWithOperations{
						{
							Operations: []admissionv1.OperationType{admissionv1.Create},
							Rule: admissionv1.Rule{
								APIGroups:   []string{""},
								APIVersions: []string{"v1"},
								Resources:   []string{"pods"},
							},
						},
					},
				},
			},
		}
		Expect(k8s.Create(ctx, hook)).To(Succeed())
		DeferCleanup(
			func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, hook.DeepCopy()))).To(Succeed()) },
		)
		f.refuses(ctx, aPod())
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/"+v1alpha1.ReasonWriteFailing, soon)
		Expect(
			conditionMessage(current(ctx, obj), v1alpha1.ConditionReconciling),
		).To(ContainSubstring(`failed calling webhook "policy.example.com"`))
		Eventually(
			ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonWriteFailing) },
		).Should(ConsistOf(ContainSubstring("webhook")))
		By("going on so, without a write")
		version := current(ctx, obj).ResourceVersion
		Consistently(
			ctx, func() string { return current(ctx, obj).ResourceVersion },
		).WithTimeout(10 * time.Second).
			Should(Equal(version))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionStalled)).To(Equal("False/NotStalled"))
		Expect(k8s.Delete(ctx, hook)).To(Succeed())
		Eventually(ctx, func() int { return len(f.uids(ctx)) }).WithTimeout(halfAMinute).Should(Equal(2))
		allReady(ctx, obj)
	})

	It("of the record of restarts keeps no other target from its pod", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		run(runOptions{})
		obj := f.object()
		obj.Spec.Rollout.MaxUnavailable = ptr.To(intstr.FromString("100%"))
		obj.Spec.Growth.Restart.MaxConcurrent = ptr.To(intstr.FromString("100%"))
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		By("filling the namespace's quota of ConfigMaps, and hanging one parser, which has no record yet")
		quota := f.limits(ctx, corev1.ResourceConfigMaps, "1", "1")
		f.refuses(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "probe"}})
		f.parser(0).fault(hangs)
		hung := f.uids(ctx)[f.node(0)]
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonWriteRejected, judged)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(And(
			ContainSubstring("recording restarts in ConfigMap"), ContainSubstring("exceeded quota")))
		By("losing the pod of another node")
		before := f.uids(ctx)[f.node(2)]
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 2))).To(Succeed())
		Eventually(
			ctx, func() string { return f.uids(ctx)[f.node(2)] },
		).WithTimeout(20 * time.Second).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		Expect(f.uids(ctx)[f.node(0)]).To(Equal(hung), "nothing is restarted without a record")
		By("lifting the quota")
		Expect(k8s.Delete(ctx, quota)).To(Succeed())
		Eventually(
			ctx, func() int32 { return current(ctx, obj).Status.Restarts },
		).WithTimeout(halfAMinute + judged).
			Should(Equal(int32(1)))
		Eventually(
			ctx, func() string { return condition(current(ctx, obj), v1alpha1.ConditionStalled) },
		).WithTimeout(judged).
			Should(Equal("False/NotStalled"))
	})

	It("of one pod keeps no other from being made", func(ctx SpecContext) {
		f := newFarm(ctx, 4)
		lift := f.denies(
			ctx,
			"pods",
			"object.metadata.?annotations['fleet.hlparser.dev/target'].orValue('') != '"+f.node(0)+"'",
			"no parser here",
			func() client.Object {
				o := aPod()
				o.SetAnnotations(map[string]string{v1alpha1.AnnotationTarget: f.node(0)})
				return o
			}(),
		)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPodRejected, soon)
		Expect(
			conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled),
		).To(And(ContainSubstring(f.node(0)), ContainSubstring("no parser here")))
		By("losing another meanwhile")
		before := f.uids(ctx)[f.node(3)]
		Expect(k8s.Delete(ctx, f.pod(ctx, obj.Name, 3))).To(Succeed())
		Eventually(
			ctx, func() string { return f.uids(ctx)[f.node(3)] },
		).WithTimeout(10 * time.Second).
			ShouldNot(Or(BeEmpty(), Equal(before)))
		lift()
		Eventually(
			ctx, func() int32 { return current(ctx, obj).Status.Ready },
		).WithTimeout(halfAMinute).
			Should(Equal(int32(4)))
		allReady(ctx, obj)
	})

	DescribeTable("is said however long its words are", func(ctx SpecContext, times int) {
		f := newFarm(ctx, 1)
		f.denies(
			ctx,
			"pods",
			"false",
			"policy violation: "+strings.Repeat("resource Pod was blocked due to the following policies; ", times),
			aPod(),
		)
		run(runOptions{})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPodRejected, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(ContainSubstring("policy violation"))
		Eventually(
			ctx, func() []string { return eventNotes(ctx, obj, v1alpha1.ReasonPodRejected) },
		).Should(ConsistOf(ContainSubstring("policy violation")))
		Expect(logs.text()).NotTo(Or(ContainSubstring("can have at most 1024"), ContainSubstring("Too long")))
	},
		Entry("a kilobyte", 25),
		Entry("forty kilobytes", 700),
	)

	It("with conflicts at each try is said, and asked for less and less often", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		q := &fought{}
		run(runOptions{wrap: q.wrap})
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReconciling, "True/"+v1alpha1.ReasonWriteFailing, soon)
		Expect(
			heard(ctx, obj),
		).To(And(ContainSubstring("condition Reconciling=True/WriteFailing: creating pod"),
			ContainSubstring("resourcequotas")))
		Consistently(ctx, q.tries.Load).WithTimeout(20 * time.Second).Should(BeNumerically("<", 40))
		q.over.Store(true)
		Eventually(ctx, func() int { return len(f.uids(ctx)) }).WithTimeout(halfAMinute).Should(Equal(2))
		allReady(ctx, obj)
	})
})

// fought is a client that gets the errors of a contended quota (kubernetes #67761).
type fought struct {
	client.Client
	tries atomic.Int32
	over  atomic.Bool
}

func (q *fought) wrap(c client.Client) client.Client {
	q.Client = c
	return q
}

func (q *fought) Create(ctx context.Context, obj client.Object, options ...client.CreateOption) error {
	if _, ok := obj.(*corev1.Pod); ok && !q.over.Load() {
		q.tries.Add(1)
		return apierrors.NewConflict(schema.GroupResource{Resource: "resourcequotas"}, "bound",
			errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	return q.Client.Create(ctx, obj, options...)
}

// orphan removes an owner from the objects that it owns, with the patch of the garbage collector, which is the same for
// all kinds.
func orphan(ctx context.Context, owner *v1alpha1.HyperliquidParser) []client.Object {
	GinkgoHelper()
	in := client.InNamespace(owner.Namespace)
	out := make([]client.Object, 0, 16)
	var pods corev1.PodList
	var revisions appsv1.ControllerRevisionList
	var configs corev1.ConfigMapList
	var policies networkingv1.NetworkPolicyList
	for _, list := range []client.ObjectList{&pods, &revisions, &configs, &policies} {
		Expect(k8s.List(ctx, list, in, client.MatchingLabels{v1alpha1.LabelParser: owner.Name})).To(Succeed())
	}
	for i := range pods.Items {
		out = append(out, &pods.Items[i])
	}
	for i := range revisions.Items {
		out = append(out, &revisions.Items[i])
	}
	for i := range configs.Items {
		out = append(out, &configs.Items[i])
	}
	for i := range policies.Items {
		out = append(out, &policies.Items[i])
	}
	for _, o := range out {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid": o.GetUID(), "ownerReferences": []any{map[string]any{"$patch": "delete", "uid": owner.UID}},
		}})
		Expect(err).NotTo(HaveOccurred())
		Expect(
			k8s.Patch(ctx, o, client.RawPatch(types.StrategicMergePatchType, patch)),
		).To(Succeed(), "%T %s", o, o.GetName())
	}
	return out
}

var _ = Describe("kubectl delete --cascade=orphan", func() {
	It("ends, and all that is left is the next object's", func(ctx SpecContext) {
		f := newFarm(ctx, 3)
		first := run(runOptions{})
		obj := f.object()
		obj.Spec.Filter.Coins = []v1alpha1.Coin{"BTC", "xyz:*"}
		obj.Spec.Sink = v1alpha1.Sink{
			NATS: &v1alpha1.NATSSink{URL: "nats://nats:4222", Stream: "HYPERLIQUID", Subject: "hl.{stream}.<é>&"},
		}
		if k8s.Create(ctx, obj.DeepCopy(), client.DryRunAll) != nil {
			obj.Spec.Sink = v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}}
		}
		spec := obj.Spec
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		judgedReady(ctx, obj)
		hung := f.uids(ctx)[f.node(0)]
		f.parser(0).fault(hangs) // for a record of restarts
		Eventually(
			ctx, func() int32 { return current(ctx, obj).Status.Restarts },
		).WithTimeout(judged).
			Should(Equal(int32(1)))
		Eventually(ctx, func() bool {
			p := f.pod(ctx, obj.Name, 0)
			return p != nil && string(p.UID) != hung && ready(p)
		}).WithTimeout(judged).Should(BeTrue())
		allReady(ctx, obj)
		before, revision := f.uids(ctx), current(ctx, obj).Status.UpdateRevision
		first.stop()

		left := orphan(ctx, current(ctx, obj))
		Expect(k8s.Delete(ctx, obj)).To(Succeed())
		f.updateNode(ctx, f.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = true }) // where no pod is made
		again := f.object()
		again.Spec = spec
		Expect(k8s.Create(ctx, again)).To(Succeed())
		run(runOptions{})
		allReady(ctx, again)
		Expect(f.uids(ctx)).To(Equal(before), "no parser stops for it")
		Expect(current(ctx, again).Status.UpdateRevision).To(Equal(revision))
		again = current(ctx, again)
		for _, o := range left {
			Expect(k8s.Get(ctx, client.ObjectKeyFromObject(o), o)).To(Succeed())
			if o.GetLabels()[v1alpha1.LabelComponent] != v1alpha1.ComponentConfig {
				Expect(metav1.IsControlledBy(o, again)).To(BeTrue(), "%T %s", o, o.GetName())
			}
		}
		Expect(current(ctx, again).Status.Ready).To(Equal(int32(3)))
	})

	It(
		"is not waited for where the garbage collector is slow: an object made again under its name goes on",
		func(ctx SpecContext) {
			f := newFarm(ctx, 2)
			run(runOptions{})
			obj := f.object()
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			judgedReady(ctx, obj)
			old := f.uids(ctx)
			By(
				"deleting and making it again, as kubectl replace --force does; the garbage collector has thousands of pods to " +
					"go through",
			)
			Expect(k8s.Delete(ctx, obj)).To(Succeed())
			again := f.object()
			Expect(k8s.Create(ctx, again)).To(Succeed())
			Consistently(
				ctx, func() string { return condition(current(ctx, again), v1alpha1.ConditionStalled) },
			).WithTimeout(5*time.Second).
				ShouldNot(HavePrefix("True"), "for kstatus that is the end")
			allReady(ctx, again)
			Expect(f.uids(ctx)).To(Equal(old))
			By("collecting the garbage at last")
			for i := range 2 {
				Expect(k8s.Delete(ctx, f.pod(ctx, again.Name, i))).To(Succeed())
			}
			Eventually(
				ctx, func() map[string]string { return f.uids(ctx) },
			).Should(And(HaveLen(2), Not(HaveKeyWithValue(f.node(0), old[f.node(0)]))))
			allReady(ctx, again)
			Expect(eventNotes(ctx, again, v1alpha1.ReasonNameTaken)).To(BeEmpty())
		},
	)
})

var _ = Describe("a pod that does not start", func() {
	It(
		"is explained by the newest warning about it, of schedulers and kubelets, and nothing is read at rest",
		func(ctx SpecContext) {
			f := newFarm(ctx, 3)
			clock := &movedClock{}
			var lists atomic.Int32
			run(runOptions{clock: clock, rest: countingEvents(&lists)})
			f.setIdle(1, true)
			f.setIdle(2, true)
			obj := f.object()
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(1)))
			By("finding no room for one, by the scheduler's own API for events")
			unbound, bound := f.pod(ctx, obj.Name, 1), f.pod(ctx, obj.Name, 2)
			now := metav1.NowMicro()
			Expect(k8s.Create(ctx, &eventsv1.Event{
				ObjectMeta:          metav1.ObjectMeta{Namespace: f.namespace, Name: unbound.Name + ".1"},
				EventTime:           now,
				ReportingController: "default-scheduler",
				ReportingInstance:   "default-scheduler-x",
				Action:              "Scheduling",
				Type:                corev1.EventTypeWarning,
				Reason:              "FailedScheduling",
				Regarding: corev1.ObjectReference{
					APIVersion: "v1",
					Kind:       "Pod",
					Namespace:  f.namespace,
					Name:       unbound.Name,
					UID:        unbound.UID,
				},
				Note: "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match Pod's node affinity/selector.",
			})).To(Succeed())
			By("mounting no config for another, which a kubelet says twice, the second time without a cause")
			Expect(
				k8s.SubResource("binding").
					Create(ctx, bound, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: f.node(2)}}),
			).To(Succeed())
			for i, message := range []string{
				`MountVolume.SetUp failed for volume "config" : configmap "mainnet-7f9c2kq4mz" not found`,
				"Unable to attach or mount volumes: unmounted volumes=[config], unattached volumes=[], failed to process " +
					"volumes=[]: context deadline exceeded",
			} {
				Expect(k8s.Create(ctx, &corev1.Event{
					ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: fmt.Sprintf("%s.%d", bound.Name, i)},
					InvolvedObject: corev1.ObjectReference{
						APIVersion: "v1",
						Kind:       "Pod",
						Namespace:  f.namespace,
						Name:       bound.Name,
						UID:        bound.UID,
					},
					LastTimestamp: metav1.NewTime(
						now.Add(time.Duration(i) * time.Minute),
					),
					Source:  corev1.EventSource{Component: "kubelet"},
					Type:    corev1.EventTypeWarning,
					Reason:  "FailedMount",
					Message: message,
				})).To(Succeed())
			}
			Consistently(ctx, lists.Load).Should(BeZero())
			clock.move(time.Minute)
			Eventually(
				ctx, func() []v1alpha1.TargetStatus { return current(ctx, obj).Status.Targets },
			).WithTimeout(judged).
				Should(ConsistOf(
					And(
						HaveField("Target", f.node(1)),
						HaveField("Reason", "FailedScheduling"),
						HaveField("Message", ContainSubstring("FailedScheduling: 0/3 nodes")),
					),
					And(
						HaveField("Target", f.node(2)),
						HaveField("Reason", "FailedMount"),
						HaveField("Message", HaveSuffix(`configmap "mainnet-7f9c2kq4mz" not found`)),
					),
				))
			Consistently(ctx, lists.Load).Should(Equal(int32(2)), "one for each pod, and none again within a minute")
			f.setIdle(1, false)
			f.setIdle(2, false)
			Eventually(ctx, func() int32 { return current(ctx, obj).Status.Ready }).Should(Equal(int32(3)))
			clock.move(time.Hour)
			Consistently(ctx, lists.Load).Should(Equal(int32(2)))
		},
	)
})
