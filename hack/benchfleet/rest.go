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

// atRest is the resource usage of a fleet at rest.
type atRest struct {
	watched  time.Duration
	requests map[string]int // of the manager, by verb and resource, without the Lease's
	written  []string       // the writes among them, with the object's name
	leases   int
	cpu      time.Duration // of the manager
	resident int64         // the maximum observed, in bytes
	peak     int64         // since the manager's start, in bytes
}

// times are processor times since the start of the processes.
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

// settle waits until the operator has judged all targets and its status is stable for a while.
func (f *fleet) settle(ctx context.Context) error {
	const limit = 10 * time.Minute
	say("%d nodes: waiting for rest", f.nodes)
	obj := &v1alpha1.HyperliquidParser{}
	var last v1alpha1.HyperliquidParserStatus
	since := time.Now()
	bad := badNodes(f.nodes)
	return f.until(ctx, limit, "the status did not become stable", func() (bool, error) {
		if err := f.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: objectName}, obj); err != nil {
			return false, fmt.Errorf("reading the object: %w", err)
		}
		if !equality.Semantic.DeepEqual(obj.Status, last) {
			last, since = *obj.Status.DeepCopy(), time.Now()
		}
		return int(obj.Status.Bad) == bad && time.Since(since) > f.quiet, nil
	})
}

// watchRest watches the manager while figures fluctuate and nothing happens.
func (f *fleet) watchRest(ctx context.Context) (atRest, error) {
	say("%d nodes: at rest for %s", f.nodes, f.steady)
	audit, err := f.auditFromNow()
	if err != nil {
		return atRest{}, err
	}
	defer func() { _ = audit.Close() }() // opened for reading only
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
		say("%d nodes: write at rest: %s", f.nodes, what)
	}
	return r, nil
}

// keep saves the manager's profiles, log and events if requested.
func (f *fleet) keep(ctx context.Context) error {
	if f.profiles == "" {
		return nil
	}
	log, err := os.ReadFile(f.path("manager.log"))
	if err != nil {
		return fmt.Errorf("saving the manager's log: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("manager-%d.log", f.nodes)), log, 0o644); err != nil {
		return fmt.Errorf("saving the manager's log: %w", err)
	}
	events := &eventsv1.EventList{}
	if err := f.client.List(ctx, events); err != nil {
		return fmt.Errorf("listing the events: %w", err)
	}
	text, err := json.MarshalIndent(events.Items, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the events: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("events-%d.json", f.nodes)), text, 0o644); err != nil {
		return fmt.Errorf("saving the events: %w", err)
	}
	return errors.Join(f.profile(ctx, "profile", "?seconds=30", "rest"), f.profile(ctx, "heap", "?gc=1", "heap"),
		f.profile(ctx, "heap", "?debug=1", "memory"))
}

// count adds the manager's requests in the API server's audit log.
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

// sweep runs the sweeps in another process.
func (f *fleet) sweep(ctx context.Context) (sweeps, error) {
	say("%d nodes: sweeps", f.nodes)
	var result sweeps
	cmd, err := ownCommand(sweepCommand, "--nodes", strconv.Itoa(f.nodes), "--second", strconv.Itoa(f.second),
		"--workers", strconv.Itoa(pollWorkers), "--operator-key", f.operatorKey(), "--interval", f.pollInterval.String())
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
		return result, fmt.Errorf("reading the results of the sweeps: %w", err)
	}
	if err := json.Unmarshal(text, &result); err != nil || len(result.AtOnce) < 2 {
		return result, fmt.Errorf("the sweeps failed: %s", text)
	}
	return result, nil
}

// fault measures the reaction to a fault.
type fault struct {
	// late is the time from when the verdict was due until the status had it. cured is the time from the fault until a
	// new parser ran.
	late, cured time.Duration
}

// fault makes one parser hang.
func (f *fleet) fault(ctx context.Context) (fault, error) {
	const node, limit = 1, 5 * time.Minute
	say("%d nodes: one parser hangs", f.nodes)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A watch sees every state of the object: the state with the fault may last only for a moment.
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
	for reported := false; !reported; {
		event, ok := <-changes.ResultChan()
		if !ok {
			return result, errors.Join(errors.New("the status does not report the fault"), ctx.Err())
		}
		obj, ok := event.Object.(*v1alpha1.HyperliquidParser)
		reported = ok && slices.ContainsFunc(obj.Status.Targets, func(t v1alpha1.TargetStatus) bool {
			return t.Target == nodeName(node)
		})
	}
	result.late = time.Since(begin) - f.stuckAfter
	err = f.until(ctx, limit, "the parser that hangs is not replaced", func() (bool, error) {
		_, running, lastRunning, err := f.kubelets.pods()
		result.cured = lastRunning.Sub(begin)
		return running == f.nodes && result.cured > 0, err
	})
	return result, err
}

// profile saves one of the manager's profiles if requested.
func (f *fleet) profile(ctx context.Context, name, query, file string) error {
	if f.profiles == "" {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.pprof+"/debug/pprof/"+name+query,
		http.NoBody)
	if err != nil {
		return fmt.Errorf("requesting a profile: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("requesting a profile: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading a profile: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.profiles, fmt.Sprintf("%s-%d.pprof", file, f.nodes)), body, 0o644); err != nil {
		return fmt.Errorf("saving a profile: %w", err)
	}
	return nil
}
