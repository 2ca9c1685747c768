// Package sinktest is the suite of tests that every sink passes. A sink's folder
// holds one test that calls Run and RunWithEngine with a Target, and one
// benchmark that calls Benchmark; no sink is exempt from a case, unless its
// destination cannot be brought into the situation.
//
// Run drives a sink as the engine does, call by call, and compares what
// consumers were given with what was acknowledged. RunWithEngine puts the engine
// itself before it. The suite must never know which sink it tests, and must never
// forgive one what another is held to.
package sinktest

import (
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Target is a destination made for one case, and the suite's hands on it.
type Target struct {
	// Open opens the output, as a new process does. The one before was closed,
	// or ended by Crash.
	Open func() (sink.Output, error)

	// Crash ends the process as kill -9 does: nothing it opened works any more.
	// nil if the suite need only let go of it; then it closes what it let go of
	// at the end of the case.
	Crash func()

	// Received returns the bytes that a stream's consumers were given, in order.
	// Records of other streams among them are left out by the suite.
	Received func(stream string) ([]byte, error)

	// Outage makes the destination refuse everything, or ends that. It is also
	// called while a call of the sink is under way. While it lasts a Write fails
	// by itself, also when its context has no deadline.
	Outage func(on bool)

	// Block makes the destination accept nothing and answer nothing, or ends
	// that. nil if it cannot be.
	Block func(on bool)

	// Slow makes each thing that the destination is asked for take so long; 0
	// ends it. nil: Block is used to hold it up instead.
	Slow func(delay time.Duration)

	// ExactlyOnce says that consumers get no record twice even over a crash.
	ExactlyOnce bool

	// Fenced says that Open does not wait for the process before to end, and that
	// what that one writes from then on never reaches a consumer.
	Fenced bool

	// Reopens says that after an outage the sink may ask to be opened again
	// (ErrReopen), since a part of what it wrote may be lost.
	Reopens bool

	// Gathers is how many bytes of acknowledged records the sink may keep to
	// itself until the next Flush; 0: none.
	Gathers int

	// OrderKey names what order is kept among: records with the same key. nil:
	// among all records of a stream.
	OrderKey func(r sink.Record) string
}

// testCase is a property of a sink, and how to see whether a sink has it.
type testCase struct {
	name string
	run  func(*process)
}

var cases = []testCase{
	// Records.
	{"records come out whole, in order and once", inOrder},
	{"records of any bytes come out as they are", unusualBytes},
	{"events of coins with any name are delivered", unusualCoins},
	{"markers and events of one line are told apart", markers},
	{"late lines of an older file keep their place", manyFiles},
	{"late lines of an older file come once over crashes", manyFilesWithCrashes},
	{"a record of 20 MB is delivered or refused, and its neighbours are delivered", hugeRecord},
	{"streams share the output and are not mixed", manyStreams},
	// Commits.
	{"a stream without records is nothing to a consumer", nothingWritten},
	{"a flush with nothing new returns the same state and asks for nothing", flushAgain},
	{"records are written beside a sync", besideSync},
	{"a flush makes up for a sync that never came", syncLeftOut},
	{"committed may be told twice", committedTwice},
	{"the last flush ends everything, and the next run goes on", lastFlush},
	// Outages.
	{"a batch that met an outage is written again", outage},
	{"an outage in a flush or commit is tried again", outageInCommit},
	{"a batch given up in an outage is sent after a restart", givenUp},
	{"a sink that is dead for long is told so, and holds no memory", deadForLong},
	{"a destination that comes and goes gets everything", flapping},
	{"a write whose context has ended writes nothing", cancelled},
	{"a context ends a write that the destination blocks", blocked},
	{"a stream closed while it is blocked does not spoil another", closedWhileBlocked},
	{"a slow destination holds up the writes", slow},
	// Ends.
	{"a restart goes on where the last one stopped", restart},
	{"a stream closed in the middle of a batch sends it after a restart", closedInMidBatch},
	{"what a crash left uncommitted is sent again", crashBeforeSave},
	{"a crash between a checkpoint and its commit", crashBeforeCommitted},
	{"a crash anywhere loses nothing", crashAnywhere},
	{"a process that was replaced delivers nothing more", replaced},
}

// Run runs the suite, each case against a new target.
func Run(t *testing.T, target func(t *testing.T) Target) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.against(t, target(t)) })
	}
}

func (c testCase) against(t tester, target Target) {
	p := newProcess(t, target)
	t.Cleanup(p.end)
	p.start()
	c.run(p)
}
