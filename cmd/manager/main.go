// Command manager is the operator: it runs one parser on each node that a HyperliquidParser selects, and restarts the parsers
// that a restart may cure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
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
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
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
	f.StringVar(&s.bounds.StateRoot, "state-root", "/var/lib/hlparser",
		"directory of nodes at or below which an object's statePath may be")
	f.StringVar(&s.bounds.OutputRoot, "output-root", "/var/lib/hlparser-out",
		"directory of nodes at or below which an object's sink.file.path may be")
	f.StringSliceVar(&s.bounds.Images, "allowed-images", nil,
		"repositories that an object's image may be of; default: that of --parser-image")
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
	f.Float32Var(&s.qps, "kube-api-qps", 50, "requests a second to the API server")
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
	}
	for _, path := range append([]string{s.bounds.StateRoot, s.bounds.OutputRoot}, s.bounds.DataPaths...) {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf(
				"--state-root, --output-root, --allowed-data-paths: %q is not an absolute path", path)
		}
	}
	if len(s.bounds.Images) == 0 {
		s.bounds.Images = []string{fleet.Repository(s.parserImage)}
	}
	return nil
}

func (s *settings) run(ctx context.Context) error {
	log := zap.New(zap.UseFlagOptions(&s.log))
	ctrl.SetLogger(log)
	klog.SetLogger(log)

	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	config.QPS, config.Burst = s.qps, s.burst

	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	options, err := fleet.ManagerOptions(scheme)
	if err != nil {
		return err
	}
	options.LeaderElection = s.leaderElect
	options.LeaderElectionID = "hyperliquid-parser-operator.fleet.hlparser.dev"
	options.LeaderElectionNamespace = s.leaderNamespace
	// The process ends with Start, so nothing of it can act after it gave up the lease; the next leader need not wait it out.
	options.LeaderElectionReleaseOnCancel = true
	options.HealthProbeBindAddress = s.healthAddress
	options.PprofBindAddress = s.pprofAddress
	options.Metrics = metricsserver.Options{BindAddress: s.metricsAddress, SecureServing: s.metricsSecure}
	if s.metricsSecure {
		options.Metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}

	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return fmt.Errorf("making the manager: %w", err)
	}
	if s.cluster == "" {
		if s.cluster, err = clusterID(ctx, mgr.GetAPIReader()); err != nil {
			return err
		}
	}
	err = fleet.Add(mgr, fleet.Options{
		Bounds:       s.bounds,
		ParserImage:  s.parserImage,
		Cluster:      s.cluster,
		ReportPort:   podspec.ReportPort,
		PollWorkers:  s.pollWorkers,
		ForwardPorts: s.pollVia == viaPortForward,
		Clock:        clock.RealClock{},
		Registry:     metrics.Registry,
		Controller:   controller.Options{MaxConcurrentReconciles: s.reconciles, CacheSyncTimeout: time.Minute},
	})
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the health check: %w", err)
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding the readiness check: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

// clusterID is the UID of the namespace that every cluster has one of. An API server that has just started makes it within a moment.
func clusterID(ctx context.Context, reader client.Reader) (string, error) {
	var system corev1.Namespace
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		err := reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system)
		return err == nil, client.IgnoreNotFound(err)
	})
	if err != nil {
		return "", fmt.Errorf("getting namespace %s, whose UID names this cluster unless --cluster-name does: %w", metav1.NamespaceSystem, err)
	}
	return string(system.UID), nil
}
