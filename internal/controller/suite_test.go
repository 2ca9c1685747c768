package controller_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
)

const (
	operatorNamespace = "hlparser-system"
	operatorUser      = "system:serviceaccount:" + operatorNamespace + ":controller-manager"
	parserImage       = "registry.example/hlparser:v1"

	// soon bounds what needs no report: some API calls on a busy machine.
	soon = 30 * time.Second
	// judged bounds what needs a verdict: six or more reports, one a second.
	judged = 60 * time.Second
	// while is how long something must go on not happening.
	while = 3 * time.Second
	tick  = 100 * time.Millisecond
)

// keySecret is the Secret of the operator's keys, which it makes itself.
var keySecret = types.NamespacedName{Namespace: operatorNamespace, Name: keys.SecretName}

// Shared by all specs: one control plane, an administrator's client, and what the operator logs.
var (
	k8s          client.Client
	adminREST    *rest.Config
	operator     *rest.Config
	scheme       = runtime.NewScheme()
	clientCodecs = serializer.NewCodecFactory(scheme)
	logs         = &logBuffer{}
	reportPort   int
	apiServer    *envtest.APIServer
)

// A logger that is not set within half a minute is never set: other tests come before the specs.
func TestMain(m *testing.M) {
	log := zap.New(zap.UseDevMode(true), zap.WriteTo(logs))
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	os.Exit(m.Run())
}

func TestController(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run make test, which finds or builds kube-apiserver and etcd")
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "controller")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyTimeout(soon)
	SetDefaultEventuallyPollingInterval(tick)
	SetDefaultConsistentlyDuration(while)
	SetDefaultConsistentlyPollingInterval(tick)
	EnforceDefaultTimeoutsWhenUsingContexts()

	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())

	env := &envtest.Environment{
		CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: 5 * time.Minute, ControlPlaneStopTimeout: 2 * time.Minute, // on a busy machine
	}
	// A directory of ours, for its certificates must outlive an API server that a spec stops and starts again.
	apiServer = env.ControlPlane.GetAPIServer()
	apiServer.CertDir = GinkgoT().TempDir()
	apiServer.Configure().Set("request-timeout", "15s") // so long it waits for watches when it is stopped
	audit(apiServer)
	config, err := env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(env.Stop)
	adminREST = rest.CopyConfig(config)
	adminREST.QPS = -1
	k8s, err = client.New(adminREST, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	capture(context.Background(), adminREST)

	// The operator runs as its service account, with the generated role and nothing else.
	user, err := env.AddUser(envtest.User{Name: operatorUser, Groups: []string{
		"system:serviceaccounts", "system:serviceaccounts:" + operatorNamespace, "system:authenticated",
	}}, config)
	Expect(err).NotTo(HaveOccurred())
	operator = user.Config()
	operator.QPS, operator.Burst = 200, 400
	Expect(k8s.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}})).To(Succeed())
	grantGeneratedRoles(ctx)

	// One port on many loopback addresses stands for port 9464 on many pods' addresses; another process may have 9464.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	reportPort = listener.Addr().(*net.TCPAddr).Port
	Expect(listener.Close()).To(Succeed())
})

func grantGeneratedRoles(ctx context.Context) {
	GinkgoHelper()
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "controller-manager", Namespace: operatorNamespace}}
	var role rbacv1.ClusterRole
	readYAML("../../config/rbac/role.yaml", &role)
	Expect(k8s.Create(ctx, &role)).To(Succeed())
	Expect(k8s.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		Subjects:   subject,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
	})).To(Succeed())
	for _, file := range []string{"leader_election_role.yaml", "keys_role.yaml"} {
		var own rbacv1.Role
		readYAML("../../config/rbac/"+file, &own)
		own.Namespace = operatorNamespace
		Expect(k8s.Create(ctx, &own)).To(Succeed())
		Expect(k8s.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: own.Name, Namespace: operatorNamespace},
			Subjects:   subject,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: own.Name},
		})).To(Succeed())
	}
}

func readYAML(path string, into any) {
	GinkgoHelper()
	data, err := os.ReadFile(path)
	Expect(err).NotTo(HaveOccurred())
	Expect(yaml.UnmarshalStrict(data, into)).To(Succeed())
}

// logBuffer keeps what the managers of a spec log.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

var _ = BeforeEach(func() { logs.take() })

// beginningAPIServer labels specs in which an API server begins, which refuses everybody until it knows its roles.
const beginningAPIServer = "an API server begins"

var _ = JustAfterEach(func() {
	text := logs.take()
	if CurrentSpecReport().Failed() {
		AddReportEntry("log", text, ReportEntryVisibilityFailureOrVerbose)
	}
	if slices.Contains(CurrentSpecReport().Labels(), beginningAPIServer) {
		return
	}
	// What RBAC refuses reads "… is forbidden: User …"; a quota's refusal, which a spec provokes, names no user.
	Expect(text).NotTo(ContainSubstring("forbidden: User"), "the generated role must be enough")
	Expect(text).NotTo(ContainSubstring("panic"))
})

// movedClock is the real clock, moved forward by hand where minutes matter.
type movedClock struct {
	clock.RealClock
	by atomic.Int64
}

func (c *movedClock) Now() time.Time                  { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *movedClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
func (c *movedClock) move(d time.Duration)            { c.by.Add(int64(d)) }

// runOptions say how a manager of a spec differs from the usual.
type runOptions struct {
	clock *movedClock
	wrap  func(client.Client) client.Client // around the manager's client
	rest  func(*rest.Config)
	lead  bool   // take part in leader election
	image string // default of parsers; parserImage when empty
	// forward asks parsers through the API server.
	forward bool
	workers int // 0: one
	// user that it is; the operator's with the generated role when nil.
	user *rest.Config
	// keySecret is where it keeps its keys, if that is another Secret than the suite's.
	keySecret types.NamespacedName
	// namespaces that it watches; empty: all.
	namespaces []string
	// noPolicies switches network policies off.
	noPolicies bool
	// reports is the address at which it serves reports; empty: it serves none.
	reports string
}

// running is a manager.
type running struct {
	stop    func()
	elected <-chan struct{}
	ended   <-chan struct{} // closed when it has, by itself or because it was stopped
	metrics prometheus.Gatherer
	health  *informers.Health
}

// run starts an operator, which ends with the spec at the latest.
func run(o runOptions) running {
	GinkgoHelper()
	if o.user == nil {
		o.user = operator
	}
	config := rest.CopyConfig(o.user)
	if o.rest != nil {
		o.rest(config)
	}
	if o.clock == nil {
		o.clock = &movedClock{}
	}
	health := informers.NewHealth(o.clock)
	options, err := fleet.ManagerOptions(scheme, health)
	Expect(err).NotTo(HaveOccurred())
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	if o.reports != "" {
		options.Metrics = metricsserver.Options{
			BindAddress: o.reports, SecureServing: true, FilterProvider: server.Filter,
		}
	}
	options.GracefulShutdownTimeout = ptr.To(5 * time.Second)
	if o.lead {
		options.LeaderElection, options.LeaderElectionID, options.LeaderElectionNamespace = true, "test", operatorNamespace
		options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = ptr.To(4*time.Second), ptr.To(3*time.Second),
			ptr.To(500*time.Millisecond)
		options.LeaderElectionReleaseOnCancel = true
	}
	if o.wrap != nil {
		options.NewClient = func(config *rest.Config, options client.Options) (client.Client, error) {
			c, err := client.New(config, options)
			if err != nil {
				return nil, err
			}
			return o.wrap(c), nil
		}
	}
	access := &podspec.Access{
		OperatorNamespace: operatorNamespace,
		OperatorPods:      metav1.LabelSelector{MatchLabels: map[string]string{"app": "manager"}},
		ScrapeNamespaces:  &metav1.LabelSelector{MatchLabels: map[string]string{"metrics": "enabled"}},
	}
	if o.noPolicies {
		access = nil
	}
	mgr, err := ctrl.NewManager(config, options)
	Expect(err).NotTo(HaveOccurred())
	registry := prometheus.NewRegistry()
	Expect(fleet.Add(mgr, fleet.Options{
		Bounds: fleet.Bounds{
			DataPaths: []string{"/home/hluser"}, StateRoots: []string{"/var/lib/hlparser", "/mnt/state"},
			OutputRoots: []string{"/var/lib/hlparser-out"},
			Images:      []string{fleet.Repository(parserImage)}, PodLabels: []string{"app"},
		},
		ParserImage: cmp.Or(o.image, parserImage),
		ReportPort:  reportPort,
		PollWorkers: 8, ForwardPorts: o.forward,
		Clock:      o.clock,
		KeySecret:  cmp.Or(o.keySecret, keySecret),
		Access:     access,
		Registry:   registry,
		Namespaces: o.namespaces, ServeReports: o.reports != "",
		Health:     health,
		Controller: controller.Options{SkipNameValidation: ptr.To(true), MaxConcurrentReconciles: o.workers},
	})).To(Succeed())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var endErr error
	go func() {
		defer GinkgoRecover()
		defer close(ended)
		endErr = mgr.Start(ctx)
	}()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			Eventually(ended).WithTimeout(soon).Should(BeClosed())
			err := endErr
			// A leader that is stopped says so; that is no failure.
			if err != nil && !strings.Contains(err.Error(), "leader election lost") {
				Fail(fmt.Sprintf("the manager ended with: %v", err))
			}
		})
	}
	DeferCleanup(stop)
	return running{stop: stop, elected: mgr.Elected(), ended: ended, metrics: registry, health: health}
}
