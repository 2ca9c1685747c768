package health

import (
	"math"
	"slices"
	"time"
)

const (
	// memoryMinutes is how far back one-minute maxima are kept: an hour, over which bursts of traffic level out.
	memoryMinutes = 60
	// memorySkipped is how many minutes after the first report are left out, while buffers and caches fill.
	memorySkipped = 5
	// memoryMinPoints is the least number of maxima that a slope is computed from.
	memoryMinPoints = 10
	// confidence is the normal quantile of a one-sided 97.5 %: noise alone passes for growth in one case of forty, and
	// must then also reach the limit soon.
	confidence = 1.96
	// memoryPairs is the number of pairs of maxima.
	memoryPairs = memoryMinutes * (memoryMinutes - 1) / 2
)

// Memory is the course of a process's resident memory in one-minute maxima: garbage collection makes every other figure
// jump.
type Memory struct {
	// Limit is the memory limit of the process, or 0 for none. Newest is the maximum of the last whole minute. Both are
	// in bytes.
	Limit, Newest int64
	// Slope is the Theil–Sen slope in bytes per minute, and Lower its lower confidence bound. Both are 0 while fewer than
	// memoryMinPoints minutes are known, and while Newest is below leakFloor.
	Slope, Lower float64
	// Minutes is the number of maxima behind Slope.
	Minutes int

	maxima  [memoryMinutes]minuteMaximum // ring
	count   int                          // maxima ever put into the ring
	minute  int32                        // minute of current, since the first report
	current int64
}

// minuteMaximum takes 8 bytes.
type minuteMaximum struct{ kib, minute int32 }

// add takes in a figure that was reported the given time after the first report.
func (m *Memory) add(resident, limit int64, sinceFirst time.Duration) {
	m.Limit = limit
	minute := int32(min(sinceFirst/time.Minute, math.MaxInt32))
	if minute == m.minute {
		m.current = max(m.current, resident)
		return
	}
	if m.minute >= memorySkipped && m.current > 0 {
		m.maxima[m.count%memoryMinutes] = minuteMaximum{int32(min(m.current>>10, math.MaxInt32)), m.minute}
		m.count++
		m.Newest = m.current
		m.Slope, m.Lower, m.Minutes = 0, 0, 0
		if m.nearLimit() {
			m.updateSlope()
		}
	}
	m.minute, m.current = minute, resident
}

// nearLimit reports whether the newest maximum is near enough to the limit for a slope to matter.
func (m *Memory) nearLimit() bool {
	return m.Limit > 0 && float64(m.Newest) >= leakFloor*float64(m.Limit)
}

// updateSlope sets Slope to the median of the slopes between all pairs of maxima, which outliers do not distort, and
// Lower to the lower end of its confidence interval by Kendall's statistic.
func (m *Memory) updateSlope() {
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
	if n < memoryMinPoints {
		return
	}
	slices.Sort(slopes)
	m.Minutes, m.Slope = n, slopes[len(slopes)/2]
	spread := confidence * math.Sqrt(float64(n*(n-1)*(2*n+5))/18)
	m.Lower = slopes[max(int((float64(len(slopes))-spread)/2)-1, 0)]
}

// timeToLimit returns how long it takes until memory reaches its limit at this slope. ok is false unless it certainly
// rises.
func (m *Memory) timeToLimit() (d time.Duration, ok bool) {
	if !m.nearLimit() || m.Lower <= 0 || m.Slope <= 0 {
		return 0, false
	}
	minutes := float64(m.Limit-m.Newest) / m.Slope
	return max(time.Duration(min(minutes, 1e6)*float64(time.Minute)), 0), true
}
