package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
)

// refusalKind is a way in which an API server fails a request.
type refusalKind struct {
	// err is the error of the n-th attempt. It may differ each time.
	err func(n int) error
	// words must be reported.
	words string
	// stalls is set if somebody must change something.
	stalls bool
}

var anything = schema.GroupResource{Resource: "things"}

// statusError is an answer of the API server by its code.
func statusError(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{
		ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message},
	}
}

// refusalKinds are the errors of API servers 1.28 to 1.37, their admission plugins, and client-go.
var refusalKinds = map[string]refusalKind{
	"a quota": {stalls: true, words: "exceeded quota: bound", err: func(n int) error {
		return apierrors.NewForbidden(
			anything,
			"x",
			fmt.Errorf("exceeded quota: bound, requested: things=1, used: things=%d, limited: things=%d", n, n),
		)
	}},
	"a quota that asks for limits": {stalls: true, words: "must specify limits.memory", err: func(int) error {
		return apierrors.NewForbidden(
			anything, "x", errors.New("failed quota: bound: must specify limits.memory for: hlparser"),
		)
	}},
	"a quota that is not counted yet": {words: "status unknown for quota: bound", err: func(int) error {
		return apierrors.NewForbidden(anything, "x", errors.New("status unknown for quota: bound, resources: things"))
	}},
	"a webhook that denies": {
		stalls: true,
		words:  `admission webhook "policy.example.com" denied the request: not signed`,
		err: func(int) error {
			return statusError(
				http.StatusForbidden,
				metav1.StatusReasonForbidden,
				`admission webhook "policy.example.com" denied the request: not signed`,
			)
		},
	},
	"a webhook that denies at length": {
		stalls: true,
		words:  `denied the request: policy violation`,
		err: func(int) error {
			return statusError(
				http.StatusBadRequest,
				metav1.StatusReasonBadRequest,
				`admission webhook "policy.example.com" denied the request: policy violation: `+strings.Repeat(
					"resource was blocked; ", 3000,
				),
			)
		},
	},
	"a policy": {stalls: true, words: "denied request: failed expression", err: func(int) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Thing"}, "x", field.ErrorList{field.Forbidden(nil,
			"ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: false")})
	}},
	"a webhook that is down": {words: `failed calling webhook "policy.example.com"`, err: func(n int) error {
		return apierrors.NewInternalError(
			fmt.Errorf(`failed calling webhook "policy.example.com": failed to call webhook: Post `+
				`"https://policy.example.svc:443/validate?timeout=10s": dial tcp 10.96.0.%d:443: connect: connection refused`,
				n%250),
		)
	}},
	"a webhook that is slow": {words: "context deadline exceeded", err: func(int) error {
		return apierrors.NewInternalError(
			errors.New(`failed calling webhook "policy.example.com": failed to call webhook: Post ` +
				`"https://policy.example.svc:443/validate?timeout=10s": context deadline exceeded`),
		)
	}},
	"conflicts, as of a quota that is fought over": {
		words: `Operation cannot be fulfilled on resourcequotas "bound"`,
		err: func(int) error {
			return apierrors.NewConflict(
				schema.GroupResource{Resource: "resourcequotas"},
				"bound",
				errors.New(
					"the object has been modified; please apply your changes to the latest version and try again",
				),
			)
		},
	},
	"time limits": {words: "request did not complete within requested timeout", err: func(int) error {
		return apierrors.NewTimeoutError(
			"request did not complete within requested timeout - context deadline exceeded", 0,
		)
	}},
	"a server that is busy": {words: "the server has received too many requests", err: func(int) error {
		return apierrors.NewTooManyRequests(
			"the server has received too many requests and has asked us to try again later", 1,
		)
	}},
	"etcd without a leader": {words: "etcdserver: leader changed", err: func(int) error {
		return apierrors.NewInternalError(errors.New("etcdserver: leader changed"))
	}},
	"a server that goes": {words: "apiserver is shutting down", err: func(int) error {
		return apierrors.NewServiceUnavailable("apiserver is shutting down")
	}},
	"no answer": {words: "connection reset by peer", err: func(n int) error {
		return fmt.Errorf(
			`Post "https://10.96.0.1:443/api": read tcp 10.0.0.7:%d->10.96.0.1:443: read: connection reset by peer`,
			40000+n,
		)
	}},
}

// refusalCase is a request of the operator that may be refused, and what must exist nevertheless.
type refusalCase struct {
	is func(request) bool
	// begin brings the fleet to where the request is made, while all is well; nil: it is made at once.
	begin func(*served)
	// served returns what is missing although it does not depend on the request, or "".
	served func(*served) string
	// well returns what is missing once the request has succeeded, or "".
	well func(*served) string
	// reason of Stalled; "" if the status cannot be written.
	reason string
}

// missing names nodes without a pod, of the first n but some.
func missing(s *served, n int, but ...int) string {
	var out []string
	for i := range n {
		if s.podOn(i) == nil && (len(but) == 0 || i != but[0]) {
			out = append(out, nodeName(i))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "no pod on " + strings.Join(out, ", ")
}

func is(verb, kind string) func(request) bool {
	return func(r request) bool { return r.verb == verb && r.kind == kind }
}

func named(verb, kind, part string) func(request) bool {
	return func(r request) bool { return r.verb == verb && r.kind == kind && strings.Contains(r.name, part) }
}

const refusalNodes = 4

// loses removes the pod of a node, which is unrelated to what is refused.
func (s *served) loses(i int) {
	s.t.Helper()
	if err := s.api.Delete(s.t.Context(), s.podOn(i)); err != nil {
		s.t.Fatal(err)
	}
}

func allPods(s *served) string { return missing(s, refusalNodes) }
func nothing(*served) string   { return "" }
func minutePasses(s *served)   { s.passes(time.Minute) }

var refusalCases = map[string]refusalCase{
	"creating the revision": {
		is:     is("create", "ControllerRevision"),
		served: nothing,
		well:   allPods,
		reason: v1alpha1.ReasonPodRejected,
	},
	"creating its config": {
		is:     named("create", "ConfigMap", "mainnet-0123456789"),
		served: nothing,
		well:   allPods,
		reason: v1alpha1.ReasonPodRejected,
	},
	"creating pods": {
		is:     is("create", "Pod"),
		served: nothing,
		well:   allPods,
		reason: v1alpha1.ReasonPodRejected,
	},
	"publishing the keys": {
		is:     named("create", "ConfigMap", "-operator-keys"),
		served: allPods,
		well:   allPods,
		reason: v1alpha1.ReasonWriteRejected,
	},
	"creating the network policy": {
		is:     is("create", "NetworkPolicy"),
		served: allPods,
		well:   allPods,
		reason: v1alpha1.ReasonWriteRejected,
	},
	"reading the object, to be sure": {
		is:     is("get", "PartialObjectMetadata"),
		served: nothing,
		well:   allPods,
		reason: v1alpha1.ReasonWriteRejected,
	},
	"creating one pod of them all": {
		is:     named("create", "Pod", "the first"),
		served: func(s *served) string { return missing(s, refusalNodes, 0) },
		well:   allPods,
		reason: v1alpha1.ReasonPodRejected,
	},
	"correcting the network policy": {
		is: is("update", "NetworkPolicy"), reason: v1alpha1.ReasonWriteRejected, served: allPods, well: allPods,
		begin: func(s *served) {
			minutePasses(s)
			s.Access.OperatorNamespace = "elsewhere"
			s.loses(3)
		},
	},
	"storing the revision after the first": {
		is: is("create", "ControllerRevision"), reason: v1alpha1.ReasonPodRejected, served: nothing, well: allPods,
		begin: func(s *served) {
			minutePasses(s)
			changes(s, s.fresh(), func(o *v1alpha1.HyperliquidParser) { o.Spec.Format, o.Generation = "Raw", 2 })
		},
	},
	"creating the config of the revision after the first": {
		is: is("create", "ConfigMap"), reason: v1alpha1.ReasonPodRejected, served: allPods, well: allPods,
		begin: func(s *served) {
			minutePasses(s)
			changes(s, s.fresh(), func(o *v1alpha1.HyperliquidParser) { o.Spec.Format, o.Generation = "Raw", 2 })
		},
	},
	"keeping the record of restarts": {
		is: named(
			"update", "ConfigMap", "-restarts",
		),
		reason: v1alpha1.ReasonWriteRejected,
		served: allPods,
		well:   allPods,
		begin: func(s *served) {
			minutePasses(s)
			obj := s.object()
			text, err := plan.Record{UID: "gone", Times: []time.Time{noon.Add(-2 * time.Hour)}}.Encode()
			if err != nil {
				s.t.Fatal(err)
			}
			s.mustCreate(&corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "ns",
					Name:      ledgerName(obj),
					Labels:    map[string]string{v1alpha1.LabelParser: "mainnet"},
					OwnerReferences: []metav1.OwnerReference{
						*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(parserKind)),
					},
				},
				Data: map[string]string{"a-node-of-before": text},
			})
			s.loses(3)
		},
	},
	"deleting a pod": {
		is: is("delete", "Pod"), reason: v1alpha1.ReasonWriteRejected,
		served: func(s *served) string { return missing(s, refusalNodes-1) },
		well:   func(s *served) string { return missing(s, refusalNodes-1) },
		begin: func(s *served) {
			minutePasses(s)
			changes(s, s.node(refusalNodes-1), func(n *corev1.Node) { n.Labels = nil })
			s.loses(1)
		},
	},
	"adopting a pod": {
		is: is("patch", "Pod"), reason: v1alpha1.ReasonWriteRejected, served: allPods, well: allPods,
		begin: func(s *served) {
			minutePasses(s)
			changes(s, s.podOn(1), func(p *corev1.Pod) { p.OwnerReferences = nil })
			changes(s, s.node(1), func(n *corev1.Node) { n.Spec.Unschedulable = true }) // no pod is made there
			s.loses(3)
		},
	},
	"deleting what is needed no more": {
		is: is("delete", "ConfigMap"), reason: v1alpha1.ReasonWriteRejected, served: allPods, well: allPods,
		begin: func(s *served) {
			minutePasses(s)
			s.history("Raw") // its config is needed by no pod
			s.loses(3)
		},
	},
	"writing the status": {is: is("update status", "HyperliquidParser"), served: allPods, well: allPods},
}

// Whatever the API server refuses, with any message, is reported and retried in time but not too often. It blocks
// nothing else, the status does not change meanwhile, and within half a minute of its end all is well.
func TestWhatTheAPIServerRefusesIsSaidAndHoldsUpNothingElse(t *testing.T) {
	for what, test := range refusalCases {
		for kind, refusal := range refusalKinds {
			t.Run(what+"/"+kind, func(t *testing.T) {
				t.Parallel()
				s := serve(t, refusalNodes)
				if test.begin != nil {
					test.begin(s)
				}
				s.refusing(test.refuses(refusal))
				s.sent()
				s.passes(20 * time.Second)
				// Each pod waits twice as long as before, from a tenth of a second on.
				if tries := s.tries(); tries < 2 || tries > 9*refusalNodes {
					t.Errorf("it is tried %d times in 20 s", tries)
				}
				if got := test.served(s); got != "" {
					t.Errorf("held up: %s", got)
				}
				s.saysOf(test, refusal)
				s.goesOn(test)
				s.isOver(test)
			})
		}
	}
}

// refuses returns the error of the matching requests.
func (c refusalCase) refuses(refusal refusalKind) func(request) error {
	tries := 0
	return func(r request) error {
		// Of names that hold a hash, the one that is meant.
		hashed := r.verb == "create" && r.kind == "ConfigMap" && !strings.HasSuffix(r.name, "-operator-keys") &&
			!strings.HasSuffix(r.name, "-restarts")
		first := r.kind == "Pod" && r.name == nameOfPod(0)
		meant := c.is(r) || hashed && c.is(request{r.verb, r.kind, "mainnet-0123456789"}) ||
			first && c.is(request{r.verb, r.kind, "the first"})
		if !meant {
			return nil
		}
		tries++
		return refusal.err(tries)
	}
}

// tries returns the number of refused requests since the last call.
func (s *served) tries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.refused)
	s.refused = nil
	return n
}

// saysOf checks what is reported of a refusal.
func (s *served) saysOf(test refusalCase, refusal refusalKind) {
	s.t.Helper()
	reason, kind := test.reason, v1alpha1.ConditionStalled
	if !refusal.stalls {
		reason, kind = v1alpha1.ReasonWriteFailing, v1alpha1.ConditionReconciling
	}
	events := strings.Join(s.sent(), "\n")
	if !strings.Contains(events, reason) || !strings.Contains(events, refusal.words) {
		s.t.Errorf("the events are %q", events)
	}
	if test.reason == "" {
		return // the status is what cannot be written
	}
	if got := s.says(kind); !strings.HasPrefix(got, "True/"+reason+": ") || !strings.Contains(got, refusal.words) {
		s.t.Errorf("%s is %q", kind, got)
	}
	if got := s.says(v1alpha1.ConditionStalled); !refusal.stalls && strings.HasPrefix(got, "True") {
		s.t.Errorf("Stalled is %q, which ends a wait for it", got)
	}
	for _, c := range s.object().Status.Conditions {
		if len(c.Message) > 1024 {
			s.t.Errorf("%s has %d bytes", c.Type, len(c.Message))
		}
	}
}

// goesOn checks that the refused request is retried, and that there are no writes meanwhile.
func (s *served) goesOn(test refusalCase) {
	s.t.Helper()
	s.mu.Lock()
	clear(s.writes)
	s.mu.Unlock()
	const long = 3 * time.Minute
	s.passes(long)
	s.mu.Lock()
	written := s.writes["update status HyperliquidParser"]
	s.mu.Unlock()
	if test.reason != "" && written > 1 {
		s.t.Errorf("the status is written %d times", written)
	}
	least, most := int(long/(30*time.Second))-1, refusalNodes*int(long/maxBackoffAway)
	if tries := s.tries(); tries < least || tries > most {
		s.t.Errorf("it is tried %d times in %s", tries, long)
	}
}

// isOver checks that all is well, and nothing is written, soon after the refusals end.
func (s *served) isOver(test refusalCase) {
	s.t.Helper()
	s.refusing(nil)
	s.passes(30*time.Second + time.Second)
	if got := test.well(s); got != "" {
		s.t.Errorf("when it is over: %s", got)
	}
	s.passes(2 * time.Hour) // a rollout to parsers without reports takes ten minutes each
	if got := s.says(v1alpha1.ConditionStalled); !strings.HasPrefix(got, "False/") {
		s.t.Errorf("when it is over: Stalled is %q", got)
	}
	if got := s.says(v1alpha1.ConditionReconciling); strings.Contains(got, v1alpha1.ReasonWriteFailing) {
		s.t.Errorf("when it is over: Reconciling is %q", got)
	}
	if len(s.refusals.objects) > 0 {
		s.t.Errorf("remembered is %v", s.refusals.objects)
	}
	s.refusing(nil)
	s.passes(10 * time.Minute)
	if len(s.writes) > 0 {
		s.t.Errorf("at rest there are %v", s.writes)
	}
}

func TestRefusalsAreTriedAgainWithinHalfAMinute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r refusals
		now := noon
		errs := append(make([]error, 0, 2+len(refusalKinds)), errStale, errors.New("no answer"))
		for _, kind := range refusalKinds {
			errs = append(errs, kind.err(1))
		}
		for range rapid.IntRange(1, 20).Draw(t, "tries") {
			err := rapid.SampledFrom(errs).Draw(t, "answer")
			due := r.failed(anObject, "x", "Reason", err, now)
			wait, f := due.Sub(now), r.list(anObject, map[string]bool{"x": true})[0]
			if wait < firstConflict || wait > 30*time.Second {
				t.Fatalf("%v is tried again after %s", err, wait)
			}
			if len(f.message) > maxRefusalMessage || f.message == "" {
				t.Fatalf("the message has %d bytes", len(f.message))
			}
			if f.refused != stalls(err) || f.refused != (f.reason == "Reason") {
				t.Fatalf("%v is %+v", err, f)
			}
			if _, ok := r.backsOff(anObject, "x", due.Add(-1)); !ok {
				t.Fatal("it is tried too soon")
			}
			if _, ok := r.backsOff(anObject, "x", due); ok {
				t.Fatal("it is not tried in time")
			}
			now = due
		}
		r.succeeded(anObject, "x")
		if _, ok := r.backsOff(anObject, "x", now.Add(-time.Hour)); ok {
			t.Fatal("what was done waits")
		}
		r.keep(anObject, nil)
		if len(r.objects) > 0 {
			t.Fatal("what was done is remembered")
		}
	})
}

// Figures and ports in an error change with each attempt. The reported message stays until the error has another
// reason, or the message is old.
func TestTheWordsOfARefusalRest(t *testing.T) {
	var r refusals
	now := noon
	say := func(err error, after time.Duration) string {
		now = now.Add(after)
		r.failed(anObject, "x", "Reason", err, now)
		return r.list(anObject, map[string]bool{"x": true})[0].message
	}
	quota := refusalKinds["a quota"].err
	first := say(quota(1), 0)
	if got := say(quota(2), time.Minute); got != first {
		t.Errorf("after a minute: %q", got)
	}
	if got := say(quota(3), keepMessage); !strings.Contains(got, "used: things=3") {
		t.Errorf("after minutes: %q", got)
	}
	if got := say(errors.New("no answer"), time.Second); got != "no answer" {
		t.Errorf("for another reason: %q", got)
	}
}

func TestWhatStallsAndWhatIsTriedAgain(t *testing.T) {
	for name, kind := range refusalKinds {
		if got := stalls(fmt.Errorf("creating it: %w", kind.err(1))); got != kind.stalls {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{errStale, false},
		{apierrors.NewUnauthorized("who is it"), false},
		{apierrors.NewNotFound(anything, "x"), false},
		{apierrors.NewAlreadyExists(anything, "x"), false},
		{apierrors.NewResourceExpired("expired"), false},
		{apierrors.NewRequestEntityTooLargeError("limit is 3145728"), true},
		{apierrors.NewMethodNotSupported(anything, "create"), true},
		{errors.Join(errors.New("no answer"), refusalKinds["a quota"].err(1)), true},
	} {
		if got := stalls(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

// If some pods are refused, all others are created, however many there are and in any order.
func TestPodsThatAreRefusedHoldUpNoOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const nodes = 10
		bad := rapid.MapOfN(rapid.IntRange(0, nodes-1), rapid.Just(true), 0, nodes).Draw(rt, "refused")
		s := serve(t, nodes)
		s.refusing(func(r request) error {
			for i := range bad {
				if r.verb == "create" && r.kind == "Pod" && r.name == nameOfPod(i) {
					return refusalKinds["a policy"].err(1)
				}
			}
			return nil
		})
		if s.passes(2 * time.Second); len(bad) < maxCreateFailures && len(s.pods()) != nodes-len(bad) {
			rt.Fatalf("%d are refused, and there are %d of the others", len(bad), len(s.pods()))
		}
		s.passes(5 * time.Minute)
		for i := range nodes {
			if there := s.podOn(i) != nil; there == bad[i] {
				rt.Fatalf("%s: a pod is there: %v", nodeName(i), there)
			}
		}
		if stalled := strings.HasPrefix(s.says(v1alpha1.ConditionStalled), "True"); stalled != (len(bad) > 0) {
			rt.Fatalf("%d are refused: %s", len(bad), s.says(v1alpha1.ConditionStalled))
		}
	})
}

// Webhooks may take thirty seconds each. A reconcile that runs out of time reports the cause.
func TestAReconcileKeepsTimeToSayWhatTookIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, 3)
		s.hangs = is("create", "Pod")
		request := ctrl.Request{NamespacedName: client.ObjectKeyFromObject(s.fresh())}
		for range 3 {
			ctx, cancel := context.WithTimeout(logf.IntoContext(t.Context(), logr.Discard()), longestReconcile)
			result, err := s.Reconcile(ctx, request)
			cancel()
			if err != nil || result.RequeueAfter <= 0 || result.RequeueAfter > 30*time.Second {
				t.Errorf("it ends with %+v, %v", result, err)
			}
			s.clock.SetTime(s.clock.Now().Add(longestReconcile))
		}
		got := s.says(v1alpha1.ConditionReconciling)
		if !strings.HasPrefix(got, "True/WriteFailing: creating pod") || !strings.Contains(got, "context deadline exceeded") {
			t.Errorf("Reconciling is %q", got)
		}
		s.hangs = nil
		s.passes(30 * time.Second)
		if got := missing(s, 3); got != "" {
			t.Errorf("when it is over: %s", got)
		}
	})
}

// No pods of a revision whose config cannot be written are created, and those of others are.
func TestAConfigThatIsRefusedHoldsBackItsOwnRevisionOnly(t *testing.T) {
	s := serve(t, 3)
	minutePasses(s)
	changes(s, s.fresh(), func(o *v1alpha1.HyperliquidParser) { o.Spec.Format, o.Generation = "Raw", 2 })
	s.loses(0)
	s.loses(1)
	s.refusing(func(r request) error {
		if r.verb == "create" && r.kind == "ConfigMap" {
			return refusalKinds["a quota"].err(1)
		}
		return nil
	})
	ctx, obj := logf.IntoContext(t.Context(), logr.Discard()), s.object()
	tried := &attempts{}
	fleet, err := s.observe(ctx, obj, tried)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.resolve(ctx, obj, fleet, tried)
	if err != nil {
		t.Fatal(err)
	}
	if v.current == nil || v.update == v.current || !v.held || !v.lacking[v.update.Hash] || len(v.lacking) != 1 {
		t.Fatalf("the revisions are %+v", v)
	}
	create := func(i int, revision *observed.Revision) plan.Action {
		return plan.Action{Kind: plan.Create, Target: nodeName(i), Pod: nameOfPod(i), Revision: revision.Hash}
	}
	remove := func(i int, kind plan.Kind, why string) plan.Action {
		return plan.Action{Kind: kind, Why: why, Target: nodeName(i), Pod: nameOfPod(i), UID: string(s.podOn(i).UID)}
	}
	s.apply(ctx, obj, fleet, v, plan.Result{Actions: []plan.Action{
		create(0, v.current), create(1, v.update), remove(2, plan.Delete, plan.WhyOutdated),
	}}, tried)
	if s.podOn(0) == nil || s.podOn(1) != nil || s.podOn(2) == nil {
		t.Errorf("there are pods on %v, %v, %v", s.podOn(0) != nil, s.podOn(1) != nil, s.podOn(2) != nil)
	}
	s.apply(ctx, obj, fleet, v, plan.Result{Actions: []plan.Action{remove(2, plan.Delete, plan.WhyFailed)}}, tried)
	if s.podOn(2) != nil {
		t.Error("a pod that will not run again is kept")
	}
}
