package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/agent"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/child"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/controlplane"
)

// options are how one run of the demo differs from another.
type options struct {
	dir    string // of everything that it makes; exists and is private
	tree   string // the source tree
	assets string // etcd, kube-apiserver and, for a controller-manager, that too
	// manager and parser are the programs under show; the parser is built with
	// the tag faultinject.
	manager, parser string

	nodes             int
	controllerManager bool
	statusRate        float64       // order statuses a second and node
	trafficFor        time.Duration // how long nodes write
	hangAt            time.Duration // since traffic began
	hourEvery         time.Duration
}

// The demo must end by itself; these are its limits.
const (
	readyLimit    = 40 * time.Second
	deliveryLimit = 25 * time.Second
	wholeLimit    = 120 * time.Second // from the control plane being up
	lookEvery     = time.Second
	closeGrace    = 5 * time.Second
)

// outcome is what the demo is judged by.
type outcome struct {
	nodes    int
	restarts int32
	result   compare.Result
}

func (o *outcome) String() string {
	return fmt.Sprintf("demo: nodes=%d events=%d restarts=%d lost=%d duplicated=%d",
		o.nodes, o.result.Events, o.restarts, o.result.Lost, o.result.Duplicated)
}

// scene is a running demo.
type scene struct {
	options
	screen   *screen
	log      *slog.Logger
	children *child.Group

	cp       *controlplane.ControlPlane
	client   client.Client
	agent    *agent.Agent
	names    []string // of the nodes
	operator *child.Child
	watcher  *watcher
	traffic  *traffic
	events   []eventsv1.Event
	last     look

	stopNodes  context.CancelFunc
	nodesEnded chan error
}

// close stops everything: the pods, then the operator, then the control plane.
func (s *scene) close() {
	if s.stopNodes != nil {
		s.stopNodes()
		if err := <-s.nodesEnded; err != nil {
			s.log.Error("the nodes' agent", "error", err)
		}
	}
	s.children.Close(closeGrace)
}

// play runs the demo from the control plane's start to the comparison. The
// scene goes on running; its children end with the group.
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
	s.cp, err = controlplane.Start(ctx, controlplane.Options{
		Assets: s.assets, Dir: dir, ControllerManager: s.controllerManager, Children: s.children,
	})
	if err != nil {
		return fmt.Errorf("start the control plane: %w", err)
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
		return fmt.Errorf("make a client: %w", err)
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
			return fmt.Errorf("make %s's data directory: %w", node, err)
		}
	}
	s.watcher = newWatcher(s.client, s.names)
	return nil
}

// startOperator runs the manager under the name and rights that it has in a cluster.
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
	cmd := exec.Command(s.manager,
		"--kubeconfig="+kubeconfig,
		"--leader-elect", "--leader-election-namespace="+systemNamespace,
		"--parser-image=hyperliquid-parser-operator:demo",
		"--metrics-bind-address=0", "--health-probe-bind-address=0")
	cmd.Env = []string{}
	if s.operator, err = s.children.Start("the operator", cmd, s.operatorLog()); err != nil {
		return err
	}
	s.screen.say("operator runs as its service account, with its generated role (%s)", seconds(begin))
	return nil
}

func (s *scene) operatorLog() string { return filepath.Join(s.dir, "operator.log") }

func (s *scene) startFleet(ctx context.Context) error {
	begin := time.Now()
	if err := s.agent.Register(ctx); err != nil {
		return err
	}
	// The nodes outlive the play, until close.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopNodes = stop
	s.nodesEnded = make(chan error, 1)
	go func() { s.nodesEnded <- s.agent.Run(serving) }()
	if err := apply(ctx, s.client, fleetYAML); err != nil {
		return err
	}
	if !s.controllerManager {
		if err := defaultAccount(ctx, s.client); err != nil {
			return err
		}
	}
	s.screen.say("%d nodes registered; applied hack/demo/fleet.yaml", len(s.names))
	err := s.until(ctx, readyLimit, "waiting for the parsers", (*look).allReady)
	if err != nil {
		return fmt.Errorf("not every node has a ready parser: %w", err)
	}
	s.screen.say("every node has a ready parser (%s)", seconds(begin))
	return nil
}

// runTraffic lets the nodes write and makes one parser hang in the middle. It
// returns the pod that hung.
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
		err = errors.Join(err, <-written) // nobody writes into what is compared or removed next
	}()
	s.screen.say("nodes write order statuses and fills; an hour of theirs takes %s", s.hourEvery)

	ticker := time.NewTicker(lookEvery)
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

// hangPath makes a parser hang; only one built with the tag faultinject has it.
const hangPath = "/debug/fault/hang"

// hang stops one parser's pipelines while its HTTP server goes on answering.
func (s *scene) hang(ctx context.Context, node string) (*corev1.Pod, error) {
	pod := s.last.podOf(node)
	if pod == nil || pod.Status.PodIP == "" {
		return nil, fmt.Errorf("no parser on %s to hang", node)
	}
	url := reportURL(pod.Status.PodIP, hangPath)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make the parser of %s hang: %w", node, err)
	}
	response, err := s.watcher.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("make the parser of %s hang: %w", node, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("make the parser of %s hang: status %d; was it built with -tags faultinject?",
			node, response.StatusCode)
	}
	s.screen.say("%s", s.screen.paint(red, "the parser of "+node+" hangs from now on; its HTTP server still answers"))
	return pod, nil
}

// show takes a look, tells new events and draws the table.
func (s *scene) show(ctx context.Context, phase string, linesPerSecond float64) error {
	select {
	case <-s.operator.Done():
		code, _ := s.operator.Exit()
		return fmt.Errorf("the operator ended with code %d: see %s", code, s.operatorLog())
	default:
	}
	l, err := s.watcher.look(ctx)
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

// until looks until done or the limit is reached.
func (s *scene) until(ctx context.Context, limit time.Duration, phase string, done func(*look) bool) error {
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(lookEvery / 2)
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

// compare waits until everything is delivered, and holds it against what was written.
func (s *scene) compare(ctx context.Context) (compare.Result, error) {
	var result compare.Result
	begin := time.Now()
	wanted := s.traffic.events()
	// Parsers at rest may not have seen the last lines yet, so records are counted too.
	err := s.until(ctx, deliveryLimit, "waiting for the last records", func(l *look) bool {
		if !l.atRest() || !l.allReady() {
			return false
		}
		delivered, err := s.delivered()
		return err == nil && delivered >= wanted
	})
	if err != nil {
		// The comparison tells what is missing better than this does.
		s.screen.say("not everything arrived: %v", err)
	} else {
		s.screen.say("everything is delivered and committed (%s)", seconds(begin))
	}
	s.screen.leave()
	begin = time.Now()
	for _, w := range s.traffic.writers {
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		one, err := compare.Stream(s.agent.HostPath(w.node, dataPath), w.Source, s.outDir(w))
		if err != nil {
			return result, fmt.Errorf("compare %s of %s: %w", w.Source, w.node, err)
		}
		result.Add(one)
	}
	if result.Events != wanted {
		return result, fmt.Errorf("the nodes' files hold %d events, %d were written", result.Events, wanted)
	}
	s.screen.say("compared %d events with what was delivered, byte for byte (%s)", result.Events, seconds(begin))
	return result, nil
}

func (s *scene) outDir(w *writer) string {
	return filepath.Join(s.agent.HostPath(w.node, outputPath), string(w.Stream))
}

func (s *scene) delivered() (int64, error) {
	var sum int64
	for _, w := range s.traffic.writers {
		n, err := compare.Count(s.outDir(w))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// judge says what is not as it must be.
func (s *scene) judge(out *outcome, hung *corev1.Pod) error {
	var wrong []error
	if !out.result.Exact() {
		wrong = append(wrong, fmt.Errorf("lost %d, duplicated %d, never written %d, out of order %d events, such as %q",
			out.result.Lost, out.result.Duplicated, out.result.Foreign, out.result.Disordered, out.result.Examples))
	}
	if out.restarts != 1 {
		wrong = append(wrong, fmt.Errorf("the operator restarted %d parsers, not just the one that hung", out.restarts))
	}
	if !s.last.allReady() {
		wrong = append(wrong, errors.New("not every parser is ready in the end"))
	}
	for _, n := range s.last.nodes {
		containerRestarts := int32(0)
		if n.pod != nil && len(n.pod.Status.ContainerStatuses) > 0 {
			containerRestarts = n.pod.Status.ContainerStatuses[0].RestartCount
		}
		if containerRestarts > 0 {
			wrong = append(wrong, fmt.Errorf("the parser of %s ended by itself %d times", n.name, containerRestarts))
		}
		if want := btoi(hung != nil && hung.Spec.NodeName == n.name); n.replaced != want {
			wrong = append(wrong, fmt.Errorf("the pod of %s was replaced %d times, want %d", n.name, n.replaced, want))
		}
	}
	if !slices.ContainsFunc(s.events, func(e eventsv1.Event) bool { return hung != nil && mentions(&e, hung) }) {
		wrong = append(wrong, errors.New("no event tells of the restart"))
	}
	// A right that the generated role lacks shows nowhere else.
	text, err := os.ReadFile(s.operatorLog())
	if err != nil {
		wrong = append(wrong, fmt.Errorf("read the operator's log: %w", err))
	}
	for line := range bytes.Lines(text) {
		if bytes.Contains(bytes.ToLower(line), []byte("forbidden")) {
			wrong = append(wrong, fmt.Errorf("the operator was refused something: %s", bytes.TrimSpace(line)))
			break
		}
	}
	return errors.Join(wrong...)
}

// mentions is true for an event about a pod, or related to it.
func mentions(e *eventsv1.Event, pod *corev1.Pod) bool {
	about := func(uid types.UID) bool { return uid == pod.UID }
	return about(e.Regarding.UID) || e.Related != nil && about(e.Related.UID)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *scene) mkdir(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	return dir, nil
}

func seconds(since time.Time) string { return fmt.Sprintf("%.1fs", time.Since(since).Seconds()) }
