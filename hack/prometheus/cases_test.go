package prometheus

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// builder makes series and cases.
type builder struct {
	t   testing.TB
	all []testCase
}

// add adds a case. Its fleet of n targets is well as far as the operator's figures go.
func (b *builder) add(alert string, k kind, name string, targets int, parts [][]series, firing ...moment) {
	all := slices.Concat(append([][]series{b.well(targets)}, parts...)...)
	b.all = append(b.all, testCase{alert: alert, kind: k, name: name, series: all, firing: firing})
}

// bare adds a case without any series of the operator.
func (b *builder) bare(alert string, k kind, name string, parts [][]series, firing ...moment) {
	b.all = append(b.all, testCase{alert: alert, kind: k, name: name, series: slices.Concat(parts...), firing: firing})
}

// labelled returns a series. Labels are key and value in turn.
func (b *builder) labelled(metric, values string, labels ...string) series {
	var text []string
	for label := range slices.Chunk(labels, 2) {
		text = append(text, fmt.Sprintf("%s=%q", label[0], label[1]))
	}
	return series{metric + "{" + strings.Join(text, ",") + "}", values}
}

// parser returns a series of a parser's stream. The pod is named after the target; another one as target/pod.
func (b *builder) parser(metric, target string, segments ...string) []series {
	target, pod, ok := strings.Cut(target, "/")
	if !ok {
		pod = "p-" + target
	}
	labels := []string{
		"namespace", "hl", "name", "mainnet", "target", target, "pod", pod, "instance", pod + ":9464", "job", "parsers",
	}
	switch metric {
	case "process_start_time_seconds":
	case "up":
		labels = append(labels, "container", "hlparser")
	default:
		labels = append(labels, "stream", "Fills")
	}
	return []series{b.labelled(metric, values(b.t, segments...), labels...)}
}

// manager returns a series of a manager about the fleet.
func (b *builder) manager(metric, labels, pod string, segments ...string) []series {
	own := []string{"namespace", "hl", "name", "mainnet", "pod", pod, "instance", pod + ":8443", "job", "manager"}
	s := b.labelled(metric, values(b.t, segments...), own...)
	if labels != "" {
		s.Series = strings.TrimSuffix(s.Series, "}") + "," + labels + "}"
	}
	return []series{s}
}

// m1 returns a series of the only manager.
func (b *builder) m1(metric, labels string, segments ...string) []series {
	return b.manager(metric, labels, "m1", segments...)
}

// handover returns a series that a manager has for 20 minutes, and the next one from 21m30s on.
func (b *builder) handover(metric, labels, value, forLong string) []series {
	return append(b.manager(metric, labels, "m1", value, "20m", "stale", "30s"),
		b.manager(metric, labels, "m2", "_", "21m30s", value, forLong)...)
}

// long is longer than any case but those of a rollout.
const long = "3h"

// well returns what a manager exports about a fleet that is well.
func (b *builder) well(targets int) []series {
	var all []series
	for _, state := range []string{"desired", "current", "ready", "updated"} {
		all = append(all, b.state(state, fmt.Sprint(targets), long)...)
	}
	return append(all, b.state("waiting", "0", long)...)
}

// state returns a series of hlparser_fleet_targets.
func (b *builder) state(state string, segments ...string) []series {
	return b.m1("hlparser_fleet_targets", fmt.Sprintf("state=%q", state), segments...)
}

// of150 returns the series of a fleet of 150 targets. The first of them are bad.
func of150(bad int, f func(target string, bad bool) []series) []series {
	return ofMany(150, bad, f)
}

func ofMany(all, bad int, f func(target string, bad bool) []series) []series {
	out := make([]series, 0, all)
	for i := range all {
		out = append(out, f(fmt.Sprintf("node-%d", i), i < bad)...)
	}
	return out
}

// cases returns all cases.
func cases(t testing.TB) []testCase {
	t.Helper()
	b := &builder{t: t}
	b.lag()
	b.dataLost()
	b.dataGap()
	b.streamFailed()
	b.malformed()
	b.noMetrics()
	b.sinkDown()
	b.restartIneffective()
	b.states()
	b.targetBad()
	b.nearRetention()
	b.lossUnacknowledged()
	b.notReady()
	b.restarts()
	b.rolloutLong()
	b.operatorDown()
	b.reconcileErrors()
	b.pollsFailing()
	b.operatorBlind()
	return b.all
}

func (b *builder) lag() {
	const alert, metric, bytes = "Lag", "hlparser_lag_seconds", "hlparser_uncommitted_bytes"
	const critical, warning = "Lag/critical", "Lag/warning"
	b.add(alert, fires, "two minutes behind, from 5m to 25m", 2, [][]series{
		b.parser(metric, "a", "0", "5m", "120", "20m", "0", "20m"),
		b.parser(metric, "b", "0", "45m"),
	}, at("9m"), at("11m", critical), at("25m", critical), at("32m"))
	b.add(alert, fires, "a backlog that grows", 1, [][]series{
		b.parser(metric, "a", "0+15", "30m"),
		b.parser(bytes, "a", "0+15000000", "30m"),
	}, at("5m"), at("15m", critical))
	b.add(alert, fires, "a backlog that shrinks, too slowly", 1, [][]series{
		b.parser(metric, "a", "3600", "30m"),
		b.parser(bytes, "a", "36000000000-10000000", "30m"),
	}, at("15m", critical))
	b.add(alert, quiet, "a saw-tooth below a minute", 1, [][]series{
		b.parser(metric, "a", slices.Repeat([]string{"0", "30s", "20", "30s", "40", "30s", "55", "30s"}, 15)...),
	}, at("10m"), at("20m"), at("30m"))
	b.add(alert, quiet, "four minutes of it", 1, [][]series{
		b.parser(metric, "a", "0", "5m", "90", "4m", "0", "20m"),
	}, at("9m"), at("11m"), at("20m"))
	b.add(alert, quiet, "parsers that are late by turns", 2, [][]series{
		b.parser(metric, "a", slices.Repeat([]string{"120", "4m", "0", "4m"}, 6)...),
		b.parser(metric, "b", slices.Repeat([]string{"0", "4m", "120", "4m"}, 6)...),
	}, at("10m"), at("20m"), at("30m"), at("40m"), at("47m"))
	b.add(alert, quiet, "a backlog that is caught up with", 1, [][]series{
		b.parser(metric, "a", "3600-120", "15m", "0", "15m"),
		b.parser(bytes, "a", "36000000000-1200000000", "15m", "0", "15m"),
	}, at("6m"), at("12m"), at("20m"))
	b.add(alert, restarted, "the container restarts, and is behind all the same", 1, [][]series{
		b.parser(metric, "a", "120", "3m", "stale", "30s", "120", "20m"),
	}, at("4m"), at("7m", critical))
	b.add(alert, newPod, "the pod is replaced, and the next is behind too", 1, [][]series{
		b.parser(metric, "a/1", "120", "3m", "stale", "30s"),
		b.parser(metric, "a/2", "_", "4m", "120", "20m"),
	}, at("5m"), at("10m", critical))
	b.add(alert, newPrometheus, "what it sees for five minutes counts", 1, [][]series{
		b.parser(metric, "a", "_", "10m", "600", "20m"),
	}, at("10m30s"), at("14m"), at("16m", critical))
	for _, c := range []struct {
		kind     kind
		bad, all int
		want     string
	}{{one, 1, 150, critical}, {tenth, 15, 150, critical}, {everyone, 150, 150, critical}, {fires, 1, 400, warning}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of %d behind: one alert", c.bad, c.all), c.all, [][]series{
			ofMany(c.all, c.bad, func(target string, bad bool) []series {
				if bad {
					return b.parser(metric, target, "120", "15m")
				}
				return b.parser(metric, target, "1", "15m")
			}),
		}, at("2m"), at("10m", c.want))
	}
}

func (b *builder) dataLost() {
	const alert, critical = "DataLost", "DataLost/critical"
	const pruned = "hlparser_pruned_unread_total"
	const skipped, start = "hlparser_skipped_bytes_total", "process_start_time_seconds"
	b.add(alert, fires, "a file vanishes unread at 20m: at once, for a quarter of an hour", 1, [][]series{
		b.parser(pruned, "a", "0", "20m", "1", "40m"), b.parser(skipped, "a", "0", "1h"), b.parser(start, "a", "0", "1h"),
	}, at("19m30s"), at("20m", critical), at("34m", critical), at("36m"))
	b.add(alert, fires, "bytes are skipped", 1, [][]series{
		b.parser(pruned, "a", "0", "1h"), b.parser(skipped, "a", "0", "20m", "1048576", "40m"),
		b.parser(start, "a", "0", "1h"),
	}, at("19m30s"), at("20m", critical), at("36m"))
	b.add(alert, quiet, "nothing is lost", 1, [][]series{
		b.parser(pruned, "a", "0", "1h"), b.parser(skipped, "a", "0", "1h"), b.parser(start, "a", "0", "1h"),
	}, at("5m"), at("30m"))
	b.add(alert, restarted, "the container restarts and loses nothing: an old loss is not new", 1, [][]series{
		b.parser(pruned, "a", "5", "30m", "0", "30m"), b.parser(skipped, "a", "9e9", "30m", "0", "30m"),
		b.parser(start, "a", "-600000", "30m", "1790", "30m"),
	}, at("29m"), at("31m"), at("45m"))
	for name, found := range map[string]string{
		"fewer files than before": "1", "as many files as before": "3", "more files than before": "4",
	} {
		b.add(alert, restarted, "the container restarts and finds a loss of "+name, 1, [][]series{
			b.parser(pruned, "a", "3", "30m", found, "30m"), b.parser(start, "a", "-600000", "30m", "1790", "30m"),
		}, at("29m"), at("30m30s", critical), at("40m", critical), at("46m"))
	}
	b.add(alert, newPod, "it finds at its start that data is gone", 1, [][]series{
		b.parser(pruned, "a/1", "0", "19m", "stale", "30s"), b.parser(start, "a/1", "-600000", "19m", "stale", "30s"),
		b.parser(pruned, "a/2", "_", "20m", "2", "40m"), b.parser(start, "a/2", "_", "20m", "1190", "40m"),
	}, at("19m30s"), at("20m", critical), at("36m"))
	b.add(alert, newPod, "it loses nothing, and its predecessor did last week", 1, [][]series{
		b.parser(pruned, "a/1", "3", "19m", "stale", "30s"), b.parser(start, "a/1", "-600000", "19m", "stale", "30s"),
		b.parser(pruned, "a/2", "_", "20m", "0", "40m"), b.parser(start, "a/2", "_", "20m", "1190", "40m"),
	}, at("20m"), at("30m"))
	b.add(alert, newPrometheus, "the loss is of last week", 1, [][]series{
		b.parser(pruned, "a", "_", "10m", "3", "2h"), b.parser(skipped, "a", "_", "10m", "900", "2h"),
		b.parser(start, "a", "_", "10m", "-600000", "2h"),
	}, at("10m"), at("11m"), at("30m"))
	b.add(alert, newPrometheus, "it was away for half an hour", 1, [][]series{
		b.parser(pruned, "a", "3", "30m", "_", "30m", "3", "30m"),
		b.parser(start, "a", "-600000", "30m", "_", "30m", "-600000", "30m"),
	}, at("1h"), at("62m"), at("80m"))
	for _, c := range []struct {
		kind kind
		bad  int
		want string
	}{{one, 1, critical}, {fires, 10, critical + "=10"}, {tenth, 15, critical}, {everyone, 150, critical}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of 150 lose a file", c.bad), 150, [][]series{
			of150(c.bad, func(target string, bad bool) []series {
				lost := "0"
				if bad {
					lost = "1"
				}
				return append(b.parser(pruned, target, "0", "20m", lost, "10m"), b.parser(start, target, "-600000", "30m")...)
			}),
		}, at("19m"), at("21m", c.want))
	}
	b.add(alert, everyone, "150 of 150 find at a rollout that files are gone", 150, [][]series{
		of150(150, func(target string, _ bool) []series {
			return append(b.parser(pruned, target, "_", "20m", "1", "10m"),
				b.parser(start, target, "_", "20m", "1190", "10m")...)
		}),
	}, at("21m", critical))
}

func (b *builder) dataGap() {
	const alert, warning = "DataGap", "DataGap/warning"
	const gaps, late, start = "hlparser_block_gaps_total", "hlparser_block_late_total", "process_start_time_seconds"
	old := b.parser(start, "a", "-600000", "3h")
	b.add(alert, fires, "the node leaves out seven blocks: after ten minutes, for the rest of an hour", 1, [][]series{
		b.parser(gaps, "a", "0", "20m", "7", "2h"), b.parser(late, "a", "0", "140m"), old,
	}, at("29m"), at("31m", warning), at("79m", warning), at("81m"))
	b.add(alert, fires, "where late blocks are not counted", 1, [][]series{
		b.parser(gaps, "a", "0", "20m", "7", "2h"), old,
	}, at("29m"), at("31m", warning), at("81m"))
	b.add(alert, fires, "some of them come late", 1, [][]series{
		b.parser(gaps, "a", "0", "20m", "7", "2h"), b.parser(late, "a", "0", "22m", "6", "2h"), old,
	}, at("31m", warning))
	b.add(alert, quiet, "all come late", 1, [][]series{
		b.parser(gaps, "a", "0", "20m", "7", "2h"), b.parser(late, "a", "0", "22m", "7", "2h"), old,
	}, at("31m"), at("45m"), at("80m"), at("83m"))
	b.add(alert, quiet, "no gap", 1, [][]series{
		b.parser(gaps, "a", "0", "2h"), b.parser(late, "a", "0", "2h"), old,
	}, at("30m"), at("70m"))
	b.add(alert, restarted, "an old gap is not new", 1, [][]series{
		b.parser(gaps, "a", "7", "30m", "0", "90m"), b.parser(start, "a", "-600000", "30m", "1790", "90m"),
	}, at("31m"), at("45m"))
	b.add(alert, restarted, "a gap that the container finds when it starts", 1, [][]series{
		b.parser(gaps, "a", "7", "30m", "7", "90m"), b.parser(start, "a", "-600000", "30m", "1790", "90m"),
	}, at("31m"), at("41m", warning), at("92m"))
	b.add(alert, restarted, "a gap and a restart after it", 1, [][]series{
		b.parser(gaps, "a", "0", "20m", "7", "5m", "0", "2h"), b.parser(start, "a", "-600000", "25m", "1490", "2h"),
	}, at("31m", warning), at("79m", warning), at("82m"))
	b.add(alert, newPod, "a gap that it finds at its start", 1, [][]series{
		b.parser(gaps, "a/1", "0", "19m", "stale", "30s"), b.parser(start, "a/1", "-600000", "19m", "stale", "30s"),
		b.parser(gaps, "a/2", "_", "20m", "7", "2h"), b.parser(start, "a/2", "_", "20m", "1190", "2h"),
	}, at("29m"), at("31m", warning), at("81m"))
	b.add(alert, newPod, "a gap that it finds at its start, and the blocks come late", 1, [][]series{
		b.parser(gaps, "a/2", "_", "20m", "7", "2h"), b.parser(start, "a/2", "_", "20m", "1190", "2h"),
		b.parser(late, "a/2", "_", "20m", "0", "2m", "7", "2h"),
	}, at("31m"), at("45m"))
	b.add(alert, newPrometheus, "the gap is of last week", 1, [][]series{
		b.parser(gaps, "a", "_", "10m", "7", "2h"), b.parser(start, "a", "_", "10m", "-600000", "2h"),
	}, at("11m"), at("21m"), at("70m"))
	for _, c := range []struct {
		kind kind
		bad  int
	}{{one, 1}, {tenth, 15}, {everyone, 150}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of 150 nodes leave out blocks", c.bad), 150, [][]series{
			of150(c.bad, func(target string, bad bool) []series {
				missing := "0"
				if bad {
					missing = "7"
				}
				return append(b.parser(gaps, target, "0", "20m", missing, "30m"), b.parser(start, target, "-600000", "50m")...)
			}),
		}, at("25m"), at("31m", warning))
	}
}

func (b *builder) streamFailed() {
	const alert, metric, critical = "StreamFailed", "hlparser_failed", "StreamFailed/critical"
	b.add(alert, fires, "at 5m, and after ten minutes mended", 1, [][]series{
		b.parser(metric, "a", "0", "5m", "1", "15m", "0", "20m"),
	}, at("9m"), at("10m30s", critical), at("19m", critical), at("24m"))
	b.add(alert, fires, "it lags too: one alert", 1, [][]series{
		b.parser(metric, "a", "0", "5m", "1", "30m"), b.parser("hlparser_lag_seconds", "a", "0", "5m", "0+30", "30m"),
	}, at("25m", critical))
	b.bare(alert, fires, "with the operator down", [][]series{b.parser(metric, "a", "0", "5m", "1", "30m")},
		at("25m", critical))
	b.add(alert, quiet, "none has failed", 1, [][]series{b.parser(metric, "a", "0", "30m")}, at("10m"), at("25m"))
	b.add(alert, quiet, "for four minutes", 1, [][]series{
		b.parser(metric, "a", "0", "5m", "1", "4m", "0", "30m"),
	}, at("9m"), at("10m30s"))
	b.add(alert, restarted, "it fails again", 1, [][]series{
		b.parser(metric, "a", "1", "10m", "0", "30s", "1", "20m"),
	}, at("9m", critical), at("10m", critical), at("20m", critical))
	b.add(alert, newPod, "it fails too", 1, [][]series{
		b.parser(metric, "a/1", "1", "10m", "stale", "30s"), b.parser(metric, "a/2", "_", "11m", "1", "20m"),
	}, at("9m", critical), at("10m30s", critical), at("20m", critical))
	b.add(alert, newPrometheus, "it failed before", 1, [][]series{
		b.parser(metric, "a", "_", "10m", "1", "20m"),
	}, at("10m30s"), at("14m"), at("16m", critical))
	for _, c := range []struct {
		kind     kind
		bad, all int
		want     string
	}{
		{one, 1, 150, critical}, {tenth, 15, 150, critical}, {everyone, 150, 150, critical},
		{fires, 1, 400, "StreamFailed/warning"},
	} {
		b.add(alert, c.kind, fmt.Sprintf("%d of %d: one alert", c.bad, c.all), c.all, [][]series{
			ofMany(c.all, c.bad, func(target string, bad bool) []series {
				if bad {
					return b.parser(metric, target, "1", "10m")
				}
				return b.parser(metric, target, "0", "10m")
			}),
		}, at("4m"), at("6m", c.want))
	}
}

func (b *builder) malformed() {
	const lines, all, bad = "hlparser_lines_total", "hlparser_malformed_total", "hlparser_malformed_lines_total"
	const drift, critical = "FormatDrift", "FormatDrift/critical"
	const letters, warning = "DeadLetters", "DeadLetters/warning"
	// stream returns the counters of a parser that reads 1,000 lines in an interval: this many of them malformed from
	// 10m on, until the time.
	stream := func(target, malformed, until string) []series {
		return slices.Concat(
			b.parser(lines, target, "0+1000", "90m"),
			b.parser(bad, target, "0", "10m", "0+"+malformed, until, malformed+"00", "1h"),
			b.parser(all, target, "0", "10m", "0+"+malformed, until, malformed+"00", "1h"))
	}
	b.add(drift, fires, "half of the lines: one alert", 1, [][]series{stream("a", "500", "30m")},
		at("15m"), at("25m", critical))
	b.bare(drift, fires, "with the operator down", [][]series{stream("a", "500", "30m")}, at("25m", critical))
	b.add(drift, quiet, "none", 1, [][]series{stream("a", "0", "30m")}, at("25m"))
	b.add(drift, quiet, "a stream at rest", 1, [][]series{
		b.parser(lines, "a", "100", "1h"), b.parser(bad, "a", "50", "1h"), b.parser(all, "a", "50", "1h"),
	}, at("25m"))
	b.add(drift, quiet, "one line of a quiet stream", 1, [][]series{
		b.parser(lines, "a", "100", "20m", "101", "1h"), b.parser(bad, "a", "0", "20m", "1", "1h"),
		b.parser(all, "a", "0", "20m", "1", "1h"),
	}, at("29m30s"), at("30m"), at("31m"), at("35m"))
	b.add(drift, restarted, "counters begin again", 1, [][]series{
		b.parser(lines, "a", "0+1000", "20m", "0+1000", "30m"),
		b.parser(bad, "a", "0", "10m", "0+500", "10m", "0+500", "30m"),
		b.parser(all, "a", "0", "10m", "0+500", "10m", "0+500", "30m"),
	}, at("24m", critical), at("35m", critical))
	b.add(drift, newPod, "it reads the same format", 1, [][]series{
		b.parser(lines, "a/1", "0+1000", "20m", "stale", "30s"), b.parser(bad, "a/1", "0+500", "20m", "stale", "30s"),
		b.parser(lines, "a/2", "_", "21m", "0+1000", "20m"), b.parser(bad, "a/2", "_", "21m", "0+500", "20m"),
	}, at("15m", critical), at("21m", critical), at("30m", critical))
	b.add(drift, newPrometheus, "the malformed lines are of last week", 1, [][]series{
		b.parser(lines, "a", "_", "10m", "1000000+1000", "40m"), b.parser(bad, "a", "_", "10m", "500000", "40m"),
		b.parser(all, "a", "_", "10m", "500000", "40m"),
	}, at("11m"), at("25m"), at("45m"))
	for _, c := range []struct {
		kind kind
		bad  int
		want string
	}{{one, 1, warning}, {tenth, 15, warning}, {fires, 30, critical}, {everyone, 150, critical}} {
		b.add(drift, c.kind, fmt.Sprintf("nine tenths of the lines of %d of 150: one alert", c.bad), 150, [][]series{
			of150(c.bad, func(target string, bad bool) []series {
				if bad {
					return stream(target, "900", "30m")
				}
				return stream(target, "0", "30m")
			}),
		}, at("30m", c.want))
	}

	b.add(letters, fires, "one line in a hundred", 1, [][]series{stream("a", "10", "30m")},
		at("15m"), at("25m", warning))
	b.add(letters, fires, "records that the sink refuses", 1, [][]series{
		b.parser(lines, "a", "0+1000", "1h"), b.parser(bad, "a", "0", "1h"), b.parser(all, "a", "0+10", "1h"),
	}, at("25m", warning))
	b.add(letters, quiet, "one line of 1,000 lines in each of 10 intervals", 1, [][]series{
		b.parser(lines, "a", "0+1000", "1h"), b.parser(bad, "a", "0+0.1", "1h"), b.parser(all, "a", "0+0.1", "1h"),
	}, at("25m"), at("50m"))
	b.add(letters, restarted, "counters begin again", 1, [][]series{
		b.parser(lines, "a", "0+1000", "20m", "0+1000", "30m"), b.parser(all, "a", "0+10", "20m", "0+10", "30m"),
	}, at("15m", warning), at("20m", warning), at("35m", warning))
	b.add(letters, newPod, "it reads the same lines", 1, [][]series{
		b.parser(lines, "a/1", "0+1000", "20m", "stale", "30s"), b.parser(all, "a/1", "0+10", "20m", "stale", "30s"),
		b.parser(lines, "a/2", "_", "21m", "0+1000", "20m"), b.parser(all, "a/2", "_", "21m", "0+10", "20m"),
	}, at("15m", warning), at("21m", warning), at("30m", warning))
	b.add(letters, newPrometheus, "old ones", 1, [][]series{
		b.parser(lines, "a", "_", "10m", "1000000+1000", "40m"), b.parser(all, "a", "_", "10m", "5000", "40m"),
	}, at("11m"), at("25m"))
	for _, c := range []struct {
		kind kind
		bad  int
	}{{one, 1}, {tenth, 15}, {everyone, 150}} {
		b.add(letters, c.kind, fmt.Sprintf("a third of the lines of one, a few of the others, %d of 150 in all", c.bad), 150,
			[][]series{
				of150(c.bad, func(target string, bad bool) []series {
					switch {
					case target == "node-0":
						return stream(target, "300", "30m")
					case bad:
						return stream(target, "20", "30m")
					}
					return stream(target, "0", "30m")
				}),
			}, at("25m", warning))
	}
}

func (b *builder) noMetrics() {
	const alert, metric, warning = "NoMetrics", "up", "NoMetrics/warning"
	b.add(alert, fires, "from 5m to 25m", 1, [][]series{
		b.parser(metric, "a", "1", "5m", "0", "20m", "1", "20m"),
	}, at("10m"), at("16m", warning), at("25m", warning), at("31m"))
	b.bare(alert, fires, "with the operator down", [][]series{b.parser(metric, "a", "0", "30m")}, at("16m", warning))
	b.add(alert, quiet, "five minutes of it", 1, [][]series{
		b.parser(metric, "a", "1", "5m", "0", "5m", "1", "20m"),
	}, at("10m"), at("13m"), at("16m"))
	b.add(alert, quiet, "the operator reports it as bad: one alert", 1, [][]series{
		b.parser(metric, "a", "0", "30m"),
		b.m1("hlparser_fleet_target_bad", `target="a",verdict="Unreachable",reason="Timeout"`, "1", "30m"),
	}, at("16m", "TargetBad/warning"), at("25m", "TargetBad/warning"))
	pods := make([][]series, 0, 30)
	for i := range 30 {
		pods = append(pods, b.parser(metric, fmt.Sprintf("node-%d", i),
			"1", fmt.Sprintf("%dm", i+1), "0", "2m", "1", "10m"))
	}
	b.add(alert, quiet, "a rollout, in which there always is one that does not answer yet", 30, pods,
		at("12m"), at("20m"), at("29m"))
	b.add(alert, restarted, "it answers once, when the container restarts", 1, [][]series{
		b.parser(metric, "a", "0", "8m", "1", "30s", "0", "20m"),
	}, at("12m", warning), at("16m", warning))
	b.add(alert, newPod, "it does not answer either", 1, [][]series{
		b.parser(metric, "a/1", "0", "6m", "stale", "30s"), b.parser(metric, "a/2", "_", "6m30s", "0", "20m"),
	}, at("9m"), at("12m", warning), at("16m", warning))
	b.add(alert, newPrometheus, "it has to see it for ten minutes", 1, [][]series{
		b.parser(metric, "a", "_", "10m", "0", "30m"),
	}, at("15m"), at("22m", warning))
	for _, c := range []struct {
		kind kind
		bad  int
	}{{one, 1}, {tenth, 15}, {everyone, 150}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of 150: one alert", c.bad), 150, [][]series{
			of150(c.bad, func(target string, bad bool) []series {
				if bad {
					return b.parser(metric, target, "0", "20m")
				}
				return b.parser(metric, target, "1", "20m")
			}),
		}, at("6m"), at("12m", warning))
	}
}

func (b *builder) sinkDown() {
	const alert, metric = "SinkDown", "hlparser_fleet_verdicts"
	const label, critical = `verdict="SinkDown"`, "SinkDown/critical"
	b.add(alert, fires, "four of four, from 5m to 15m", 4, [][]series{
		b.m1(metric, label, "0", "5m", "4", "10m", "0", "30m"),
	}, at("6m30s"), at("7m30s", critical), at("15m", critical), at("21m"))
	b.add(alert, quiet, "90 seconds of it", 4, [][]series{
		b.m1(metric, label, "0", "5m", "4", "90s", "0", "30m"),
	}, at("6m"), at("7m"), at("9m"))
	b.add(alert, newManager, "it is down throughout", 4, [][]series{
		b.handover(metric, label, "4", "30m"),
	}, at("19m", critical), at("20m30s", critical), at("21m", critical), at("22m", critical), at("30m", critical))
	b.add(alert, newManager, "two managers export it for a moment: not twice as many", 20, [][]series{
		b.manager(metric, label, "m1", "1", "10m"), b.manager(metric, label, "m2", "1", "10m"),
	}, at("5m"), at("9m"))
	b.add(alert, newPrometheus, "after two minutes", 4, [][]series{
		b.m1(metric, label, "_", "10m", "4", "30m"),
	}, at("11m"), at("12m30s", critical))
	b.add(alert, one, "no alert of the fleet: the target's is enough", 150, [][]series{
		b.m1(metric, label, "1", "30m"),
		b.m1("hlparser_fleet_target_bad", `target="a",verdict="SinkDown",reason="Timeout"`, "1", "30m"),
	}, at("5m"), at("15m", "TargetBad/warning"))
	b.add(alert, quiet, "one of 5,000", 5000, [][]series{b.m1(metric, label, "1", "30m")}, at("5m"), at("15m"))
	b.add(alert, tenth, "one alert", 150, [][]series{b.m1(metric, label, "15", "30m")}, at("5m", critical))
	b.add(alert, everyone, "one alert", 150, [][]series{b.m1(metric, label, "150", "30m")}, at("5m", critical))
}

func (b *builder) restartIneffective() {
	const alert, critical, warning = "RestartIneffective", "RestartIneffective/critical", "RestartIneffective/warning"
	const metric, label, verdicts, stuck = "hlparser_fleet_state", `state="RestartIneffective"`,
		"hlparser_fleet_verdicts", `verdict="Stuck"`
	b.add(alert, fires, "at once", 4, [][]series{
		b.m1(metric, label, "0", "5m", "1", "10m", "0", "30m"), b.m1(verdicts, stuck, "0", "5m", "1", "10m", "0", "30m"),
	}, at("4m30s"), at("5m", critical), at("14m", critical), at("21m"))
	b.add(alert, fires, "one of 5,000 wakes nobody", 5000, [][]series{
		b.m1(metric, label, "1", "30m"), b.m1(verdicts, stuck, "1", "30m"),
	}, at("5m", warning))
	b.add(alert, quiet, "a restart helps", 4, [][]series{
		b.m1(metric, label, "0", "30m"), b.m1(verdicts, stuck, "1", "30m"),
	}, at("5m"), at("25m"))
	b.add(alert, newManager, "it lasts", 4, [][]series{
		b.handover(metric, label, "1", "30m"), b.handover(verdicts, stuck, "1", "30m"),
	}, at("19m", critical), at("20m30s", critical), at("22m", critical), at("30m", critical))
	b.add(alert, newPrometheus, "at once", 4, [][]series{b.m1(metric, label, "_", "10m", "1", "30m")},
		at("9m"), at("10m30s", critical))
	for k, n := range map[kind]string{one: "1", tenth: "15", everyone: "150"} {
		b.add(alert, k, "one alert", 150, [][]series{
			b.m1(metric, label, "1", "30m"), b.m1(verdicts, stuck, n, "30m"),
		}, at("5m", critical))
	}
}

// states are alerts that are about a state of the object.
func (b *builder) states() {
	const metric = "hlparser_fleet_state"
	for _, c := range []struct{ alert, state, late, over string }{
		{"FleetWide", "FleetWide", "6m30s", "21m30s"}, {"Stalled", "Stalled", "15m30s", "21m30s"},
		{"Stalled", "CanaryFailed", "15m30s", "21m30s"},
	} {
		label, warning := fmt.Sprintf("state=%q", c.state), c.alert+"/warning"
		b.add(c.alert, fires, c.state+" from 5m to 16m", 4, [][]series{
			b.m1(metric, label, "0", "5m", "1", "11m", "0", "30m"),
		}, at("5m30s"), at(c.late, warning), at(c.over))
		b.add(c.alert, quiet, "30 seconds of "+c.state, 4, [][]series{
			b.m1(metric, label, "0", "5m", "1", "30s", "0", "30m"),
		}, at("5m30s"), at("6m30s"), at("16m"))
		b.add(c.alert, newManager, c.state+" lasts", 4, [][]series{
			b.handover(metric, label, "1", "30m"),
		}, at("19m", warning), at("20m30s", warning), at("22m", warning), at("30m", warning))
		b.add(c.alert, newPrometheus, c.state, 4, [][]series{
			b.m1(metric, label, "_", "10m", "1", "30m"),
		}, at("10m30s"), at("21m", warning))
	}
	b.add("Stalled", fires, "a failed canary makes the object Stalled too: one alert", 4, [][]series{
		b.m1(metric, `state="Stalled"`, "1", "30m"), b.m1(metric, `state="CanaryFailed"`, "1", "30m"),
	}, at("15m", "Stalled/warning"))
	const undecodable, warning = "hlparser_fleet_undecodable_objects", "Undecodable/warning"
	b.bare("Undecodable", fires, "from 5m to 20m", [][]series{
		b.m1(undecodable, "", "_", "5m", "1", "15m", "stale", "30s"),
	}, at("10m"), at("15m30s", warning), at("20m30s"))
	b.bare("Undecodable", fires, "its parsers go on: one alert", [][]series{
		b.m1(undecodable, "", "1", "30m"), b.parser("hlparser_lag_seconds", "a", "0", "30m"),
	}, at("25m", warning))
	b.bare("Undecodable", quiet, "nine minutes of it", [][]series{
		b.m1(undecodable, "", "_", "5m", "1", "9m", "stale", "30s"),
	}, at("14m30s"), at("16m"))
	b.bare("Undecodable", newManager, "both export it for a moment: one alert", [][]series{
		b.manager(undecodable, "", "m1", "1", "20m", "stale", "30s"),
		b.manager(undecodable, "", "m2", "_", "19m", "1", "30m"),
	}, at("19m30s", warning), at("20m30s", warning), at("25m", warning))
	b.bare("Undecodable", newPrometheus, "after ten minutes", [][]series{
		b.m1(undecodable, "", "_", "10m", "1", "30m"),
	}, at("15m"), at("21m", warning))
}

func (b *builder) targetBad() {
	const alert, metric, warning = "TargetBad", "hlparser_fleet_target_bad", "TargetBad/warning"
	labels := func(target, verdict string) string {
		return fmt.Sprintf(`target=%q,verdict=%q,reason="Fills"`, target, verdict)
	}
	b.add(alert, fires, "from 5m to 25m", 4, [][]series{
		b.m1(metric, labels("a", "Stuck"), "_", "5m", "1", "20m", "stale", "30s"),
	}, at("13m"), at("15m", warning), at("25m", warning), at("28m"))
	b.add(alert, fires, "under changing names", 4, [][]series{
		b.m1(metric, labels("a", "Stuck"), slices.Repeat([]string{"1", "3m", "stale", "3m"}, 5)...),
		b.m1(metric, labels("a", "Growing"), slices.Repeat([]string{"_", "3m", "1", "2m30s", "stale", "30s"}, 5)...),
	}, at("12m", warning), at("25m", warning))
	b.add(alert, quiet, "seven minutes of it", 4, [][]series{
		b.m1(metric, labels("a", "Stuck"), "_", "5m", "1", "7m", "stale", "30s"),
	}, at("12m"), at("15m"), at("17m"))
	b.add(alert, quiet, "targets that are bad by turns", 4, [][]series{
		b.m1(metric, labels("a", "Stuck"), slices.Repeat([]string{"1", "5m", "stale", "5m"}, 4)...),
		b.m1(metric, labels("b", "Stuck"), slices.Repeat([]string{"_", "5m", "1", "4m30s", "stale", "30s"}, 4)...),
	}, at("12m"), at("21m"), at("33m"))
	b.add(alert, newManager, "it lasts", 4, [][]series{
		b.handover(metric, labels("a", "Stuck"), "1", "30m"),
	}, at("19m", warning), at("20m30s", warning), at("21m30s", warning), at("22m", warning), at("30m", warning))
	crashes := make([][]series, 0, 5)
	for i := range 5 {
		crashes = append(crashes, b.manager(metric, labels("a", "Stuck"), fmt.Sprintf("m%d", i),
			"_", fmt.Sprintf("%dm", 1+8*i), "1", "7m", "stale", "30s"))
	}
	b.add(alert, newManager, "every eight minutes another", 4, crashes,
		at("20m", warning), at("26m", warning), at("33m", warning))
	b.add(alert, newPrometheus, "it has to see it for eight minutes", 4, [][]series{
		b.m1(metric, labels("a", "Stuck"), "_", "10m", "1", "30m"),
	}, at("12m"), at("18m"), at("20m", warning))
	for _, c := range []struct {
		alert string
		kind  kind
		bad   int
		want  string
	}{
		{alert, one, 1, warning}, {alert, tenth, 15, warning + "=15"}, {alert, everyone, 150, "TargetsBad/warning"},
		{"TargetsBad", everyone, 150, "TargetsBad/warning"}, {"TargetsBad", fires, 21, "TargetsBad/warning"},
		{"TargetsBad", quiet, 20, warning + "=20"},
	} {
		b.add(c.alert, c.kind, fmt.Sprintf("%d of 150", c.bad), 150, [][]series{
			ofMany(c.bad, c.bad, func(target string, _ bool) []series {
				return b.m1(metric, labels(target, "Stuck"), "1", "20m")
			}),
		}, at("7m"), at("11m", c.want))
	}
	b.add("TargetsBad", newManager, "it lasts", 150, [][]series{
		ofMany(30, 30, func(target string, _ bool) []series {
			return b.handover(metric, labels(target, "Stuck"), "1", "30m")
		}),
	}, at("19m", "TargetsBad/warning"), at("21m30s", "TargetsBad/warning"), at("30m", "TargetsBad/warning"))
	b.add("TargetsBad", newPrometheus, "it has to see it for eight minutes", 150, [][]series{
		ofMany(30, 30, func(target string, _ bool) []series {
			return b.m1(metric, labels(target, "Stuck"), "_", "10m", "1", "30m")
		}),
	}, at("12m"), at("18m"), at("20m", "TargetsBad/warning"))
}

func (b *builder) nearRetention() {
	const alert, metric, warning = "NearRetention", "hlparser_fleet_target_alert", "NearRetention/warning"
	label := func(target string) string { return fmt.Sprintf(`target=%q,alert="NearRetention"`, target) }
	b.add(alert, fires, "from 5m to 25m", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "20m", "stale", "30s"),
	}, at("6m"), at("8m", warning), at("25m", warning), at("32m"))
	b.add(alert, fires, "files that are kept for ten minutes: half of the time is left to act", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "5m", "stale", "30s"),
	}, at("5m"), at("7m30s", warning), at("10m", warning))
	b.add(alert, quiet, "old lines that come late, and are read within a minute", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "1m", "stale", "30s"),
	}, at("6m"), at("8m"), at("10m"), at("15m"))
	b.add(alert, quiet, "another alert of the target", 4, [][]series{
		b.m1(metric, `target="a",alert="FormatDrift"`, "1", "30m"),
	}, at("15m"), at("25m"))
	// The operator keeps the alert of a target without a pod, so that its series goes on.
	b.add(alert, restarted, "the process begins again, and its lines are as old", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "40m"),
		b.parser("process_start_time_seconds", "a", "-600000", "20m", "stale", "30s", "1230", "30m"),
	}, at("15m", warning), at("20m30s", warning), at("22m", warning), at("40m", warning))
	b.add(alert, newPod, "between two pods nobody reports for an hour", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "2h"),
		b.parser("hlparser_pruned_unread_total", "a/1", "0", "20m", "stale", "30s"),
		b.parser("hlparser_pruned_unread_total", "a/2", "_", "80m", "0", "40m"),
	}, at("15m", warning), at("25m", warning), at("79m", warning), at("85m", warning))
	b.add(alert, newManager, "it lasts", 4, [][]series{
		b.handover(metric, label("a"), "1", "30m"),
	}, at("19m", warning), at("20m30s", warning), at("21m30s", warning), at("23m", warning), at("30m", warning))
	b.add(alert, newManager, "the next leads after four minutes", 4, [][]series{
		b.manager(metric, label("a"), "m1", "1", "20m", "stale", "30s"),
		b.manager(metric, label("a"), "m2", "_", "24m", "1", "30m"),
	}, at("19m", warning), at("22m", warning), at("24m30s", warning), at("26m", warning), at("30m", warning))
	b.add(alert, newPrometheus, "it fires by what the first minutes show: the lines have waited already", 4, [][]series{
		b.m1(metric, label("a"), "_", "10m", "1", "30m"),
	}, at("10m"), at("12m30s", warning), at("20m", warning))
	for _, c := range []struct {
		kind kind
		bad  int
		want string
	}{{one, 1, warning}, {tenth, 15, warning + "=15"}, {everyone, 150, "NearRetention/critical"}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of 150", c.bad), 150, [][]series{
			ofMany(c.bad, c.bad, func(target string, _ bool) []series { return b.m1(metric, label(target), "1", "20m") }),
		}, at("1m"), at("11m", c.want))
	}
}

func (b *builder) lossUnacknowledged() {
	const alert, metric, warning = "LossUnacknowledged", "hlparser_fleet_target_alert", "LossUnacknowledged/warning"
	label := func(target string) string { return fmt.Sprintf(`target=%q,alert="DataLost"`, target) }
	b.add(alert, fires, "from 5m on, until it is acknowledged at 90m", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "85m", "stale", "30s"),
	}, at("64m"), at("66m", warning), at("89m", warning), at("96m"))
	b.add(alert, fires, "after the alert about the gap itself: one at a time", 4, [][]series{
		b.m1(metric, `target="a",alert="DataGap"`, "_", "5m", "1", "3h"),
		b.parser("hlparser_block_gaps_total", "a", "0", "5m", "7", "3h"),
		b.parser("process_start_time_seconds", "a", "-600000", "3h"),
	}, at("16m", "DataGap/warning"), at("63m", "DataGap/warning"), at("66m", warning), at("90m", warning))
	b.add(alert, quiet, "acknowledged within the hour", 4, [][]series{
		b.m1(metric, label("a"), "_", "5m", "1", "50m", "stale", "30s"),
	}, at("50m"), at("66m"))
	b.add(alert, newManager, "it lasts", 4, [][]series{
		b.handover(metric, label("a"), "1", "90m"),
	}, at("59m"), at("61m", warning), at("90m", warning))
	b.add(alert, newPrometheus, "after an hour", 4, [][]series{
		b.m1(metric, label("a"), "_", "10m", "1", "90m"),
	}, at("65m"), at("71m", warning))
	for _, c := range []struct {
		kind kind
		bad  int
		want string
	}{{one, 1, warning}, {fires, 10, warning + "=10"}, {tenth, 15, warning}, {everyone, 150, warning}} {
		b.add(alert, c.kind, fmt.Sprintf("%d of 150", c.bad), 150, [][]series{
			ofMany(c.bad, c.bad, func(target string, _ bool) []series { return b.m1(metric, label(target), "1", "70m") }),
		}, at("30m"), at("65m", c.want))
	}
}

func (b *builder) notReady() {
	const alert, warning = "NotReady", "NotReady/warning"
	fleet := func(desired string, ready, updated, waiting []string) [][]series {
		return [][]series{
			b.state("desired", desired, "2h"), b.state("ready", ready...), b.state("updated", updated...),
			b.state("waiting", waiting...),
		}
	}
	add := func(k kind, name, desired string, ready, updated, waiting []string, firing ...moment) {
		b.bare(alert, k, name, fleet(desired, ready, updated, waiting), firing...)
	}
	always := func(n string) []string { return []string{n, "2h"} }
	add(fires, "one of four from 5m to 25m", "4", []string{"4", "5m", "3", "20m", "4", "1h"}, always("4"), always("0"),
		at("14m"), at("15m30s", warning), at("25m", warning), at("28m"))
	b.bare(alert, fires, "without the figure of those that wait", [][]series{
		b.state("desired", "4", "1h"), b.state("ready", "3", "1h"), b.state("updated", "4", "1h"),
	}, at("11m", warning))
	add(quiet, "seven minutes of it", "4", []string{"4", "5m", "3", "7m", "4", "1h"}, always("4"), always("0"),
		at("12m"), at("15m"), at("20m"))
	add(quiet, "three of 5,000 nodes are down, as always", "5000", always("4997"), always("5000"), always("3"),
		at("15m"), at("40m"), at("100m"))
	add(quiet, "a cordoned node", "4", []string{"4", "5m", "3", "1h"}, always("4"), []string{"0", "5m", "1", "1h"},
		at("16m"), at("40m"))
	add(quiet, "a long rollout, a step every five minutes", "150", always("149"), []string{
		"0", "5m", "1", "5m", "2", "5m", "3", "5m", "4", "5m", "5", "5m", "6", "5m", "7", "5m", "8", "1h"}, always("0"),
		at("16m"), at("25m"), at("40m"), at("49m"))
	add(fires, "a rollout that hangs", "150", always("149"), []string{"0", "5m", "1", "5m", "2", "1h"}, always("0"),
		at("16m"), at("19m"), at("23m", warning))
	b.bare(alert, newManager, "it lasts", slices.Collect(func(yield func([]series) bool) {
		for state, n := range map[string]string{"desired": "4", "ready": "3", "updated": "4", "waiting": "0"} {
			if !yield(b.handover("hlparser_fleet_targets", fmt.Sprintf("state=%q", state), n, "30m")) {
				return
			}
		}
	}), at("19m", warning), at("20m30s", warning), at("21m30s", warning), at("30m", warning))
	add(newPrometheus, "it has to see it for eight minutes", "4", []string{"_", "10m", "3", "30m"},
		[]string{"_", "10m", "4", "30m"}, []string{"_", "10m", "0", "30m"}, at("15m"), at("21m", warning))
	for k, n := range map[kind]string{one: "149", tenth: "135", everyone: "0"} {
		add(k, "one alert", "150", always(n), always("150"), always("0"), at("5m"), at("11m", warning))
	}
}

func (b *builder) restarts() {
	const alert, metric, warning = "Restarts", "hlparser_fleet_restarts_total", "Restarts/warning"
	b.add(alert, fires, "five in an hour of a fleet of four", 4, [][]series{
		b.m1(metric, "", "0", "10m", "1", "10m", "2", "10m", "3", "10m", "4", "5m", "5", "2h"),
	}, at("49m"), at("60m", warning), at("110m"))
	b.add(alert, quiet, "three in an hour", 4, [][]series{
		b.m1(metric, "", "0", "10m", "1", "10m", "2", "10m", "3", "2h"),
	}, at("40m"), at("60m"), at("90m"))
	b.add(alert, newManager, "the count goes on: an old total is not new", 4, [][]series{
		b.handover(metric, "", "57", "2h"),
	}, at("19m"), at("25m"), at("40m"), at("80m"))
	b.add(alert, newManager, "five in an hour, the managers replaced in between", 4, [][]series{
		b.manager(metric, "", "m1", "57", "10m", "58", "5m", "59", "5m", "stale", "30s"),
		b.manager(metric, "", "m2", "_", "21m30s", "60", "10m", "62", "1h"),
	}, at("30m"), at("45m", warning))
	b.add(alert, newManager, "both export it for a moment", 4, [][]series{
		b.manager(metric, "", "m1", "57", "20m", "stale", "30s"), b.manager(metric, "", "m2", "_", "18m", "57", "1h"),
	}, at("19m"), at("30m"), at("45m"))
	b.add(alert, newPrometheus, "an old total is not new", 4, [][]series{
		b.m1(metric, "", "_", "10m", "57", "2h"),
	}, at("11m"), at("30m"), at("80m"))
	for _, c := range []struct {
		kind    kind
		targets int
		total   string
		want    []string
	}{
		{one, 150, "1", nil}, {tenth, 150, "15", []string{warning}}, {everyone, 150, "150", []string{warning}},
		{quiet, 5000, "30", nil}, {fires, 5000, "100", []string{warning}},
	} {
		b.add(alert, c.kind, fmt.Sprintf("%s of %d within ten minutes", c.total, c.targets), c.targets, [][]series{
			b.m1(metric, "", "0", "20m", c.total, "1h"),
		}, at("25m"), at("35m", c.want...))
	}
}

func (b *builder) rolloutLong() {
	const alert, warning = "RolloutLong", "RolloutLong/warning"
	const metric, label = "hlparser_fleet_state", `state="CanarySoaking"`
	b.bare(alert, fires, "for six hours", [][]series{b.m1(metric, label, "1", "6h", "0", "1h")},
		at("4h55m"), at("5h1m", warning), at("6h", warning), at("6h20m"))
	b.bare(alert, quiet, "for four hours, twice", [][]series{b.m1(metric, label, "1", "4h", "0", "30m", "1", "4h")},
		at("4h"), at("5h30m"), at("8h"))
	b.bare(alert, newManager, "it soaks on", [][]series{b.handover(metric, label, "1", "6h")},
		at("4h"), at("5h6m", warning))
	b.bare(alert, newPrometheus, "after five hours", [][]series{b.m1(metric, label, "_", "1h", "1", "6h")},
		at("5h30m"), at("6h5m", warning))
}

func (b *builder) operatorDown() {
	const alert, lag, critical = "OperatorDown", "hlparser_lag_seconds", "OperatorDown/critical"
	targets := func(segments ...string) []series { return b.state("desired", segments...) }
	b.bare(alert, fires, "from 5m to 30m", [][]series{
		targets("1", "5m", "stale", "25m", "1", "30m"), b.parser(lag, "a", "0", "1h"),
	}, at("14m"), at("15m30s", critical), at("29m", critical), at("31m"))
	b.bare(alert, fires, "the operator of another namespace is there", [][]series{
		targets("1", "1h"), {b.labelled(lag, values(b.t, "0", "1h"), "namespace", "other", "name", "testnet", "target", "a",
			"stream", "Fills")},
	}, at("15m", critical))
	b.bare(alert, fires, "it is up and does not lead", [][]series{
		{b.labelled("up", values(b.t, "1", "1h"), "namespace", "ops", "pod", "m1", "job", "manager"),
			b.labelled("leader_election_master_status", values(b.t, "0", "1h"), "name", "id", "pod", "m1")},
		b.parser(lag, "a", "0", "1h"),
	}, at("15m", critical))
	b.bare(alert, quiet, "an upgrade takes three minutes", [][]series{
		targets("1", "5m", "stale", "3m", "1", "30m"), b.parser(lag, "a", "0", "30m"),
	}, at("8m"), at("10m"), at("16m"))
	b.bare(alert, quiet, "nothing is installed", nil, at("15m"))
	b.bare(alert, quiet, "an operator without parsers", [][]series{
		{b.labelled("up", values(b.t, "1", "1h"), "namespace", "ops", "pod", "m1", "job", "manager")},
	}, at("15m"))
	b.bare(alert, quiet, "hlparser without Kubernetes", [][]series{
		{b.labelled(lag, values(b.t, "0", "1h"), "instance", "host:9464", "job", "hlparser", "stream", "Fills")},
	}, at("15m"), at("50m"))
	b.bare(alert, quiet, "the last object is deleted, with its parsers", [][]series{
		targets("1", "5m", "stale", "30s"), b.parser(lag, "a", "0", "6m", "stale", "30s"),
	}, at("7m"), at("20m"))
	b.bare(alert, newManager, "after a minute and a half", [][]series{
		b.handover("hlparser_fleet_targets", `state="desired"`, "1", "30m"), b.parser(lag, "a", "0", "1h"),
	}, at("21m"), at("25m"), at("40m"))
	b.bare(alert, newPrometheus, "after ten minutes", [][]series{b.parser(lag, "a", "_", "10m", "0", "1h")},
		at("15m"), at("21m", critical))
}

func (b *builder) reconcileErrors() {
	const alert, metric, warning = "ReconcileErrors", "controller_runtime_reconcile_total", "ReconcileErrors/warning"
	result := func(pod, result string, segments ...string) []series {
		return []series{b.labelled(metric, values(b.t, segments...), "controller", "hyperliquidparser", "result", result,
			"namespace", "ops", "pod", pod, "instance", pod+":8443", "job", "manager")}
	}
	b.add(alert, fires, "all fail, from 5m to 30m", 1, [][]series{
		result("m1", "error", "0", "5m", "0+3", "25m", "150", "30m"), result("m1", "success", "50", "1h"),
	}, at("14m"), at("21m", warning), at("35m"))
	b.add(alert, fires, "one object fails every half minute, and nine more reconciles succeed", 1, [][]series{
		result("m1", "error", "0+2", "1h"), result("m1", "success", "0+9", "1h"),
	}, at("20m", warning))
	b.add(alert, quiet, "a conflict a minute among many reconciles", 1, [][]series{
		result("m1", "error", "0+0.5", "1h"), result("m1", "success", "0+50", "1h"),
	}, at("20m"), at("50m"))
	b.add(alert, quiet, "the API server is away for five minutes", 1, [][]series{
		result("m1", "error", "0", "5m", "0+30", "5m", "270", "1h"),
		result("m1", "success", "0+1", "5m", "10", "5m", "10+1", "1h"),
	}, at("10m"), at("15m"), at("20m"))
	b.add(alert, quiet, "another controller of the process", 1, [][]series{
		{b.labelled(metric, values(b.t, "0+5", "1h"), "controller", "other", "result", "error")},
	}, at("20m"))
	b.add(alert, newManager, "they fail for the next one too", 1, [][]series{
		result("m1", "error", "0+3", "20m", "stale", "30s"), result("m2", "error", "_", "21m", "0+3", "30m"),
	}, at("19m", warning), at("21m", warning), at("30m", warning))
	b.add(alert, newPrometheus, "old errors", 1, [][]series{
		result("m1", "error", "_", "10m", "500", "1h"), result("m1", "success", "_", "10m", "0+5", "1h"),
	}, at("20m"), at("40m"))
}

func (b *builder) pollsFailing() {
	const alert, metric, warning = "PollsFailing", "hlparser_fleet_poll_duration_seconds_count", "PollsFailing/warning"
	polls := func(pod, result string, segments ...string) []series {
		return []series{b.labelled(metric, values(b.t, segments...), "result", result, "namespace", "ops", "pod", pod)}
	}
	b.add(alert, fires, "a third, from 5m to 30m", 4, [][]series{
		polls("m1", "failure", "0", "5m", "0+5", "25m", "250", "1h"), polls("m1", "report", "0+10", "90m"),
	}, at("10m"), at("18m", warning), at("45m"))
	b.add(alert, quiet, "one in a hundred", 4, [][]series{
		polls("m1", "failure", "0+1", "1h"), polls("m1", "report", "0+100", "1h"),
	}, at("20m"), at("50m"))
	b.add(alert, quiet, "those of a target that is Unreachable: one alert", 4, [][]series{
		polls("m1", "failure", "0+5", "1h"), polls("m1", "report", "0+15", "1h"),
		b.m1("hlparser_fleet_target_bad", `target="a",verdict="Unreachable",reason="Timeout"`, "1", "1h"),
	}, at("20m", "TargetBad/warning"), at("50m", "TargetBad/warning"))
	b.add(alert, newManager, "they fail for the next one too", 4, [][]series{
		polls("m1", "failure", "0+5", "20m", "stale", "30s"), polls("m1", "report", "0+5", "20m", "stale", "30s"),
		polls("m2", "failure", "_", "21m30s", "0+5", "30m"), polls("m2", "report", "_", "21m30s", "0+5", "30m"),
	}, at("19m", warning), at("21m", warning), at("30m", warning))
	b.add(alert, newPrometheus, "old failures", 4, [][]series{
		polls("m1", "failure", "_", "10m", "500", "1h"), polls("m1", "report", "_", "10m", "0+5", "1h"),
	}, at("20m"), at("40m"))
}

func (b *builder) operatorBlind() {
	const alert, metric, warning = "OperatorBlind", "hlparser_fleet_watch_failing", "OperatorBlind/warning"
	watch := func(pod, kind string, segments ...string) []series {
		return []series{b.labelled(metric, values(b.t, segments...), "kind", kind, "watched_namespace", "",
			"namespace", "ops", "pod", pod)}
	}
	b.add(alert, fires, "pods, from 5m to 20m", 4, [][]series{
		watch("m1", "Pod", "0", "5m", "1", "15m", "0", "1h"), watch("m1", "Node", "0", "80m"),
	}, at("14m"), at("15m30s", warning), at("21m"))
	b.add(alert, fires, "each kind has its own alert", 4, [][]series{
		watch("m1", "Pod", "1", "1h"), watch("m1", "Node", "1", "1h"),
	}, at("15m", warning+"=2"))
	b.add(alert, quiet, "the API server restarts", 4, [][]series{
		watch("m1", "Pod", "0", "5m", "1", "2m", "0", "1h"),
	}, at("7m"), at("16m"))
	b.add(alert, newManager, "two managers: one alert", 4, [][]series{
		watch("m1", "Pod", "1", "20m", "stale", "30s"), watch("m2", "Pod", "_", "19m", "1", "30m"),
	}, at("19m30s", warning), at("20m30s", warning), at("30m", warning))
	b.add(alert, newPrometheus, "after ten minutes", 4, [][]series{
		watch("m1", "Pod", "_", "10m", "1", "1h"),
	}, at("15m"), at("21m", warning))
}
