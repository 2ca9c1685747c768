package plan

import (
	"encoding/json"
	"fmt"
	"time"
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

// DecodeRecord reads what Encode wrote. A record without a time is an error: it could never be forgotten.
func DecodeRecord(text string) (Record, error) {
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("decoding a record of restarts: %w", err)
	}
	if len(r.Times) == 0 {
		return Record{}, fmt.Errorf("decoding a record of restarts: it has no times")
	}
	return r, nil
}

// last is the time of the last restart; zero when there was none.
func (r Record) last() time.Time {
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
