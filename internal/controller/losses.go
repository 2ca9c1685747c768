package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/poller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
)

// A loss is in the status from when it is found until a person acknowledges it: whatever else is wrong, over pods and
// operators. One that is acknowledged stays for as long as the process that counted it may report it once more, so that
// no other operator takes it for new; what that process loses beyond it is another loss.

// lossKinds are the alerts that are losses, worst first.
func lossKinds() []growth.AlertKind { return []growth.AlertKind{growth.DataLost, growth.DataGap} }

// maxLossMessage bounds the message of a loss, and maxLosses what losses take of a status, in bytes.
const (
	maxLossMessage = 120
	maxLosses      = 3600
)

// acknowledgedUntil is the time that the object's annotation names; zero when it names none, or one that is still to
// come: what is not known yet cannot be acknowledged.
func acknowledgedUntil(obj *v1alpha1.HyperliquidParser, now time.Time) time.Time {
	at, err := time.Parse(time.RFC3339, obj.Annotations[v1alpha1.AnnotationAcknowledgeLoss])
	if err != nil || at.After(now) {
		return time.Time{}
	}
	return at
}

// settled reports whether what was found at a time is acknowledged until another. Losses are named by the second.
func settled(until, found time.Time) bool {
	return !until.Before(found.Truncate(time.Second)) && !until.IsZero()
}

// started is when a process says that it started, as it can be kept: by the second, and within what an API server takes
// for a time.
func started(process time.Time) metav1.Time {
	if process = process.UTC(); process.Year() < 1970 || process.Year() > 2200 {
		return metav1.Time{}
	}
	return metav1.NewTime(process.Truncate(time.Second))
}

// lossOf is what a status says of a loss.
func lossOf(of *v1alpha1.LossStatus) growth.Loss {
	return growth.Loss{
		Process: of.Process.Time, Bytes: of.SkippedBytes, Files: of.PrunedFiles, Blocks: of.MissingBlocks,
	}
}

// acknowledgedLosses are the figures of a target's losses that are acknowledged: those of its newest process.
func acknowledgedLosses(obj *v1alpha1.HyperliquidParser, name string, now time.Time) (lost, gap growth.Loss) {
	if len(obj.Status.Losses) == 0 {
		return lost, gap
	}
	if len(obj.Status.Losses) == 0 {
		return lost, gap // asked for each target of each reconcile
	}
	until := acknowledgedUntil(obj, now)
	for i := range obj.Status.Losses {
		l := &obj.Status.Losses[i]
		if l.Target != name || !l.Acknowledged && !settled(until, l.Since.Time) {
			continue
		}
		into := &lost
		if l.Reason == string(growth.DataGap) {
			into = &gap
		}
		if found := lossOf(l); !found.Process.Before(into.Process) {
			*into = found
		}
	}
	return lost, gap
}

// losses are those of the status before that still stand, and those that were found since. more is how many targets
// with one that is not acknowledged are left out.
func losses(obj *v1alpha1.HyperliquidParser, s *seen) (out []v1alpha1.LossStatus, more int32) {
	until := acknowledgedUntil(obj, s.now)
	acked := false // somebody has acknowledged some just now
	for _, l := range obj.Status.Losses {
		if !l.Acknowledged && settled(until, l.Since.Time) {
			l.Acknowledged, l.Message, acked = true, "", true
		}
		if !l.Acknowledged || s.mayReport(&l) {
			out = append(out, l)
		}
	}
	known := make(map[lossKey]int, len(out))
	for i := range out {
		known[keyOf(&out[i])] = i
	}
	for _, t := range s.targets {
		alerts := s.views[t.Name].Alerts
		for _, kind := range lossKinds() {
			alert := alerts.Of(kind)
			if !alert.Raised() {
				continue
			}
			found := newLoss(t.Name, kind, alert, alerts.LossOf(kind))
			switch i, ok := known[keyOf(&found)]; {
			case !ok && !settled(until, found.Since.Time): // of what had no room, an older one may be acknowledged
				out = append(out, found)
			case ok && out[i].Acknowledged && !lossOf(&out[i]).Covers(lossOf(&found)):
				// It was not shown before, whenever it was found: what is acknowledged already does not cover it.
				if found.Since = metav1.NewTime(s.now.Truncate(time.Second)); settled(until, found.Since.Time) {
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
	total := losers(out)
	if !acked && total > 0 { // those that were left out before may be gone, and their losses are not
		total = max(total, losers(obj.Status.Losses)+int(obj.Status.MoreLosses))
	}
	return out[:kept:kept], int32(total - losers(out[:kept]))
}

// lossKey is what a process says of one kind of loss: it counts up from its start.
type lossKey struct {
	target, reason string
	process        int64 // seconds
}

func keyOf(l *v1alpha1.LossStatus) lossKey { return lossKey{l.Target, l.Reason, l.Process.Unix()} }

// keeps reports whether a status has a loss that is not acknowledged, as the process counts it that has found it.
func keeps(status *v1alpha1.HyperliquidParserStatus, name string, kind growth.AlertKind, loss growth.Loss) bool {
	key := lossKey{name, string(kind), started(loss.Process).Unix()}
	return slices.ContainsFunc(status.Losses, func(l v1alpha1.LossStatus) bool {
		return !l.Acknowledged && keyOf(&l) == key
	})
}

func newLoss(name string, kind growth.AlertKind, alert growth.Alert, loss growth.Loss) v1alpha1.LossStatus {
	return v1alpha1.LossStatus{
		Target: name, Reason: string(kind), Message: prose.Line(alert.Message, maxLossMessage),
		Since: metav1.NewTime(alert.Since.Truncate(time.Second)), Process: started(loss.Process),
		SkippedBytes: min(loss.Bytes, maxFigure), PrunedFiles: min(loss.Files, maxFigure),
		MissingBlocks: min(loss.Blocks, maxFigure),
	}
}

// maxFigure is the largest integer that the schema takes: the largest that is the same when it is read as a
// floating-point number.
const maxFigure = 1<<53 - 1

// mayReport reports whether the process that counted a loss may report it once more, as far as is known.
func (s *seen) mayReport(l *v1alpha1.LossStatus) bool {
	if _, wanted := s.index(l.Target); s.known && !wanted {
		return false
	}
	process := s.views[l.Target].Process
	now := started(process)
	return process.IsZero() || now.Equal(&l.Process)
}

// losers is how many targets have a loss that is not acknowledged.
func losers(of []v1alpha1.LossStatus) int {
	names := make(map[string]bool, len(of))
	for i := range of {
		if !of[i].Acknowledged {
			names[of[i].Target] = true
		}
	}
	return len(names)
}

// worstLoss is the reason of the losses that are not acknowledged, the story of the first of that reason, and the name
// of the newest; the reason is "" when there is none.
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
	if n := losers(status.Losses) + int(status.MoreLosses) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s more)", plural(n, "target"))
	}
	return reason, text, newest.UTC().Format(time.RFC3339)
}

// drifting are the targets with lines that are not understood, in order of names.
func (s *seen) drifting() []string {
	var out []string
	for _, t := range s.targets {
		if s.views[t.Name].Alerts.FormatDrift.Raised() {
			out = append(out, t.Name)
		}
	}
	return out
}

// intact is what DataIntact says. Losses stand in the status already.
func intact(status *v1alpha1.HyperliquidParserStatus, s *seen) (value metav1.ConditionStatus, reason, text string) {
	reason, text, name := worstLoss(status)
	if reason != "" {
		text = prose.Line(text, maxLossText) + fmt.Sprintf("; to acknowledge it, annotate the object with %s=%s",
			v1alpha1.AnnotationAcknowledgeLoss, name)
	} else {
		text = ""
	}
	before := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionDataIntact)
	if drifts := s.drifting(); len(drifts) > 0 {
		story := prose.Line(drifts[0]+": "+s.views[drifts[0]].Alerts.FormatDrift.Message, maxLossText)
		if n := len(drifts) - 1; n > 0 {
			story += fmt.Sprintf(" (and %s more)", plural(n, "target"))
		}
		if text != "" {
			text += "; "
		}
		reason, text = worseReason(reason), text+story
	}
	switch {
	case reason != "":
		return metav1.ConditionFalse, reason, text
	case before != nil && before.Reason == v1alpha1.ReasonFormatDrift && s.anyYoung():
		return before.Status, before.Reason, before.Message // a new leader's reports do not reach back far enough
	}
	asked := s.all(func(v *poller.View) bool { return v.Reports > 0 })
	return s.fine(before, asked, v1alpha1.ReasonNothingLost, "no line is known to be lost or misunderstood")
}

// maxLossText bounds the story of a loss in a condition, in bytes, so that it never pushes out how to acknowledge it.
const maxLossText = 400

// worseReason is the worse of a loss's reason and FormatDrift.
func worseReason(loss string) string {
	if loss == v1alpha1.ReasonDataLost {
		return loss
	}
	return v1alpha1.ReasonFormatDrift
}

// anyYoung reports whether there is a target whose reports do not say yet whether its lines are understood. One that is
// bad may never say it.
func (s *seen) anyYoung() bool {
	return !s.all(func(v *poller.View) bool { return v.KnowsFormat || v.Judgement.Verdict.Bad() })
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
