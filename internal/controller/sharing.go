package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/observed"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// retryShared is the delay before a directory that another object writes into is checked again. The jitter adds up to
// half of it.
const retryShared = 30 * time.Second

// claimDirectory is a directory on claims that an object's parsers write into. Directories on nodes need no check:
// below a root each object has its own, by its name.
type claimDirectory struct {
	field string // of the spec that sets it
	dir   string // relative to the claim's root
	// claim is the claim that holds it; "" stands for the claims of the targets' data, one per target.
	claim string
}

func claimDirectories(obj *v1alpha1.HyperliquidParser) []claimDirectory {
	var out []claimDirectory
	if pods := obj.Spec.Target.Pods; pods != nil {
		out = append(out, claimDirectory{"spec.target.pods.stateSubPath", podspec.StateDirectory(obj), pods.StateClaimName})
	}
	if file := obj.Spec.FileSink(); file != nil && file.ClaimName != "" {
		out = append(out, claimDirectory{"spec.sink.file.path", podspec.OutputDirectory(obj), file.ClaimName})
	}
	return out
}

// collision returns the first of the directories mine that equals, contains or lies in one of theirs on the same claim;
// ok is false for none. data returns the claims of the data of the targets of either object; it is called only if that
// matters. The data of two objects counts as shared, since they may select the same pods later.
func collision(
	mine, theirs []claimDirectory, data func(mine bool) ([]string, error),
) (m, t claimDirectory, ok bool, err error) {
	for _, m := range mine {
		for _, t := range theirs {
			if !overlap("/"+m.dir, "/"+t.dir) {
				continue
			}
			same := m.claim == t.claim
			if (m.claim == "") != (t.claim == "") {
				claims, err := data(m.claim == "")
				if err != nil {
					return m, t, false, err
				}
				same = slices.Contains(claims, m.claim+t.claim)
			}
			if same {
				return m, t, true, nil
			}
		}
	}
	return claimDirectory{}, claimDirectory{}, false, nil
}

// older reports whether a was created before b, and so keeps its directory. Exactly one of two objects is older.
func older(a, b *v1alpha1.HyperliquidParser) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// checkSharing sets the problem of an object that would write into a directory of a claim that an older object of its
// namespace writes into, or into one below or above it, or whose state and files overlap on the claim of a target's
// data.
func (r *Reconciler) checkSharing(ctx context.Context, obj *v1alpha1.HyperliquidParser, f *observed.Fleet) error {
	mine := claimDirectories(obj)
	if len(mine) == 0 {
		return nil
	}
	m, t, ok, err := collision(mine[:1], mine[1:], func(bool) ([]string, error) { return dataClaims(f), nil })
	if err != nil {
		return err
	}
	if ok {
		f.SharesDirectory = true
		f.Problem = &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
			"%s: directory %s of a claim overlaps %s, where the state is: write another path or claim", t.field, t.dir, m.dir)}
		return nil
	}
	var list v1alpha1.HyperliquidParserList
	err = r.Client.List(ctx, &list, client.InNamespace(obj.Namespace),
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		return fmt.Errorf("listing HyperliquidParsers of namespace %s: %w", obj.Namespace, err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.Name == obj.Name || !older(other, obj) {
			continue
		}
		m, t, ok, err := collision(mine, claimDirectories(other), func(mine bool) ([]string, error) {
			if mine {
				return dataClaims(f), nil
			}
			return r.dataClaimsOf(ctx, other)
		})
		if err != nil {
			return err
		}
		if ok {
			f.SharesDirectory = true
			f.Problem = &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
				"%s: directory %s of a claim overlaps %s, which the older HyperliquidParser %s writes into: "+
					"write another path or claim",
				m.field, m.dir, t.dir, other.Name)}
			f.RecheckAt = earlier(f.RecheckAt, r.retryAt(retryShared))
			return nil
		}
	}
	return nil
}

// shareClaims leaves one parser to each claim of data. Pods on one claim, such as those of a Deployment that replaces
// one by another, or two on ReadWriteMany, have the same data: a parser beside each would deliver it twice, and both
// would write into one state directory. An existing parser stays until its pod ends. Otherwise the first target by name
// gets the parser that can take one. The other targets wait, and report for which.
func shareClaims(object string, f *observed.Fleet) {
	holder := map[string]int{} // by claim: the index of the target that has its parser
	shared := false
	for i, t := range f.Targets {
		if t.Claim == "" {
			continue
		}
		at, taken := holder[t.Claim]
		shared = shared || taken
		if !taken || precedes(f, i, at) {
			holder[t.Claim] = i
		}
	}
	if !shared {
		return
	}
	for i := range f.Targets {
		t := &f.Targets[i]
		if t.Claim != "" && holder[t.Claim] != i {
			t.Node, t.Waits, t.Beside = "", target.ClaimInUse, f.Targets[holder[t.Claim]].Name
		}
	}
	f.Pairs = observed.PairPods(object, f.Targets, f.Pods)
}

// precedes reports whether the i-th target is to have a parser rather than the j-th: a target that has a pod, or else
// one that can take one.
func precedes(f *observed.Fleet, i, j int) bool {
	rank := func(i int) int {
		switch {
		case f.Pairs[i].Pod != nil: // also a Terminating one: its successor has the same target
			return 0
		case f.Targets[i].Waits == "":
			return 1
		}
		return 2
	}
	return rank(i) < rank(j)
}

// dataClaims returns the claims of the targets' data.
func dataClaims(f *observed.Fleet) []string {
	var out []string
	for _, t := range f.Targets {
		if t.Claim != "" {
			out = append(out, t.Claim)
		}
	}
	return out
}

// dataClaimsOf returns the claims of the data of another object's targets, as its pods mount them.
func (r *Reconciler) dataClaimsOf(ctx context.Context, obj *v1alpha1.HyperliquidParser) ([]string, error) {
	var pods corev1.PodList
	err := r.Client.List(ctx, &pods, client.InNamespace(obj.Namespace),
		client.MatchingLabels{v1alpha1.LabelParser: obj.Name},
		client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
	if err != nil {
		return nil, fmt.Errorf("listing pods of HyperliquidParser %s/%s: %w", obj.Namespace, obj.Name, err)
	}
	var out []string
	for i := range pods.Items {
		if claim := podspec.DataClaim(&pods.Items[i]); claim != "" {
			out = append(out, claim)
		}
	}
	return out, nil
}
