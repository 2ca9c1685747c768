package sinktest

import (
	"slices"
	"testing"
)

// flaws lists flaws of a sink with the cases that must detect them. Other cases may detect them, too.
var flaws = []struct {
	flaw  string
	cases []string
}{
	{"drops a record", []string{"records are delivered whole, in order and once"}},
	{"reverses records", []string{"records are delivered whole, in order and once"}},
	{"mixes two records", []string{"records are delivered whole, in order and once"}},
	{"retains the caller's memory", []string{"records are delivered whole, in order and once"}},
	{"trims white space", []string{"records of any bytes are delivered unchanged"}},
	{"treats a coin as a path", []string{"events of coins with any name are delivered"}},
	{"deduplicates by offset and block", []string{"markers and events of one line are distinguished"}},
	{"deduplicates by line and index", []string{"late lines of an older file keep their order"}},
	{"drops records older than the newest", []string{
		"late lines of an older file keep their order", "late lines of an older file are delivered once across crashes",
	}},
	{"refuses the preceding record", []string{
		"a record of 20 MB is delivered or refused, and its neighbours are delivered",
	}},
	{"drops a batch with a huge record", []string{
		"a record of 20 MB is delivered or refused, and its neighbours are delivered",
	}},
	{"mixes streams", []string{"streams share the output and are not mixed"}},
	{"returns a state that is not JSON", []string{"a stream without records delivers nothing"}},
	{"returns a different state each time", []string{
		"a flush with nothing new returns the same state and no sync",
		"a stream without records delivers nothing",
	}},
	{"returns a sync each time", []string{
		"a flush with nothing new returns the same state and no sync",
	}},
	{"contacts the destination at each flush", []string{"a flush with nothing new returns the same state and no sync"}},
	{"discards records written during a sync", []string{"records are written concurrently with a sync"}},
	{"ignores a sync that was never called", []string{"a flush covers a sync that was never called"}},
	{"rejects a repeated Committed", []string{"Committed is idempotent"}},
	{"rejects Open after the last flush", []string{"the last flush completes everything, and the next run continues"}},
	{"reports an outage as a failure", []string{"a batch is retried after an outage"}},
	{"reports an outage in a commit as a failure", []string{"a flush or commit is retried after an outage"}},
	{"acknowledges in an outage", []string{
		"a batch is retried after an outage", "a long outage is reported and takes no additional memory",
	}},
	{"delivers half of a failed batch", []string{
		"a batch is retried after an outage", "a batch abandoned in an outage is delivered after a restart",
		"a flapping destination receives everything",
	}},
	{"acknowledges the call after a failed one without writing", []string{
		"a batch is retried after an outage", "a flapping destination receives everything",
	}},
	{"retains each undelivered batch", []string{"a long outage is reported and takes no additional memory"}},
	{"copies each undelivered batch", []string{"a long outage is reported and takes no additional memory"}},
	{"ignores the context", []string{
		"a write whose context has ended writes nothing", "the context ends a write that the destination blocks",
	}},
	{"queues for a blocked destination", []string{
		"a slow destination applies backpressure to writes", "the context ends a write that the destination blocks",
	}},
	{"waits in Close", []string{"closing a blocked stream does not affect another"}},
	{"rolls back too much", []string{
		"a restart continues where the last run stopped", "a crash between saving a checkpoint and Committed loses nothing",
		"a crash anywhere loses nothing",
	}},
	{"does not roll back after a crash", []string{
		"uncommitted records are delivered again after a crash", "a crash anywhere loses nothing",
		"a stream closed within a batch delivers the batch after a restart",
	}},
	{"does not detect a recreated destination", []string{
		"a recreated destination receives everything uncommitted",
	}},
	{"counts rolled-back records", []string{"Delivered counts only records at the destination"}},
	{"does not fence the previous process", []string{"a replaced process delivers nothing more"}},
}

func TestTheSuiteCatchesASinkThat(t *testing.T) {
	caught := map[string]bool{}
	for _, f := range flaws {
		for _, name := range f.cases {
			caught[name] = true
		}
		t.Run(f.flaw, func(t *testing.T) {
			for _, name := range f.cases {
				i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == name })
				if i < 0 {
					t.Fatalf("unknown case %q", name)
				}
				r := &recorder{tester: t}
				r.run(cases[i], newToy(f.flaw).target())
				if !r.failed {
					t.Errorf("the sink passes %q", name)
				}
			}
		})
	}
	for _, c := range cases {
		if !caught[c.name] {
			t.Errorf("no flaw is detected by the case %q", c.name)
		}
	}
}
