package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// retryShared is how soon a directory that another object writes into is checked again; the jitter adds up to half of it.
const retryShared = 30 * time.Second

// claimDirectory is a directory of claims that an object's parsers write into. Directories of nodes need no such care: below a root
// each object has its own by its name.
type claimDirectory struct {
	field string // that names it
	dir   string // from the claim's root
	// claim is where it is; "" stands for the claims of the targets' data, a claim a target.
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

// collision returns the first of the directories mine that is, holds or lies in one of theirs on the same claim; ok is false for none.
// data returns the claims of the data of the targets of either object; it is asked only where that matters. Data of two objects counts
// as shared: nothing keeps them from selecting the same pods later.
func collision(mine, theirs []claimDirectory, data func(mine bool) ([]string, error)) (m, t claimDirectory, ok bool, err error) {
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

// older reports whether a was made before b: it keeps its directory. One of the two always was.
func older(a, b *v1alpha1.HyperliquidParser) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.Name < b.Name
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// checkSharing finds out whether the object would write into a directory of a claim that an older object of its namespace writes into,
// or into one inside of that, or around it; or whether its state and its files would meet on the claim of a target's data.
func (r *Reconciler) checkSharing(ctx context.Context, obj *v1alpha1.HyperliquidParser, s *seen) error {
	mine := claimDirectories(obj)
	if s.problem != nil || len(mine) == 0 {
		return nil
	}
	m, t, ok, err := collision(mine[:1], mine[1:], func(bool) ([]string, error) { return s.dataClaims(), nil })
	if err != nil {
		return err
	}
	if ok {
		s.problem = &problem{v1alpha1.ReasonPathNotAllowed, fmt.Sprintf(
			"%s: directory %s of a claim overlaps %s, where the state is: write another path or claim", t.field, t.dir, m.dir)}
		return nil
	}
	var list v1alpha1.HyperliquidParserList
	err = r.Client.List(ctx, &list, client.InNamespace(obj.Namespace), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)
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
				return s.dataClaims(), nil
			}
			return r.dataClaims(ctx, other)
		})
		if err != nil {
			return err
		}
		if ok {
			s.problem = &problem{v1alpha1.ReasonPathNotAllowed, fmt.Sprintf(
				"%s: directory %s of a claim overlaps %s, which HyperliquidParser %s, the older one, writes into: write another path or claim",
				m.field, m.dir, t.dir, other.Name)}
			s.again = r.retryAfter(retryShared)
			return nil
		}
	}
	return nil
}

// shareClaims leaves one parser to each claim of data. Pods on one claim, such as those of a Deployment that replaces
// one by another, or two on ReadWriteMany, have the same data: a parser beside each would deliver it twice, and both
// would write into one state directory. The parser that is there stays, until its pod ends; else it goes where one can
// be made, by name. The other targets wait, and say for whom.
func (s *seen) shareClaims(object string) {
	has := map[string]int{} // by claim: which target has its parser
	shared := false
	for i, t := range s.targets {
		if t.Claim == "" {
			continue
		}
		at, taken := has[t.Claim]
		shared = shared || taken
		if !taken || s.sooner(i, at) {
			has[t.Claim] = i
		}
	}
	if !shared {
		return
	}
	for i := range s.targets {
		t := &s.targets[i]
		if t.Claim != "" && has[t.Claim] != i {
			t.Node, t.Waits, t.Beside = "", target.ClaimInUse, s.targets[has[t.Claim]].Name
		}
	}
	s.pair(object)
}

// sooner reports whether the i-th target is to have a parser rather than the j-th: where there is one, or else where
// one can be made.
func (s *seen) sooner(i, j int) bool {
	rank := func(i int) int {
		switch {
		case s.pairs[i].pod != nil: // also one that ends: what comes after it comes there
			return 0
		case s.targets[i].Waits == "":
			return 1
		}
		return 2
	}
	return rank(i) < rank(j)
}

// dataClaims are the claims of the targets' data.
func (s *seen) dataClaims() []string {
	var out []string
	for _, t := range s.targets {
		if t.Claim != "" {
			out = append(out, t.Claim)
		}
	}
	return out
}

// dataClaims are those of another object, as its pods have them.
func (r *Reconciler) dataClaims(ctx context.Context, obj *v1alpha1.HyperliquidParser) ([]string, error) {
	var pods corev1.PodList
	err := r.Client.List(ctx, &pods, client.InNamespace(obj.Namespace), client.MatchingLabels{v1alpha1.LabelParser: obj.Name},
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
