package podspec_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// genuine decodes what is stored under a name and reports whether the name follows from it.
func genuine(t *testing.T, name string, stored []byte) bool {
	t.Helper()
	r, err := podspec.Decode(name, stored)
	if err != nil {
		t.Fatal(err)
	}
	is, err := r.Genuine("mainnet", stored)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func TestARevisionIsWhatItsNameStandsFor(t *testing.T) {
	first := revision(t, object())
	for count := range podspec.MaxNames {
		r := first
		if count > 0 {
			r = first.Renamed("mainnet", count)
		}
		stored, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !genuine(t, r.Hash, stored) {
			t.Errorf("name %d is not that of its content", count)
		}
		// A backup tool, like any program that decodes into a map, sorts the fields and may indent.
		var loose any
		if err := json.Unmarshal(stored, &loose); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.MarshalIndent(loose, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(sorted, stored) || !genuine(t, r.Hash, sorted) {
			t.Errorf("name %d is not that of its content in another order", count)
		}
		// The types of a later version may have, or lack, a field that is always encoded: then the bytes decide.
		const begin = `"template":{"metadata":{`
		older := bytes.Replace(stored, []byte(begin), []byte(begin+`"creationTimestamp":null,`), 1)
		if bytes.Equal(older, stored) || !genuine(t, r.Hash, older) {
			t.Errorf("name %d is not that of a content that means the same", count)
		}
	}
}

func TestARevisionThatSomebodyReplacedIsFoundOut(t *testing.T) {
	r := revision(t, object())
	stored, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(change func(*podspec.Revision)) []byte {
		t.Helper()
		var other podspec.Revision
		if err := json.Unmarshal(stored, &other); err != nil {
			t.Fatal(err)
		}
		change(&other)
		data, err := other.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	pod := func(r *podspec.Revision) *corev1.PodSpec { return &r.Template.Spec }
	for name, data := range map[string][]byte{
		"another image":  bytes.ReplaceAll(stored, []byte(r.Image()), []byte("evil.example/miner:v1")),
		"another config": edit(func(r *podspec.Revision) { r.Config = strings.Replace(r.Config, "Raw", "Enveloped", 1) }),
		"another user":   edit(func(r *podspec.Revision) { pod(r).SecurityContext.RunAsUser = ptr.To[int64](0) }),
		"a privilege":    edit(func(r *podspec.Revision) { pod(r).Containers[0].SecurityContext.Privileged = ptr.To(true) }),
		"one more container": edit(func(r *podspec.Revision) {
			pod(r).Containers = append(pod(r).Containers,
				corev1.Container{Name: "x"})
		}),
		"the node's network": edit(func(r *podspec.Revision) { pod(r).HostNetwork = true }),
		"an annotation":      edit(func(r *podspec.Revision) { r.Template.Annotations["x"] = "y" }),
		"another directory":  bytes.ReplaceAll(stored, []byte("/home/hluser"), []byte("/")),
		"another config's name": edit(func(r *podspec.Revision) {
			for i := range pod(r).Volumes {
				if c := pod(r).Volumes[i].ConfigMap; c != nil {
					c.Name = "mainnet-evil"
				}
			}
		}),
	} {
		if bytes.Equal(data, stored) {
			t.Fatalf("%s changes nothing", name)
		}
		if genuine(t, r.Hash, data) {
			t.Errorf("%s is not found out", name)
		}
	}
	if genuine(t, "0123456789", stored) {
		t.Error("another name is not found out")
	}
}

func TestAConfigIsTheRevisionsToTheByte(t *testing.T) {
	r := revision(t, object())
	for name, test := range map[string]struct {
		edit func(*corev1.ConfigMap)
		want bool
	}{
		"as it was made":    {func(*corev1.ConfigMap) {}, true},
		"with other labels": {func(m *corev1.ConfigMap) { m.Labels = nil }, true},
		"one byte more":     {func(m *corev1.ConfigMap) { m.Data["config.yaml"] += " " }, false},
		"one file more":     {func(m *corev1.ConfigMap) { m.Data["more.yaml"] = "" }, false},
		"no file":           {func(m *corev1.ConfigMap) { m.Data = nil }, false},
		"binary data":       {func(m *corev1.ConfigMap) { m.BinaryData = map[string][]byte{"x": {0}} }, false},
		"under another key": {func(m *corev1.ConfigMap) { m.Data = map[string]string{"x": r.Config} }, false},
	} {
		m := r.ConfigMap("ns", "mainnet")
		test.edit(m)
		if got := r.Holds(m); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if !ptr.Deref(r.ConfigMap("ns", "mainnet").Immutable, false) {
		t.Error("it may be changed")
	}
}
