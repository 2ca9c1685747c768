package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
	"github.com/hlparser/hyperliquid-parser-operator/hack/simulate/sim"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

const reachedColumn = "reached"

// spread distributes n runs over all workers and prints the progress.
func spread[T any](what string, s sizes, n int, run func(i int) T) []T {
	out := make([]T, n)
	var next, done atomic.Int64
	var workers sync.WaitGroup
	for range s.workers {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				out[i] = run(i)
				if d := done.Add(1); d*10/int64(n) != (d-1)*10/int64(n) {
					fmt.Fprintf(os.Stderr, "… %s: %d of %d\n", what, d, n)
				}
			}
		})
	}
	workers.Wait()
	return out
}

// normalTraffic counts restarts in runs without any fault of a parser.
func normalTraffic(s sizes) (text string, missed int) {
	kinds := sim.Traffics()
	days := spread("days of normal traffic", s, s.days, func(i int) normal {
		return normalDay(s.seed+uint64(i), kinds[i%len(kinds)])
	})
	t := results.Table{{
		"traffic", "node-days", "reports", "restarts", "Healthy", "CatchingUp", "Overloaded", "SourceStalled", "Unreachable",
		"0 restarts",
	}}
	var stories strings.Builder
	for k, kind := range kinds {
		var polls, restarts, n int
		shown := map[health.Verdict]int{}
		for i := k; i < len(days); i += len(kinds) {
			n++
			polls += days[i].polls
			restarts += len(days[i].restarts)
			for v, count := range days[i].shown {
				shown[v] += count
			}
			for _, j := range days[i].restarts {
				fmt.Fprintf(&stories, "- seed %d, %s, after %s: %s/%s: %s\n",
					s.seed+uint64(i), kind, j.Since.Sub(sim.Start).Round(time.Second), j.Verdict, j.Reason, j.Message)
			}
		}
		part := func(v health.Verdict) string {
			return fmt.Sprintf("%.3f %%", 100*float64(shown[v])/float64(max(polls, 1)))
		}
		t.Row(kind.String(), fmt.Sprint(n), fmt.Sprintf("%.1f M", float64(polls)/1e6), fmt.Sprint(restarts),
			part(health.Healthy), part(health.CatchingUp), part(health.Overloaded), part(health.SourceStalled),
			part(health.Unreachable), results.Reached(restarts == 0))
		if restarts > 0 {
			missed++
		}
	}
	return "### Normal traffic\n\n" +
		"Runs of one parser for one day: drifting and bursting traffic, hour switches, torn tails, filters that match\n" +
		"nothing, stalls of the sink, nodes that are down for up to an hour and catch up at up to ten times the rate,\n" +
		"machines that reboot. A third of the clocks are wrong by up to a quarter of an hour, and half of those are set\n" +
		"during the day. Percentages are of all polls.\n\n" +
		t.String() + stories.String(), missed
}

// faults counts the verdicts for each fault.
func faults(s sizes) (text string, missed int) {
	const least = 0.99
	t := results.Table{{"fault", "runs", "named", "rightly", "p50", "p99", "slowest", "≥ 99 %"}}
	all := trials()
	names := map[string]bool{}
	counts := make([]map[string]int, len(all))
	for k := range all {
		c := &all[k]
		runs := spread(c.name, s, s.faults, func(i int) naming { return c.run(s.seed + uint64(i)) })
		counts[k] = map[string]int{}
		var took []time.Duration
		for _, n := range runs {
			name := n.name()
			counts[k][name]++
			names[name] = true
			if c.right(n) {
				took = append(took, n.took)
			}
		}
		slices.Sort(took)
		share := float64(len(took)) / float64(len(runs))
		verdict := string(c.verdict)
		if c.reason != "" {
			verdict += "/" + c.reason
		}
		t.Row(c.name, fmt.Sprint(len(runs)), verdict, fmt.Sprintf("%.1f %%", 100*share),
			percentile(took, 0.5), percentile(took, 0.99), percentile(took, 1), results.Reached(share >= least))
		if share < least {
			missed++
		}
	}
	columns := slices.Sorted(maps.Keys(names))
	confusion := results.Table{append([]string{"fault"}, columns...)}
	for k, c := range all {
		row := make([]string, len(columns)+1)
		row[0] = c.name
		for i, name := range columns {
			if n := counts[k][name]; n > 0 {
				row[i+1] = fmt.Sprint(n)
			}
		}
		confusion.Row(row...)
	}
	return "### Faults\n\n" +
		"The first bad verdict after a fault that begins at a random time in four hours of otherwise normal traffic.\n" +
		"Times are measured from when lines began to wait; for a leak, a broken bound and an unreadable source, from the\n" +
		"start of the fault. The speed of sinks, parsers and processors is a fraction of the average write rate. Memory\n" +
		"limits are from 512 MiB to 4 GiB.\n\n" +
		t.String() + "\nThe verdicts for each fault:\n\n" + confusion.String(), missed
}

// name returns the verdict's name in the confusion matrix.
func (n *naming) name() string {
	switch {
	case n.dead:
		return "(killed)"
	case n.first.Verdict == "":
		return "(not named)"
	case n.first.Verdict == health.Growing, n.first.Verdict == health.Overloaded:
		return string(n.first.Verdict) + "/" + n.first.Reason
	}
	return string(n.first.Verdict)
}

func percentile(sorted []time.Duration, p float64) string {
	if len(sorted) == 0 {
		return ""
	}
	return sorted[int(p*float64(len(sorted)-1))].Round(time.Second).String()
}

// fleets counts restarts in fleets.
func fleets(s sizes) (text string, missed int) {
	const lasts = 80 * time.Minute
	t := results.Table{{"fleet", "of", "fleets", "restarts", "wanted", "as wanted", reachedColumn}}
	for _, c := range scenes() {
		for _, n := range s.fleetOf {
			runs := spread(fmt.Sprintf("fleets of %d, %s", n, c.name), s, max(s.fleets/n, 1), func(i int) int {
				return newFleet(s.seed+uint64(i), n, &c).run(lasts)
			})
			counts := map[int]int{}
			good := 0
			for _, restarts := range runs {
				counts[restarts]++
				if c.right(restarts) {
					good++
				}
			}
			seen := make([]string, 0, len(counts))
			for _, restarts := range slices.Sorted(maps.Keys(counts)) {
				seen = append(seen, fmt.Sprintf("%d × %d", counts[restarts], restarts))
			}
			t.Row(c.name, fmt.Sprint(n), fmt.Sprint(len(runs)), strings.Join(seen, ", "), c.wanted,
				fmt.Sprintf("%.1f %%", 100*float64(good)/float64(len(runs))), results.Reached(good == len(runs)))
			if good < len(runs) {
				missed++
			}
		}
	}
	return "### Fleets\n\n" +
		"The plan's restarts within 80 minutes. The fault lasts for the last 55 to 65 of them. A restart cures faults\n" +
		"of the process itself.\n\n" +
		t.String(), missed
}
