// Package keys manages the operator's key pairs, with which it polls parsers for the reports that package seal seals.
//
// A Ring holds the pairs, oldest first. A new pair is published to the parsers of every object. It is used for an
// object's parsers once it has been published to them for Settle; kubelets need a small part of that to update their
// pods. The previous pair stays published for Overlap and is then removed. The pair to use is chosen for each object:
// if its ConfigMap could not be written, its parsers are polled with the pair that they know, as long as the ring holds
// it.
//
// Ring is pure: callers pass the time. Keeper reads it from a Secret and writes it there. The package must never log a
// private key, never write when nothing is due, and never replace a Secret that it cannot decode.
package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

const (
	// Period is the age at which a pair gets a successor.
	Period = 90 * 24 * time.Hour
	// Settle is how long a public key is published before it is used. A kubelet refreshes a pod's ConfigMap within its
	// sync period, a minute and half as much again, plus the time to live of its cache, which is as long.
	Settle = time.Hour
	// Overlap is the age of a pair at which older ones are removed.
	Overlap = 7 * 24 * time.Hour
	// maxPairs bounds the pairs in a ring.
	maxPairs = 4
	// maxSkew is how far in the future the creation of a pair may be. Beyond it, the clock was wrong when the pair was
	// created.
	maxSkew = time.Hour
)

// Pair is a key pair with its time of creation.
type Pair struct {
	*seal.Key
	Created time.Time
}

// Ring is the operator's key pairs, oldest first. It is immutable.
type Ring []Pair

// Next returns the ring that is due at a time, and reports whether it differs. led is how long this process has been
// the leader: a pair is removed only after the leader has itself published its successor for long enough.
func (r Ring) Next(now time.Time, led time.Duration, newKey func() (*seal.Key, error)) (Ring, bool, error) {
	if len(r) > 0 {
		newest := r[len(r)-1]
		age := now.Sub(newest.Created)
		if age < Period && age >= -maxSkew {
			if len(r) > 1 && age >= Overlap && led >= 2*Settle {
				return Ring{newest}, true, nil
			}
			return r, false, nil
		}
	}
	key, err := newKey()
	if err != nil {
		return r, false, err
	}
	next := append(slices.Clone(r), Pair{Key: key, Created: now})
	return next[max(0, len(next)-maxPairs):], true, nil
}

// Published holds since when each public key has been published to the parsers of an object.
type Published map[seal.PublicKey]time.Time

// Use returns the pair for polls of an object's parsers: the newest that has been published to them for Settle, or else
// the one that has been published the longest. It returns nil if the ring is empty. due is when another pair will be
// chosen, or zero if that needs a change of the ring or of what is published.
func (r Ring) Use(now time.Time, published Published) (key *seal.Key, due time.Time) {
	if len(r) == 0 {
		return nil, time.Time{}
	}
	chosen, settled := -1, false
	for i, p := range r {
		since, ok := published[p.Public()]
		switch settles := !now.Before(since.Add(Settle)); {
		case !ok:
		case settles:
			chosen, settled = i, true
		case chosen < 0, !settled && since.Before(published[r[chosen].Public()]):
			chosen = i
		}
	}
	if chosen < 0 {
		return r[0].Key, time.Time{} // the record of what was published is lost; pods have it all the same
	}
	for _, p := range r[chosen+1:] {
		if since, ok := published[p.Public()]; ok && (due.IsZero() || since.Add(Settle).Before(due)) {
			due = since.Add(Settle)
		}
	}
	return r[chosen].Key, due
}

// Publish returns the text to publish to an object's parsers. It equals the published text if nothing has to change.
func (r Ring) Publish(now time.Time, published Published) (text string, next Published) {
	next = Published{}
	keys, words := make([]seal.PublicKey, 0, len(r)), make([]string, 0, len(r))
	for _, p := range r {
		k := p.Public()
		since, ok := published[k]
		if !ok || since.After(now.Add(maxSkew)) {
			since = now
		}
		next[k] = since
		keys, words = append(keys, k), append(words, since.UTC().Format(time.RFC3339))
	}
	return seal.FormatOperators(keys, words), next
}

// ParsePublished parses a text that Publish returned. It ignores invalid lines, whose keys count as not published.
func ParsePublished(text string) Published {
	out := Published{}
	keys, words, _ := seal.ParseOperators([]byte(text)) // Publish writes invalid lines again
	for i, k := range keys {
		if since, err := time.Parse(time.RFC3339, words[i]); err == nil {
			out[k] = since
		}
	}
	return out
}

// Encode returns the ring as text: a private key and its time of creation on each line.
func (r Ring) Encode() string {
	var out strings.Builder
	for _, p := range r {
		fmt.Fprintf(&out, "%s %s\n", p.Private(), p.Created.UTC().Format(time.RFC3339))
	}
	return out.String()
}

// Decode parses a text that Encode returned. Its errors do not contain any of the text.
func Decode(text string) (Ring, error) {
	var r Ring
	n := 0
	for line := range strings.Lines(text) {
		n++
		private, created, _ := strings.Cut(strings.TrimSpace(line), " ")
		if private == "" {
			continue
		}
		key, err := seal.ParsePrivateKey(private)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		at, err := time.Parse(time.RFC3339, created)
		if err != nil {
			return nil, fmt.Errorf("line %d: the time after the key is not in RFC 3339 format", n)
		}
		if len(r) == maxPairs {
			return nil, fmt.Errorf("line %d: more than %d keys", n, maxPairs)
		}
		r = append(r, Pair{Key: key, Created: at})
	}
	if len(r) == 0 {
		return nil, errors.New("there are no keys")
	}
	return r, nil
}
