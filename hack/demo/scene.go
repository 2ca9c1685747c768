package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	trafficFor        time.Duration // how long nodes write
	hangAt            time.Duration // after the start of traffic
	hourEvery         time.Duration
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

	cp       *localcluster.ControlPlane
	client   client.Client
	agent    *agent.Agent
	names    []string // of the nodes
	operator *child.Child
	metrics  string // URL of the operator's
	watcher  *watcher
	traffic  *traffic
	broker   *broker // nil with the file sink
	events   []eventsv1.Event
	last     snapshot

	stopNodes  context.CancelFunc
	nodesEnded chan error
}

// close stops everything: the pods, then the broker, then the operator and the control plane.
func (s *scene) close() {
	if s.stopNodes != nil {
		s.stopNodes()
		if err := <-s.nodesEnded; err != nil {
			s.log.Error("the nodes' agent", "error", err)
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
	if err := s.startFleet(ctx); err != nil {
		return nil, err
	}
	hung, err := s.runTraffic(ctx)
	if err != nil {
		return nil, err
	}
	result, err := s.compare(ctx)
	if err != nil {
		return nil, err
	}
	out := &outcome{nodes: len(s.names), restarts: s.last.object.Status.Restarts, result: result}
	return out, s.judge(out, hung)
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

	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	nodes, err := s.mkdir("nodes")
	if err != nil {
		return err
	}
	for i := range s.nodes {
		s.names = append(s.names, fmt.Sprintf("node-%d", i+1))
	}
	s.agent = agent.New(agent.Options{
		Client: kube, Nodes: s.names, Labels: map[string]string{nodeLabel: "node"}, Dir: nodes,
		Programs: map[string]string{"hlparser": s.parser}, Children: s.children, Log: s.log,
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
		"--parser-image=hyperliquid-parser-operator:demo",
		"--metrics-bind-address="+address, "--metrics-secure=false", "--health-probe-bind-address=0")
	cmd.Env = []string{}
	if s.operator, err = s.children.Start("the operator", cmd, s.operatorLog()); err != nil {
		return err
	}
	s.metrics = "http://" + address + "/metrics"
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
	manifests, err := s.fleet()
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

// fleet returns fleet.yaml, with another sink if requested.
func (s *scene) fleet() ([]byte, error) {
	if s.sink == fileSink {
		return fleetYAML, nil
	}
	dir, err := s.mkdir("broker")
	if err != nil {
		return nil, err
	}
	if s.broker, err = startBroker(dir); err != nil {
		return nil, err
	}
	return withSink(fleetYAML, s.broker.sink())
}

// runTraffic lets the nodes write and makes one parser hang meanwhile. It returns the pod of that parser.
func (s *scene) runTraffic(ctx context.Context) (hung *corev1.Pod, err error) {
	s.traffic, err = newTraffic(s.names, s.agent.HostPath, s.statusRate, s.hourEvery)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	writing, stop := context.WithTimeout(ctx, s.trafficFor)
	written := make(chan error, 1)
	go func() {
		written <- s.traffic.run(writing, 1)
		close(written)
	}()
	defer func() {
		stop()
		err = errors.Join(err, <-written) // no writer may change what is compared or removed next
	}()
	s.screen.say("nodes write order statuses and fills; an hour of theirs takes %s", s.hourEvery)

	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-written:
			s.screen.say("nodes have stopped writing: %d events", s.traffic.events())
			return hung, errors.Join(ctx.Err(), err)
		case <-ticker.C:
		}
		passed := time.Since(begin)
		if hung == nil && passed >= s.hangAt {
			if hung, err = s.hang(ctx, s.names[len(s.names)/2]); err != nil {
				return nil, err
			}
		}
		phase := fmt.Sprintf("traffic %s of %s", passed.Truncate(time.Second), s.trafficFor)
		if err := s.show(ctx, phase, s.traffic.linesPerSecond()); err != nil {
			return nil, err
		}
	}
}

// hangPath makes a parser hang. Only a parser built with the tag faultinject serves it.
const hangPath = "/debug/fault/hang"

// hang stops one parser's pipelines while its HTTP server keeps answering.
func (s *scene) hang(ctx context.Context, node string) (*corev1.Pod, error) {
	pod := s.last.podOf(node)
	if pod == nil || pod.Status.PodIP == "" {
		return nil, fmt.Errorf("finding a parser to hang: there is none on %s", node)
	}
	url := reportURL(pod.Status.PodIP, hangPath)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("making the parser of %s hang: %w", node, err)
	}
	response, err := (&http.Client{Timeout: reportTimeout}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("making the parser of %s hang: %w", node, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("making the parser of %s hang: status %d; was it built with -tags faultinject?",
			node, response.StatusCode)
	}
	s.screen.say("%s", s.screen.paint(red, "the parser of "+node+" hangs from now on; its HTTP server still answers"))
	return pod, nil
}

// show polls the fleet, prints new events and draws the table.
func (s *scene) show(ctx context.Context, phase string, linesPerSecond float64) error {
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
	s.events = append(s.events, l.events...)
	for i := range l.events {
		s.screen.say("%s", s.screen.eventLine(&l.events[i]))
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
		if err := s.show(ctx, phase, 0); err != nil {
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
