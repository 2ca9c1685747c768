package podspec_test

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

func labelled(text string) *metav1.LabelSelector {
	s, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		panic(err)
	}
	return s
}

func matches(t *testing.T, s *metav1.LabelSelector, of map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(of))
}

// lets reports whether a policy allows a pod to connect to a port, as a network plugin decides it.
func lets(t *testing.T, policy *networkingv1.NetworkPolicy, namespace, pod map[string]string, port int32) bool {
	t.Helper()
	for _, rule := range policy.Spec.Ingress {
		if len(rule.From) == 0 {
			return true
		}
		for _, peer := range rule.From {
			for _, p := range rule.Ports {
				if matches(t, peer.NamespaceSelector, namespace) &&
					(peer.PodSelector == nil || matches(t, peer.PodSelector, pod)) &&
					p.Port.IntVal == port && *p.Protocol == corev1.ProtocolTCP {
					return true
				}
			}
		}
	}
	return false
}

func TestWhoMayConnectToAParser(t *testing.T) {
	named := func(name string, more ...string) map[string]string {
		out := map[string]string{corev1.LabelMetadataName: name}
		for _, label := range more {
			out[label] = "enabled"
		}
		return out
	}
	manager, prometheus := map[string]string{"app": "manager"}, map[string]string{"app": "prometheus"}
	other := map[string]string{"app": "x"}
	operator := podspec.Access{OperatorNamespace: "system", OperatorPods: *labelled("app=manager")}
	with := func(namespaces, pods string) podspec.Access {
		a := operator
		a.ScrapeNamespaces = labelled(namespaces)
		if pods != "" {
			a.ScrapePods = labelled(pods)
		}
		return a
	}
	type connection struct {
		namespace, pod map[string]string
		port           int32
	}
	const port = podspec.ReportPort
	all := map[string]connection{
		"the operator":                    {named("system"), manager, port},
		"the operator, at another port":   {named("system"), manager, 1},
		"another pod beside the operator": {named("system"), other, port},
		"its labels in another namespace": {named("team"), manager, port},
		"Prometheus":                      {named("monitoring", "metrics"), prometheus, port},
		"a pod beside Prometheus":         {named("monitoring", "metrics"), other, port},
		"Prometheus elsewhere":            {named("team"), prometheus, port},
		"a parser's neighbour":            {named("hyperliquid"), other, port},
	}
	for name, test := range map[string]struct {
		access podspec.Access
		want   []string
	}{
		"no client":          {podspec.Access{}, nil},
		"the operator alone": {operator, []string{"the operator"}},
		"and every pod in a namespace": {
			with("metrics=enabled", ""), []string{"the operator", "Prometheus", "a pod beside Prometheus"},
		},
		"and some pods of a namespace": {
			with("metrics=enabled", "app=prometheus"), []string{"the operator", "Prometheus"},
		},
		"and some pods wherever they are": {
			with(corev1.LabelMetadataName, "app=prometheus"), []string{"the operator", "Prometheus", "Prometheus elsewhere"},
		},
		"an operator that comes by a kubelet": {
			podspec.Access{ScrapeNamespaces: labelled("metrics=enabled")}, []string{"Prometheus", "a pod beside Prometheus"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			policy := podspec.NetworkPolicy(object(), test.access)
			got := map[string]bool{}
			for who, c := range all {
				if lets(t, policy, c.namespace, c.pod, c.port) {
					got[who] = true
				}
			}
			want := map[string]bool{}
			for _, who := range test.want {
				want[who] = true
			}
			if !maps.Equal(got, want) {
				t.Errorf("it lets in %v, want %v", got, want)
			}
			if len(policy.Spec.PolicyTypes) != 1 || policy.Spec.PolicyTypes[0] != networkingv1.PolicyTypeIngress ||
				policy.Spec.Egress != nil {
				t.Errorf("it is about %v", policy.Spec.PolicyTypes)
			}
		})
	}
}

// It isolates the object's parsers, of every revision, and no other pod of the namespace.
func TestAPolicySelectsTheObjectsParsersAlone(t *testing.T) {
	obj := object()
	policy := podspec.NetworkPolicy(obj, podspec.Access{})
	parser := pod(obj, revision(t, obj), on("node-1")).Labels
	other := object()
	other.Name = "testnet"
	if !matches(t, &policy.Spec.PodSelector, parser) {
		t.Error("it does not select the object's parsers")
	}
	without := func(key string) map[string]string {
		out := maps.Clone(parser)
		delete(out, key)
		return out
	}
	for name, of := range map[string]map[string]string{
		"another object's parsers":   pod(other, revision(t, other), on("node-1")).Labels,
		"a pod with its name":        without(v1alpha1.LabelParser),
		"a pod with another manager": without("app.kubernetes.io/managed-by"),
		"a pod without labels":       nil,
	} {
		if matches(t, &policy.Spec.PodSelector, of) {
			t.Errorf("it selects %s", name)
		}
	}
	// podLabels cannot override the labels of the selector.
	for key, value := range policy.Spec.PodSelector.MatchLabels {
		obj.Spec.PodLabels = map[string]v1alpha1.LabelValue{key: "mine"}
		if got := pod(obj, revision(t, obj), on("node-1")).Labels[key]; got != value {
			t.Errorf("podLabels make %s of label %s", got, key)
		}
	}
}
