package sinktest

import (
	"slices"
	"testing"
)

// flaws are a sink's, with the cases that must notice them; others may.
var flaws = []struct {
	flaw  string
	cases []string
}{
	{"drops a record", []string{"records come out whole, in order and once"}},
	{"turns records around", []string{"records come out whole, in order and once"}},
	{"mixes two records", []string{"records come out whole, in order and once"}},
	{"keeps what is the caller's", []string{"records come out whole, in order and once"}},
	{"cuts white space off", []string{"records of any bytes come out as they are"}},
	{"takes a coin for a path", []string{"events of coins with any name are delivered"}},
	{"knows records by offset and block", []string{"markers and events of one line are told apart"}},
	{"knows records by line and index", []string{"late lines of an older file keep their place"}},
	{"drops what is older than the newest", []string{"late lines of an older file keep their place", "late lines of an older file come once over crashes"}},
	{"refuses the record before", []string{"a record of 20 MB is delivered or refused, and its neighbours are delivered"}},
	{"refuses a huge record and drops what is behind it", []string{"a record of 20 MB is delivered or refused, and its neighbours are delivered"}},
	{"mixes streams", []string{"streams share the output and are not mixed"}},
	{"has a state that is no JSON", []string{"a stream without records is nothing to a consumer"}},
	{"has another state each time", []string{"a flush with nothing new returns the same state and asks for nothing", "a stream without records is nothing to a consumer"}},
	{"asks for a sync each time", []string{"a flush with nothing new returns the same state and asks for nothing"}},
	{"asks at each flush", []string{"a flush with nothing new returns the same state and asks for nothing"}},
	{"empties its buffer after a sync", []string{"records are written beside a sync"}},
	{"does not make up for a sync that never came", []string{"a flush makes up for a sync that never came"}},
	{"counts how often it is told of a commit", []string{"committed may be told twice"}},
	{"takes the last flush for the end of time", []string{"the last flush ends everything, and the next run goes on"}},
	{"takes an outage for the end", []string{"a batch that met an outage is written again"}},
	{"fails a commit in an outage for good", []string{"an outage in a flush or commit is tried again"}},
	{"acknowledges in an outage", []string{
		"a batch that met an outage is written again", "a sink that is dead for long is told so, and holds no memory",
	}},
	{"leaves half of a failed batch", []string{
		"a batch that met an outage is written again", "a batch given up in an outage is sent after a restart",
		"a destination that comes and goes gets everything",
	}},
	{"loses what it gives up at its end", []string{"a batch that met an outage is written again", "a destination that comes and goes gets everything"}},
	{"keeps each batch that it could not deliver", []string{"a sink that is dead for long is told so, and holds no memory"}},
	{"copies each batch that it could not deliver", []string{"a sink that is dead for long is told so, and holds no memory"}},
	{"ignores the context", []string{"a write whose context has ended writes nothing", "a context ends a write that the destination blocks"}},
	{"queues for a destination that holds it up", []string{"a slow destination holds up the writes", "a context ends a write that the destination blocks"}},
	{"waits when it is closed", []string{"a stream closed while it is blocked does not spoil another"}},
	{"undoes too much", []string{
		"a restart goes on where the last one stopped", "a crash between a checkpoint and its commit",
		"a crash anywhere loses nothing",
	}},
	{"does not undo what a crash left", []string{
		"what a crash left uncommitted is sent again", "a crash anywhere loses nothing",
		"a stream closed in the middle of a batch sends it after a restart",
	}},
	{"does not shut out the process before", []string{"a process that was replaced delivers nothing more"}},
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
					t.Fatalf("there is no case %q", name)
				}
				r := &recorder{tester: t}
				r.run(cases[i], newToy(f.flaw).target())
				if !r.failed {
					t.Errorf("passes %q", name)
				}
			}
		})
	}
	for _, c := range cases {
		if !caught[c.name] {
			t.Errorf("no flaw shows what %q is good for", c.name)
		}
	}
}
