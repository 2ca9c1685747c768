package tail

import (
	"slices"
	"time"
)

// maxArrivals bounds the number of arrival times. When the log is full, neighbours are merged and keep the older time,
// so that an age is never reported too young.
const maxArrivals = 512

// arrivalLog records when a file was first observed to reach a size. The lag is the age of the oldest entry beyond what
// was acknowledged. It starts when a line is on disk, whether or not there is memory to read it.
type arrivalLog struct {
	entries []arrival // ascending by end
}

type arrival struct {
	end       int64 // the bytes before this offset were on disk
	at        time.Time
	estimated bool // no process observed the arrival
}

// record records that the file has size bytes at a time.
func (l *arrivalLog) record(size int64, at time.Time) {
	if n := len(l.entries); n > 0 && l.entries[n-1].end >= size {
		return
	}
	if len(l.entries) >= maxArrivals {
		merged := l.entries[:0]
		for i := 0; i+1 < len(l.entries); i += 2 {
			merged = append(merged, arrival{l.entries[i+1].end, l.entries[i].at, l.entries[i].estimated})
		}
		l.entries = merged
	}
	l.entries = append(l.entries, arrival{size, at, false})
}

// recordEstimate records that the file has size bytes, and that the bytes not observed before arrived at about a time.
func (l *arrivalLog) recordEstimate(size int64, at time.Time) {
	n := len(l.entries)
	if l.record(size, at); len(l.entries) > 0 && len(l.entries) != n {
		l.entries[len(l.entries)-1].estimated = true
	}
}

// acknowledge removes what is before an offset.
func (l *arrivalLog) acknowledge(offset int64) {
	i := 0
	for i < len(l.entries) && l.entries[i].end <= offset {
		i++
	}
	l.entries = slices.Delete(l.entries, 0, i)
}

// truncate removes what is after an offset. Either the file shrank, or its last line is torn and is not pending until
// its newline arrives.
func (l *arrivalLog) truncate(offset int64) {
	n := len(l.entries)
	for n > 0 && l.entries[n-1].end > offset {
		n--
	}
	rest := l.entries[n:]
	l.entries = l.entries[:n]
	if len(rest) > 0 && (n == 0 || l.entries[n-1].end < offset) {
		l.entries = append(l.entries, arrival{offset, rest[0].at, rest[0].estimated})
	}
}

// oldest returns when the oldest byte after an offset was first observed, and reports whether that is an estimate. The
// time is zero if there is none.
func (l *arrivalLog) oldest(offset int64) (at time.Time, estimated bool) {
	for _, e := range l.entries {
		if e.end > offset {
			return e.at, e.estimated
		}
	}
	return time.Time{}, false
}
