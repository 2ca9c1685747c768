package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Images of the parsers.
const (
	parserImage = "hyperliquid-parser-operator:demo"
	// brokenImage is the image of a parser that crashes some seconds after its start.
	brokenImage = "hyperliquid-parser-operator:broken"
)

// canaryStory rolls out an image whose parser crashes. The operator stops at the canary, and takes it back.
func canaryStory() story {
	return story{
		name: "canary", sink: fileSink, rate: 1,
		spec: func(spec map[string]any) error {
			return setField(spec, map[string]any{"count": int64(1), "soak": "30s"}, "rollout", "canary")
		},
		play: playCanary,
	}
}

// brokenParser writes a program that is the parser, except that its pipeline crashes some seconds after its start, as
// by a panic.
func (s *scene) brokenParser() (string, error) {
	program := filepath.Join(s.dir, "broken-hlparser")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = run ]; then (sleep 4; kill -ABRT $$) & fi\nexec '%s' \"$@\"\n", s.parser)
	if err := os.WriteFile(program, []byte(text), 0o700); err != nil { //nolint:gosec // it is a program
		return "", fmt.Errorf("writing the broken parser: %w", err)
	}
	return program, nil
}

func playCanary(ctx context.Context, s *scene) (*expectation, error) {
	if err := s.until(ctx, recoverLimit, "all is well", (*snapshot).allHealthy); err != nil {
		return nil, err
	}
	first := s.last.object.Status.CurrentRevision
	s.screen.say("%s", s.screen.paint(red, "somebody sets spec.image to "+brokenImage+
		", whose parser crashes some seconds after its start"))
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"image":"`+brokenImage+`"}}`))
	if err := s.client.Patch(ctx, s.last.object.DeepCopy(), patch); err != nil {
		return nil, fmt.Errorf("setting the image of the fleet: %w", err)
	}
	failed := func(l *snapshot) bool {
		stalled := meta.FindStatusCondition(l.object.Status.Conditions, v1alpha1.ConditionStalled)
		return stalled != nil && stalled.Reason == v1alpha1.ReasonCanaryFailed
	}
	if err := s.until(ctx, downLimit, "the canary soaks", failed); err != nil {
		return nil, err
	}
	canary := s.touched(brokenImage)
	s.screen.say("the rollout has stopped at its canary, which goes back to the revision before. " +
		"The other parsers were not touched")
	back := func(l *snapshot) bool {
		return l.podsWithImage(brokenImage) == 0 && int(l.object.Status.Ready) == len(l.nodes)
	}
	if err := s.until(ctx, recoverLimit, "the canary goes back", back); err != nil {
		return nil, err
	}
	if err := s.showTable(ctx); err != nil {
		return nil, err
	}
	s.screen.say("the spec still names the broken image, so the object stays Stalled until a person decides:")
	for _, args := range [][]string{{"rollout", "history", fleetName}, {"rollout", "undo", fleetName}} {
		if _, err := s.hlp(ctx, args...); err != nil {
			return nil, err
		}
	}
	if err := s.until(ctx, recoverLimit, "undone", (*snapshot).allHealthy); err != nil {
		return nil, err
	}
	s.screen.say("the object is well again, and every parser has the revision it had before")

	e := &expectation{replaced: map[string]int{}}
	e.requires(len(canary) == 1, "the broken image ran on %d nodes, want 1", len(canary))
	for _, node := range canary {
		e.replaced[node] = 2 // to the broken image, and back
	}
	e.requires(s.last.object.Status.CurrentRevision == first, "the revision is %s, want %s as before",
		s.last.object.Status.CurrentRevision, first)
	e.requires(s.reported("CanaryFailed") > 0, "no event reports that the canary failed")
	e.proves("stopped at the canary: the broken image ran on %d of %d nodes; the pods of the others were never replaced",
		len(canary), len(s.names))
	e.proves("no restart by the operator: it went back to revision %s instead", first)
	return e, nil
}

// touched returns the nodes on which a pod with the image has run.
func (s *scene) touched(image string) (nodes []string) {
	for _, node := range s.names {
		if s.watcher.images[node][image] {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// podsWithImage returns the number of pods with the image.
func (l *snapshot) podsWithImage(image string) (n int) {
	for _, node := range l.nodes {
		if node.pod != nil && imageOf(node.pod) == image {
			n++
		}
	}
	return n
}

func imageOf(pod *corev1.Pod) string {
	if len(pod.Spec.Containers) == 0 {
		return ""
	}
	return pod.Spec.Containers[0].Image
}
