package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// pollWorkers is the manager's default.
const pollWorkers = 128

// atRest is what a fleet at rest takes.
type atRest struct {
	watched  time.Duration
	requests map[string]int // of the manager, by verb and resource, the Lease's left out
	written  []string       // the writes among them, with the object's name
	leases   int
	cpu      time.Duration // of the manager
	resident int64         // bytes, the most of those seen
	peak     int64         // bytes, since the manager's start
}

// times are processor times since the starts of processes.
type times struct{ controller, cluster time.Duration }

func (f *fleet) cpu(controller int) (times, error) {
	var t times
	var err error
	if t.controller, err = results.CPUOf(controller); err != nil {
		return t, err
	}
	for _, pid := range f.plane.Processes() {
		took, err := results.CPUOf(pid)
		if err != nil {
			return t, err
		}
		t.cluster += took
	}
	return t, nil
}

// settle waits until the operator has judged all targets and says nothing new for a while.
func (f *fleet) settle(ctx context.Context) error {
	const limit = 10 * time.Minute
	say("%d nodes: coming to rest", f.nodes)
	obj := &v1alpha1.HyperliquidParser{}
	var last v1alpha1.HyperliquidParserStatus
	since := time.Now()
	bad := badNodes(f.nodes)
	return f.until(ctx, limit, "the status does not come to rest", func() (bool, error) {
		if err := f.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: objectName}, obj); err != nil {
			return false, fmt.Errorf("looking at the object: %w", err)
		}
		if !equality.Semantic.DeepEqual(obj.Status, last) {
			last, since = *obj.Status.DeepCopy(), time.Now()
		}
		return int(obj.Status.Bad) == bad && time.Since(since) > f.quiet, nil
	})
}

// watchRest watches the manager while figures wobble and nothing happens.
func (f *fleet) watchRest(ctx context.Context) (atRest, error) {
	say("%d nodes: at rest for %s", f.nodes, f.steady)
	audit, err := f.auditFromNow()
	if err != nil {
		return atRest{}, err
	}
	defer func() { _ = audit.Close() }() // only read
	pid := f.manager.PID()
	before, err := results.CPUOf(pid)
	if err != nil {
		return atRest{}, err
	}
	r := atRest{requests: map[string]int{}}
	begin := time.Now()
	for time.Since(begin) < f.steady {
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-f.manager.Done():
			return r, errors.New("the manager ended")
		case <-time.After(min(time.Second, f.steady)):
		}
		resident, err := results.ResidentOf(pid)
		if err != nil {
			return r, err
		}
		r.resident = max(r.resident, resident)
	}
	after, err := results.CPUOf(pid)
	if err != nil {
		return r, err
	}
	r.watched, r.cpu = time.Since(begin), after-before
	if r.peak, err = results.PeakOf(pid); err != nil {
		return r, err
	}
	if err := r.count(audit); err != nil {
		return r, err
	}
	for _, what := range r.written {
		say("%d nodes: written at rest: %s", f.nodes, what)
	}
	return r, nil
}

// keep keeps the manager's profiles, its log and its events, if asked to.
func (f *fleet) keep(ctx context.Context) error {
	if f.profiles == "" {
		return nil
	}
	log, err := os.ReadFile(f.path("manager.log"))
	if err != nil {
		return fmt.Errorf("keeping the manager's log: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("manager-%d.log", f.nodes)), log, 0o644); err != nil {
		return fmt.Errorf("keeping the manager's log: %w", err)
	}
	told := &eventsv1.EventList{}
	if err := f.client.List(ctx, told); err != nil {
		return fmt.Errorf("listing the events: %w", err)
	}
	text, err := json.MarshalIndent(told.Items, "", "  ")
	if err != nil {
		return fmt.Errorf("writing down the events: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("events-%d.json", f.nodes)), text, 0o644); err != nil {
		return fmt.Errorf("keeping the events: %w", err)
	}
	return errors.Join(f.profile(ctx, "profile", "?seconds=30", "rest"), f.profile(ctx, "heap", "?gc=1", "heap"),
		f.profile(ctx, "heap", "?debug=1", "memory"))
}

// count takes in what the API server's audit log says of the manager's requests.
func (r *atRest) count(audit io.Reader) error {
	return readAudit(audit, func(e *audited) {
		what := e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			what += "/" + e.ObjectRef.Subresource
		}
		switch {
		case e.User.Username != managerUser:
		case what == "leases":
			r.leases++
		default:
			r.requests[e.Verb+" "+what]++
			if !slices.Contains([]string{"get", "list", "watch"}, e.Verb) {
				r.written = append(r.written, e.Verb+" "+what+" "+e.ObjectRef.Name)
			}
		}
	})
}

// sweep lets another process ask all parsers at once.
func (f *fleet) sweep(ctx context.Context) (sweeps, error) {
	say("%d nodes: sweeps", f.nodes)
	var result sweeps
	cmd, err := ownCommand(sweepCommand, "--nodes", strconv.Itoa(f.nodes), "--second", strconv.Itoa(f.second),
		"--workers", strconv.Itoa(pollWorkers), "--interval", f.pollInterval.String())
	if err != nil {
		return result, err
	}
	out := f.path("sweeps.json")
	child, err := f.children.Start("sweep", cmd, out)
	if err != nil {
		return result, err
	}
	select {
	case <-ctx.Done():
		return result, ctx.Err()
	case <-child.Done():
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return result, fmt.Errorf("reading what sweeps took: %w", err)
	}
	if err := json.Unmarshal(text, &result); err != nil || len(result.AtOnce) < 2 {
		return result, fmt.Errorf("the sweeps failed: %s", text)
	}
	return result, nil
}

// fault is how long it took to see one.
type fault struct {
	// late is how long after its verdict was due the object's status had it, and cured how long after the fault a new parser ran.
	late, cured time.Duration
}

// fault makes one parser stand still.
func (f *fleet) fault(ctx context.Context) (fault, error) {
	const node, limit = 1, 5 * time.Minute
	say("%d nodes: one parser hangs", f.nodes)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Every state of the object is looked at: the one that tells of the fault may be over in a moment.
	changes, err := f.client.Watch(ctx, &v1alpha1.HyperliquidParserList{}, client.InNamespace(namespace))
	if err != nil {
		return fault{}, fmt.Errorf("watching the object: %w", err)
	}
	defer changes.Stop()
	if err := order(ctx, "POST", f.control, node); err != nil {
		return fault{}, err
	}
	begin := time.Now()
	var result fault
	for told := false; !told; {
		event, ok := <-changes.ResultChan()
		if !ok {
			return result, errors.Join(errors.New("the status does not tell of the fault"), ctx.Err())
		}
		obj, ok := event.Object.(*v1alpha1.HyperliquidParser)
		told = ok && slices.ContainsFunc(obj.Status.Targets, func(t v1alpha1.TargetStatus) bool { return t.Target == nodeName(node) })
	}
	result.late = time.Since(begin) - f.stuckAfter
	err = f.until(ctx, limit, "the parser that hangs is not replaced", func() (bool, error) {
		_, running, lastRunning, err := f.kubelets.pods()
		result.cured = lastRunning.Sub(begin)
		return running == f.nodes && result.cured > 0, err
	})
	return result, err
}

// profile keeps one of the manager's profiles, if asked to.
func (f *fleet) profile(ctx context.Context, name, query, file string) error {
	if f.profiles == "" {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.pprof+"/debug/pprof/"+name+query, http.NoBody)
	if err != nil {
		return fmt.Errorf("asking for a profile: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking for a profile: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading a profile: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("%s-%d.pprof", file, f.nodes)), body, 0o644); err != nil {
		return fmt.Errorf("keeping a profile: %w", err)
	}
	return nil
}
