package main

import (
	"context"
	"time"
)

// smallBuffers is the bufferLimit of stories that prove that memory is bounded: the least that the API accepts, so that
// the backlog of a short outage exceeds it.
const smallBuffers = "4Mi"

// sinkDownStory stops the sink for a while. The operator reports that and restarts nothing.
func sinkDownStory() story {
	return story{
		name: "sink-down", sink: natsSink, fixed: true, rate: downRate,
		spec: func(spec map[string]any) error { return setField(spec, smallBuffers, "engine", "bufferLimit") },
		play: playSinkDown,
	}
}

// downRate is enough for an outage of half a minute to exceed the smallest buffers.
const downRate = 1.25 * quietRate

// downLimit bounds the wait for a verdict that takes half a minute, and recoverLimit that for the end of a fault.
const (
	downLimit    = 90 * time.Second
	recoverLimit = 150 * time.Second
)

func playSinkDown(ctx context.Context, s *scene) (*expectation, error) {
	if err := s.until(ctx, recoverLimit, "all is well", (*snapshot).allHealthy); err != nil {
		return nil, err
	}
	s.screen.say("%s", s.screen.paint(red, "the NATS server stops; the nodes go on writing"))
	begin := time.Now()
	s.broker.stop()
	down := func(l *snapshot) bool { return len(l.atVerdict("SinkDown")) == len(l.nodes) }
	if err := s.until(ctx, downLimit, "the sink is down", down); err != nil {
		return nil, err
	}
	s.screen.say("all parsers are SinkDown. The operator restarts none: a restart does not bring a sink back, and what " +
		"a parser has not delivered waits on its node's disk")
	if err := s.showTable(ctx); err != nil {
		return nil, err
	}
	enough := func(*snapshot) bool { return s.peak.exceeded() }
	if err := s.until(ctx, downLimit, "the backlog grows", enough); err != nil {
		return nil, err
	}
	outage := time.Since(begin)
	if err := s.broker.start(); err != nil {
		return nil, err
	}
	s.screen.say("%s", s.screen.paint(green, "the NATS server is back, after "+outage.Round(time.Second).String()))
	if err := s.until(ctx, recoverLimit, "the sink is back", (*snapshot).allHealthy); err != nil {
		return nil, err
	}
	s.screen.say("all parsers are Healthy again, without help")

	e := &expectation{}
	e.requires(s.reported("SinkDown") > 0, "no event reports that the sink is down") // one may be of several targets
	e.proves("no restart: in an outage of %s the operator restarted no parser, and each is still its first pod",
		outage.Round(time.Second))
	e.provesBound(&s.peak)
	return e, nil
}
