package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// The admission policy is useful only if it agrees with the manager.
func TestTheAdmissionPolicysBoundsAreTheFlagsDefaults(t *testing.T) {
	data, err := os.ReadFile("../../config/admission-policy/bounds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var bounds corev1.ConfigMap
	if err := yaml.UnmarshalStrict(data, &bounds); err != nil {
		t.Fatal(err)
	}
	flags := command().Flags()
	for name, value := range bounds.Data {
		flag := flags.Lookup(name)
		if flag == nil {
			t.Errorf("the manager has no flag --%s", name)
			continue
		}
		if want := strings.Trim(flag.DefValue, "[]"); value != want {
			t.Errorf("%s is %q, the flag's default %q", name, value, want)
		}
	}
	flags.VisitAll(func(flag *pflag.Flag) {
		if _, ok := bounds.Data[flag.Name]; !ok && (strings.HasPrefix(flag.Name, "allowed-") ||
			strings.HasSuffix(flag.Name, "-root")) {
			t.Errorf("the policy does not know the bound of flag --%s", flag.Name)
		}
	})
}

// What --operator-pods selects by default are the pods of config/manager.
func TestTheOperatorsOwnPodsAreThoseOfItsDeployment(t *testing.T) {
	data, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(data), "\n---\n")
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict([]byte(text), &deployment); err != nil || !found {
		t.Fatal(err)
	}
	s := settings{networkPolicies: true, operatorPods: command().Flags().Lookup("operator-pods").DefValue,
		leaderNamespace: "system"}
	access, err := s.access()
	if err != nil {
		t.Fatal(err)
	}
	selector, err := metav1.LabelSelectorAsSelector(&access.OperatorPods)
	if err != nil || !selector.Matches(labels.Set(deployment.Spec.Template.Labels)) || selector.Matches(labels.Set{}) {
		t.Errorf("%s does not select %v, %v", selector, deployment.Spec.Template.Labels, err)
	}
	s.pollVia = viaPortForward
	if access, err := s.access(); err != nil || access.OperatorNamespace != "" {
		t.Errorf("an operator that comes by way of kubelets is let in from %q, %v", access.OperatorNamespace, err)
	}
	s.networkPolicies = false
	if access, err := s.access(); err != nil || access != nil {
		t.Errorf("with --network-policies=false: %v, %v", access, err)
	}
}

func TestTheSecretIsInTheNamespaceOfTheLeaseUnlessAFlagSaysAnother(t *testing.T) {
	for want, s := range map[string]settings{
		"lease/hyperliquid-parser-operator-keys": {leaderNamespace: "lease"},
		"mine/keys":                              {leaderNamespace: "lease", keySecret: "mine/keys"},
	} {
		if got, err := s.secret(); err != nil || got.String() != want {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	for _, bad := range []string{"keys", "/keys", "mine/", "/"} {
		s := settings{leaderNamespace: "lease", keySecret: bad}
		if got, err := s.secret(); err == nil {
			t.Errorf("%q is taken for %s", bad, got)
		}
	}
}
