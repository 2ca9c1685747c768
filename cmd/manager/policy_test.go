package main

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The admission policy is of use only while it says what the manager says.
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
	if len(bounds.Data) != 4 {
		t.Errorf("%d bounds, want 4", len(bounds.Data))
	}
}
