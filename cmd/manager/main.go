// Command manager is the operator: it runs one parser on each node that a HyperliquidParser selects, and restarts the parsers
// that a restart may cure.
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
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/informers"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/keys"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const (
	exitFailure = 1 // at run time
	exitUsage   = 2 // a flag is wrong: one line names it
)

// Values of --poll-via.
const (
	viaDirect      = "direct"
	viaPortForward = "port-forward"
)

// gcPercent is how much garbage there may be beside what is in use, unless $GOGC says otherwise. Most of what is in use are the caches
// of nodes and pods, which live for as long as the process; Go's usual 100 would double them.
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

// settings are what the flags say.
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
		"image of the parsers, for objects that name none; required")
	f.StringVar(&s.cluster, "cluster-name", "",
		"what tells this cluster's parsers from those of other clusters that write to the same NATS or Kafka; "+
			"default: the UID of namespace kube-system. To change it lets parsers forget what such a server knows of them")
	f.StringSliceVar(&s.bounds.DataPaths, "allowed-data-paths",
		[]string{"/home/hluser", "/var/lib/hyperliquid", "/mnt", "/data"},
		"directories of nodes at or below which an object's dataPath may be")
	f.StringSliceVar(&s.bounds.StateRoots, "state-root", []string{"/var/lib/hlparser"},
		"directories of nodes that an object's statePath may be; each object has <namespace>/<name> below it")
	f.StringSliceVar(&s.bounds.OutputRoots, "output-root", []string{"/var/lib/hlparser-out"},
		"directories of nodes that an object's sink.file.path may be; each object has <namespace>/<name> below it")
	f.StringSliceVar(&s.bounds.Images, "allowed-images", nil,
		"repositories that an object's image may be of; one that ends in / and begins with a registry allows all below it; "+
			"default: that of --parser-image")
	f.StringSliceVar(&s.bounds.PodLabels, "allowed-pod-labels", nil,
		"podLabels that an object may set: KEY, with any value, or KEY=VALUE; a * at the end stands for any rest; default: none")
	f.StringSliceVar(&s.bounds.PodAnnotations, "allowed-pod-annotations", nil,
		"podAnnotations that an object may set, as --allowed-pod-labels; default: none")
	f.StringSliceVar(&s.bounds.PriorityClasses, "allowed-priority-classes", nil,
		"priorityClassName that an object may set; a * at the end stands for any rest; default: none")
	f.StringSliceVar(&s.bounds.SELinuxTypes, "allowed-selinux-types", nil,
		"seLinuxOptions.type that an object may set; a * at the end stands for any rest; default: none")
	f.Int64SliceVar(&s.bounds.Users, "allowed-users", nil,
		"ids below 1000 that an object's runAsUser may be; default: none")
	f.Int64SliceVar(&s.bounds.Groups, "allowed-groups", nil,
		"ids below 1000 that an object's runAsGroup and supplementalGroups may be; default: none")
	f.StringSliceVar(&s.namespaces, "namespaces", nil,
		"namespaces whose objects, and nothing else in namespaces, the operator watches, with a Role in each (config/namespaced); "+
			"default: all, with a ClusterRole")
	f.StringVar(&s.keySecret, "key-secret", "",
		"Secret that holds the keys which parsers know the operator by, as NAMESPACE/NAME; it is made where it is missing. "+
			"Default: "+keys.SecretName+" in the namespace of the lease")
	f.BoolVar(&s.networkPolicies, "network-policies", true,
		"keep a NetworkPolicy for each object's parsers, that lets in the operator and those who read metrics; false deletes them")
	f.StringVar(&s.operatorPods, "operator-pods", "control-plane=controller-manager,app.kubernetes.io/name=hyperliquid-parser-operator",
		"label selector of the operator's own pods, for --network-policies")
	f.StringVar(&s.scrapeNamespaces, "scrape-from-namespaces", "metrics=enabled",
		"label selector of the namespaces whose pods may read the parsers' metrics, for --network-policies; empty: none")
	f.StringVar(&s.scrapePods, "scrape-from-pods", "",
		"label selector of the pods there that may; empty: all of them")
	f.BoolVar(&s.leaderElect, "leader-elect", false,
		"run only while holding a lease, so that several managers may stand by")
	f.StringVar(&s.leaderNamespace, "leader-election-namespace", "",
		"namespace of the lease; default: the one that the manager runs in")
	f.StringVar(&s.metricsAddress, "metrics-bind-address", "0",
		"address that metrics are served at, such as :8443; 0: none")
	f.BoolVar(&s.metricsSecure, "metrics-secure", true,
		"serve metrics by HTTPS, to those whom the API server lets read them")
	f.StringVar(&s.healthAddress, "health-probe-bind-address", "0",
		"address that /healthz and /readyz are served at, such as :8081; 0: none")
	f.StringVar(&s.pprofAddress, "pprof-bind-address", "0",
		"address that Go's profiles are served at, without authentication, such as 127.0.0.1:8082; 0: none")
	f.IntVar(&s.pollWorkers, "poll-workers", 128,
		"parsers that are asked for their report at once, and as many again of those that do not answer")
	f.StringVar(&s.pollVia, "poll-via", viaDirect,
		"how parsers are asked: "+viaDirect+", at the pods' addresses, or "+viaPortForward+
			", through the API server, for an operator outside the cluster who may get and create pods/portforward")
	f.IntVar(&s.reconciles, "max-concurrent-reconciles", 4, "objects that are reconciled at once")
	f.Float32Var(&s.qps, "kube-api-qps", 50, "requests a second to the API server, for which namespaces have their turns; -1: without a limit")
	f.IntVar(&s.burst, "kube-api-burst", 100, "requests to the API server that may come at once")
	logFlags := flag.NewFlagSet("log", flag.ContinueOnError)
	s.log.BindFlags(logFlags)
	f.AddGoFlagSet(logFlags)
	f.AddGoFlag(flag.Lookup("kubeconfig")) // controller-runtime's
	return cmd
}

// check tells the first flag that cannot work.
func (s *settings) check() error {
	switch {
	case s.parserImage == "":
		return errors.New("--parser-image is missing: name the image that holds /hlparser")
	case s.pollWorkers < 1:
		return fmt.Errorf("--poll-workers is %d: at least 1", s.pollWorkers)
	case s.pollVia != viaDirect && s.pollVia != viaPortForward:
		return fmt.Errorf("--poll-via is %q: %s or %s", s.pollVia, viaDirect, viaPortForward)
	case s.reconciles < 1:
		return fmt.Errorf("--max-concurrent-reconciles is %d: at least 1", s.reconciles)
	case s.networkPolicies && s.operatorPods == "":
		return errors.New("--operator-pods is empty, which is every pod: write the labels of the operator's own")
	}
	repository := fleet.Repository(s.parserImage)
	if repository == "" {
		return fmt.Errorf("--parser-image is %q: write the reference of an image", s.parserImage)
	}
	for _, namespace := range s.namespaces {
		if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
			return fmt.Errorf("--namespaces: %q is no namespace: %s", namespace, strings.Join(problems, ", "))
		}
	}
	if _, err := s.secret(); err != nil && s.keySecret != "" {
		return err
	}
	if _, err := s.access(); err != nil {
		return err
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
		return fmt.Errorf("finding the API server: %w", err)
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
	watches, begins := informers.NewHealth(clock.RealClock{}), newBeginning()
	options, err := fleet.ManagerOptions(scheme, watches)
	if err != nil {
		return err
	}
	stopHealth, err := serveHealth(s.healthAddress, map[string]healthz.Checker{"start": begins.Check, "watches": watches.Check})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopHealth()) }()
	mapper, err := discovery(config)
	if err != nil {
		return err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	kinds := slices.Collect(maps.Keys(options.Cache.ByObject))
	err = begins.await(ctx, func(ctx context.Context) error { return reach(ctx, reader, scheme, mapper, kinds, &s.cluster) },
		func(err error) { log.Info("waiting for the API server", "error", err.Error()) })
	if err != nil {
		return nil //nolint:nilerr // the process was asked to end before it began
	}

	options.MapperProvider = mapped(mapper)
	if err := s.elect(&options, leaderConfig); err != nil {
		return err
	}
	options.HealthProbeBindAddress = "0" // it is served already
	options.PprofBindAddress = s.pprofAddress
	options.Metrics = metricsserver.Options{BindAddress: s.metricsAddress, SecureServing: s.metricsSecure}
	if s.metricsSecure {
		options.Metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
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

// elect sets how a leader is elected.
func (s *settings) elect(options *ctrl.Options, config *rest.Config) error {
	options.LeaderElection, options.LeaderElectionConfig = s.leaderElect, config
	options.LeaderElectionID, options.LeaderElectionNamespace = leaseID, s.leaderNamespace
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = ptr.To(leaseDuration), ptr.To(renewDeadline), ptr.To(retryPeriod)
	// The process ends with Start, so nothing of it can act after it gave up the lease; the next leader need not wait
	// it out.
	options.LeaderElectionReleaseOnCancel = true
	if !s.leaderElect {
		return nil
	}
	lease, err := lock(config, s.namespace(), options.Scheme)
	if err != nil {
		return err
	}
	if lease != nil {
		options.LeaderElectionResourceLockInterface = lease
	}
	return nil
}

// namespaceFile holds the namespace of the pod that this process is in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// secret is the Secret of the operator's keys.
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

// namespace is the one that the manager runs in; "" outside a cluster.
func (s *settings) namespace() string {
	if s.leaderNamespace != "" {
		return s.leaderNamespace
	}
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "" // there is no file of that name outside a pod
	}
	return strings.TrimSpace(string(text))
}

// access says who may connect to parsers; nil: that is not the operator's business.
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
