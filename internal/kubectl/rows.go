package kubectl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// fleet is what is known of one object.
type fleet struct {
	object *v1alpha1.HyperliquidParser
	// targets are what the manager serves; nil if it serves nothing, and missing says why.
	targets []reports.Target
	missing string
	pods    []corev1.Pod
	now     time.Time // by the manager's clock, or this machine's if it serves nothing
}

// row is one target. A figure that is nil is not known, or is not known of all of the target's streams.
type row struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Target    string `json:"target"`
	Pod       string `json:"pod,omitempty"`
	// Verdict is empty if it is not known.
	Verdict string    `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Fading  bool      `json:"fading,omitempty"`
	Alerts  []string  `json:"alerts,omitempty"`

	LagSeconds         *float64 `json:"lagSeconds,omitempty"`         // of the worst stream
	WaitingBytes       *int64   `json:"waitingBytes,omitempty"`       // of whole lines that are not committed
	WrittenBytesPerSec *float64 `json:"writtenBytesPerSec,omitempty"` // over the last minute
	AckedBytesPerSec   *float64 `json:"ackedBytesPerSec,omitempty"`
	BufferBytes        *int64   `json:"bufferBytes,omitempty"` // in live buffers and in flight
	MemoryBytes        *int64   `json:"memoryBytes,omitempty"`
	MemoryLimitBytes   *int64   `json:"memoryLimitBytes,omitempty"`
	LostBytes          *int64   `json:"lostBytes,omitempty"` // that were on disk and are never read
	// ReportAt is when the report arrived that the figures are from. NoReport is why there is none, or no newer one.
	ReportAt time.Time `json:"reportAt,omitzero"`
	NoReport string    `json:"noReport,omitempty"`
}

// rowsOf returns a row for each target that is known: those that the manager serves, those with a pod, and those that
// the status names. They are ordered by name.
func rowsOf(f *fleet) []row {
	rows := map[string]*row{}
	at := func(target string) *row {
		if rows[target] == nil {
			rows[target] = &row{Namespace: f.object.Namespace, Name: f.object.Name, Target: target}
		}
		return rows[target]
	}
	for i := range f.pods {
		if target := f.pods[i].Annotations[v1alpha1.AnnotationTarget]; target != "" {
			at(target).Pod = f.pods[i].Name
		}
	}
	for i := range f.object.Status.Targets {
		t := &f.object.Status.Targets[i]
		r := at(t.Target)
		r.Verdict, r.Reason, r.Message, r.Since = t.Verdict, t.Reason, t.Message, t.Since.UTC()
		r.Pod = cmp.Or(r.Pod, t.Pod)
	}
	for i := range f.targets {
		at(f.targets[i].Target).take(&f.targets[i])
	}
	out := make([]row, 0, len(rows))
	for _, target := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, *rows[target])
	}
	return out
}

// take fills a row with what the manager serves of its target.
func (r *row) take(t *reports.Target) {
	r.Pod = cmp.Or(t.Pod, r.Pod)
	// The status has the same judgement with the operator's response, or is behind.
	if r.Verdict != t.Verdict || r.Message == "" {
		r.Message = t.Message
	}
	r.Verdict, r.Reason, r.Since, r.Fading = t.Verdict, t.Reason, t.Since, t.Fading
	for _, a := range t.Alerts {
		r.Alerts = append(r.Alerts, a.Alert)
	}
	r.NoReport, r.ReportAt = t.Failure, t.At
	if t.Report == nil {
		if r.NoReport == "" {
			r.NoReport = "no report yet"
		}
		return
	}
	r.figures(t.Report, t.Rates)
}

// figures fills in the figures of a report.
func (r *row) figures(from *report.Report, rates []reports.Rate) {
	var waiting, held, lost int64
	var lag, written, acked float64
	known, knownLag := true, true
	for i := range from.Streams {
		s := &from.Streams[i]
		held += s.BufferBytes + s.InFlightBytes
		lost += s.SkippedBytesTotal
		if s.UncommittedBytes == nil {
			known = false
		} else {
			waiting += *s.UncommittedBytes
		}
		if s.LagSeconds == nil {
			knownLag = false
		} else {
			lag = max(lag, *s.LagSeconds)
		}
	}
	r.BufferBytes, r.LostBytes, r.MemoryBytes = &held, &lost, from.Process.RSSBytes
	if from.Process.MemoryLimitBytes > 0 {
		r.MemoryLimitBytes = &from.Process.MemoryLimitBytes
	}
	if known {
		r.WaitingBytes = &waiting
	}
	if knownLag {
		r.LagSeconds = &lag
	}
	if len(rates) == len(from.Streams) {
		for _, rate := range rates {
			written, acked = written+rate.Written, acked+rate.Acked
		}
		r.WrittenBytesPerSec, r.AckedBytesPerSec = &written, &acked
	}
}

// severity orders verdicts, the worst first. A verdict that is not known comes before those that are good.
func severity(verdict string) int {
	all := health.Verdicts()
	if i := slices.Index(all, health.Verdict(verdict)); i >= 0 {
		return i
	}
	return slices.Index(all, health.Unknown)
}

// orders are the ways to sort rows, by the value of --sort. A figure that is not known comes last.
var orders = map[string]func(a, b *row) int{
	"verdict": func(a, b *row) int {
		return cmp.Or(cmp.Compare(severity(a.Verdict), severity(b.Verdict)), -cmp.Compare(len(a.Alerts), len(b.Alerts)),
			descending(a.LagSeconds, b.LagSeconds))
	},
	"lag":     func(a, b *row) int { return descending(a.LagSeconds, b.LagSeconds) },
	"waiting": func(a, b *row) int { return descending(a.WaitingBytes, b.WaitingBytes) },
	"written": func(a, b *row) int { return descending(a.WrittenBytesPerSec, b.WrittenBytesPerSec) },
	"memory":  func(a, b *row) int { return descending(a.MemoryBytes, b.MemoryBytes) },
	"lost":    func(a, b *row) int { return descending(a.LostBytes, b.LostBytes) },
	"target":  func(_, _ *row) int { return 0 },
}

// descending compares figures, the largest first and those that are not known last.
func descending[T int64 | float64](a, b *T) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return cmp.Compare(*b, *a)
}

// sortRows sorts rows by one of the orders, and by name where it makes no difference.
func sortRows(rows []row, by string) error {
	order, ok := orders[by]
	if !ok {
		return usagef("--sort is %q: write one of %s", by, strings.Join(slices.Sorted(maps.Keys(orders)), ", "))
	}
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(order(&a, &b), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Target, b.Target))
	})
	return nil
}

// Exit codes besides 0, all is well, and those of the shell.
const (
	// ExitFailure: the command itself failed.
	ExitFailure = 1
	// ExitUsage: the command line is wrong.
	ExitUsage = 2
	// ExitBad: a target is bad, the object is stalled, or a loss is not acknowledged.
	ExitBad = 3
	// ExitUnknown: too little is known, and nothing is known to be bad.
	ExitUnknown = 4
)

// healthOf returns the exit code that follows from fleets and their rows.
func healthOf(fleets []fleet, rows []row) int {
	unknown := len(fleets) == 0
	for i := range fleets {
		s := &fleets[i].object.Status
		stalled := meta.IsStatusConditionPresentAndEqual(s.Conditions, v1alpha1.ConditionStalled, metav1.ConditionTrue)
		lost := meta.IsStatusConditionPresentAndEqual(s.Conditions, v1alpha1.ConditionDataIntact, metav1.ConditionFalse)
		if s.Bad > 0 || stalled || lost {
			return ExitBad
		}
		unknown = unknown || fleets[i].missing != "" || s.ObservedGeneration < 1
	}
	if code := healthOfRows(rows); code != 0 || !unknown {
		return code
	}
	return ExitUnknown
}

// healthOfRows returns the exit code that follows from the rows alone.
func healthOfRows(rows []row) (code int) {
	for i := range rows {
		if health.Verdict(rows[i].Verdict).Bad() {
			return ExitBad
		}
		if rows[i].Verdict == "" || rows[i].Verdict == string(health.Unknown) {
			code = ExitUnknown
		}
	}
	return code
}

// without returns how many targets of a fleet have no row, with the reason that the status has for it; "" for none.
func without(f *fleet, rows int) string {
	n := int(f.object.Status.Desired) - rows
	if n <= 0 {
		return ""
	}
	text := fmt.Sprintf("%s of %s without a parser", plural(n, "target"), f.object.Name)
	if c := meta.FindStatusCondition(f.object.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		text += ": " + c.Message
	}
	return text
}
