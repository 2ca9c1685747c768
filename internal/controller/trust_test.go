package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/status"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

func TestALedgerThatWasSpoiltIsReadAsFarAsItGoes(t *testing.T) {
	const at = `"2026-05-01T11:40:00Z"`
	const good = `{"uid":"x","times":[` + at + `]}`
	m := &corev1.ConfigMap{Data: map[string]string{
		"a": good, "b": "{", "c": strings.Repeat("x", 100_000), "d": `{"uid":"x","times":[` + strings.Repeat(at+",", 5000) +
			at + `]}`,
		"e": `{"uid":"x","times":[` + at + `],"doublings":-7}`, "_trials": strings.Repeat("[", 1<<20), "_total": "7",
		"_else": "x",
	}}
	l := readLedger(m, logr.Discard())
	if len(l.Records) != 1 || len(l.Records["a"].Times) != 1 || l.Total != 7 || l.Trials.Causes != nil {
		t.Errorf("read %+v", l)
	}
}

func TestATotalIsNotBelievedBeyondTheStatus(t *testing.T) {
	obj, s := scene(3)
	obj.Status.Restarts = 5
	records := fmt.Sprintf(`{"uid":"x","times":["%s"]}`, noon.Format(time.RFC3339))
	for text, want := range map[string]int32{
		"": 0, "5": 5, "6": 6, "4": 4, "7": 6, "2147483647": 6, "2147483648": 0, "-3": 0, "1e9": 0, "x": 0,
	} {
		// One of a target, one of what is none.
		m := &corev1.ConfigMap{Data: map[string]string{totalKey: text, nodeName(1): records, "gone": records}}
		l := readLedger(m, logr.Discard())
		boundTotal(&l, obj, s.Fleet)
		if l.Total != want {
			t.Errorf("%q is read as %d, want %d", text, l.Total, want)
		}
	}
	obj.Status.Restarts = math.MaxInt32
	l := observed.Ledger{Total: math.MaxInt32, Records: plan.Ledger{nodeName(0): {}}}
	if boundTotal(&l, obj, s.Fleet); l.Total != math.MaxInt32 {
		t.Errorf("the largest total is read as %d", l.Total)
	}
}

func TestALedgerThatIsWrittenFitsIntoAnObject(t *testing.T) {
	records := plan.Ledger{}
	for i := range 20_000 {
		record := plan.Record{UID: strings.Repeat("u", 36)}
		for j := range 20 {
			record.Times = append(record.Times, noon.Add(-time.Duration(i*20-j)*time.Second))
		}
		records[fmt.Sprintf("node-%05d", i)] = record
	}
	out, err := encode(records)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for name, text := range out {
		size += len(name) + len(text)
	}
	if size > 1<<20 || len(out) < 1000 {
		t.Errorf("%d records of %d bytes", len(out), size)
	}
	if _, ok := out["node-00000"]; !ok {
		t.Error("the newest is left out")
	}
	if _, ok := out["node-19999"]; ok {
		t.Error("the oldest is kept")
	}
	few, err := encode(plan.Ledger{"a": records["node-00007"]})
	if err != nil || len(few) != 1 {
		t.Errorf("of a few: %v, %v", few, err)
	}
}

func TestAStatusIsSmallHoweverLongItsTexts(t *testing.T) {
	long := strings.Repeat("an error that goes on and on – ", 2000)
	for name, length := range map[string]int{"short names": 9, "long names": 253} {
		obj, s := scene(0)
		for i := range 100 {
			node := fmt.Sprintf("%s%04d", strings.Repeat("n", length-4), i)
			s.Targets = append(s.Targets, target.Target{Name: node, Node: node})
			s.judge(i, health.SinkDown)
			view := s.Views[node]
			view.Judgement.Message, view.Judgement.Reason, view.MissingSecret = long, long, long
			view.Alerts.DataLost = health.Alert{Since: noon, Message: long}
			s.Views[node] = view
		}
		s.pair(obj.Name)
		for stalled, problem := range map[string]*problem{"stalled by a parser": nil, "stalled": {
			Reason: v1alpha1.ReasonPodRejected, Message: long}} {
			s.problem = problem
			waiting := map[string]string{}
			for _, t := range s.Targets {
				waiting[t.Name] = "waiting to see whether the restart of " + t.Name + " helps"
			}
			got := s.status(obj, plan.Result{Message: long, Outage: long, FleetWide: true, Waiting: waiting})
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > status.MaxSize || len(got.Targets) == 0 || got.Bad != 100 {
				t.Errorf("%s, %s: %d bytes, %d of %d targets shown", name, stalled, len(text), len(got.Targets), got.Bad)
			}
			for _, shown := range got.Targets {
				if len(shown.Message) > 512 || len(shown.Reason) > 128 {
					t.Errorf("%s, %s: a reason of %d bytes, a message of %d", name, stalled, len(shown.Reason), len(shown.Message))
				}
			}
			for _, c := range got.Conditions {
				if len(c.Message) > 1024 {
					t.Errorf("%s, %s: %s says %d bytes", name, stalled, c.Type, len(c.Message))
				}
			}
			// At rest it stays as it is.
			obj.Status = got
			again := s.status(obj, plan.Result{Message: long, Outage: long, FleetWide: true, Waiting: waiting})
			if fmt.Sprint(again) != fmt.Sprint(got) {
				t.Errorf("%s, %s: at rest\n got %.300v\nwant %.300v", name, stalled, again, got)
			}
		}
	}
}

// A reason that a kubelet gives is the condition's in the API's form.
func TestAStrangeReasonIsNoReasonToRefuseAStatus(t *testing.T) {
	obj, s := scene(2)
	s.judge(1, health.NotRunning)
	s.problem = &problem{Reason: "image can't be\npulled", Message: "a\nb\x1b[2J\u202e"}
	got := s.status(obj, plan.Result{})
	c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionStalled)
	if c.Reason != "imagecantbepulled" || c.Message != "a b\ufffd[2J\ufffd" {
		t.Errorf("the condition is %q, %q", c.Reason, c.Message)
	}
}

// While the status cannot be written, it is read unchanged, and no event is sent twice.
func TestEventsDoNotDependOnAStatusThatCannotBeWritten(t *testing.T) {
	e, _, sent := recordedEvents()
	obj, _ := scene(1)
	condition := func(value metav1.ConditionStatus, reason string) v1alpha1.HyperliquidParserStatus {
		return v1alpha1.HyperliquidParserStatus{CurrentRevision: "mainnet-new", Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionStalled, Status: value, Reason: reason, Message: "why"},
		}}
	}
	before := condition(metav1.ConditionFalse, v1alpha1.ReasonNotStalled)
	before.CurrentRevision = "mainnet-old"
	for range 3 {
		e.conditions(obj, before, condition(metav1.ConditionTrue, v1alpha1.ReasonPodRejected))
	}
	e.conditions(obj, before, condition(metav1.ConditionFalse, v1alpha1.ReasonNotStalled))
	e.conditions(obj, before, condition(metav1.ConditionTrue, v1alpha1.ReasonPodRejected))
	want := []string{"Warning PodRejected why", "Normal RolledOut every parser runs revision mainnet-new",
		"Warning PodRejected why"}
	if got := sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestWhichRefusalsAreOfWhatAStatusSays(t *testing.T) {
	kind := schema.GroupKind{Group: "fleet.hlparser.dev", Kind: "HyperliquidParser"}
	resource := schema.GroupResource{Group: kind.Group, Resource: "hyperliquidparsers"}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{apierrors.NewInvalid(kind, "x", nil), true},
		{apierrors.NewRequestEntityTooLargeError("limit is 3145728"), true},
		{apierrors.NewBadRequest("strict decoding error"), true},
		{apierrors.NewInternalError(errors.New("etcdserver: request is too large")), true},
		{apierrors.NewInternalError(errors.New("etcdserver: leader changed")), false},
		{apierrors.NewConflict(resource, "x", errors.New("changed")), false},
		{apierrors.NewForbidden(resource, "x", errors.New("no")), false},
		{apierrors.NewServerTimeout(resource, "update", 1), false},
	} {
		if got := statusRefused(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}
