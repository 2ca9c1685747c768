package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Others may write the object that holds the ledger. What no operator writes is dropped when it is read, and what
// cannot be true is not believed.
const (
	// maxText bounds a record in bytes. An operator writes a tenth of that.
	maxText = 4 << 10
	// maxTimes bounds the restarts recorded of one target within an hour. restart.maxPerHour is at most 20.
	maxTimes = 64
	// maxUID bounds a pod's UID in bytes. It has 36.
	maxUID = 64
	// maxDoublings is how often a cooldown can double: it is at least 10 s and at most an hour.
	maxDoublings = 16
	// clockSkew is how far the clock of a previous leader may be ahead. What is recorded of a later time has not
	// happened.
	clockSkew = time.Minute
)

// Ledger holds the restarts of a fleet by target. It must outlive a leader.
type Ledger map[string]Record

// Record holds the restarts of one target.
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

// DecodeRecord decodes what Encode returned. A record without a time is an error, since it would never be dropped. So
// is what no operator writes.
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

// sanitized returns the record without what cannot be true: future times, more times than an operator records, and
// unbounded doublings. It has no times if nothing is left.
func (r Record) sanitized(now time.Time) Record {
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

// Last returns the time of the last restart; zero if there was none.
func (r Record) Last() time.Time {
	if len(r.Times) == 0 {
		return time.Time{}
	}
	return r.Times[len(r.Times)-1]
}

// after drops restarts older than t, but never the last, on which the cooldown depends.
func (r Record) after(t time.Time) Record {
	for len(r.Times) > 1 && r.Times[0].Before(t) {
		r.Times = r.Times[1:]
	}
	return r
}

// withRestart returns the record with one more restart, of the pod with that UID.
func (r Record) withRestart(uid string, now time.Time) Record {
	next := Record{UID: uid, Doublings: r.Doublings}
	if len(r.Times) > 0 {
		next.Doublings++
	}
	next.Times = append(append(next.Times, r.Times...), now.UTC().Truncate(time.Second))
	return next
}
