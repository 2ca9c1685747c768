package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

// hangStory makes one parser hang. The operator restarts that one.
func hangStory() story {
	return story{name: "hang", sink: fileSink, rate: 1, play: playHang}
}

func playHang(ctx context.Context, s *scene) (*expectation, error) {
	begin := time.Now()
	passed := func() time.Duration { return time.Since(begin) }
	phase := func() string { return fmt.Sprintf("traffic %s of %s", passed().Truncate(time.Second), s.trafficFor) }
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var hung *corev1.Pod
	for passed() < s.trafficFor {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
		if hung == nil && passed() >= s.hangAt {
			var err error
			if hung, err = s.hang(ctx, s.names[len(s.names)/2]); err != nil {
				return nil, err
			}
		}
		if err := s.show(ctx, phase()); err != nil {
			return nil, err
		}
	}
	e := &expectation{restarts: 1, replaced: map[string]int{}}
	if hung != nil {
		e.replaced[hung.Spec.NodeName] = 1
	}
	e.requires(slices.ContainsFunc(s.events, func(e eventsv1.Event) bool { return hung != nil && mentions(&e, hung) }),
		"no event reports the restart")
	return e, nil
}

// hangPath makes a parser hang. Only a parser built with the tag faultinject serves it.
const hangPath = "/debug/fault/hang"

// hang stops one parser's pipelines while its HTTP server keeps answering.
func (s *scene) hang(ctx context.Context, node string) (*corev1.Pod, error) {
	pod := s.last.podOf(node)
	if pod == nil || pod.Status.PodIP == "" {
		return nil, fmt.Errorf("finding a parser to hang: there is none on %s", node)
	}
	url := reportURL(pod.Status.PodIP, hangPath)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("making the parser of %s hang: %w", node, err)
	}
	response, err := (&http.Client{Timeout: reportTimeout}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("making the parser of %s hang: %w", node, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("making the parser of %s hang: status %d; was it built with -tags faultinject?",
			node, response.StatusCode)
	}
	s.screen.say("%s", s.screen.paint(red, "the parser of "+node+" hangs from now on; its HTTP server still answers"))
	return pod, nil
}
