// Package status derives the status of a HyperliquidParser from what a reconcile observed, decided and did. It is pure:
// it reads no clock, and reaches no client.
package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/plan"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// Input is what a status is derived from, besides the object and its status before.
type Input struct {
	Fleet *observed.Fleet
	// Update is the revision that the spec asks for; nil while that is unknown. Current is the last one that the whole
	// fleet had; nil before there was one.
	Update, Current *observed.Revision
	// Plan is the plan, and Limits those within which it was made.
	Plan    plan.Result
	Limits  plan.Limits
	Outcome Outcome
}

// Outcome is the outcome of a reconcile's writes.
type Outcome struct {
	// Problem is what somebody must change before the operator can go on; nil for nothing.
	Problem *observed.Problem
	// Failing is a write that fails for now and is retried; nil when none has failed for long enough to be reported.
	Failing *observed.Problem
	// Ledger is the record of restarts after the writes.
	Ledger observed.Ledger
}

// Of returns the status that the object should have. Figures stay until a verdict changes, so an equivalent input
// yields an identical status and no write.
func Of(obj *v1alpha1.HyperliquidParser, in Input) v1alpha1.HyperliquidParserStatus {
	out := *obj.Status.DeepCopy()
	out.ObservedGeneration = obj.Generation
	c := census{}
	if in.Fleet.Known {
		c = count(obj, &in)
		out.Desired, out.Current = int32(c.desired), int32(c.current)
		out.Ready, out.Updated = int32(c.ready), int32(c.updated)
	}
	if in.Outcome.Problem == nil && in.Fleet.Known {
		out.StatePath = podspec.StateLocation(obj)
	}
	// The revision of this generation only: the next reconcile finds the generation's revision by it.
	out.UpdateRevision = ""
	if in.Update != nil {
		out.UpdateRevision = in.Update.Name(obj.Name)
	}
	switch {
	case in.Plan.Complete && in.Update != nil:
		out.CurrentRevision = out.UpdateRevision
	case in.Current != nil:
		out.CurrentRevision = in.Current.Name(obj.Name)
	}
	out.Restarts = max(out.Restarts, in.Outcome.Ledger.Total)
	bad := badTargets(obj, &in)
	out.Bad = int32(len(bad))
	out.Targets = bad[:min(len(bad), v1alpha1.MaxStatusTargets)]
	out.Losses, out.MoreLosses = losses(obj, in.Fleet)
	setConditions(&out, obj, &in, c, bad)
	state, story := summary(&out, obj, &in, c, bad)
	out.State, out.Story = state, prose.Line(story, MaxStory)
	fit(&out)
	return out
}

// MaxSize bounds a status in bytes, however long its texts and the names of its targets are. A status is written as a
// whole, and every watch of the object delivers it.
const MaxSize = 9000

// fit drops the last of the reported targets, except for the worst, and then losses, until the status is small enough.
// Conditions have bounds of their own.
func fit(status *v1alpha1.HyperliquidParserStatus) {
	excess := size(status) - MaxSize
	for excess > 0 && len(status.Targets) > 1 {
		last := len(status.Targets) - 1
		excess -= size(status.Targets[last]) + len(",")
		status.Targets = status.Targets[:last]
	}
	reported := targetsWithLoss(status.Losses)
	for excess > 0 && len(status.Losses) > 1 {
		last := len(status.Losses) - 1
		excess -= size(status.Losses[last]) + len(",")
		status.Losses = status.Losses[:last]
	}
	status.MoreLosses += int32(reported - targetsWithLoss(status.Losses))
}

// size returns the length of v as JSON. v is of a type that always encodes.
func size(v any) int {
	text, _ := json.Marshal(v)
	return len(text)
}

// WithoutTexts returns the status without the texts of parsers, kubelets and spec, which the API server may refuse.
func WithoutTexts(status v1alpha1.HyperliquidParserStatus) v1alpha1.HyperliquidParserStatus {
	out := *status.DeepCopy()
	for i := range out.Conditions {
		out.Conditions[i].Message = ""
	}
	for i := range out.Losses {
		out.Losses[i].Message = ""
	}
	out.Targets, out.Story = nil, ""
	return out
}

// census counts targets.
type census struct {
	desired, current, ready, updated int
	complete                         int // with a pod that is both ready and updated
	// Among targets that can take a pod now:
	missing  int // without a pod, or with a Terminating one
	outdated int // with a pod of an older revision, or of before a restart was requested
	starting int // with a new pod that is not ready yet
	notReady int // with a pod of the wanted revision that has not been ready for long
	// waiting are the targets that cannot take a pod now, and waitingFor is why the first of them cannot.
	waiting    []string
	waitingFor string
	excluded   int           // by spec.affinity, if there are no targets
	unusable   target.Target // the first that no parser can be made for until somebody changes something; zero for none
}

func count(obj *v1alpha1.HyperliquidParser, in *Input) census {
	f := in.Fleet
	c := census{desired: len(f.Targets), excluded: f.Excluded}
	restartedAt := obj.Annotations[v1alpha1.AnnotationRestartedAt]
	for i, t := range f.Targets {
		schedulable := t.Waits == ""
		if !schedulable {
			c.waiting = append(c.waiting, t.Name)
			c.waitingFor = cmp.Or(c.waitingFor, t.Why())
		}
		if t.Waits == target.ClaimInUse {
			c.desired-- // its data has a parser already
		}
		if t.Unusable() && c.unusable.Name == "" {
			c.unusable = t
		}
		pod := f.Pairs[i].Pod
		if pod == nil || pod.DeletionTimestamp != nil {
			if schedulable || t.Waits == target.ClaimUnseen {
				c.missing++
			}
			continue
		}
		p := f.PlanPod(pod)
		c.current++
		if p.Ready {
			c.ready++
		}
		updated := p.Revision == in.Update.PlanName() && (restartedAt == "" || p.RestartedAt == restartedAt)
		if updated {
			c.updated++
		}
		if updated && p.Ready {
			c.complete++
		}
		switch {
		case !schedulable:
		case !updated:
			c.outdated++
		case !p.Ready && f.Now.Before(p.AgeStart().Add(plan.Settle)):
			c.starting++
		case !p.Ready:
			c.notReady++
		}
	}
	return c
}

// badTargets returns all targets with a bad verdict, worst first. A target that is Unknown because this leader is new,
// or because its container has just restarted, keeps the verdict that the status has of the same pod until there is a
// new one.
func badTargets(obj *v1alpha1.HyperliquidParser, in *Input) []v1alpha1.TargetStatus {
	before := make(map[string]v1alpha1.TargetStatus, len(obj.Status.Targets))
	for _, t := range obj.Status.Targets {
		before[t.Target] = t
	}
	f := in.Fleet
	var out []v1alpha1.TargetStatus
	for i, t := range f.Targets {
		view, ok := f.Views[t.Name]
		if !ok {
			continue
		}
		pair, judgement := f.Pairs[i], view.Judgement
		restarts := int32(len(in.Outcome.Ledger.Records[t.Name].Times))
		switch {
		case judgement.Verdict.Bad():
			out = append(out, v1alpha1.TargetStatus{
				Target:   t.Name,
				Pod:      pair.Name,
				Verdict:  string(judgement.Verdict),
				Reason:   prose.Line(judgement.Reason, prose.MaxReason),
				Message:  TargetMessage(judgement.Message, cmp.Or(in.Plan.Waiting[t.Name], restarting(in, pair, t.Name))),
				Since:    metav1.NewTime(judgement.Since.Truncate(time.Second)),
				Restarts: restarts,
			})
		case judgement.Verdict == health.Unknown:
			if old, ok := before[t.Name]; ok && !pair.Pod.CreationTimestamp.After(old.Since.Time) {
				old.Restarts = restarts
				out = append(out, old)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b v1alpha1.TargetStatus) int {
		return cmp.Or(
			cmp.Compare(rank(a.Verdict), rank(b.Verdict)), a.Since.Compare(b.Since.Time), cmp.Compare(a.Target, b.Target))
	})
	return out
}

// restarting describes the restart of a target that is recorded while its pod still exists; "" for others.
func restarting(in *Input, pair observed.Pair, name string) string {
	record, ok := in.Outcome.Ledger.Records[name]
	if !ok || pair.Pod == nil || string(pair.Pod.UID) != record.UID {
		return ""
	}
	return fmt.Sprintf("restarting (%d of %d this hour)", len(record.Times), in.Limits.MaxPerHour)
}

func rank(verdict string) int {
	if i := slices.Index(health.Verdicts(), health.Verdict(verdict)); i >= 0 {
		return i
	}
	return len(health.Verdicts())
}

// maxMessage bounds the message of a target, in bytes: twenty of them take 4.5 KiB of a status. It suffices for what a
// verdict quotes of a kubelet or an API server (200 bytes) and the words before it.
const maxMessage = 224

// TargetMessage joins the figures of a verdict with what is done about it, or why nothing is. The latter is never cut.
func TargetMessage(figures, action string) string {
	if action != "" {
		action = "; " + action
	}
	return prose.Ends(figures, max(maxMessage-len(action), 0)) + action
}

// FirstNames lists the first three names, and counts the rest.
func FirstNames(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// Plural returns "1 noun" or "n nouns".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
