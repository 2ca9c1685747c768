package main

import (
	"math/rand/v2"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/simulate/sim"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// pollInterval is the default of spec.growth.
const pollInterval = 5 * time.Second

// settings returns the defaults of spec.growth.
func settings() health.Settings {
	return health.Settings{
		PollInterval: pollInterval, Lag: 30 * time.Second, StuckAfter: 30 * time.Second, Retention: 24 * time.Hour,
		BufferLimit: 32 << 20,
	}
}

// watched is a simulated target that the operator observes.
type watched struct {
	*sim.Target
	health.Tracker
	random *rand.Rand
	pod    health.PodState
	polls  int
}

func watch(seed uint64, traffic sim.Traffic, fault sim.Fault) *watched {
	w := &watched{Target: sim.New(seed, traffic, fault), random: rand.New(rand.NewPCG(seed, 1))}
	w.replace()
	return w
}

// replace gives the target a new pod.
func (w *watched) replace() {
	w.pod = health.PodState{UID: w.pod.UID + "i", Container: "c", Running: true, Since: w.Now()}
	w.ObservePod(w.pod, w.Now(), settings())
}

// poll advances the time by a poll interval, with the jitter of a busy machine, and polls once.
func (w *watched) poll() health.Judgement {
	w.polls++
	late := time.Duration(w.random.ExpFloat64() * float64(20*time.Millisecond))
	w.Advance(pollInterval + min(late, time.Second) - time.Duration(w.random.Int64N(int64(20*time.Millisecond))))
	if r := w.Report(); r != nil {
		w.ObservePoll(health.Poll{Report: r}, w.Now(), settings())
	} else {
		w.ObservePoll(health.Poll{Failure: "no answer"}, w.Now(), settings())
	}
	return w.Judgement()
}

// normal is the result of one day of normal traffic.
type normal struct {
	polls    int
	restarts []health.Judgement     // restarts that a verdict required
	shown    map[health.Verdict]int // number of polls by verdict
}

// normalDay simulates one day of a target whose parser has no fault, though its machine may reboot.
func normalDay(seed uint64, traffic sim.Traffic) normal {
	w := watch(seed, traffic, sim.Fault{})
	out := normal{shown: map[health.Verdict]int{}}
	const rebootEvery = 4 * 24 * time.Hour
	reboot := w.Now().Add(time.Duration(w.random.ExpFloat64() * float64(rebootEvery)))
	var counts [16]int
	verdicts := health.Verdicts()
	for end := sim.Start.Add(24 * time.Hour); w.Now().Before(end); {
		if w.Now().After(reboot) {
			w.Down(time.Duration((30 + 600*w.random.Float64()) * float64(time.Second)))
			reboot = w.Now().Add(time.Duration(w.random.ExpFloat64() * float64(rebootEvery)))
		}
		j := w.poll()
		for i, v := range verdicts {
			if v == j.Verdict {
				counts[i]++
			}
		}
		if j.Verdict.Restartable() && !j.Fading {
			out.restarts = append(out.restarts, j)
			w.Restart(15 * time.Second)
			w.replace()
		}
	}
	for i, v := range verdicts {
		out.shown[v] = counts[i]
	}
	out.polls = w.polls
	return out
}

// naming is the result of one run with a fault.
type naming struct {
	early health.Judgement // the bad verdict before the fault; its Verdict is empty if there is none
	first health.Judgement // the first bad verdict after the fault; its Verdict is empty if there is none
	took  time.Duration    // since lines began to wait, or since the fault began if it makes none wait
	dead  bool             // the process was killed before the verdict
	polls int
}

// faulty runs a target until its fault is named, for at most within.
func faulty(seed uint64, traffic sim.Traffic, fault sim.Fault, within time.Duration) naming {
	w := watch(seed, traffic, fault)
	began := sim.Start.Add(time.Duration(fault.At * float64(time.Second)))
	out := naming{}
	level := began // when lines last did not wait
	for end := began.Add(within); w.Now().Before(end); {
		j := w.poll()
		out.polls = w.polls
		if lag, known := w.Lag(); known && lag < time.Second {
			level = w.Now()
		}
		switch {
		case w.Dead():
			out.dead = true
			return out
		case !j.Verdict.Bad() || j.Fading || j.Verdict == health.Unreachable: // Unreachable is correct at that moment
		case w.Now().Before(began):
			if out.early.Verdict == "" {
				out.early = j
			}
		case j.Since.Before(began): // the verdict has not been left yet
		default:
			out.first = j
			out.took = w.Now().Sub(began)
			if fault.Waits() {
				out.took = w.Now().Sub(level)
			}
			return out
		}
	}
	return out
}
