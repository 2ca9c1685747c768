package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
	"github.com/hlparser/hyperliquid-parser-operator/hack/localcluster"
)

// options are the settings of one run of the demo.
type options struct {
	dir    string // of all files of the demo; exists and is private
	tree   string // the source tree
	assets string // directory of etcd, kube-apiserver and, with controllerManager, kube-controller-manager
	// manager and parser are the programs that the demo runs. The parser is built with the tag faultinject.
	manager, parser string

	nodes             int
	controllerManager bool
	statusRate        float64       // order statuses per second and node
	trafficFor        time.Duration // how long nodes write in the story of a hang
	hangAt            time.Duration // after the start of traffic
	hourEvery         time.Duration
	story             story
	// sink is where the parsers deliver: fileSink or natsSink.
	sink string
}

// Values of options.sink.
const (
	fileSink = "file"
	natsSink = "nats"
)

// Limits, so that the demo always ends.
const (
	readyLimit    = 90 * time.Second
	deliveryLimit = 90 * time.Second
	wholeLimit    = 5 * time.Minute // after the control plane is up
	pollInterval  = time.Second
	closeGrace    = 5 * time.Second
)

// scene is a running demo.
type scene struct {
	options
	screen   *screen
	log      *slog.Logger
	children *child.Group

	cp          *localcluster.ControlPlane
	client      client.Client
	kube        kubernetes.Interface
	agent       *agent.Agent
	names       []string // of the nodes
	operator    *child.Child
	metrics     string // URL of the operator's
	watcher     *watcher
	traffic     *traffic
	broker      *broker                   // nil with the file sink
	link        *link                     // before the broker; nil unless the story has one
	hlpFlags    []string                  // of kubectl hlp
	managerFlag string                    // of kubectl hlp; empty unless the operator serves reports
	factor      func(node string) float64 // of the rates of the nodes
	writing     bool                      // whether nodes write
	events      []eventsv1.Event
	last        snapshot
	peak        peak

	stopNodes  context.CancelFunc
	nodesEnded chan error
}

// newScene returns a scene that has not begun.
func newScene(o options, screen *screen, log *slog.Logger) *scene {
	o.hourEvery = cmp.Or(o.story.hourEvery, o.hourEvery)
	return &scene{options: o, screen: screen, log: log, children: &child.Group{}, factor: constant(o.story.rate)}
}

// close stops everything: the pods, then the broker, then the operator and the control plane.
func (s *scene) close() {
	if s.stopNodes != nil {
		s.stopNodes()
		if err := <-s.nodesEnded; err != nil {
			s.log.Error("the nodes' agent", "error", err)
		}
	}
	if s.link != nil {
		if err := s.link.close(); err != nil {
			s.log.Error("the link to the NATS server", "error", err)
		}
	}
	if s.broker != nil {
		if err := s.broker.close(); err != nil {
			s.log.Error("the NATS server", "error", err)
		}
	}
	s.children.Close(closeGrace)
}

// play runs the demo from the start of the control plane to the comparison. The fleet keeps running; its processes end
// with the group.
func (s *scene) play(ctx context.Context) (*outcome, error) {
	if err := s.startControlPlane(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wholeLimit, fmt.Errorf("the demo took more than %s", wholeLimit))
	defer cancel()
	out, err := s.playOn(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return out, err
}

func (s *scene) playOn(ctx context.Context) (*outcome, error) {
	if err := s.startOperator(ctx); err != nil {
		return nil, err
	}
	var err error
	if s.traffic, err = newTraffic(s.names, s.agent.HostPath, s.statusRate, s.hourEvery); err != nil {
		return nil, err
	}
	if s.story.prepare != nil {
		if err := s.story.prepare(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := s.startFleet(ctx); err != nil {
		return nil, err
	}
	var want *expectation
	err = s.write(ctx, func(ctx context.Context) (err error) {
		want, err = s.story.play(ctx, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	result, err := s.compare(ctx)
	if err != nil {
		return nil, err
	}
	out := &outcome{
		nodes: len(s.names), restarts: s.last.object.Status.Restarts, result: result, proved: want.proved,
	}
	return out, s.judge(out, want)
}

func (s *scene) startControlPlane(ctx context.Context) error {
	begin := time.Now()
	dir, err := s.mkdir("control-plane")
	if err != nil {
		return err
	}
	s.cp, err = localcluster.Start(ctx, localcluster.Options{
		Assets: s.assets, Dir: dir, ControllerManager: s.controllerManager, Children: s.children,
	})
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	config, err := s.cp.AdminConfig()
	if err != nil {
		return err
	}
	if s.client, err = newClient(config); err != nil {
		return err
	}
	s.screen.say("control plane is up: real etcd and kube-apiserver on loopback, with RBAC (%s)", seconds(begin))

	if s.kube, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	programs := map[string]string{"hlparser": s.parser}
	broken, err := s.brokenParser()
	if err != nil {
		return err
	}
	nodes, err := s.mkdir("nodes")
	if err != nil {
		return err
	}
	for i := range s.nodes {
		s.names = append(s.names, fmt.Sprintf("node-%d", i+1))
	}
	s.agent = agent.New(agent.Options{
		Client: s.kube, Nodes: s.names, Labels: map[string]string{nodeLabel: "node"}, Dir: nodes,
		Programs: programs, Images: map[string]map[string]string{brokenImage: {"hlparser": broken}},
		Children: s.children, Log: s.log,
	})
	for _, node := range s.names {
		if err := os.MkdirAll(s.agent.HostPath(node, dataPath), 0o755); err != nil {
			return fmt.Errorf("creating %s's data directory: %w", node, err)
		}
	}
	s.watcher = newWatcher(s.client, s.names)
	return nil
}

// startOperator runs the manager with the name and the rights that it has in a cluster.
func (s *scene) startOperator(ctx context.Context) error {
	begin := time.Now()
	if err := install(ctx, s.client, s.tree); err != nil {
		return err
	}
	token, err := operatorToken(ctx, s.client)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(s.dir, "operator.kubeconfig")
	if err := s.cp.WriteKubeconfig(kubeconfig, token, systemNamespace); err != nil {
		return err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	cmd := exec.Command(s.manager,
		"--kubeconfig="+kubeconfig,
		"--leader-elect", "--leader-election-namespace="+systemNamespace,
		"--parser-image="+parserImage,
		"--metrics-bind-address="+address, fmt.Sprintf("--metrics-secure=%t", s.story.reports),
		"--health-probe-bind-address=0")
	cmd.Env = []string{}
	if s.operator, err = s.children.Start("the operator", cmd, s.operatorLog()); err != nil {
		return err
	}
	admin, err := s.adminKubeconfig()
	if err != nil {
		return err
	}
	s.hlpFlags = []string{"--kubeconfig=" + admin}
	scheme := "http"
	if s.story.reports {
		scheme = "https"
		s.managerFlag = "--manager=https://" + address
		s.hlpFlags = append(s.hlpFlags, s.managerFlag)
	}
	s.metrics = scheme + "://" + address + "/metrics"
	s.screen.say("operator runs as its service account, with its generated role (%s); its metrics: %s", seconds(begin),
		s.metrics)
	return nil
}

// freeAddress returns an address on loopback that no process listens at.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return address, nil
}

func (s *scene) operatorLog() string { return filepath.Join(s.dir, "operator.log") }

func (s *scene) startFleet(ctx context.Context) error {
	begin := time.Now()
	if err := s.agent.Register(ctx); err != nil {
		return err
	}
	// The nodes run until close, longer than play.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopNodes = stop
	s.nodesEnded = make(chan error, 1)
	go func() { s.nodesEnded <- s.agent.Run(serving) }()
	manifests, err := s.fleet(ctx)
	if err != nil {
		return err
	}
	if err := apply(ctx, s.client, manifests); err != nil {
		return err
	}
	if !s.controllerManager {
		if err := defaultAccount(ctx, s.client); err != nil {
			return err
		}
	}
	s.screen.say("%d nodes registered; applied hack/demo/fleet.yaml", len(s.names))
	if s.broker != nil {
		if err := s.broker.consume(ctx); err != nil {
			return err
		}
		s.screen.say("a NATS server keeps what parsers publish, and a consumer reads it (%s)", seconds(begin))
	}
	err = s.until(ctx, readyLimit, "waiting for the parsers", (*snapshot).allReady)
	if err != nil {
		return fmt.Errorf("not every node has a ready parser: %w", err)
	}
	s.screen.say("every node has a ready parser (%s)", seconds(begin))
	return nil
}

// adminKubeconfig writes the kubeconfig of the demo's administrator, and returns its path.
func (s *scene) adminKubeconfig() (string, error) {
	path := filepath.Join(s.dir, "admin.kubeconfig")
	return path, s.cp.WriteAdminKubeconfig(path, fleetNamespace)
}

// fleet returns fleet.yaml with the sink of this run, and as the story changes it.
func (s *scene) fleet(ctx context.Context) ([]byte, error) {
	return withSpec(fleetYAML, func(spec map[string]any) error {
		if s.sink == natsSink {
			sink, err := s.startBroker(ctx)
			if err != nil {
				return err
			}
			spec["sink"] = sink
		}
		if s.story.spec == nil {
			return nil
		}
		return s.story.spec(spec)
	})
}

// startBroker starts the NATS server, with the story's link before it, and returns the sink of the fleet.
func (s *scene) startBroker(ctx context.Context) (map[string]any, error) {
	dir, err := s.mkdir("broker")
	if err != nil {
		return nil, err
	}
	if s.broker, err = startBroker(dir); err != nil {
		return nil, err
	}
	url := s.broker.url()
	if s.story.link > 0 {
		if s.link, err = newLink(ctx, url, s.story.link); err != nil {
			return nil, err
		}
		url = s.link.url()
	}
	return brokerSink(url), nil
}

// show polls the fleet, prints new events and draws the table.
func (s *scene) show(ctx context.Context, phase string) error {
	select {
	case <-s.operator.Done():
		code, _ := s.operator.Exit()
		return fmt.Errorf("the operator ended with code %d: see %s", code, s.operatorLog())
	default:
	}
	l, err := s.watcher.poll(ctx)
	if err != nil {
		return err
	}
	s.last = l
	s.peak.observe(&l)
	s.events = append(s.events, l.events...)
	for i := range l.events {
		s.screen.say("%s", s.screen.eventLine(&l.events[i]))
	}
	linesPerSecond := 0.0
	if s.writing {
		linesPerSecond = s.traffic.linesPerSecond(s.factor)
	}
	s.screen.draw(s.screen.fleetTable(&l, phase, linesPerSecond))
	return nil
}

// until polls until done returns true or the limit is reached.
func (s *scene) until(ctx context.Context, limit time.Duration, phase string, done func(*snapshot) bool) error {
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(pollInterval / 2)
	defer ticker.Stop()
	for {
		if err := s.show(ctx, phase); err != nil {
			return err
		}
		switch {
		case done(&s.last):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%s took more than %s", phase, limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (s *scene) mkdir(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("creating a directory: %w", err)
	}
	return dir, nil
}

func seconds(since time.Time) string { return fmt.Sprintf("%.1fs", time.Since(since).Seconds()) }
