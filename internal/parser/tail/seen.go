package tail

import (
	"slices"
	"time"
)

// maxSeen bounds the memory of when lines were first seen. When it is full, neighbours are merged and keep the older time,
// so an age is never reported too young.
const maxSeen = 512

// seenLog remembers when a file was first seen to reach a size. The lag is the age of the oldest entry beyond what was
// acknowledged: it starts when a line is on disk, whether or not memory allows it to be read.
type seenLog struct {
	entries []seenAt // ascending by end
}

type seenAt struct {
	end int64 // bytes before this were on disk
	at  time.Time
}

// grew notes that the file has size bytes at a time.
func (l *seenLog) grew(size int64, at time.Time) {
	if n := len(l.entries); n > 0 && l.entries[n-1].end >= size {
		return
	}
	if len(l.entries) >= maxSeen {
		merged := l.entries[:0]
		for i := 0; i+1 < len(l.entries); i += 2 {
			merged = append(merged, seenAt{l.entries[i+1].end, l.entries[i].at})
		}
		l.entries = merged
	}
	l.entries = append(l.entries, seenAt{size, at})
}

// acknowledge forgets what lies before an offset.
func (l *seenLog) acknowledge(offset int64) {
	i := 0
	for i < len(l.entries) && l.entries[i].end <= offset {
		i++
	}
	l.entries = slices.Delete(l.entries, 0, i)
}

// truncate forgets what lies after an offset: the file shrank, or its last line is torn and does not count as waiting
// until its newline comes.
func (l *seenLog) truncate(offset int64) {
	n := len(l.entries)
	for n > 0 && l.entries[n-1].end > offset {
		n--
	}
	rest := l.entries[n:]
	l.entries = l.entries[:n]
	if len(rest) > 0 && (n == 0 || l.entries[n-1].end < offset) {
		l.entries = append(l.entries, seenAt{offset, rest[0].at})
	}
}

// oldest returns when the oldest byte after an offset was first seen; zero when there is none.
func (l *seenLog) oldest(offset int64) time.Time {
	for _, e := range l.entries {
		if e.end > offset {
			return e.at
		}
	}
	return time.Time{}
}
