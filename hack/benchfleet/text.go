package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// Headings of columns that several tables share.
const (
	wantedColumn  = "wanted"
	reachedColumn = "reached"
)

// figures are the results of one fleet.
type figures struct {
	nodes               int
	daemons, byOperator creations
	rest                atRest
	sweeps              sweeps
	fault               fault
	beside              *beside // nil without small objects
}

// steadySweep returns the sweep with the median time, without the first sweep.
func (f *figures) steadySweep() swept {
	later := slices.SortedFunc(slices.Values(f.sweeps.AtOnce[1:]), func(a, b swept) int {
		return cmp.Compare(a.Wall, b.Wall)
	})
	return later[len(later)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }

// share returns d as a percentage of one core over the time of.
func share(d, of time.Duration) float64 { return d.Seconds() / of.Seconds() * 100 }

// Goals for every size.
const (
	sweepGoal  = 2 * time.Second
	besideGoal = 5.0 // % of a core, without the sweeps
	memoryGoal = 256 << 20
)

// describe formats all results as Markdown.
func (o *options) describe(all []figures) string {
	intro := fmt.Sprintf("kube-apiserver, etcd (without fsync), the manager and the simulated kubelets and parsers share "+
		"the machine.\n"+
		"The benchmark binds each pod and writes its status: two more writes per pod, for both controllers.\n"+
		"A report has %d streams, and every figure fluctuates by up to a fifth. One in a hundred parsers takes 0.3 s to\n"+
		"answer; in each five hundred, one never answers and one sends garbage.\n", o.streams)
	return intro + "\n" + o.creations(all) + "\n" + describeSweeps(all) + "\n" + o.rests(all) + "\n" + o.faults(all) +
		o.besides(all)
}

func (o *options) creations(all []figures) string {
	t := results.Table{{
		"seconds from the object until", "all pods exist", "each time", "all run", "its status says so",
		"controller CPU s", "API server and etcd CPU s",
	}}
	goal := results.Table{{"goal", wantedColumn, "measured", reachedColumn}}
	for _, f := range all {
		row := func(who string, all creations) {
			c, each := all.median(), all.sorted(untilCreated)
			t.Row(fmt.Sprintf("%s, %s nodes", who, humanize.Comma(int64(f.nodes))), seconds(c.created),
				seconds(each[0])+" to "+seconds(each[len(each)-1]), seconds(c.running), seconds(c.reported),
				seconds(c.controllerCPU), seconds(c.clusterCPU))
		}
		row("operator", f.byOperator)
		if len(f.daemons) > 0 {
			row("DaemonSet controller", f.daemons)
			ratio := f.byOperator.median().created.Seconds() / f.daemons.median().created.Seconds()
			goal.Row(humanize.Comma(int64(f.nodes))+" nodes: time until all pods exist / DaemonSet controller's", "≤ 1",
				fmt.Sprintf("%.2f", ratio), results.Reached(ratio <= 1))
		}
	}
	text := fmt.Sprintf("### Creation\n\nBoth controllers' clients may make %d requests per second, with bursts of %d. "+
		"Both create\nthe same pods on the same nodes, three times each, in a balanced order, each time with a new "+
		"process.\n"+
		"The figures are medians of the three runs. The API server's audit log shows when the last pod was created.\n\n%s",
		o.qps, o.burst, t.String())
	if len(goal) > 1 {
		text += "\n" + goal.String()
	}
	return text
}

func describeSweeps(all []figures) string {
	t := results.Table{{
		"a sweep", "seconds", "reports missed", "CPU s", "µs CPU a report", "allocations a report", "KiB a report",
		"CPU s when spread",
		wantedColumn, reachedColumn,
	}}
	for _, f := range all {
		row := func(what string, s swept, spread, wanted, reached string) {
			t.Row(fmt.Sprintf("%s reports%s", humanize.Comma(int64(f.nodes)), what), seconds(s.Wall), fmt.Sprint(s.Missed),
				seconds(s.CPU), fmt.Sprintf("%.0f", float64(s.CPU.Microseconds())/float64(f.nodes-badNodes(f.nodes))),
				fmt.Sprint(s.Allocs), fmt.Sprintf("%.1f", float64(s.Bytes)/1024), spread, wanted, reached)
		}
		row(", first", f.sweeps.AtOnce[0], "", "", "")
		s := f.steadySweep()
		row("", s, seconds(f.sweeps.Spread), "< 2 s", results.Reached(s.Wall < sweepGoal))
	}
	return "### Sweeps\n\nAll parsers that report are polled at the same moment, by the operator's poller in its own " +
		"process.\n" +
		"The first sweep opens the connections. The other row is the sweep with the median time of the rest. Polls that\n" +
		"are spread over the interval, as in the manager, cost more each, because the process sleeps in between.\n\n" +
		t.String()
}

func (o *options) rests(all []figures) string {
	t := results.Table{{"at rest", "of a core", "besides sweeps", "MiB", "peak MiB", "API writes", "API reads", "Lease"}}
	goal := results.Table{{"goal", wantedColumn, "measured", reachedColumn}}
	requests := map[string]int{}
	var watched time.Duration
	for _, f := range all {
		r := f.rest
		watched = r.watched
		polls := time.Duration(float64(f.sweeps.Spread) * r.watched.Seconds() / o.pollInterval.Seconds())
		beside := share(max(r.cpu-polls, 0), r.watched)
		total, writes := 0, len(r.written)
		for what, n := range r.requests {
			total += n
			requests[what] += n
		}
		size := humanize.Comma(int64(f.nodes)) + " nodes"
		t.Row(size, fmt.Sprintf("%.1f %%", share(r.cpu, r.watched)), fmt.Sprintf("%.1f %%", beside), mebibytes(r.resident),
			mebibytes(r.peak), fmt.Sprint(writes), fmt.Sprint(total-writes), fmt.Sprint(r.leases))
		goal.Row(size+": API writes but the Lease's", "0", fmt.Sprint(writes), results.Reached(writes == 0))
		goal.Row(size+": of a core besides sweeps", fmt.Sprintf("< %.0f %%", besideGoal), fmt.Sprintf("%.1f %%", beside),
			results.Reached(beside < besideGoal))
		goal.Row(size+": MiB resident", "< 256", mebibytes(r.resident), results.Reached(r.resident < memoryGoal))
	}
	byVerb := ""
	if len(requests) > 0 {
		parts := make([]string, 0, len(requests))
		for _, what := range slices.Sorted(maps.Keys(requests)) {
			parts = append(parts, fmt.Sprintf("%d %s", requests[what], what))
		}
		byVerb = " Requests by verb, all sizes: " + strings.Join(parts, ", ") + "."
	}
	return fmt.Sprintf("### At rest\n\nThe manager over %s, while each node reports its status every 5 min. Requests "+
		"are\ncounted in the API server's audit log.%s\n\n%s\n%s",
		watched.Round(time.Second), byVerb, t.String(), goal.String())
}

func (o *options) faults(all []figures) string {
	lateGoal := 2 * o.pollInterval
	t := results.Table{{
		"one parser hangs", "in the status, s after it was due", "a new one runs, s after the fault", wantedColumn,
		reachedColumn,
	}}
	for _, f := range all {
		t.Row(fmt.Sprintf("of %s", humanize.Comma(int64(f.nodes))), seconds(f.fault.late), seconds(f.fault.cured),
			fmt.Sprintf("≤ %.0f s", lateGoal.Seconds()), results.Reached(f.fault.late <= lateGoal))
	}
	return fmt.Sprintf("### A fault\n\nA verdict of Stuck is due %s after the parser hangs; polls are %s apart. "+
		"It is early by the age\nof the last report before the hang.\n\n%s", o.stuckAfter, o.pollInterval, t.String())
}
