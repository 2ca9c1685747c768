package agent

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func from(field string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
}

func TestEnvironmentSupportsTheDownwardAPI(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: "u",
			Labels: map[string]string{"a/b": "l"}, Annotations: map[string]string{"c": "n"},
		},
		Spec: corev1.PodSpec{NodeName: "node-1"},
	}
	c := &corev1.Container{
		Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")},
		},
		Env: []corev1.EnvVar{
			{Name: "IP", ValueFrom: from("status.podIP")},
			{Name: "NAME", ValueFrom: from("metadata.name")},
			{Name: "NS", ValueFrom: from("metadata.namespace")},
			{Name: "NODE", ValueFrom: from("spec.nodeName")},
			{Name: "LABEL", ValueFrom: from("metadata.labels['a/b']")},
			{Name: "NOTE", ValueFrom: from("metadata.annotations['c']")},
			{Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
				Resource: "limits.memory", Divisor: resource.MustParse("1Mi"),
			}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
				Resource: "requests.cpu",
			}}},
			{Name: "LISTEN", Value: "[$(IP)]:9464 $$(IP) $(LATER) $(NOWHERE)"},
			{Name: "LATER", Value: "x"},
		},
	}
	values, err := environment(pod, c, "127.1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"IP": "127.1.2.3", "NAME": "p", "NS": "ns", "NODE": "node-1", "LABEL": "l", "NOTE": "n",
		"MEMORY": "1024", "CPU": "1", "LISTEN": "[127.1.2.3]:9464 $(IP) $(LATER) $(NOWHERE)",
	} {
		if values[name] != want {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
	for _, unknown := range []*corev1.EnvVarSource{
		from("status.phase"), {SecretKeyRef: &corev1.SecretKeySelector{}},
		{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}},
	} {
		c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: unknown}}
		if _, err := environment(pod, c, ""); err == nil || !strings.Contains(err.Error(), "variable X") {
			t.Errorf("%+v: got %v, want an error that names the variable", unknown, err)
		}
	}
}

func TestProbeReportsChangesPastItsThresholds(t *testing.T) {
	var sick atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() || r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	address := server.Listener.Addr().(*net.TCPAddr)
	c := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "report", ContainerPort: int32(address.Port)}}}
	get := &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("report")}
	p := &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: get},
		PeriodSeconds: 1, FailureThreshold: 2,
	}
	out := make(chan probed)
	go probe(t.Context(), readiness, p, c, address.IP.String(), out)

	if got := <-out; !got.passing {
		t.Fatalf("first result: %+v", got)
	}
	begin := time.Now()
	sick.Store(true)
	if got := <-out; got.passing || !strings.Contains(got.message, "503") {
		t.Errorf("after it became unhealthy: %+v", got)
	}
	if took := time.Since(begin); took < time.Second {
		t.Errorf("failing after %v, want failures in two periods", took)
	}
	sick.Store(false)
	if got := <-out; !got.passing {
		t.Errorf("after it recovered: %+v", got)
	}
}

func TestAddressesAreNotReusedSoon(t *testing.T) {
	a := newAddresses()
	seen := map[string]bool{a.node(0): true, a.node(1): true}
	for i := range 20 {
		ip, err := a.pod(i%2, []int32{9464})
		if err != nil {
			t.Fatal(err)
		}
		if seen[ip] || !strings.HasPrefix(ip, "127.") {
			t.Errorf("address %s", ip)
		}
		seen[ip] = true
	}
}

func TestAnImageMayHaveProgramsOfItsOwn(t *testing.T) {
	a := New(Options{
		Programs: map[string]string{"hlparser": "/bin/parser", "tool": "/bin/tool"},
		Images:   map[string]map[string]string{"parser:broken": {"hlparser": "/bin/broken"}},
	})
	for _, c := range []struct{ image, command, want string }{
		{"parser:v1", "/hlparser", "/bin/parser"},
		{"parser:broken", "/hlparser", "/bin/broken"},
		{"parser:broken", "/tool", "/bin/tool"},
		{"parser:broken", "/other", ""},
	} {
		got, ok := a.program(&corev1.Container{Image: c.image, Command: []string{c.command}})
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s of %s runs %q, %t; want %q", c.command, c.image, got, ok, c.want)
		}
	}
}
