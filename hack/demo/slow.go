package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/time/rate"
)

// Settings of the story of a slow sink. A node that writes at quietRate needs about 0.27 MB/s of the link. The link
// carries half as much again, and one node writes twice as much.
const (
	linkLimit  = 0.4e6 // bytes per second, of each parser
	busyFactor = 2 * quietRate
	// backlogFactor is how fast a node writes the backlog that its parser finds at its start, and backlogTime how long:
	// enough for its parser to be behind for longer than the operator needs to judge.
	backlogFactor = 40
	backlogTime   = 600 * time.Millisecond
	// ratesLimit bounds the wait for a verdict by rates, which takes a minute and 18 polls.
	ratesLimit = 3 * time.Minute
)

// slowStory puts a narrow link before the sink. One parser falls further behind, one that starts with a backlog gains.
func slowStory() story {
	return story{
		name: "slow", sink: natsSink, fixed: true, reports: true, rate: quietRate, link: linkLimit,
		hourEvery: time.Hour, // a slow parser must not seem to miss what a new hour delays
		spec: func(spec map[string]any) error {
			if err := setField(spec, smallBuffers, "engine", "bufferLimit"); err != nil {
				return err
			}
			return setField(spec, "5s", "growth", "lag")
		},
		prepare: prepareSlow,
		play:    playSlow,
	}
}

// Nodes of the story of a slow sink.
func (s *scene) backlogged() string { return s.names[0] }
func (s *scene) busy() string       { return s.names[len(s.names)-1] }

// prepareSlow writes a backlog on one node.
func prepareSlow(ctx context.Context, s *scene) error {
	writing, stop := context.WithTimeout(ctx, backlogTime)
	defer stop()
	err := s.traffic.run(writing, func(node string) float64 {
		if node == s.backlogged() {
			return backlogFactor
		}
		return 0
	})
	if err != nil {
		return fmt.Errorf("writing a backlog: %w", err)
	}
	s.screen.say("%s has written for a while before there is a parser", s.backlogged())
	s.factor = func(node string) float64 {
		if node == s.busy() {
			return busyFactor
		}
		return quietRate
	}
	return nil
}

func playSlow(ctx context.Context, s *scene) (*expectation, error) {
	s.screen.say("%s", s.screen.paint(red, "the link to the NATS server is narrow, and "+s.busy()+
		" writes twice as much as the others"))
	s.screen.say("the operator judges by the rates of a whole minute, so it says nothing yet")
	overloaded := func(l *snapshot) bool { return l.verdictOf(s.busy()) == "Overloaded" }
	if err := s.until(ctx, ratesLimit, "the link is narrow", overloaded); err != nil {
		return nil, err
	}
	s.screen.say("two parsers are behind. %s is Overloaded: it loses ground, because its sink is slow. %s is CatchingUp: "+
		"it delivers more than its node writes, and needs nobody", s.busy(), s.backlogged())
	top, err := s.hlp(ctx, "top", fleetName)
	if err != nil {
		return nil, err
	}
	if err := s.showTable(ctx); err != nil {
		return nil, err
	}
	s.screen.say("the operator restarts neither, as a restart makes no sink faster. The verdict says what is too slow, " +
		"and a person cures that")
	bad := s.last.object.Status.Bad
	s.link.widen(rate.Inf)
	s.screen.say("%s", s.screen.paint(green, "the link is wide now"))
	if err := s.until(ctx, recoverLimit, "the link is wide", (*snapshot).allHealthy); err != nil {
		return nil, err
	}
	s.screen.say("all parsers are level again, without a restart")

	e := &expectation{}
	e.requires(regexp.MustCompile(s.backlogged()+` +CatchingUp `).MatchString(top),
		"kubectl hlp top does not show %s as CatchingUp:\n%s", s.backlogged(), top)
	e.requires(bad == 1, "%d targets were bad at once, want only %s", bad, s.busy())
	e.proves("distinguished: %s lost ground and was Overloaded, which is reported; %s gained and was CatchingUp, which "+
		"is not", s.busy(), s.backlogged())
	e.proves("no restart: each parser is still its first pod")
	e.provesBound(&s.peak)
	return e, nil
}
