package status

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// A loss is in the status from when it is found until somebody acknowledges it, whatever else is wrong, and across pods
// and operators. An acknowledged loss stays for as long as the process that counted it may report it again, so that
// another operator does not take it for a new one. What that process loses beyond it is another loss.

// lossKinds returns the alerts that are losses, worst first.
func lossKinds() []health.AlertKind { return []health.AlertKind{health.DataLost, health.DataGap} }

// maxLossMessage bounds the message of a loss, and maxLosses all losses of a status, in bytes.
const (
	maxLossMessage = 120
	maxLosses      = 3600
)

// acknowledgedUntil returns the time that the object's annotation gives; zero when it gives none, or one in the future,
// since a loss cannot be acknowledged before it is known.
func acknowledgedUntil(obj *v1alpha1.HyperliquidParser, now time.Time) time.Time {
	at, err := time.Parse(time.RFC3339, obj.Annotations[v1alpha1.AnnotationAcknowledgeLoss])
	if err != nil || at.After(now) {
		return time.Time{}
	}
	return at
}

// settled reports whether a loss that was found at a time is among those acknowledged until another. Losses are named
// by the second.
func settled(until, found time.Time) bool {
	return !until.Before(found.Truncate(time.Second)) && !until.IsZero()
}

// started returns when a process reports that it started, as a status can hold it: in whole seconds, and within the
// range of times that an API server accepts.
func started(process time.Time) metav1.Time {
	if process = process.UTC(); process.Year() < 1970 || process.Year() > 2200 {
		return metav1.Time{}
	}
	return metav1.NewTime(process.Truncate(time.Second))
}

// lossOf returns the figures of a loss in a status.
func lossOf(l *v1alpha1.LossStatus) health.Loss {
	return health.Loss{
		Process: l.Process.Time, Bytes: l.SkippedBytes, Files: l.PrunedFiles, Blocks: l.MissingBlocks,
	}
}

// AcknowledgedLosses returns the figures of a target's acknowledged losses, for its newest process.
func AcknowledgedLosses(obj *v1alpha1.HyperliquidParser, name string, now time.Time) (lost, gap health.Loss) {
	if len(obj.Status.Losses) == 0 {
		return lost, gap // the common case: each reconcile asks once per target
	}
	until := acknowledgedUntil(obj, now)
	for i := range obj.Status.Losses {
		l := &obj.Status.Losses[i]
		if l.Target != name || !l.Acknowledged && !settled(until, l.Since.Time) {
			continue
		}
		into := &lost
		if l.Reason == string(health.DataGap) {
			into = &gap
		}
		if found := lossOf(l); !found.Process.Before(into.Process) {
			*into = found
		}
	}
	return lost, gap
}

// losses returns those losses of the status before that still stand, and those found since. more counts the targets
// with an unacknowledged loss that are left out.
func losses(obj *v1alpha1.HyperliquidParser, f *observed.Fleet) (out []v1alpha1.LossStatus, more int32) {
	until := acknowledgedUntil(obj, f.Now)
	acknowledged := false // some of them in this reconcile
	for _, l := range obj.Status.Losses {
		if !l.Acknowledged && settled(until, l.Since.Time) {
			l.Acknowledged, l.Message, acknowledged = true, "", true
		}
		if !l.Acknowledged || mayReport(f, &l) {
			out = append(out, l)
		}
	}
	known := make(map[lossKey]int, len(out))
	for i := range out {
		known[keyOf(&out[i])] = i
	}
	for _, t := range f.Targets {
		alerts := f.Views[t.Name].Alerts
		for _, kind := range lossKinds() {
			alert := alerts.Of(kind)
			if !alert.Raised() {
				continue
			}
			found := newLoss(t.Name, kind, alert, alerts.LossOf(kind))
			switch i, ok := known[keyOf(&found)]; {
			case !ok && !settled(until, found.Since.Time): // one that had no room may be older than what is acknowledged
				out = append(out, found)
			case ok && out[i].Acknowledged && !lossOf(&out[i]).Covers(lossOf(&found)):
				// It is new to the status, whenever it was found: the acknowledged figures do not cover it.
				if found.Since = metav1.NewTime(f.Now.Truncate(time.Second)); settled(until, found.Since.Time) {
					found.Since = metav1.NewTime(until.Add(time.Second))
				}
				out[i] = found
			}
		}
	}
	slices.SortStableFunc(out, func(a, b v1alpha1.LossStatus) int {
		return cmp.Or(compareBool(a.Acknowledged, b.Acknowledged), a.Since.Compare(b.Since.Time),
			cmp.Compare(a.Target, b.Target), cmp.Compare(a.Reason, b.Reason))
	})
	kept := min(len(out), v1alpha1.MaxLosses)
	for kept > 1 && size(out[:kept]) > maxLosses {
		kept--
	}
	total := targetsWithLoss(out)
	if !acknowledged && total > 0 { // targets that were left out before may be gone, but their losses are not
		total = max(total, targetsWithLoss(obj.Status.Losses)+int(obj.Status.MoreLosses))
	}
	return out[:kept:kept], int32(total - targetsWithLoss(out[:kept]))
}

// lossKey identifies what one process reports about one kind of loss. A process counts up from its start.
type lossKey struct {
	target, reason string
	process        int64 // seconds
}

func keyOf(l *v1alpha1.LossStatus) lossKey { return lossKey{l.Target, l.Reason, l.Process.Unix()} }

// HasLoss reports whether a status has an unacknowledged loss of that kind from that process.
func HasLoss(status *v1alpha1.HyperliquidParserStatus, name string, kind health.AlertKind, loss health.Loss) bool {
	key := lossKey{name, string(kind), started(loss.Process).Unix()}
	return slices.ContainsFunc(status.Losses, func(l v1alpha1.LossStatus) bool {
		return !l.Acknowledged && keyOf(&l) == key
	})
}

func newLoss(name string, kind health.AlertKind, alert health.Alert, loss health.Loss) v1alpha1.LossStatus {
	return v1alpha1.LossStatus{
		Target: name, Reason: string(kind), Message: prose.Line(alert.Message, maxLossMessage),
		Since: metav1.NewTime(alert.Since.Truncate(time.Second)), Process: started(loss.Process),
		SkippedBytes: min(loss.Bytes, maxFigure), PrunedFiles: min(loss.Files, maxFigure),
		MissingBlocks: min(loss.Blocks, maxFigure),
	}
}

// maxFigure is the largest integer that the schema accepts: the largest that a floating-point number holds exactly.
const maxFigure = 1<<53 - 1

// mayReport reports whether the process that counted a loss may report it again, as far as is known.
func mayReport(f *observed.Fleet, l *v1alpha1.LossStatus) bool {
	if _, wanted := f.Index(l.Target); f.Known && !wanted {
		return false
	}
	process := f.Views[l.Target].Process
	now := started(process)
	return process.IsZero() || now.Equal(&l.Process)
}

// targetsWithLoss counts the targets with an unacknowledged loss.
func targetsWithLoss(losses []v1alpha1.LossStatus) int {
	names := make(map[string]bool, len(losses))
	for i := range losses {
		if !losses[i].Acknowledged {
			names[losses[i].Target] = true
		}
	}
	return len(names)
}

// worstLoss returns the worst reason among the unacknowledged losses, the message of the first loss with that reason,
// and the name of the newest loss. The reason is "" when there is none.
func worstLoss(status *v1alpha1.HyperliquidParserStatus) (reason, text, name string) {
	var newest time.Time
	for _, kind := range lossKinds() {
		for i := range status.Losses {
			l := &status.Losses[i]
			if l.Acknowledged {
				continue
			}
			if l.Since.After(newest) {
				newest = l.Since.Time
			}
			if reason == "" && l.Reason == string(kind) {
				reason, text = l.Reason, l.Target+": "+l.Message
			}
		}
	}
	if n := targetsWithLoss(status.Losses) + int(status.MoreLosses) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more)", Plural(n, "target"))
	}
	return reason, text, newest.UTC().Format(time.RFC3339)
}

// drifting returns the targets with malformed lines, ordered by name.
func drifting(f *observed.Fleet) []string {
	var out []string
	for _, t := range f.Targets {
		if f.Views[t.Name].Alerts.FormatDrift.Raised() {
			out = append(out, t.Name)
		}
	}
	return out
}

// dataIntact returns the condition DataIntact. The status has its losses already.
func dataIntact(
	status *v1alpha1.HyperliquidParserStatus, f *observed.Fleet,
) (value metav1.ConditionStatus, reason, text string) {
	reason, text, name := worstLoss(status)
	if reason != "" {
		text = prose.Line(text, maxLossText) + fmt.Sprintf("; to acknowledge it, annotate the object with %s=%s",
			v1alpha1.AnnotationAcknowledgeLoss, name)
	} else {
		text = ""
	}
	before := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDataIntact)
	if drifts := drifting(f); len(drifts) > 0 {
		story := prose.Line(drifts[0]+": "+f.Views[drifts[0]].Alerts.FormatDrift.Message, maxLossText)
		if n := len(drifts) - 1; n > 0 {
			story += fmt.Sprintf(" (and %s more)", Plural(n, "target"))
		}
		if text != "" {
			text += "; "
		}
		reason, text = worseReason(reason), text+story
	}
	switch {
	case reason != "":
		return metav1.ConditionFalse, reason, text
	case before != nil && before.Reason == v1alpha1.ReasonFormatDrift && anyYoung(f):
		return before.Status, before.Reason, before.Message // a new leader's reports do not reach back far enough
	}
	reported := everyView(f, func(v *poller.View) bool { return v.Reports > 0 })
	return unlessKnown(f, before, reported, v1alpha1.ReasonNothingLost, "no line is known to be lost or misunderstood")
}

// maxLossText bounds the description of a loss in a condition, in bytes, so that there is always room for how to
// acknowledge it.
const maxLossText = 400

// worseReason returns the worse of a loss's reason and FormatDrift.
func worseReason(loss string) string {
	if loss == v1alpha1.ReasonDataLost {
		return loss
	}
	return v1alpha1.ReasonFormatDrift
}

// anyYoung reports whether there is a target whose reports do not show yet whether its lines are well-formed. Those of
// a target with a bad verdict may never show it.
func anyYoung(f *observed.Fleet) bool {
	return !everyView(f, func(v *poller.View) bool { return v.KnowsFormat || v.Judgement.Verdict.Bad() })
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
