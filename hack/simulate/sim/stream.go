package sim

import "time"

// queued is how many intervals of arrivals are kept: more than a day.
const queued = 1 << 15

// stream is one pipeline and what the node writes for it. All amounts are bytes of the node's lines, all times seconds.
type stream struct {
	kind kind
	mode string

	// What the node does.
	rate      float64 // on average
	line      float64
	drift     float64 // logarithm of the factor that drifts
	driftTime float64
	driftSize float64
	burst     float64 // factor
	burstTo   float64
	nextBurst float64
	bursts    float64 // seconds between two
	chunk     float64 // bytes that the node flushes at a time; 0: each line
	pending   float64 // written and not flushed
	tornTo    float64 // its last line stays torn until then

	// What the parser does.
	pass       float64 // share of the lines that the filter lets through
	expand     float64 // bytes of record for each byte of line
	cpuPerByte float64
	slow       float64 // factor by which it is slowed down; 1: it is not
	buffer     float64 // its part of the limit
	readWait   float64 // share of the time waiting for reads

	seen, acked, committed, parsed, read float64
	extra                                float64 // held against the bound
	readTotal                            float64 // since the process began, as the next ones
	parsedTotal, ackedTotal, commitTotal float64
	delivered, lines, batches            float64
	busy, wait                           float64
	largest                              float64
	lastLine, lastAck                    float64 // 0: none yet
	outstandingSince                     float64 // since when a request is outstanding; 0: none is
	retryingSince                        float64 // 0: the last request went well
	healthySince                         float64
	retries                              float64
	cycle                                float64 // of a batch
	lag                                  float64
	inFlight, buffered                   float64

	// Of the interval.
	arrived  float64 // lines
	bytes    float64
	served   float64
	open     float64 // seconds in which work was possible
	openEnd  float64 // seconds at the end in which it was not
	perByte  float64 // sink seconds
	overhead float64

	queue queue

	since, ackAt, lineAt time.Time // for the report's pointers
	waiting              int64     // likewise
}

// queue is what waits, in order of arrival.
type queue struct {
	ring  []waiting
	first int
	count int
}

// waiting are the bytes from begin to end, which came evenly between two times.
type waiting struct{ begin, end, from, to float64 }

func (q *queue) push(w waiting) {
	if q.count == len(q.ring) {
		if len(q.ring) == queued {
			// The two newest become one, so that no age is too young.
			last := &q.ring[(q.first+q.count-1)%len(q.ring)]
			last.end, last.to = w.end, w.to
			return
		}
		ring := make([]waiting, max(2*len(q.ring), 64))
		for i := range q.count {
			ring[i] = q.ring[(q.first+i)%len(q.ring)]
		}
		q.ring, q.first = ring, 0
	}
	q.ring[(q.first+q.count)%len(q.ring)] = w
	q.count++
}

// drop forgets what was served.
func (q *queue) drop(served float64) {
	for q.count > 0 && q.ring[q.first].end <= served {
		q.first = (q.first + 1) % len(q.ring)
		q.count--
	}
	if q.count == 0 {
		q.first = 0
	}
}

// oldest returns when the byte after served arrived.
func (q *queue) oldest(served float64) float64 {
	w := &q.ring[q.first]
	return w.from + (w.to-w.from)*max(served-w.begin, 0)/(w.end-w.begin)
}
