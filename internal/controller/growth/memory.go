package growth

import (
	"math"
	"slices"
	"time"
)

const (
	// memoryMinutes is how far back one-minute maxima are kept: an hour, over which bursts of traffic level out.
	memoryMinutes = 60
	// memorySkipped is how many minutes after the first report are left out: buffers and caches fill.
	memorySkipped = 5
	// memoryLeast is the least number of maxima that a slope is told from.
	memoryLeast = 10
	// confidence is the normal quantile of a one-sided 97.5 %: a slope of noise alone passes for growth in one case of forty, and
	// must then also lead to the limit soon.
	confidence = 1.96
	// memoryPairs is how many pairs of maxima there are.
	memoryPairs = memoryMinutes * (memoryMinutes - 1) / 2
)

// Memory is the course of a process's resident memory in one-minute maxima: garbage collection makes every other figure jump.
type Memory struct {
	// Limit of the process; 0: none. Newest is the maximum of the last whole minute. Both in bytes.
	Limit, Newest int64
	// Slope is the Theil–Sen slope in bytes a minute, and Lower its lower confidence bound. Both are 0 while fewer than memoryLeast
	// minutes are known, or Newest is below leakFloor.
	Slope, Lower float64
	// Minutes is how many maxima they rest on.
	Minutes int

	maxima  [memoryMinutes]minuteMaximum // a ring
	count   int                          // that were ever put into it
	minute  int32                        // of current, since the first report
	current int64
}

// minuteMaximum is kept in 8 bytes.
type minuteMaximum struct{ kib, minute int32 }

// add takes in a figure, known after the first report.
func (m *Memory) add(resident, limit int64, known time.Duration) {
	m.Limit = limit
	minute := int32(min(known/time.Minute, math.MaxInt32))
	if minute == m.minute {
		m.current = max(m.current, resident)
		return
	}
	if m.minute >= memorySkipped && m.current > 0 {
		m.maxima[m.count%memoryMinutes] = minuteMaximum{int32(min(m.current>>10, math.MaxInt32)), m.minute}
		m.count++
		m.Newest = m.current
		m.Slope, m.Lower, m.Minutes = 0, 0, 0
		if m.high() {
			m.slope()
		}
	}
	m.minute, m.current = minute, resident
}

// high reports whether the newest maximum is near enough to the limit for a slope to be of concern.
func (m *Memory) high() bool { return m.Limit > 0 && float64(m.Newest) >= leakFloor*float64(m.Limit) }

// slope sets Slope to the median of the slopes between all pairs of maxima, which single ones cannot spoil, and Lower to the one
// of them that Kendall's statistic would still take for no slope by chance.
func (m *Memory) slope() {
	var pairs [memoryPairs]float64
	oldest := m.minute - memoryMinutes
	n, slopes := 0, pairs[:0]
	for i := max(m.count-memoryMinutes, 0); i < m.count; i++ {
		a := m.maxima[i%memoryMinutes]
		if a.minute <= oldest {
			continue
		}
		n++
		for j := i + 1; j < m.count; j++ {
			b := m.maxima[j%memoryMinutes]
			slopes = append(slopes, 1024*float64(b.kib-a.kib)/float64(b.minute-a.minute))
		}
	}
	if n < memoryLeast {
		return
	}
	slices.Sort(slopes)
	m.Minutes, m.Slope = n, slopes[len(slopes)/2]
	spread := confidence * math.Sqrt(float64(n*(n-1)*(2*n+5))/18)
	m.Lower = slopes[max(int((float64(len(slopes))-spread)/2)-1, 0)]
}

// left is how long it takes until the limit is reached at this slope; ok is false when it is not rising for certain.
func (m *Memory) left() (d time.Duration, ok bool) {
	if !m.high() || m.Lower <= 0 || m.Slope <= 0 {
		return 0, false
	}
	minutes := float64(m.Limit-m.Newest) / m.Slope
	return max(time.Duration(min(minutes, 1e6)*float64(time.Minute)), 0), true
}
