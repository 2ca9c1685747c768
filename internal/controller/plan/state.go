package plan

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// Rollout is what must outlive a leader of the way from Current to Update. The zero value is that of a rollout that has not
// begun. It belongs to Update: the caller drops it when another revision becomes Update.
type Rollout struct {
	// Started is when the first target was taken, to the second.
	Started time.Time `json:"started,omitzero"`
	// Ill is how many targets were bad by a fault of their own then.
	Ill int `json:"ill,omitempty"`
	// To and Also are the targets that were taken: those up to To by name, and those in Also.
	To   string `json:"to,omitempty"`
	Also names  `json:"also,omitempty"`
	// Before is how canaries were before they were taken, by name or sign; those that are left out were well.
	Before map[string]Before `json:"before,omitempty"`
	// Soaked is how long canaries were seen to be well until Since, from when on they are so again; Since is zero while the soak
	// pauses.
	Soaked metav1.Duration `json:"soaked,omitzero"`
	Since  time.Time       `json:"since,omitzero"`
	// Promoted is set when the soak is over, or was ended by hand.
	Promoted bool `json:"promoted,omitempty"`
	// Failed is the sentence that says why the canary failed; "" when it did not. FailedAt is when.
	Failed   string    `json:"failed,omitempty"`
	FailedAt time.Time `json:"failedAt,omitzero"`
	// Down are the targets whose ready pod was replaced by one of the revision that the fleet has, and that have not
	// been ready since. Excused are those that were not ready when they were taken, by no doing of ours, and have not
	// been since; Mute those whose state could not be known, and cannot be since: the revision is not
	// why. The next rollout takes all three over.
	Down    names `json:"down,omitempty"`
	Excused names `json:"excused,omitempty"`
	Mute    names `json:"mute,omitempty"`
}

// Before is how a target was before a rollout took it.
type Before struct {
	Verdict growth.Verdict `json:"verdict,omitempty"`
	// Lag to the second.
	Lag metav1.Duration `json:"lag,omitzero"`
	// Restarts of the container in the time that its pod lived.
	Restarts int             `json:"restarts,omitempty"`
	Age      metav1.Duration `json:"age,omitzero"`
	Unready  bool            `json:"unready,omitempty"`
	// Boot is that of its node, and Boots how often that has changed since.
	Boot  string `json:"boot,omitempty"`
	Boots int    `json:"boots,omitempty"`
}

const (
	// MaxRollout bounds the state of a rollout in bytes, as it is read and written: all annotations of an object may
	// have 256 KiB.
	MaxRollout = 224 << 10
	// maxNames is how many bytes of names are written as they are. Where there are more, signs are written in their
	// place.
	maxNames = 16 << 10
	// keyBytes and beforeBytes bound what a sign, and what a canary was, take as JSON.
	keyBytes    = 12
	beforeBytes = 240
	// signMark begins a sign. No name of a node or a pod begins with it.
	signMark = "#"
)

// sign stands for a name where names are too many to be written: 48 bits of a hash of it. Two of 5,000 targets have the
// same once in 20 million fleets.
func sign(name string) string {
	sum := sha256.Sum256([]byte(name))
	return signMark + base64.RawURLEncoding.EncodeToString(sum[:6])
}

// names is a sorted set of targets, each by its name or its sign.
type names []string

func (n names) has(name string) bool {
	if len(n) == 0 {
		return false
	}
	if _, ok := slices.BinarySearch(n, name); ok {
		return true
	}
	if !strings.HasPrefix(n[0], signMark) { // signs come first
		return false
	}
	_, ok := slices.BinarySearch(n, sign(name))
	return ok
}

func (n names) with(name string) names {
	if n.has(name) {
		return n
	}
	i, _ := slices.BinarySearch(n, name)
	return slices.Insert(n, i, name)
}

// without drops the targets that gone is true for. It is asked by name or sign, as they are kept.
func (n names) without(gone func(key string) bool) names { return slices.DeleteFunc(n, gone) }

func (n names) bytes() int {
	size := 0
	for _, name := range n {
		size += len(name)
	}
	return size
}

// signed returns the set with signs in the place of names.
func (n names) signed() names {
	out := make(names, 0, len(n))
	for _, name := range n {
		out = append(out, signed(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// signed returns the sign of what may be one already.
func signed(key string) string {
	if strings.HasPrefix(key, signMark) {
		return key
	}
	return sign(key)
}

// Encode returns the state as text; "" for the zero value. It fails for a state that does not fit into an annotation.
func (r Rollout) Encode() (string, error) {
	size := r.Also.bytes() + r.Down.bytes() + r.Excused.bytes() + r.Mute.bytes()
	for name := range r.Before {
		size += len(name)
	}
	if size > maxNames {
		r.Also, r.Down, r.Excused, r.Mute = r.Also.signed(), r.Down.signed(), r.Excused.signed(), r.Mute.signed()
		before := make(map[string]Before, len(r.Before))
		for name, b := range r.Before {
			before[signed(name)] = b
		}
		r.Before = before
	}
	data, err := json.Marshal(r)
	switch {
	case err != nil:
		return "", fmt.Errorf("encoding the state of a rollout: %w", err)
	case len(data) > MaxRollout:
		return "", fmt.Errorf("encoding the state of a rollout: it has %d bytes, and may have %d", len(data), MaxRollout)
	case string(data) == "{}":
		return "", nil
	}
	return string(data), nil
}

// DecodeRollout reads what Encode wrote, now or in an earlier version.
func DecodeRollout(text string) (Rollout, error) {
	var r Rollout
	if text == "" {
		return r, nil
	}
	if len(text) > MaxRollout {
		return Rollout{}, fmt.Errorf("decoding the state of a rollout: it has %d bytes", len(text))
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Rollout{}, fmt.Errorf("decoding the state of a rollout: %w", err)
	}
	for _, n := range []names{r.Also, r.Down, r.Excused, r.Mute} { // others may have written it
		slices.Sort(n)
	}
	return r, nil
}

// room reports whether the state fits into an annotation with one more target in each of its sets: 14,000 that were
// taken out of turn do.
func (r *Rollout) room() bool {
	const texts = 4 << 10 // the rest of it, with a sentence
	return texts+keyBytes*(len(r.Also)+len(r.Down)+len(r.Excused)+len(r.Mute)+4)+beforeBytes*(len(r.Before)+1) <= MaxRollout
}

// TakenOver is what the rollout to another revision knows from the start.
func (r Rollout) TakenOver() Rollout { return Rollout{Down: r.Down, Excused: r.Excused, Mute: r.Mute} }

func (r Rollout) clone() Rollout {
	r.Also, r.Before = slices.Clone(r.Also), maps.Clone(r.Before)
	r.Down, r.Excused, r.Mute = slices.Clone(r.Down), slices.Clone(r.Excused), slices.Clone(r.Mute)
	return r
}

func (r Rollout) equal(other Rollout) bool {
	return r.Started.Equal(other.Started) && r.Ill == other.Ill && r.To == other.To && slices.Equal(r.Also, other.Also) &&
		slices.Equal(r.Down, other.Down) && slices.Equal(r.Excused, other.Excused) && slices.Equal(r.Mute, other.Mute) &&
		maps.Equal(r.Before, other.Before) && r.Soaked == other.Soaked && r.Since.Equal(other.Since) &&
		r.Promoted == other.Promoted && r.Failed == other.Failed && r.FailedAt.Equal(other.FailedAt)
}

// Gone returns those that were taken, by name or sign, and are no targets.
func (r Rollout) Gone(targets []string) []string {
	there := make(map[string]bool, len(targets))
	for _, name := range targets {
		if there[name] = true; len(r.Also) > 0 && strings.HasPrefix(r.Also[0], signMark) {
			there[sign(name)] = true
		}
	}
	var out []string
	for _, key := range r.Also {
		if !there[key] {
			out = append(out, key)
		}
	}
	return out
}

// spell puts names in the place of signs, as far as there are targets with them.
func (r *Rollout) spell(target func(key string) *slot) {
	name := func(key string) string {
		if !strings.HasPrefix(key, signMark) {
			return key
		}
		if t := target(key); t != nil {
			return t.Name
		}
		return key
	}
	for _, n := range []names{r.Also, r.Down, r.Excused, r.Mute} {
		if len(n) == 0 || !strings.HasPrefix(n[0], signMark) {
			continue
		}
		for i := range n {
			n[i] = name(n[i])
		}
		slices.Sort(n)
	}
	spelt := make(map[string]Before, len(r.Before))
	for key, b := range r.Before {
		spelt[name(key)] = b
	}
	if len(spelt) > 0 {
		r.Before = spelt
	}
}

// says reports whether the two are written the same, be it by names or by signs.
func (r Rollout) says(other Rollout) bool {
	text, err := r.Encode()
	same, otherErr := other.Encode()
	return err == nil && otherErr == nil && text == same
}

// has reports whether the target was taken.
func (r *Rollout) has(name string) bool { return name <= r.To || r.Also.has(name) }

func (r *Rollout) add(name string) {
	if name > r.To {
		r.Also = r.Also.with(name)
	}
}

// before returns how a canary was; the zero value for one that was well.
func (r *Rollout) before(name string) Before {
	if b, ok := r.Before[name]; ok || len(r.Before) == 0 {
		return b
	}
	return r.Before[sign(name)]
}

// remember writes down how a target was before it was taken.
func (r *Rollout) remember(name string, b Before) {
	if b == (Before{}) {
		return
	}
	if r.Before == nil {
		r.Before = map[string]Before{}
	}
	if _, ok := r.Before[sign(name)]; ok {
		name = sign(name)
	}
	r.Before[name] = b
}

// Took reports whether the state records the target as taken by the rollout.
func (r Rollout) Took(name string) bool { return r.has(name) }
