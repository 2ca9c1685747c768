// Package sinktest implements the conformance suite for sinks. A sink's folder holds one test that calls Run and
// RunWithEngine with a Target, and one benchmark that calls Benchmark. No sink is exempt from a case, unless its
// destination cannot produce the situation.
//
// Run drives a sink call by call, as the engine does, and compares what consumers received with what was acknowledged.
// RunWithEngine puts the engine itself in front of the sink. The suite must never know which sink it tests, and must
// apply the same rules to every sink.
package sinktest

import (
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Target is a destination created for one case, and the controls that the suite has over it.
type Target struct {
	// Open opens the output as a new process does. The previous output was closed, or ended by Crash.
	Open func() (sink.Output, error)

	// Crash ends the process as kill -9 does: nothing that it opened works any more. If Crash is nil, the suite only
	// abandons the sinks and the output, and closes them at the end of the case.
	Crash func()

	// Received returns the bytes that a stream's consumers received, in order. They may include records of other
	// streams, which the suite ignores.
	Received func(stream string) ([]byte, error)

	// Outage starts or ends an outage, in which the destination refuses everything. The suite also calls it during a
	// call of the sink. In an outage a Write fails on its own, even if its context has no deadline.
	Outage func(on bool)

	// Block makes the destination accept and answer nothing, or ends that. Nil means that the destination cannot block.
	Block func(on bool)

	// Slow delays each operation of the destination; 0 ends the delay. If Slow is nil, the suite uses Block instead.
	Slow func(delay time.Duration)

	// Recreate deletes everything at the destination, including positions, and recreates it empty. Afterwards the sink
	// may return ErrReopen. Nil means that the destination cannot be recreated under a sink.
	Recreate func() error

	// ExactlyOnce reports whether consumers receive no record twice, even across a crash.
	ExactlyOnce bool

	// Fenced reports whether Open does not wait for the previous process to end, and nothing that process writes
	// afterwards reaches a consumer.
	Fenced bool

	// Reopens reports whether the sink may return ErrReopen after an outage, because some of what it wrote may be lost.
	Reopens bool

	// BufferBytes is how many bytes of acknowledged records the sink may buffer until the next Flush. 0 means none.
	BufferBytes int

	// OrderKey returns the key of a record: order is guaranteed among records with the same key. Nil means among all
	// records of a stream.
	OrderKey func(r sink.Record) string
}

// testCase is a property of a sink and the check for it.
type testCase struct {
	name string
	run  func(*process)
}

// longOutage is the case that measures the memory of the process. It therefore runs alone.
const longOutage = "a long outage is reported and takes no additional memory"

var cases = []testCase{
	// Records.
	{"records are delivered whole, in order and once", inOrder},
	{"records of any bytes are delivered unchanged", unusualBytes},
	{"events of coins with any name are delivered", unusualCoins},
	{"markers and events of one line are distinguished", markers},
	{"late lines of an older file keep their order", manyFiles},
	{"late lines of an older file are delivered once across crashes", manyFilesWithCrashes},
	{"a record of 20 MB is delivered or refused, and its neighbours are delivered", hugeRecord},
	{"streams share the output and are not mixed", manyStreams},
	// Commits.
	{"a stream without records delivers nothing", nothingWritten},
	{"a flush with nothing new returns the same state and no sync", unchangedFlush},
	{"records are written concurrently with a sync", besideSync},
	{"a flush covers a sync that was never called", syncLeftOut},
	{"Committed is idempotent", committedTwice},
	{"the last flush completes everything, and the next run continues", lastFlush},
	// Outages.
	{"a batch is retried after an outage", outage},
	{"a flush or commit is retried after an outage", outageInCommit},
	{"a batch abandoned in an outage is delivered after a restart", abandonedBatch},
	{longOutage, deadForLong},
	{"a flapping destination receives everything", flapping},
	{"a write whose context has ended writes nothing", cancelled},
	{"the context ends a write that the destination blocks", blocked},
	{"closing a blocked stream does not affect another", closedWhileBlocked},
	{"a slow destination applies backpressure to writes", slow},
	{"a recreated destination receives everything uncommitted", recreatedDestination},
	// Ends.
	{"a restart continues where the last run stopped", restart},
	{"a stream closed within a batch delivers the batch after a restart", closedInMidBatch},
	{"uncommitted records are delivered again after a crash", crashBeforeSave},
	{"a crash between saving a checkpoint and Committed loses nothing", crashBeforeCommitted},
	{"a crash anywhere loses nothing", crashAnywhere},
	{"a replaced process delivers nothing more", replaced},
	{"Delivered counts only records at the destination", counted},
}

// Run runs the suite, each case with a new target. Cases run in parallel.
func Run(t *testing.T, target func(t *testing.T) Target) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.name != longOutage {
				t.Parallel()
			}
			c.against(t, target(t))
		})
	}
}

func (c testCase) against(t tester, target Target) {
	p := newProcess(t, target)
	t.Cleanup(p.end)
	p.start()
	c.run(p)
}
