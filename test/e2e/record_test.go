package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/recorded"
)

// recordings is where tests of the operator read what Kubernetes reports.
const recordings = "../../internal/controller/recorded/testdata"

// record writes a pod and its warnings to testdata, if E2E_RECORD is set.
func record(ctx context.Context, f *fleet, name string, pod *corev1.Pod) {
	GinkgoHelper()
	if !env.record {
		return
	}
	writeRecording(name, &recorded.Recording{Pod: essence(pod), Events: f.warnings(ctx, pod)})
}

// essence returns the parts of a pod that a recording has.
func essence(pod *corev1.Pod) *corev1.Pod {
	containers := func(all []corev1.Container) (named []corev1.Container) {
		for i := range all {
			named = append(named, corev1.Container{Name: all[i].Name, Resources: all[i].Resources})
		}
		return named
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName:       pod.Spec.NodeName,
			InitContainers: containers(pod.Spec.InitContainers), Containers: containers(pod.Spec.Containers),
		},
		Status: pod.Status,
	}
}

// warnings returns a pod's events of type Warning.
func (f *fleet) warnings(ctx context.Context, pod *corev1.Pod) []corev1.Event {
	GinkgoHelper()
	events, err := clients.CoreV1().Events(f.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=Pod,involvedObject.uid=" + string(pod.UID),
	})
	Expect(err).NotTo(HaveOccurred())
	for i := range events.Items {
		events.Items[i].ManagedFields = nil
	}
	return events.Items
}

// recordPods writes the first of the fleet's pods, which need not have a node.
func recordPods(ctx context.Context, f *fleet, name string) {
	GinkgoHelper()
	if !env.record {
		return
	}
	pods := f.pods(ctx, 0)
	Expect(pods).NotTo(BeEmpty())
	record(ctx, f, name, &pods[0])
}

// dryRunPod returns the error with which the API server refuses a pod in the fleet's namespace.
func (f *fleet) dryRunPod(ctx context.Context) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "refused", Namespace: f.namespace},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: v1alpha1.ContainerName, Image: env.image}}},
	}
	return k8s.Create(ctx, pod, client.DryRunAll)
}

// recordError writes the API server's refusal to testdata, if E2E_RECORD is set.
func recordError(name string, refused error) {
	GinkgoHelper()
	if !env.record {
		return
	}
	status := apierrors.APIStatus(nil)
	Expect(errors.As(refused, &status)).To(BeTrue(), "%v", refused)
	said := status.Status()
	writeRecording(name, &recorded.Recording{Refusal: &said})
}

func writeRecording(name string, r *recorded.Recording) {
	GinkgoHelper()
	version, err := clients.Discovery().ServerVersion()
	Expect(err).NotTo(HaveOccurred())
	r.Kubernetes = version.GitVersion
	text, err := json.MarshalIndent(r, "", "  ")
	Expect(err).NotTo(HaveOccurred())
	// What differs between machines: the cluster's directory.
	text = bytes.ReplaceAll(text, []byte(env.dir), []byte("/var/lib/cluster"))
	Expect(os.MkdirAll(recordings, 0o755)).To(Succeed())
	Expect(os.WriteFile(filepath.Join(recordings, name+".json"), append(text, '\n'), 0o644)).To(Succeed())
}
