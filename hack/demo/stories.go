package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"
)

// story is what happens to the fleet in one run of the demo.
type story struct {
	name string
	// sink is the sink without --sink, and fixed reports whether the story works with no other.
	sink  string
	fixed bool
	// rate scales what the nodes write.
	rate float64
	// hourEvery is how long an hour of the nodes takes; 0: as in other stories.
	hourEvery time.Duration
	// link limits what each parser sends to the sink, in bytes per second; 0: no limit.
	link rate.Limit
	// reports has the operator serve reports, for kubectl hlp.
	reports bool
	// spec changes the spec of fleet.yaml; nil leaves it as it is.
	spec func(map[string]any) error
	// prepare runs before the fleet exists; nil does nothing.
	prepare func(context.Context, *scene) error
	// play runs while the nodes write. They stop when it returns.
	play func(context.Context, *scene) (*expectation, error)
}

// quietRate is the rate of stories whose parsers must catch up on any machine, beside their NATS server.
const quietRate = 0.2

// stories returns all stories. The first is the default.
func stories() []story {
	return []story{hangStory(), sinkDownStory(), canaryStory(), slowStory()}
}

// storyNamed returns the story of the given name.
func storyNamed(name string) (story, error) {
	for _, one := range stories() {
		if one.name == name {
			return one, nil
		}
	}
	return story{}, fmt.Errorf("invalid --scene %q: want one of %s", name, strings.Join(storyNames(), ", "))
}

func storyNames() (names []string) {
	for _, one := range stories() {
		names = append(names, one.name)
	}
	return names
}

// chooseSink returns the sink that the story is played with. An empty flag means the story's own.
func (t *story) chooseSink(flag string) (string, error) {
	switch {
	case flag == "":
		return t.sink, nil
	case flag != fileSink && flag != natsSink:
		return "", fmt.Errorf("invalid --sink %q: want %s or %s", flag, fileSink, natsSink)
	case t.fixed && flag != t.sink:
		return "", fmt.Errorf("invalid --sink %q: --scene=%s works only with --sink=%s", flag, t.name, t.sink)
	}
	return flag, nil
}

// expectation is what a story requires of its outcome, beside the delivery of each event exactly once.
type expectation struct {
	restarts int32          // by the operator
	replaced map[string]int // pods, by node
	wrong    []error        // what the story itself found to be wrong
	proved   []string       // what the figures prove, in sentences
}

// proves adds a sentence to the proofs.
func (e *expectation) proves(format string, args ...any) {
	e.proved = append(e.proved, fmt.Sprintf(format, args...))
}

// requires adds an error unless ok.
func (e *expectation) requires(ok bool, format string, args ...any) {
	if !ok {
		e.wrong = append(e.wrong, fmt.Errorf(format, args...))
	}
}

// peak holds the largest figures that any parser has reported.
type peak struct {
	held    int64 // bytes in buffers and in flight
	limit   int64 // bytes that buffers may hold
	waiting int64 // bytes on disk that are not committed
	rss     int64 // bytes of resident memory
}

// observe takes in the figures of one snapshot.
func (p *peak) observe(l *snapshot) {
	for _, n := range l.nodes {
		if n.report == nil {
			continue
		}
		sum := total(n.report)
		p.held, p.limit = max(p.held, sum.BufferBytes), max(p.limit, sum.BufferLimitBytes)
		if sum.UncommittedBytes != nil {
			p.waiting = max(p.waiting, *sum.UncommittedBytes)
		}
		if n.report.Process.RSSBytes != nil {
			p.rss = max(p.rss, *n.report.Process.RSSBytes)
		}
	}
}

// provesBound requires that buffers kept their bound while more than they may hold waited on disk.
func (e *expectation) provesBound(p *peak) {
	bytes := func(n int64) string { return humanize.IBytes(uint64(n)) }
	bound := 2*p.limit + 4<<20 // as the operator computes it, without the largest line
	e.requires(p.held <= bound, "the buffers of a parser held %s, over their bound of %s", bytes(p.held), bytes(bound))
	e.requires(p.exceeded(), "only %s waited on a disk, too little to prove that buffers of %s are bounded",
		bytes(p.waiting), bytes(p.limit))
	e.proves("bounded memory: up to %s waited on a node's disk, and its parser's buffers never held more than %s "+
		"(bufferLimit %s); its memory reached %s", bytes(p.waiting), bytes(p.held), bytes(p.limit), bytes(p.rss))
}

// exceeded reports whether more has waited on a node's disk than its parser's buffers may hold.
func (p *peak) exceeded() bool { return p.waiting > p.limit*5/4 }

// write lets the nodes write while play runs.
func (s *scene) write(ctx context.Context, play func(context.Context) error) (err error) {
	writing, stop := context.WithCancel(ctx)
	written := make(chan error, 1)
	go func() { written <- s.traffic.run(writing, s.factor) }()
	s.screen.say("nodes write order statuses and fills; an hour of theirs takes %s", s.hourEvery)
	s.writing = true
	err = play(ctx)
	s.writing = false
	stop()
	err = errors.Join(err, <-written) // no writer may change what is compared or removed next
	if err == nil {
		s.screen.say("nodes have stopped writing: %d events", s.traffic.events())
	}
	return err
}

// atVerdict returns the nodes whose parsers have the verdict.
func (l *snapshot) atVerdict(verdict string) (nodes []string) {
	for _, n := range l.nodes {
		if n.verdict == verdict {
			nodes = append(nodes, n.name)
		}
	}
	return nodes
}

// verdictOf returns the verdict on a node's parser.
func (l *snapshot) verdictOf(node string) string {
	if i := slices.IndexFunc(l.nodes, func(n nodeSnapshot) bool { return n.name == node }); i >= 0 {
		return l.nodes[i].verdict
	}
	return unknown
}

// allHealthy reports whether all parsers are ready and judged to be well.
func (l *snapshot) allHealthy() bool {
	return l.allReady() && len(l.atVerdict(healthy)) == len(l.nodes)
}

// reported returns the number of events with the reason.
func (s *scene) reported(reason string) (n int) {
	for i := range s.events {
		if s.events[i].Reason == reason {
			n++
		}
	}
	return n
}

// setField sets a field of the fleet's spec, such as growth.lag.
func setField(spec map[string]any, value any, path ...string) error {
	at := spec
	for _, key := range path[:len(path)-1] {
		if at[key] == nil {
			at[key] = map[string]any{}
		}
		next, ok := at[key].(map[string]any)
		if !ok {
			return fmt.Errorf("setting %s of the fleet's spec: %s is no object", strings.Join(path, "."), key)
		}
		at = next
	}
	at[path[len(path)-1]] = value
	return nil
}
