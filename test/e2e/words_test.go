package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// The operator matches and quotes what kubelets, the scheduler and the API server say. These specs cause each of it,
// and record it for the tests of the packages that match it.
var _ = Describe("what Kubernetes says", Label("words"), func() {
	It("of pods that do not run", func(ctx SpecContext) {
		needProcesses()
		f := newNamespace(ctx, "words")
		pause := corev1.Container{Name: v1alpha1.ContainerName, Image: "registry.k8s.io/pause:3.10"}
		ours := func(command ...string) corev1.Container {
			return corev1.Container{
				Name: v1alpha1.ContainerName, Image: env.image, Command: command,
				TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			}
		}
		image := func(name string, policy corev1.PullPolicy) corev1.Container {
			return corev1.Container{Name: v1alpha1.ContainerName, Image: name, ImagePullPolicy: policy}
		}
		secret := pause
		secret.EnvFrom = []corev1.EnvFromSource{{
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nats-creds"}},
		}}
		volume := func(source corev1.VolumeSource) []corev1.Volume {
			return []corev1.Volume{{Name: "data", VolumeSource: source}}
		}
		directory := func(path string) []corev1.Volume {
			return volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
				Path: path, Type: ptr.To(corev1.HostPathDirectory),
			}})
		}
		nobody := map[string]string{"e2e.hlparser.dev/none": ""}
		for name, spec := range map[string]corev1.PodSpec{
			"start-error":    {Containers: []corev1.Container{ours("/nothing")}},
			"crash":          {Containers: []corev1.Container{ours("/hlparser", "run", "--nonsense")}},
			"secret-missing": {Containers: []corev1.Container{secret}},
			"image-never":    {Containers: []corev1.Container{image("hyperliquid-parser-operator:nowhere", corev1.PullNever)}},
			"image-nowhere":  {Containers: []corev1.Container{image("registry.invalid/hlparser:v9", corev1.PullIfNotPresent)}},
			"image-invalid":  {Containers: []corev1.Container{image("Not-A-Name:v9", corev1.PullIfNotPresent)}},
			"configmap-missing": {Containers: []corev1.Container{pause}, Volumes: volume(corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "mainnet-config"}},
			})},
			"directory-missing": {Containers: []corev1.Container{pause}, Volumes: directory("/home/hluser/nowhere/data")},
			"directory-file":    {Containers: []corev1.Container{pause}, Volumes: directory("/etc/hostname")},
			"no-node":           {Containers: []corev1.Container{pause}, NodeSelector: nobody},
			"evicted": {Containers: []corev1.Container{pause}, Volumes: volume(corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr.To(resource.MustParse("64Ki"))},
			})},
		} {
			if len(spec.Volumes) > 0 {
				spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: f.namespace}, Spec: spec}
			pod.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
			Expect(k8s.Create(ctx, pod)).To(Succeed())
		}
		say := func(name string, check func(g Gomega, pod *corev1.Pod, warnings string)) {
			GinkgoHelper()
			pod := &corev1.Pod{}
			Eventually(func(g Gomega) {
				g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: name}, pod)).To(Succeed())
				var words strings.Builder
				for _, event := range f.warnings(ctx, pod) {
					fmt.Fprintf(&words, "%s: %s\n", event.Reason, event.Message)
				}
				check(g, pod, words.String())
			}).WithContext(ctx).WithTimeout(noticed).Should(Succeed())
			record(ctx, f, name, pod)
		}
		// status requires a container's reason, and words of its message.
		status := func(name, reason, words string, of func(corev1.ContainerStatus) (string, string)) {
			GinkgoHelper()
			say(name, func(g Gomega, pod *corev1.Pod, _ string) {
				g.Expect(pod.Status.ContainerStatuses).NotTo(BeEmpty())
				said, message := of(pod.Status.ContainerStatuses[0])
				g.Expect(said).To(Equal(reason))
				g.Expect(message).To(ContainSubstring(words))
			})
		}
		waits := func(c corev1.ContainerStatus) (string, string) {
			if c.State.Waiting == nil {
				return "", ""
			}
			return c.State.Waiting.Reason, c.State.Waiting.Message
		}
		ended := func(c corev1.ContainerStatus) (string, string) {
			last := c.LastTerminationState.Terminated
			if last == nil || c.State.Waiting == nil {
				return "", ""
			}
			return c.State.Waiting.Reason + "/" + last.Reason, last.Message
		}
		status("start-error", "CrashLoopBackOff/StartError", `exec: "/nothing"`, ended)
		status("crash", "CrashLoopBackOff/Error", "nonsense", ended)
		status("secret-missing", "CreateContainerConfigError", `secret "nats-creds" not found`, waits)
		status("image-never", "ErrImageNeverPull", "is not present with pull policy of Never", waits)
		status("image-nowhere", "ImagePullBackOff", "registry.invalid/hlparser:v9", waits)
		status("image-invalid", "InvalidImageName", "Not-A-Name:v9", waits)
		warns := func(name, words string) {
			GinkgoHelper()
			say(name, func(g Gomega, _ *corev1.Pod, warnings string) { g.Expect(warnings).To(ContainSubstring(words)) })
		}
		warns("configmap-missing", `configmap "mainnet-config" not found`)
		warns("directory-missing", "/home/hluser/nowhere/data is not a directory")
		warns("directory-file", "/etc/hostname is not a directory")
		warns("no-node", "didn't match Pod's node affinity/selector")
		By("filling a volume beyond its limit")
		pod := &corev1.Pod{}
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: "evicted"}, pod)).To(Succeed())
			g.Expect(pod.Status.Phase).To(Equal(corev1.PodRunning))
		}).WithContext(ctx).WithTimeout(started).Should(Succeed())
		file := filepath.Join(cluster.dir, fmt.Sprintf("n%d", nodeOf(pod)), "kubelet", "pods", string(pod.UID), "volumes",
			"kubernetes.io~empty-dir", "data", "large")
		Expect(os.WriteFile(file, make([]byte, 1<<20), 0o644)).To(Succeed())
		// The status of a pod whose container ends with 0 in time has no trace of it: only the event says why. One that
		// takes longer is killed, and its pod has failed.
		say("evicted", func(g Gomega, pod *corev1.Pod, warnings string) {
			g.Expect(pod.Status.Phase).To(Or(Equal(corev1.PodSucceeded), Equal(corev1.PodFailed)))
			g.Expect(warnings).To(ContainSubstring(`Evicted: Usage of EmptyDir volume "data" exceeds the limit "64Ki"`))
		})
	}, SpecTimeout(8*time.Minute))

	It("of requests that it refuses", func(ctx SpecContext) {
		f := newNamespace(ctx, "refusals")
		By("knowing nobody by a token")
		stranger := rest.AnonymousClientConfig(restConf)
		stranger.BearerToken = "nobody"
		asStranger, err := kubernetes.NewForConfig(stranger)
		Expect(err).NotTo(HaveOccurred())
		_, err = asStranger.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{})
		Expect(apierrors.IsUnauthorized(err)).To(BeTrue(), "%v", err)
		recordError("unauthorized", err)

		By("allowing a role too little")
		account := rest.CopyConfig(restConf)
		account.Impersonate.UserName = "system:serviceaccount:" + f.namespace + ":default"
		asAccount, err := kubernetes.NewForConfig(account)
		Expect(err).NotTo(HaveOccurred())
		err = asAccount.CoreV1().Pods(f.namespace).Delete(ctx, "mainnet", metav1.DeleteOptions{})
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		recordError("role-forbids", err)

		By("having another object of a name")
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "mainnet", Namespace: f.namespace},
			Spec: corev1.PodSpec{
				Containers:   []corev1.Container{{Name: v1alpha1.ContainerName, Image: env.image}},
				NodeSelector: map[string]string{"e2e.hlparser.dev/none": ""},
			},
		}
		Expect(k8s.Create(ctx, pod.DeepCopy())).To(Succeed())
		err = k8s.Create(ctx, pod.DeepCopy())
		Expect(apierrors.IsAlreadyExists(err)).To(BeTrue(), "%v", err)
		recordError("already-exists", err)
		err = k8s.Delete(ctx, pod, client.Preconditions{UID: ptr.To[types.UID]("another")})
		Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
		recordError("uid-conflict", err)
		missing := pod.DeepCopy()
		missing.Name = "missing"
		err = k8s.Delete(ctx, missing)
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
		recordError("not-found", err)
		wrong := pod.DeepCopy()
		wrong.Name, wrong.Spec.RestartPolicy = "wrong", "Sometimes"
		err = k8s.Create(ctx, wrong)
		Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
		recordError("invalid", err)

		By("holding pods to a Pod Security Standard")
		strict := newNamespace(ctx, "refusals-restricted")
		kubectl(ctx, "label", "namespace", strict.namespace, "--overwrite", "pod-security.kubernetes.io/enforce=restricted")
		Eventually(func() error { return strict.dryRunPod(ctx) }).WithContext(ctx).WithTimeout(time.Minute).
			Should(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
		recordError("pod-security", strict.dryRunPod(ctx))

		By("deleting the namespace")
		held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: "held", Namespace: strict.namespace, Finalizers: []string{"e2e.hlparser.dev/held"},
		}}
		Expect(k8s.Create(ctx, held)).To(Succeed())
		kubectl(ctx, "label", "namespace", strict.namespace, "--overwrite", "pod-security.kubernetes.io/enforce=privileged")
		Expect(k8s.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: strict.namespace}})).To(Succeed())
		Eventually(func() error { return strict.dryRunPod(ctx) }).WithContext(ctx).WithTimeout(time.Minute).
			Should(MatchError(ContainSubstring("because it is being terminated")))
		recordError("namespace-terminating", strict.dryRunPod(ctx))
		held.Finalizers = nil
		Expect(k8s.Update(ctx, held)).To(Succeed())
	}, SpecTimeout(4*time.Minute))
})

// newNamespace makes a namespace without parsers, which goes after the spec.
func newNamespace(ctx context.Context, name string) *fleet {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	Expect(k8s.Create(ctx, namespace)).To(Succeed())
	DeferCleanup(func(ctx SpecContext) {
		Expect(client.IgnoreNotFound(k8s.Delete(ctx, namespace))).To(Succeed())
		Eventually(func() error { return k8s.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{}) }).
			WithContext(ctx).WithTimeout(whole).Should(MatchError(ContainSubstring("not found")))
	}, NodeTimeout(whole+time.Minute))
	return &fleet{namespace: name}
}
