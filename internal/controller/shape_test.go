package controller

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// storedShape returns the fields that the only revision stores; nil for none.
func (s *served) storedShape() *v1alpha1.HyperliquidParserSpec {
	s.t.Helper()
	var list appsv1.ControllerRevisionList
	s.list(&list)
	if len(list.Items) != 1 {
		s.t.Fatalf("%d revisions", len(list.Items))
	}
	text, ok := list.Items[0].Annotations[v1alpha1.AnnotationSpec]
	if !ok {
		return nil
	}
	var spec v1alpha1.HyperliquidParserSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		s.t.Fatal(err)
	}
	return &spec
}

func TestARevisionStoresTheFieldsThatShapeIt(t *testing.T) {
	s := serve(t, 1)
	changes(s, s.object(), func(o *v1alpha1.HyperliquidParser) {
		o.Spec.Image, o.Spec.Growth.Action = "image:v2", v1alpha1.GrowthActionAlert
	})
	s.Bounds.Images = []string{"docker.io/library/image"}
	s.passes(10 * time.Second)
	got := s.storedShape()
	if got == nil || got.Image != "image:v2" || len(got.Streams) != 1 || got.Target.Nodes.DataPath == "" {
		t.Fatalf("the revision stores %+v", got)
	}
	if got.Growth.Action != "" || got.Target.Nodes.Selector.MatchLabels != nil {
		t.Errorf("the revision stores fields that do not shape it: %+v", got)
	}
}

// An object has 256 KiB of annotations. A revision that cannot be stored would hold up the fleet.
func TestARevisionIsStoredWithoutFieldsThatAreTooLong(t *testing.T) {
	s := serve(t, 1)
	changes(s, s.object(), func(o *v1alpha1.HyperliquidParser) {
		for range 1000 {
			o.Spec.Filter.Coins = append(o.Spec.Filter.Coins, v1alpha1.Coin(strings.Repeat("X", 100)))
		}
	})
	s.passes(10 * time.Second)
	if s.storedShape() != nil {
		t.Error("the revision stores them")
	}
}
