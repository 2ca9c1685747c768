package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A ledger is an object that others may write. What no operator writes is left out when it is read, and what cannot be
// is not believed.
const (
	// maxText bounds a record, and the trials of one cause, in bytes: an operator writes a tenth of that.
	maxText = 4 << 10
	// maxTimes is how many restarts of an hour may be recorded of one target: restart.maxPerHour is 20 at the most.
	maxTimes = 64
	// maxUID bounds a pod's UID in bytes; it has 36.
	maxUID = 64
	// maxDoublings is as often as a cooldown can double: the least is 10 s, the most an hour.
	maxDoublings = 16
	// clockSkew is how far ahead of ours the clock of the leader before may be. What is recorded of later than that has
	// not happened.
	clockSkew = time.Minute
)

// Ledger is what must outlive a leader of the restarts in a fleet: a record by target.
type Ledger map[string]Record

// Record is what is remembered of one target's restarts.
type Record struct {
	// UID of the pod that the last restart deletes. While it lives, the restart is not complete.
	UID string `json:"uid"`
	// Times of the restarts, oldest first, to the second.
	Times []time.Time `json:"times"`
	// Doublings of the cooldown: the number of restarts after the first since the target was last Healthy for an hour.
	Doublings int `json:"doublings,omitempty"`
}

// Encode returns the record as text.
func (r Record) Encode() (string, error) {
	data, err := json.Marshal(r)
	return string(data), err
}

// DecodeRecord reads what Encode wrote. A record without a time is an error: it could never be forgotten. So is what no
// operator writes.
func DecodeRecord(text string) (Record, error) {
	if len(text) > maxText {
		return Record{}, fmt.Errorf("decoding a record of restarts: it has %d bytes", len(text))
	}
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("decoding a record of restarts: %w", err)
	}
	switch {
	case len(r.Times) == 0:
		return Record{}, errors.New("decoding a record of restarts: it has no times")
	case len(r.Times) > maxTimes:
		return Record{}, fmt.Errorf("decoding a record of restarts: it has %d times", len(r.Times))
	case len(r.UID) > maxUID:
		return Record{}, fmt.Errorf("decoding a record of restarts: its UID has %d bytes", len(r.UID))
	case r.Doublings < 0 || r.Doublings > maxDoublings*maxTimes:
		return Record{}, fmt.Errorf("decoding a record of restarts: %d doublings", r.Doublings)
	}
	return r, nil
}

// credible returns the record without what cannot be so: times to come, more of them than an operator makes, and
// doublings without end. It has no times when nothing is left.
func (r Record) credible(now time.Time) Record {
	latest := now.Add(clockSkew)
	sane := len(r.Times) <= maxTimes && slices.IsSortedFunc(r.Times, time.Time.Compare) && (len(r.Times) == 0 ||
		!r.Last().After(latest))
	if !sane {
		times := slices.DeleteFunc(slices.Clone(r.Times), func(t time.Time) bool { return t.After(latest) })
		slices.SortFunc(times, time.Time.Compare)
		r.Times = times[max(len(times)-maxTimes, 0):]
	}
	r.Doublings = min(max(r.Doublings, 0), maxDoublings)
	return r
}

// Last is the time of the last restart; zero when there was none.
func (r Record) Last() time.Time {
	if len(r.Times) == 0 {
		return time.Time{}
	}
	return r.Times[len(r.Times)-1]
}

// since drops restarts that are older than t, but never the last, by which the cooldown goes.
func (r Record) since(t time.Time) Record {
	for len(r.Times) > 1 && r.Times[0].Before(t) {
		r.Times = r.Times[1:]
	}
	return r
}

// restarted returns the record with one more restart, of the pod with that UID.
func (r Record) restarted(uid string, now time.Time) Record {
	next := Record{UID: uid, Doublings: r.Doublings}
	if len(r.Times) > 0 {
		next.Doublings++
	}
	next.Times = append(append(next.Times, r.Times...), now.UTC().Truncate(time.Second))
	return next
}
