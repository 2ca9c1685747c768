// Command manager is the operator. It runs one parser on each node that a HyperliquidParser selects, and restarts
// parsers where a restart may help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports/server"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const (
	exitFailure = 1 // at run time
	exitUsage   = 2 // a flag is invalid: one line names it
)

// Values of --poll-via.
const (
	viaDirect      = "direct"
	viaPortForward = "port-forward"
)

// gcPercent is the garbage that may accumulate, in percent of the memory in use, unless $GOGC is set. Most of that
// memory is caches of nodes and pods that live as long as the process. Go's default of 100 would double them.
const gcPercent = 60

// usageError marks an error of the command line.
type usageError struct{ error }

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	err := command().ExecuteContext(ctrl.SetupSignalHandler())
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "manager: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	if errors.As(err, new(usageError)) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

// settings are the values of the flags.
type settings struct {
	parserImage string
	cluster     string
	bounds      fleet.Bounds
	namespaces  []string

	keySecret        string
	networkPolicies  bool
	operatorPods     string
	scrapeNamespaces string
	scrapePods       string

	leaderElect     bool
	leaderNamespace string
	metricsAddress  string
	metricsSecure   bool
	certificate     certificate
	healthAddress   string
	pprofAddress    string

	pollWorkers int
	pollVia     string
	reconciles  int
	qps         float32
	burst       int

	log zap.Options
}

func command() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:           "manager",
		Short:         "Run the operator for HyperliquidParser objects",
		Version:       version.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.check(); err != nil {
				return usageError{err}
			}
			return s.run(cmd.Context())
		},
	}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	f := cmd.Flags()
	f.StringVar(&s.parserImage, "parser-image", "",
		"image of the parsers of objects without spec.image. Required")
	f.StringVar(&s.cluster, "cluster-name", "",
		"name that distinguishes this cluster's parsers from those of other clusters that write to the same NATS or Kafka. "+
			"A changed name makes parsers lose what such a server stores under the old one. "+
			"Defaults to the UID of namespace kube-system")
	f.StringSliceVar(&s.bounds.DataPaths, "allowed-data-paths",
		[]string{"/home/hluser", "/var/lib/hyperliquid", "/mnt", "/data"},
		"comma-separated directories of nodes. An object's dataPath must be one of them or below one")
	f.StringSliceVar(&s.bounds.StateRoots, "state-root", []string{"/var/lib/hlparser"},
		"comma-separated directories of nodes. An object's statePath must be one of them. "+
			"Each object uses <namespace>/<name> below it")
	f.StringSliceVar(&s.bounds.OutputRoots, "output-root", []string{"/var/lib/hlparser-out"},
		"comma-separated directories of nodes. An object's sink.file.path must be one of them. "+
			"Each object uses <namespace>/<name> below it")
	f.StringSliceVar(&s.bounds.Images, "allowed-images", nil,
		"comma-separated repositories that an object's image may be from. An entry that begins with a registry and ends "+
			"in / allows every repository below it. Defaults to the repository of --parser-image")
	f.StringSliceVar(&s.bounds.PodLabels, "allowed-pod-labels", nil,
		"comma-separated podLabels that an object may set, as KEY (with any value) or KEY=VALUE. A * at the end matches "+
			"any suffix. Defaults to none")
	f.StringSliceVar(&s.bounds.PodAnnotations, "allowed-pod-annotations", nil,
		"comma-separated podAnnotations that an object may set, in the form of --allowed-pod-labels. Defaults to none")
	f.StringSliceVar(&s.bounds.PriorityClasses, "allowed-priority-classes", nil,
		"comma-separated values that an object's priorityClassName may have. A * at the end matches any suffix. "+
			"Defaults to none")
	f.StringSliceVar(&s.bounds.SELinuxTypes, "allowed-selinux-types", nil,
		"comma-separated values that an object's seLinuxOptions.type may have. A * at the end matches any suffix. "+
			"Defaults to none")
	f.Int64SliceVar(&s.bounds.Users, "allowed-users", nil,
		"comma-separated ids below 1000 that an object's runAsUser may have. Defaults to none")
	f.Int64SliceVar(&s.bounds.Groups, "allowed-groups", nil,
		"comma-separated ids below 1000 that an object's runAsGroup and supplementalGroups may have. Defaults to none")
	f.StringSliceVar(&s.namespaces, "namespaces", nil,
		"comma-separated namespaces that the operator is limited to. It then needs a Role in each of them "+
			"(config/namespaced) and no access to other namespaces. Defaults to all namespaces, with a ClusterRole")
	f.StringVar(&s.keySecret, "key-secret", "",
		"Secret with the keys by which parsers authenticate the operator, as NAMESPACE/NAME. The operator creates it if it "+
			"does not exist. Defaults to "+keys.SecretName+" in the namespace of the lease")
	f.BoolVar(&s.networkPolicies, "network-policies", true,
		"keep a NetworkPolicy for the parsers of each object that admits only the operator and readers of metrics. "+
			"If false, the operator deletes these policies")
	f.StringVar(&s.operatorPods, "operator-pods",
		"control-plane=controller-manager,app.kubernetes.io/name=hyperliquid-parser-operator",
		"label selector of the operator's own pods, for --network-policies")
	f.StringVar(&s.scrapeNamespaces, "scrape-from-namespaces", "metrics=enabled",
		"label selector of the namespaces whose pods may read the parsers' metrics, for --network-policies. "+
			"Empty selects none")
	f.StringVar(&s.scrapePods, "scrape-from-pods", "",
		"label selector of the pods in --scrape-from-namespaces that may read the parsers' metrics. Empty selects all")
	f.BoolVar(&s.leaderElect, "leader-elect", false,
		"run only while this process holds a lease, so that other managers can stand by")
	f.StringVar(&s.leaderNamespace, "leader-election-namespace", "",
		"namespace of the lease. Defaults to the namespace that the manager runs in")
	f.StringVar(&s.metricsAddress, "metrics-bind-address", "0",
		"address of the metrics endpoint, such as :8443. 0 disables it")
	f.BoolVar(&s.metricsSecure, "metrics-secure", true,
		"serve metrics, and parsers' reports for kubectl hlp, over HTTPS to clients that the API server authorizes. "+
			"If false, reports are not served")
	f.StringVar(&s.certificate.dir, "metrics-cert-path", "",
		"directory with the certificate of the metrics endpoint, such as a mounted Secret of type kubernetes.io/tls. A "+
			"renewed one is used without a restart. Defaults to none: the manager signs its certificate itself, which "+
			"clients cannot verify")
	f.StringVar(&s.certificate.cert, "metrics-cert-name", corev1.TLSCertKey,
		"file of the certificate in --metrics-cert-path")
	f.StringVar(&s.certificate.key, "metrics-cert-key", corev1.TLSPrivateKeyKey,
		"file of the certificate's key in --metrics-cert-path")
	f.StringVar(&s.healthAddress, "health-probe-bind-address", "0",
		"address of /healthz and /readyz, such as :8081. 0 disables them")
	f.StringVar(&s.pprofAddress, "pprof-bind-address", "0",
		"address of Go's profiling endpoints, which have no authentication, such as 127.0.0.1:8082. 0 disables them")
	f.IntVar(&s.pollWorkers, "poll-workers", 128,
		"maximum number of concurrent polls of parsers. As many again are reserved for parsers that do not answer")
	f.StringVar(&s.pollVia, "poll-via", viaDirect,
		"how parsers are polled: "+viaDirect+", at the addresses of their pods, or "+viaPortForward+
			", through the API server, for an operator outside the cluster. The latter requires the verbs get and create on "+
			"pods/portforward")
	f.IntVar(&s.reconciles, "max-concurrent-reconciles", 4, "maximum number of objects that are reconciled at once")
	f.Float32Var(&s.qps, "kube-api-qps", 50,
		"maximum rate of requests to the API server, per second, shared fairly by namespaces. -1 disables the limit")
	f.IntVar(&s.burst, "kube-api-burst", 100, "maximum number of requests to the API server in a burst")
	logFlags := flag.NewFlagSet("log", flag.ContinueOnError)
	s.log.BindFlags(logFlags)
	f.AddGoFlagSet(logFlags)
	f.AddGoFlag(flag.Lookup("kubeconfig")) // controller-runtime's
	return cmd
}

// check returns an error that names the first invalid flag.
func (s *settings) check() error {
	switch {
	case s.parserImage == "":
		return errors.New("--parser-image is missing: name the image that holds /hlparser")
	case s.pollWorkers < 1:
		return fmt.Errorf("--poll-workers is %d: write at least 1", s.pollWorkers)
	case s.pollVia != viaDirect && s.pollVia != viaPortForward:
		return fmt.Errorf("--poll-via is %q: write %s or %s", s.pollVia, viaDirect, viaPortForward)
	case s.reconciles < 1:
		return fmt.Errorf("--max-concurrent-reconciles is %d: write at least 1", s.reconciles)
	case s.networkPolicies && s.operatorPods == "":
		return errors.New("--operator-pods is empty, which selects every pod: write the labels of the operator's pods")
	}
	repository := fleet.Repository(s.parserImage)
	if repository == "" {
		return fmt.Errorf("--parser-image is %q: write the reference of an image", s.parserImage)
	}
	for _, namespace := range s.namespaces {
		if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return fmt.Errorf("--namespaces: %q is not a valid namespace: %s", namespace, strings.Join(problems, ", "))
		}
	}
	if _, err := s.secret(); err != nil && s.keySecret != "" {
		return err
	}
	if _, err := s.access(); err != nil {
		return err
	}
	if s.certificate.dir != "" && (!s.metricsSecure || s.metricsAddress == "0") {
		return errors.New("--metrics-cert-path has no effect: remove it, or set --metrics-bind-address, and " +
			"--metrics-secure to true")
	}
	if len(s.bounds.Images) == 0 {
		s.bounds.Images = []string{repository}
	}
	if err := s.bounds.Validate(); err != nil {
		return err
	}
	return nil
}

func (s *settings) run(ctx context.Context) (err error) {
	log := zap.New(zap.UseFlagOptions(&s.log))
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	log.Info("starting", version.Get().LogValues()...)

	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("loading the kubeconfig: %w", err)
	}
	config.Dial = dialer()
	leaderConfig := rest.CopyConfig(config)
	config.QPS = s.qps
	if s.qps > 0 {
		fleet.LimitRequests(config, s.qps, s.burst)
	}
	secret, err := s.secret()
	if err != nil {
		return usageError{err}
	}
	access, err := s.access()
	if err != nil {
		return err
	}

	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	watches, startup := informers.NewHealth(clock.RealClock{}), newStartup()
	options, err := fleet.ManagerOptions(scheme, watches)
	if err != nil {
		return err
	}
	stopHealth, err := serveHealth(s.healthAddress,
		map[string]healthz.Checker{"start": startup.Check, "watches": watches.Check})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopHealth()) }()
	mapper, err := newMapper(config)
	if err != nil {
		return err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return fmt.Errorf("creating a client of the API server: %w", err)
	}
	kinds := slices.Collect(maps.Keys(options.Cache.ByObject))
	err = startup.await(ctx,
		func(ctx context.Context) error { return discover(ctx, reader, scheme, mapper, kinds, &s.cluster) },
		func(err error) { log.Info("waiting for the API server", "error", err.Error()) })
	if err != nil {
		return nil //nolint:nilerr // the process was asked to exit before it started
	}

	options.MapperProvider = providerOf(mapper)
	if err := s.elect(&options, leaderConfig); err != nil {
		return err
	}
	options.HealthProbeBindAddress = "0" // serveHealth serves it
	options.PprofBindAddress = s.pprofAddress
	if options.Metrics, err = s.metricsOptions(); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return fmt.Errorf("creating the manager: %w", err)
	}
	err = fleet.Add(mgr, fleet.Options{
		Bounds:       s.bounds,
		ParserImage:  s.parserImage,
		Cluster:      s.cluster,
		ReportPort:   podspec.ReportPort,
		PollWorkers:  s.pollWorkers,
		ForwardPorts: s.pollVia == viaPortForward,
		Clock:        clock.RealClock{},
		KeySecret:    secret,
		Access:       access,
		Registry:     metrics.Registry,
		Namespaces:   s.namespaces,
		ServeReports: s.metricsSecure && s.metricsAddress != "0",
		Health:       watches,
		Controller:   controller.Options{MaxConcurrentReconciles: s.reconciles},
	})
	if err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

// metricsOptions returns the options of the metrics endpoint. It fails if the certificate that it should serve with
// cannot be read: one that the manager signed itself would not be what its clients verify.
func (s *settings) metricsOptions() (metricsserver.Options, error) {
	options := metricsserver.Options{BindAddress: s.metricsAddress, SecureServing: s.metricsSecure}
	if s.metricsSecure {
		options.FilterProvider = server.Filter
	}
	if s.certificate.dir == "" {
		return options, nil
	}
	options.CertDir, options.CertName, options.KeyName = s.certificate.dir, s.certificate.cert, s.certificate.key
	return options, s.certificate.check()
}

// elect sets the options of leader election.
func (s *settings) elect(options *ctrl.Options, config *rest.Config) error {
	options.LeaderElection, options.LeaderElectionConfig = s.leaderElect, config
	options.LeaderElectionID, options.LeaderElectionNamespace = leaseID, s.leaderNamespace
	options.LeaseDuration, options.RenewDeadline = ptr.To(leaseDuration), ptr.To(renewDeadline)
	options.RetryPeriod = ptr.To(retryPeriod)
	// The process exits when Start returns, so nothing of it acts after it released the lease, and the next leader need
	// not wait until the lease expires.
	options.LeaderElectionReleaseOnCancel = true
	if !s.leaderElect {
		return nil
	}
	lease, err := newLock(config, s.namespace(), options.Scheme)
	if err != nil {
		return err
	}
	if lease != nil {
		options.LeaderElectionResourceLockInterface = lease
	}
	return nil
}

// namespaceFile holds the namespace of this process's pod.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// secret returns the name of the Secret that holds the operator's keys.
func (s *settings) secret() (types.NamespacedName, error) {
	namespace, name, found := strings.Cut(s.keySecret, "/")
	switch {
	case found && namespace != "" && name != "":
		return types.NamespacedName{Namespace: namespace, Name: name}, nil
	case s.keySecret != "":
		return types.NamespacedName{}, fmt.Errorf("--key-secret is %q: write NAMESPACE/NAME", s.keySecret)
	}
	if namespace = s.namespace(); namespace == "" {
		return types.NamespacedName{}, errors.New(
			"--key-secret is missing: outside a cluster write NAMESPACE/NAME of the Secret that holds the operator's keys")
	}
	return types.NamespacedName{Namespace: namespace, Name: keys.SecretName}, nil
}

// namespace returns the namespace that the manager runs in, or "" outside a cluster.
func (s *settings) namespace() string {
	if s.leaderNamespace != "" {
		return s.leaderNamespace
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "" // the file exists only in a pod
	}
	return strings.TrimSpace(string(text))
}

// access returns which pods may connect to parsers, or nil if the operator keeps no NetworkPolicy.
func (s *settings) access() (*podspec.Access, error) {
	if !s.networkPolicies {
		return nil, nil
	}
	access := &podspec.Access{}
	if s.pollVia != viaPortForward {
		access.OperatorNamespace = s.namespace()
	}
	for _, f := range []struct {
		name, text string
		into       func(*metav1.LabelSelector)
	}{
		{"--operator-pods", s.operatorPods, func(l *metav1.LabelSelector) { access.OperatorPods = *l }},
		{"--scrape-from-namespaces", s.scrapeNamespaces, func(l *metav1.LabelSelector) { access.ScrapeNamespaces = l }},
		{"--scrape-from-pods", s.scrapePods, func(l *metav1.LabelSelector) { access.ScrapePods = l }},
	} {
		if f.text == "" {
			continue
		}
		selector, err := metav1.ParseToLabelSelector(f.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		f.into(selector)
	}
	return access, nil
}
