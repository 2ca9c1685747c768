package controller_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// streamingKubelet is the part of a kubelet that forwards ports.
type streamingKubelet struct {
	tunnels atomic.Int32 // that were opened
	open    atomic.Int32 // that are open
}

// newStreamingKubelet serves a kubelet and assigns it to the given node.
func newStreamingKubelet(ctx context.Context, f *farm, node string) *streamingKubelet {
	GinkgoHelper()
	k := &streamingKubelet{}
	server := httptest.NewTLSServer(k)
	DeferCleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	Expect(err).NotTo(HaveOccurred())
	number, err := strconv.Atoi(port)
	Expect(err).NotTo(HaveOccurred())
	f.updateNode(ctx, node, func(node *corev1.Node) {
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
		node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number)
	})
	return k
}

func (k *streamingKubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(path) != 3 || path[0] != "portForward" {
		http.NotFound(w, r)
		return
	}
	k.tunnels.Add(1)
	k.open.Add(1)
	defer k.open.Add(-1)
	portforward.ServePortForward(w, r, podsOf(path[1]), path[2], "", nil, time.Minute, time.Minute,
		portforward.SupportedProtocols)
}

// podsOf is the runtime of a namespace's pods, one on this node. As containerd does, it connects to localhost inside
// the pod's network namespace, over IPv4 and then IPv6.
type podsOf string

func (namespace podsOf) PortForward(ctx context.Context, name, _ string, port int32, stream io.ReadWriteCloser) error {
	if err := k8s.Get(ctx, client.ObjectKey{Namespace: string(namespace), Name: name}, &corev1.Pod{}); err != nil {
		return err
	}
	conn, err := net.Dial("tcp4", fmt.Sprintf("localhost:%d", port))
	if err != nil {
		var err6 error
		if conn, err6 = net.Dial("tcp6", fmt.Sprintf("localhost:%d", port)); err6 != nil {
			return fmt.Errorf("failed to execute portforward in network namespace: IPv4: %w IPv6: %w", err, err6)
		}
	}
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		back <- errors.Join(err, stream.Close())
	}()
	_, err = io.Copy(conn, stream)
	return errors.Join(err, conn.Close(), <-back)
}

var _ = Describe("an operator outside the cluster", func() {
	It("asks parsers through the API server, and keeps its tunnels", func(ctx SpecContext) {
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "forwards-ports"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods/portforward"}, Verbs: []string{"get", "create"}},
		}}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: operatorUser}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		}
		for _, obj := range []client.Object{role, binding} {
			Expect(k8s.Create(ctx, obj)).To(Succeed())
			DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, obj)).To(Succeed()) })
		}

		f := newFarm(ctx, 2)
		f.parser(0).onNode("192.0.2.1")
		kubelet := newStreamingKubelet(ctx, f, f.node(0))
		obj := f.object()
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		manager := run(runOptions{forward: true})

		By("judging the one that it reaches, and saying why it does not reach the other, whose node has no kubelet")
		delivering := func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(obj), obj)).To(Succeed())
			g.Expect(meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionBuffersStable)).To(BeTrue())
			g.Expect(obj.Status.Targets).To(HaveLen(1))
			g.Expect(obj.Status.Targets[0].Target).To(Equal(f.node(1)))
			g.Expect(obj.Status.Targets[0].Verdict).To(Equal(string(health.Unreachable)))
			g.Expect(obj.Status.Targets[0].Message).To(And(ContainSubstring("forwarding a port through the API server"),
				ContainSubstring("no preferred addresses found")))
		}
		Eventually(delivering).WithTimeout(judged).Should(Succeed())
		Eventually(f.parser(0).timesAsked).WithTimeout(judged).Should(BeNumerically(">", 5))
		Expect(kubelet.tunnels.Load()).To(BeEquivalentTo(1))

		By("opening a new one when the old one breaks, and saying what the node says")
		f.parser(0).close()
		Eventually(func(g Gomega) {
			g.Expect(k8s.Get(ctx, client.ObjectKeyFromObject(obj), obj)).To(Succeed())
			g.Expect(obj.Status.Targets).To(HaveLen(2))
			g.Expect(obj.Status.Targets).To(ContainElement(And(
				HaveField("Target", f.node(0)),
				HaveField("Message", ContainSubstring("forwarding a port on the node: error forwarding port")))))
		}).WithTimeout(judged).Should(Succeed())
		Expect(kubelet.tunnels.Load()).To(BeNumerically(">", 1))

		By("leaving none open")
		manager.stop()
		Eventually(kubelet.open.Load).Should(BeZero())
	})
})
