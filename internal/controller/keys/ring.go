// Package keys keeps the operator's key pairs, with which it asks for reports that package seal seals.
//
// A Ring holds the pairs, oldest first. A new pair is published to the parsers of every object first and used for an object's parsers once
// it has been published there for Settle, which kubelets take a small part of to show it to their pods; the one before stays published
// for Overlap, and then goes. What is used is decided object by object: one whose ConfigMap could not be written goes on with the pair that
// its parsers know, for as long as the ring has it.
//
// The ring is pure: times are given to it. Keeper reads it from a Secret and writes it there. The package must never log a private key,
// never write anything while nothing is due, and never replace what it cannot read.
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
	// Settle is how long a public key is published before it is used. A kubelet refreshes a pod's ConfigMap within its sync period, a minute and
	// half as much again, plus the time to live of its cache, as long as that.
	Settle = time.Hour
	// Overlap is the age of a pair at which those before it go.
	Overlap = 7 * 24 * time.Hour
	// most bounds the pairs in a ring.
	most = 4
	// skew is how far in the future a pair may have been made: further, and the clock was wrong when it was.
	skew = time.Hour
)

// Pair is a key pair and when it was made.
type Pair struct {
	*seal.Key
	Made time.Time
}

// Ring is the operator's key pairs, oldest first. It is not changed once it is made.
type Ring []Pair

// Next returns the ring as it should be at a time, and whether it is another. led is how long this process has led: for a pair to go,
// long enough that it has published the next one itself.
func (r Ring) Next(now time.Time, led time.Duration, fresh func() (*seal.Key, error)) (Ring, bool, error) {
	if len(r) > 0 {
		newest := r[len(r)-1]
		age := now.Sub(newest.Made)
		if age < Period && age >= -skew {
			if len(r) > 1 && age >= Overlap && led >= 2*Settle {
				return Ring{newest}, true, nil
			}
			return r, false, nil
		}
	}
	key, err := fresh()
	if err != nil {
		return r, false, err
	}
	next := append(slices.Clone(r), Pair{Key: key, Made: now})
	return next[max(0, len(next)-most):], true, nil
}

// Published says since when each public key is published to the parsers of an object.
type Published map[seal.PublicKey]time.Time

// Use returns the pair to ask an object's parsers with: the newest that has been published to them for Settle, else the one that has been
// for longest. nil: there is none. due is when it will be another; zero: not before something changes.
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
		return r[0].Key, time.Time{} // what was published is lost; pods have seen it all the same
	}
	for _, p := range r[chosen+1:] {
		if since, ok := published[p.Public()]; ok && (due.IsZero() || since.Add(Settle).Before(due)) {
			due = since.Add(Settle)
		}
	}
	return r[chosen].Key, due
}

// Publish returns what to publish to an object's parsers, which is what is published when nothing has to change.
func (r Ring) Publish(now time.Time, published Published) (text string, next Published) {
	next = Published{}
	keys, words := make([]seal.PublicKey, 0, len(r)), make([]string, 0, len(r))
	for _, p := range r {
		k := p.Public()
		since, ok := published[k]
		if !ok || since.After(now.Add(skew)) {
			since = now
		}
		next[k] = since
		keys, words = append(keys, k), append(words, since.UTC().Format(time.RFC3339))
	}
	return seal.FormatOperators(keys, words), next
}

// ParsePublished reads what Publish returned. What somebody has spoilt is not published.
func ParsePublished(text string) Published {
	out := Published{}
	keys, words, _ := seal.ParseOperators([]byte(text)) // lines that are none are written again
	for i, k := range keys {
		if since, err := time.Parse(time.RFC3339, words[i]); err == nil {
			out[k] = since
		}
	}
	return out
}

// Encode returns the ring as text: a private key a line, and when it was made.
func (r Ring) Encode() string {
	var out strings.Builder
	for _, p := range r {
		fmt.Fprintf(&out, "%s %s\n", p.Private(), p.Made.UTC().Format(time.RFC3339))
	}
	return out.String()
}

// Decode reads what Encode returned. Its errors do not repeat it.
func Decode(text string) (Ring, error) {
	var r Ring
	n := 0
	for line := range strings.Lines(text) {
		n++
		private, made, _ := strings.Cut(strings.TrimSpace(line), " ")
		if private == "" {
			continue
		}
		key, err := seal.ParsePrivateKey(private)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		at, err := time.Parse(time.RFC3339, made)
		if err != nil {
			return nil, fmt.Errorf("line %d: the time after the key is not of RFC 3339", n)
		}
		if len(r) == most {
			return nil, fmt.Errorf("line %d: more than %d keys", n, most)
		}
		r = append(r, Pair{Key: key, Made: at})
	}
	if len(r) == 0 {
		return nil, errors.New("there are no keys")
	}
	return r, nil
}
