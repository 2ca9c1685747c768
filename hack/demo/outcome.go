package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
)

// outcome is the result of the demo.
type outcome struct {
	nodes    int
	restarts int32
	result   compare.Result
	proved   []string
}

// String returns what the run has proved, and a last line of figures.
func (o *outcome) String() string {
	var b strings.Builder
	if len(o.proved) > 0 {
		b.WriteString("Proved:\n")
		if o.result.Exact() {
			fmt.Fprintf(&b, "- exactly once: all %s events were delivered once, in order, byte for byte\n",
				humanize.Comma(o.result.Events))
		}
		for _, sentence := range o.proved {
			b.WriteString("- " + sentence + "\n")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "demo: nodes=%d events=%d restarts=%d lost=%d duplicated=%d",
		o.nodes, o.result.Events, o.restarts, o.result.Lost, o.result.Duplicated)
	return b.String()
}

// compare waits until everything is delivered, and compares it with what was written.
func (s *scene) compare(ctx context.Context) (compare.Result, error) {
	var result compare.Result
	begin := time.Now()
	wanted := s.traffic.events()
	// Parsers at rest may not have read the last lines yet, so records are counted, too.
	err := s.until(ctx, deliveryLimit, "waiting for the last records", func(l *snapshot) bool {
		if !l.atRest() || !l.allReady() {
			return false
		}
		delivered, err := s.delivered()
		return err == nil && delivered >= wanted
	})
	if err != nil {
		// The comparison reports the missing records in more detail.
		s.screen.say("not everything was delivered: %v", err)
	} else {
		s.screen.say("everything is delivered and committed (%s)", seconds(begin))
	}
	s.screen.keepTable()
	begin = time.Now()
	for _, w := range s.traffic.writers {
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		one, err := compare.Stream(s.agent.HostPath(w.node, dataPath), w.Source, s.outDir(w))
		if err != nil {
			return result, fmt.Errorf("comparing %s of %s: %w", w.Source, w.node, err)
		}
		result.Add(one)
	}
	if result.Events != wanted {
		return result, fmt.Errorf("the nodes' files hold %d events, but %d were written", result.Events, wanted)
	}
	s.screen.say("compared %d events with what was delivered, byte for byte (%s)", result.Events, seconds(begin))
	return result, nil
}

func (s *scene) outDir(w *writer) string {
	if s.broker != nil {
		return s.broker.records(w.node, string(w.Stream))
	}
	return filepath.Join(s.agent.HostPath(w.node, outputPath), string(w.Stream))
}

func (s *scene) delivered() (int64, error) {
	var sum int64
	for _, w := range s.traffic.writers {
		n, err := compare.Count(s.outDir(w))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// judge returns an error for each deviation from the expected outcome.
func (s *scene) judge(out *outcome, want *expectation) error {
	wrong := slices.Clone(want.wrong)
	if !out.result.Exact() {
		wrong = append(wrong, fmt.Errorf("lost %d, duplicated %d, never written %d, out of order %d events, such as %q",
			out.result.Lost, out.result.Duplicated, out.result.Foreign, out.result.Disordered, out.result.Examples))
	}
	if out.restarts != want.restarts {
		wrong = append(wrong, fmt.Errorf("the operator restarted %d parsers, want %d", out.restarts, want.restarts))
	}
	if !s.last.allReady() {
		wrong = append(wrong, errors.New("not every parser is ready at the end"))
	}
	for _, n := range s.last.nodes {
		containerRestarts := int32(0)
		if n.pod != nil && len(n.pod.Status.ContainerStatuses) > 0 {
			containerRestarts = n.pod.Status.ContainerStatuses[0].RestartCount
		}
		if containerRestarts > 0 {
			wrong = append(wrong, fmt.Errorf("the parser of %s ended on its own %d times", n.name, containerRestarts))
		}
		if times := want.replaced[n.name]; n.replaced != times {
			wrong = append(wrong, fmt.Errorf("the pod of %s was replaced %d times, want %d", n.name, n.replaced, times))
		}
	}
	// A permission that the generated role lacks appears nowhere else.
	text, err := os.ReadFile(s.operatorLog())
	if err != nil {
		wrong = append(wrong, fmt.Errorf("reading the operator's log: %w", err))
	}
	for line := range bytes.Lines(text) {
		if bytes.Contains(bytes.ToLower(line), []byte("forbidden")) {
			wrong = append(wrong, fmt.Errorf("the API server denied the operator a request: %s", bytes.TrimSpace(line)))
			break
		}
	}
	return errors.Join(wrong...)
}

// mentions reports whether an event is about a pod or related to it.
func mentions(e *eventsv1.Event, pod *corev1.Pod) bool {
	about := func(uid types.UID) bool { return uid == pod.UID }
	return about(e.Regarding.UID) || e.Related != nil && about(e.Related.UID)
}
