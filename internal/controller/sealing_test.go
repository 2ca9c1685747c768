package controller_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// ring reads the Secret of the operator's keys.
func ring(ctx context.Context) (keys.Ring, string) {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(k8s.Get(ctx, keySecret, secret)).To(Succeed())
	Expect(secret.Data).To(HaveLen(1))
	r, err := keys.Decode(string(secret.Data["keys"]))
	Expect(err).NotTo(HaveOccurred())
	return r, secret.ResourceVersion
}

// publishedKeys returns the keys in an object's ConfigMap, or nil if there is none.
func publishedKeys(ctx context.Context, obj *v1alpha1.HyperliquidParser) []seal.PublicKey {
	m := &corev1.ConfigMap{}
	if err := k8s.Get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: podspec.OperatorKeysName(obj.Name)},
		m); err != nil {
		return nil
	}
	public, _, err := seal.ParseOperators([]byte(m.Data[podspec.OperatorsFile]))
	if err != nil {
		return nil
	}
	return public
}

// statusWithoutKey polls a parser without a key.
func statusWithoutKey(p *parser) int {
	GinkgoHelper()
	answer, err := http.Get("http://" + p.ip + ":" + strconv.Itoa(reportPort) + "/status")
	Expect(err).NotTo(HaveOccurred())
	Expect(answer.Body.Close()).To(Succeed())
	return answer.StatusCode
}

var _ = Describe("sealed reports", func() {
	It("are asked for with keys of one Secret, which parsers know from a ConfigMap", func(ctx SpecContext) {
		f := newFarm(ctx, 2)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		manager := run(runOptions{})
		allReady(ctx, obj)
		Eventually(f.parser(0).timesAsked).WithTimeout(judged).Should(BeNumerically(">", 3))
		Expect(statusWithoutKey(f.parser(0))).To(Equal(http.StatusUnauthorized))
		Expect(condition(current(ctx, obj), v1alpha1.ConditionStalled)).To(HavePrefix("False"))

		By("publishing the public keys alone, in a ConfigMap that goes with the object")
		own, _ := ring(ctx)
		Expect(own).To(HaveLen(1))
		m := &corev1.ConfigMap{}
		key := client.ObjectKey{Namespace: obj.Namespace, Name: podspec.OperatorKeysName(obj.Name)}
		Expect(k8s.Get(ctx, key, m)).To(Succeed())
		Expect(m.Data).To(HaveLen(1))
		Expect(m.Data[podspec.OperatorsFile]).NotTo(ContainSubstring(own[0].Private()))
		Expect(publishedKeys(ctx, obj)).To(Equal([]seal.PublicKey{own[0].Public()}))
		Expect(metav1.IsControlledBy(m, current(ctx, obj))).To(BeTrue())

		By("putting right what somebody changes, removes or takes the labels of")
		for _, spoil := range []func(m *corev1.ConfigMap) error{
			func(m *corev1.ConfigMap) error { return k8s.Delete(ctx, m) },
			func(m *corev1.ConfigMap) error { m.Data[podspec.OperatorsFile] = "nonsense"; return k8s.Update(ctx, m) },
			func(m *corev1.ConfigMap) error { m.Data["other"] = "x"; return k8s.Update(ctx, m) },
			func(m *corev1.ConfigMap) error { m.Labels = nil; return k8s.Update(ctx, m) },
		} {
			Eventually(ctx, func() error { // the operator may be writing it
				now := &corev1.ConfigMap{}
				if err := k8s.Get(ctx, key, now); err != nil {
					return err
				}
				return spoil(now)
			}).Should(Succeed())
			Eventually(ctx, func(g Gomega) {
				m = &corev1.ConfigMap{}
				g.Expect(k8s.Get(ctx, key, m)).To(Succeed())
				g.Expect(m.Labels).To(HaveKeyWithValue(v1alpha1.LabelComponent, v1alpha1.ComponentKeys))
				g.Expect(m.Data).To(HaveLen(1))
				g.Expect(publishedKeys(ctx, obj)).To(Equal([]seal.PublicKey{own[0].Public()}))
			}).Should(Succeed())
		}

		By("saying why, where a pod's status has no key, and not asking in plain")
		pod := f.pod(ctx, obj.Name, 1)
		kept := pod.Status.InitContainerStatuses
		pod.Status.InitContainerStatuses = nil
		Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
		Eventually(ctx, func(g Gomega) {
			targets := current(ctx, obj).Status.Targets
			g.Expect(targets).To(HaveLen(1))
			g.Expect(targets[0].Verdict).To(Equal(string(health.Unreachable)))
			g.Expect(targets[0].Message).To(ContainSubstring("no public key of its parser"))
		}).WithTimeout(judged).Should(Succeed())
		pod = f.pod(ctx, obj.Name, 1)
		pod.Status.InitContainerStatuses = kept
		Expect(k8s.Status().Update(ctx, pod)).To(Succeed())
		asked := f.parser(1).timesAsked()
		Eventually(f.parser(1).timesAsked).WithTimeout(judged).Should(BeNumerically(">", asked+3))

		By("adding a key when the first is old, and asking with the first while the second is new")
		manager.stop()
		c := &movedClock{}
		c.move(keys.Period + time.Hour)
		manager = run(runOptions{clock: c})
		Eventually(ctx, func() []seal.PublicKey { return publishedKeys(ctx, obj) }).Should(HaveLen(2))
		rotated, _ := ring(ctx)
		Expect(rotated).To(HaveLen(2))
		Expect(rotated[0].Public()).To(Equal(own[0].Public()))
		for i := range 2 {
			asked := f.parser(i).timesAsked()
			Eventually(f.parser(i).timesAsked).WithTimeout(judged).Should(BeNumerically(">", asked+3))
		}

		By("using the second when it has settled, and taking the first back after a week")
		manager.stop()
		c.move(keys.Overlap + time.Hour)
		manager = run(runOptions{clock: c})
		for i := range 2 {
			asked := f.parser(i).timesAsked()
			Eventually(f.parser(i).timesAsked).WithTimeout(judged).Should(BeNumerically(">", asked+3))
		}
		_, version := ring(ctx)
		manager.stop()
		By("writing nothing more")
		manager = run(runOptions{clock: c})
		Eventually(manager.elected).WithTimeout(soon).Should(BeClosed())
		Consistently(ctx, func() string { _, v := ring(ctx); return v }).Should(Equal(version))
	})

	It("cannot be had without a Secret that can be read: it is said, nothing is replaced, and "+
		"parsers deliver", func(ctx SpecContext) {
		secret := &corev1.Secret{}
		err := k8s.Get(ctx, keySecret, secret)
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		if err == nil {
			Expect(k8s.Delete(ctx, secret)).To(Succeed())
		}
		spoilt := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: keySecret.Namespace, Name: keySecret.Name},
			Data:       map[string][]byte{"keys": []byte("nonsense")},
		}
		Expect(k8s.Create(ctx, spoilt)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(client.IgnoreNotFound(k8s.Delete(ctx, spoilt))).To(Succeed()) })
		f := newFarm(ctx, 1)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		run(runOptions{})
		allReady(ctx, obj)
		Eventually(ctx, func(g Gomega) {
			targets := current(ctx, obj).Status.Targets
			g.Expect(targets).To(HaveLen(1))
			g.Expect(targets[0].Message).To(ContainSubstring("the operator has no key to request reports with"))
		}).WithTimeout(judged).Should(Succeed())
		Expect(logs.text()).To(ContainSubstring("the operator's keys are not available"))
		Expect(logs.text()).NotTo(ContainSubstring("nonsense"))
		now := &corev1.Secret{}
		Expect(k8s.Get(ctx, keySecret, now)).To(Succeed())
		Expect(string(now.Data["keys"])).To(Equal("nonsense"))

		By("making new keys once it is deleted")
		Expect(k8s.Delete(ctx, spoilt)).To(Succeed())
		Eventually(f.parser(0).timesAsked).WithTimeout(2 * time.Minute).Should(BeNumerically(">", 3))
	})
})

var _ = Describe("a network policy", func() {
	policyOf := func(ctx context.Context, obj *v1alpha1.HyperliquidParser) *networkingv1.NetworkPolicy {
		policy := &networkingv1.NetworkPolicy{}
		if err := k8s.Get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: podspec.NetworkPolicyName(obj.Name)},
			policy); err != nil {
			return nil
		}
		return policy
	}

	It("is kept for each object as the flags ask, and goes when they ask for none", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		manager := run(runOptions{})
		allReady(ctx, obj)
		policy := policyOf(ctx, obj)
		Expect(policy).NotTo(BeNil())
		Expect(metav1.IsControlledBy(policy, current(ctx, obj))).To(BeTrue())
		wanted := policy.Spec.DeepCopy()
		Expect(wanted.Ingress).To(HaveLen(1))
		Expect(wanted.Ingress[0].From).To(HaveLen(2))
		for k, v := range wanted.PodSelector.MatchLabels {
			Expect(f.pod(ctx, obj.Name, 0).Labels).To(HaveKeyWithValue(k, v))
		}

		By("putting right what somebody changes, removes or takes the labels of")
		for _, spoil := range []func(){
			func() {
				policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
				Expect(k8s.Update(ctx, policy)).To(Succeed())
			},
			func() { policy.Spec.PodSelector.MatchLabels["x"] = "y"; Expect(k8s.Update(ctx, policy)).To(Succeed()) },
			func() { policy.Labels, policy.Spec.Ingress = nil, nil; Expect(k8s.Update(ctx, policy)).To(Succeed()) },
			func() { Expect(k8s.Delete(ctx, policy)).To(Succeed()) },
		} {
			spoil()
			Eventually(ctx, func(g Gomega) {
				policy = policyOf(ctx, obj)
				g.Expect(policy).NotTo(BeNil())
				g.Expect(policy.Spec).To(Equal(*wanted))
				g.Expect(policy.Labels).To(HaveKey(v1alpha1.LabelParser))
			}).Should(Succeed())
		}

		By("deleting it when the flag is off")
		manager.stop()
		run(runOptions{noPolicies: true})
		Eventually(ctx, func() *networkingv1.NetworkPolicy { return policyOf(ctx, obj) }).Should(BeNil())
	})

	It("that was left behind is taken up", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		obj := f.object()
		Expect(k8s.Create(ctx, &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: obj.Namespace, Name: podspec.NetworkPolicyName(obj.Name),
				Labels: map[string]string{v1alpha1.LabelParser: obj.Name},
			},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "older"}}},
		})).To(Succeed())
		Expect(k8s.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: obj.Namespace, Name: podspec.OperatorKeysName(obj.Name),
				Labels: map[string]string{v1alpha1.LabelParser: obj.Name},
			},
			Data: map[string]string{podspec.OperatorsFile: "older"},
		})).To(Succeed())
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		run(runOptions{})
		allReady(ctx, obj)
		owner := current(ctx, obj)
		Eventually(ctx, func(g Gomega) {
			policy := policyOf(ctx, obj)
			g.Expect(metav1.IsControlledBy(policy, owner)).To(BeTrue())
			g.Expect(policy.Spec.PodSelector.MatchLabels).To(HaveKeyWithValue(v1alpha1.LabelParser, obj.Name))
			keys := &corev1.ConfigMap{}
			g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: obj.Namespace, Name: podspec.OperatorKeysName(obj.Name)},
				keys)).To(Succeed())
			g.Expect(metav1.IsControlledBy(keys, owner)).To(BeTrue())
			g.Expect(publishedKeys(ctx, obj)).NotTo(BeEmpty())
		}).Should(Succeed())
	})

	It("of somebody else is neither changed nor deleted, but reported, and holds up no pod", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		obj := f.object()
		theirs := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: podspec.NetworkPolicyName(obj.Name)},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "theirs"}}},
		}
		Expect(k8s.Create(ctx, theirs)).To(Succeed())
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		manager := run(runOptions{})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonNameTaken, soon)
		Expect(conditionMessage(current(ctx, obj), v1alpha1.ConditionStalled)).To(
			ContainSubstring("NetworkPolicy " + theirs.Name))
		Eventually(ctx, func() bool { pod := f.pod(ctx, obj.Name, 0); return pod != nil && ready(pod) }).Should(BeTrue())
		manager.stop()
		run(runOptions{noPolicies: true})
		eventuallyCondition(ctx, obj, v1alpha1.ConditionReady, "True/AllReady", soon)
		Expect(policyOf(ctx, obj).Spec).To(Equal(theirs.Spec))
		Expect(strings.Count(logs.text(), "deleting the network policy")).To(BeZero())
	})
})
