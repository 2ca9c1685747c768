package controller_test

import (
	"fmt"
	"path"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// written returns the directories that an object's pod of a target may write into, as node:PATH or
// claim:NAMESPACE/CLAIM/PATH, as a kubelet resolves them.
func written(obj *v1alpha1.HyperliquidParser, of target.Target) ([]string, error) {
	revision, err := podspec.NewRevision(obj, parserImage, "cluster")
	if err != nil {
		return nil, err
	}
	pod := revision.Pod(types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}, of, "")
	volumes := map[string]corev1.Volume{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = v
	}
	var out []string
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		if m.ReadOnly {
			continue
		}
		below := m.SubPath
		if m.SubPathExpr != "" {
			below = strings.NewReplacer("$$", "$", "$(HLPARSER_TARGET)", of.Name).Replace(m.SubPathExpr)
		}
		if below == "" || path.IsAbs(below) || strings.Contains("/"+below+"/", "/../") {
			return nil, fmt.Errorf("mount %s is of the volume itself, or climbs: %q", m.Name, below)
		}
		switch v := volumes[m.Name]; {
		case v.HostPath != nil:
			out = append(out, "node:"+path.Join(v.HostPath.Path, below))
		case v.PersistentVolumeClaim != nil:
			out = append(out, "claim:"+path.Join(obj.Namespace, v.PersistentVolumeClaim.ClaimName, below))
		default:
			return nil, fmt.Errorf("mount %s is of no directory", m.Name)
		}
	}
	return out, nil
}

func nested(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// Namespaces, objects, targets, claims and directories have few names, and the same, so that they meet.
var (
	fewNames = rapid.SampledFrom([]string{"a", "b"})
	fewDirs  = rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(fewNames, 1, 5).Draw(t, "parts"), "/")
	})
)

// fewRoots are directories that a flag may name, and some directories around and inside of them.
var fewRoots = rapid.SampledFrom([]string{"/a", "/b", "/a/b", "/a/b/", "/a/b/hlparser", "/state", "/state/a/b",
	"/hlparser/out", "/hlparser"})

// fewBounds are roots that a manager starts with.
var fewBounds = rapid.Custom(func(t *rapid.T) fleet.Bounds {
	bounds := testBounds
	bounds.StateRoots = rapid.SliceOfNDistinct(fewRoots, 1, 2, path.Clean).Draw(t, "--state-root")
	bounds.OutputRoots = rapid.SliceOfNDistinct(fewRoots, 1, 2, path.Clean).Draw(t, "--output-root")
	return bounds
}).Filter(func(b fleet.Bounds) bool { return b.Validate() == nil })

// drawPath draws mostly one of the roots.
func drawPath(t *rapid.T, roots []string, label string) v1alpha1.HostPath {
	if rapid.IntRange(0, 3).Draw(t, "elsewhere") == 0 {
		return v1alpha1.HostPath(fewRoots.Draw(t, label))
	}
	return v1alpha1.HostPath(rapid.SampledFrom(roots).Draw(t, label))
}

func drawObject(t *rapid.T, bounds fleet.Bounds) *v1alpha1.HyperliquidParser {
	obj := around("paused")
	obj.Namespace, obj.Name = fewNames.Draw(t, "namespace"), fewNames.Draw(t, "name")
	obj.Spec.Target.Nodes.StatePath = drawPath(t, bounds.StateRoots, "statePath")
	if rapid.Bool().Draw(t, "pods") {
		obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{
			Selector: obj.Spec.Target.Nodes.Selector, Volume: "data",
			StateSubPath: v1alpha1.ClaimPath(fewDirs.Draw(t, "stateSubPath")),
		}}
		if rapid.Bool().Draw(t, "with a claim for the state") {
			obj.Spec.Target.Pods.StateClaimName = fewNames.Draw(t, "stateClaimName")
		}
	}
	switch rapid.IntRange(0, 3).Draw(t, "sink") {
	case 0:
		obj.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: drawPath(t, bounds.OutputRoots, "file.path")}}
	case 1:
		obj.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: v1alpha1.HostPath("/" + fewDirs.Draw(t, "file.path")),
			ClaimName: fewNames.Draw(t, "claimName")}}
	case 2:
		obj.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{ClaimName: fewNames.Draw(t, "claimName")}}
	}
	return obj
}

// drawTarget is a target of the object: on a node that all share, with a claim for its data if it is a pod.
func drawTarget(t *rapid.T, obj *v1alpha1.HyperliquidParser) target.Target {
	if obj.Spec.Target.Nodes != nil {
		name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "node")
		return target.Target{Name: name, Node: name}
	}
	return target.Target{Name: fewNames.Draw(t, "pod"), Node: "a", Claim: fewNames.Draw(t, "claim")}
}

// No two objects write into one directory, or one into another's: whatever their names, namespaces, roots and claims,
// if the manager makes their pods.
func TestNoObjectWritesIntoAnothersDirectory(t *testing.T) {
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		bounds := fewBounds.Draw(t, "flags")
		a, b := drawObject(t, bounds), drawObject(t, bounds)
		if a.Namespace == b.Namespace && a.Name == b.Name {
			t.Skip("a draw of one object twice: there are no two to compare")
		}
		for _, obj := range []*v1alpha1.HyperliquidParser{a, b} {
			if reason, _ := bounds.Problem(obj); reason != "" {
				t.Skip("a draw beyond the flags: the manager makes no pod that could write")
			}
		}
		ofA, ofB := drawTarget(t, a), drawTarget(t, b)
		if fleet.CollidesWithItself(a, []string{ofA.Claim}) || fleet.CollidesWithItself(b, []string{ofB.Claim}) ||
			a.Namespace == b.Namespace && fleet.Collide(a, b, []string{ofA.Claim}, []string{ofB.Claim}) {
			t.Skip("a draw of claims that meet: the manager makes no pod of the younger object")
		}
		both++
		mine, err := written(a, ofA)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := written(b, ofB)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mine {
			for _, other := range theirs {
				if nested(m, other) {
					t.Fatalf("%s/%s writes into %s, and %s/%s into %s", a.Namespace, a.Name, m, b.Namespace, b.Name, other)
				}
			}
		}
		// State and output of one object do not overlap either.
		for i, m := range mine {
			for _, other := range mine[i+1:] {
				if nested(m, other) {
					t.Fatalf("%s/%s writes into %s, and into %s", a.Namespace, a.Name, m, other)
				}
			}
		}
	})
	if both < 10 {
		t.Errorf("both objects had pods in %d cases only", both)
	}
}

func TestObjectsOnOneClaim(t *testing.T) {
	onClaim := func(name, claim, dir string) *v1alpha1.HyperliquidParser {
		obj := around("sink.file.path")
		obj.Namespace, obj.Name = "prod", name
		obj.Spec.Sink.File.ClaimName, obj.Spec.Sink.File.Path = claim, v1alpha1.HostPath(dir)
		return obj
	}
	beside := func(name, claim, dir string) *v1alpha1.HyperliquidParser {
		obj := around("target.pods.subPath")
		obj.Namespace, obj.Name = "prod", name
		obj.Spec.Target.Pods.StateClaimName, obj.Spec.Target.Pods.StateSubPath = claim, v1alpha1.ClaimPath(dir)
		return obj
	}
	for name, test := range map[string]struct {
		a, b *v1alpha1.HyperliquidParser
		want bool
	}{
		"side by side":                          {onClaim("a", "c", ""), onClaim("b", "c", ""), false},
		"in different directories":              {onClaim("a", "c", "/x"), onClaim("b", "c", "/y"), false},
		"in a directory named as the namespace": {onClaim("a", "c", ""), onClaim("b", "c", "/prod"), false},
		"inside an object's":                    {onClaim("a", "c", ""), onClaim("b", "c", "/prod/a"), true},
		"inside a target's":                     {onClaim("a", "c", ""), onClaim("b", "c", "/prod/a/node-1"), true},
		"around an object's":                    {onClaim("a", "c", "/prod/b"), onClaim("b", "c", ""), true},
		"in a name that begins alike":           {onClaim("a", "c", ""), onClaim("b", "c", "/prod/ab"), false},
		"on another claim":                      {onClaim("a", "c", ""), onClaim("b", "d", "/prod/a"), false},
		"state beside state":                    {beside("a", "", "hlparser"), beside("b", "", "hlparser"), false},
		"state inside state":                    {beside("a", "", "hlparser"), beside("b", "", "hlparser/a"), true},
		"state inside state of one claim":       {beside("a", "c", "s"), beside("b", "c", "s/prod/a"), true},
		"output inside state of one claim":      {beside("a", "c", "s"), onClaim("b", "c", "/s/prod/a"), true},
		"state inside the state on data":        {beside("a", "", "s"), beside("b", "data-a", "s/a"), true},
		"output inside the state on data":       {beside("a", "", "s"), onClaim("b", "data-a", "/s/a"), true},
		"output beside the state on data":       {beside("a", "", "s"), onClaim("b", "data-a", "/t/a"), false},
		"output inside state, on other claims":  {beside("a", "", "s"), onClaim("b", "c", "/s/a"), false},
		"state on data inside output":           {onClaim("a", "data-b", "/s"), beside("b", "", "s/prod/a"), true},
	} {
		if got := fleet.Collide(test.a, test.b, []string{"data-a"}, []string{"data-b"}); got != test.want {
			t.Errorf("%s: held back: %v, want %v", name, got, test.want)
		}
	}
}

// The state directories of objects that were created before roots were lists, and before claims were compared.
func TestObjectsOfBeforeKeepTheirDirectories(t *testing.T) {
	bounds := testBounds
	bounds.StateRoots, bounds.OutputRoots = []string{"/var/lib/hlparser"}, []string{"/var/lib/hlparser-out"}
	beside := func(state, claim string) *v1alpha1.HyperliquidParser {
		obj := around("target.pods.subPath")
		obj.Spec.Target.Pods.StateSubPath, obj.Spec.Target.Pods.StateClaimName = v1alpha1.ClaimPath(state), claim
		return obj
	}
	onNode, archive := around("sink.file.path"), around("sink.file.path")
	archive.Spec.Sink.File.Path, archive.Spec.Sink.File.ClaimName = "/default", "records" // named as the namespace
	for want, obj := range map[string]*v1alpha1.HyperliquidParser{
		"node:/var/lib/hlparser/default/mainnet node:/var/lib/hlparser-out/default/mainnet":         onNode,
		"node:/var/lib/hlparser/default/mainnet claim:default/records/default/default/mainnet/hl-0": archive,
		"claim:default/data/hlparser/mainnet":                                                       beside("", ""),
		"claim:default/data/a/$b/mainnet":                                                           beside("a/$b", ""),
		"claim:default/state/a/$(HLPARSER_TARGET)/default/mainnet/hl-0": beside(
			"a/$(HLPARSER_TARGET)", "state"),
	} {
		if reason, message := bounds.Problem(obj); reason != "" {
			t.Errorf("%s: %s: %s", want, reason, message)
		}
		got, err := written(obj, target.Target{Name: "hl-0", Node: "n", Claim: "data"})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("got %v (%v), want %s", got, err, want)
		}
	}
}

var _ = Describe("two objects on one claim", func() {
	It("do not write into one another's directory: the older one keeps it", func(ctx SpecContext) {
		f := newFarm(ctx, 1)
		run(runOptions{})
		first := f.object()
		first.Name = "b"
		first.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{ClaimName: "records"}}
		Expect(k8s.Create(ctx, first)).To(Succeed())
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, first.Name, 0) }).ShouldNot(BeNil())
		second := f.object()
		second.Name = "c"
		inside := v1alpha1.HostPath("/" + f.namespace + "/b/x")
		second.Spec.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{ClaimName: "records", Path: inside}}
		Expect(k8s.Create(ctx, second)).To(Succeed())
		eventuallyCondition(ctx, second, v1alpha1.ConditionStalled, "True/"+v1alpha1.ReasonPathNotAllowed, soon)
		Expect(conditionMessage(current(ctx, second), v1alpha1.ConditionStalled)).To(
			ContainSubstring("which the older HyperliquidParser b writes into"))
		Expect(f.pod(ctx, second.Name, 0)).To(BeNil())
		By("going elsewhere")
		change(ctx, second, func(o *v1alpha1.HyperliquidParser) { o.Spec.Sink.File.Path = "/archive" })
		Eventually(ctx, func() *corev1.Pod { return f.pod(ctx, second.Name, 0) }).ShouldNot(BeNil())
		Expect(condition(current(ctx, first), v1alpha1.ConditionStalled)).To(HavePrefix("False/"))
	})
})
