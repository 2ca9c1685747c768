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

// Rollout is the state of a rollout from Current to Update. It must outlive a leader. The zero value is a rollout that
// has not begun. It belongs to Update: when another revision becomes Update, only TakenOver remains.
type Rollout struct {
	// Started is when the first target was selected, to the second.
	Started time.Time `json:"started,omitzero"`
	// Ill is how many targets were degraded, or awaited a verdict, at that time.
	Ill int `json:"ill,omitempty"`
	// To and Also are the selected targets: those whose names sort up to To, and those in Also.
	To   string  `json:"to,omitempty"`
	Also nameSet `json:"also,omitempty"`
	// Before of canaries, by name or hash. Those that are missing were well.
	Before map[string]Before `json:"before,omitempty"`
	// Soaked is how long canaries were observed to be well before Since, since when they are well again.
	// Since is zero while the soak is paused.
	Soaked metav1.Duration `json:"soaked,omitzero"`
	Since  time.Time       `json:"since,omitzero"`
	// Promoted is set when the soak is over, or was ended by hand.
	Promoted bool `json:"promoted,omitempty"`
	// Failed is why the canary failed, as a sentence; "" if it did not. FailedAt is when.
	Failed   string    `json:"failed,omitempty"`
	FailedAt time.Time `json:"failedAt,omitzero"`
	// Down are the targets whose ready pod was replaced by one of Current, and that have not been ready since.
	// Excused are those that the operator did not disrupt, and that were unready before they were selected and
	// have been since. Mute are those that were indeterminate before and have been since: the revision
	// is not why. The next rollout keeps all three.
	Down    nameSet `json:"down,omitempty"`
	Excused nameSet `json:"excused,omitempty"`
	Mute    nameSet `json:"mute,omitempty"`
}

// Before is how a target was before a rollout selected it.
type Before struct {
	Verdict growth.Verdict `json:"verdict,omitempty"`
	// Lag to the second.
	Lag metav1.Duration `json:"lag,omitzero"`
	// Restarts of the container within Age, the lifetime of its pod.
	Restarts int             `json:"restarts,omitempty"`
	Age      metav1.Duration `json:"age,omitzero"`
	Unready  bool            `json:"unready,omitempty"`
	// Boot is that of the node. Boots is how often it has changed since.
	Boot  string `json:"boot,omitempty"`
	Boots int    `json:"boots,omitempty"`
}

const (
	// MaxRollout bounds the encoded state of a rollout in bytes. All annotations of an object may have 256 KiB.
	MaxRollout = 224 << 10
	// maxNameBytes is how many bytes of names are encoded as they are. Larger sets are encoded as hashes.
	maxNameBytes = 16 << 10
	// hashBytes and baselineBytes bound what a hash and a baseline take as JSON.
	hashBytes     = 12
	baselineBytes = 240
	// hashPrefix begins a hash. No name of a node or a pod begins with it.
	hashPrefix = "#"
)

// hashOf returns the hash that stands for a name where names are too many to be encoded: 48 bits. Among 5,000 targets,
// two have the same in one of 20 million fleets.
func hashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hashPrefix + base64.RawURLEncoding.EncodeToString(sum[:6])
}

// nameSet is a sorted set of targets, each by its name or its hash.
type nameSet []string

func (n nameSet) has(name string) bool {
	if len(n) == 0 {
		return false
	}
	if _, ok := slices.BinarySearch(n, name); ok {
		return true
	}
	if !strings.HasPrefix(n[0], hashPrefix) { // hashes come first
		return false
	}
	_, ok := slices.BinarySearch(n, hashOf(name))
	return ok
}

func (n nameSet) with(name string) nameSet {
	if n.has(name) {
		return n
	}
	i, _ := slices.BinarySearch(n, name)
	return slices.Insert(n, i, name)
}

// without drops the targets for which obsolete returns true. It is called with the name or the hash, as it is stored.
func (n nameSet) without(obsolete func(key string) bool) nameSet {
	return slices.DeleteFunc(n, obsolete)
}

func (n nameSet) bytes() int {
	size := 0
	for _, name := range n {
		size += len(name)
	}
	return size
}

// hashed returns the set with hashes in place of names.
func (n nameSet) hashed() nameSet {
	out := make(nameSet, 0, len(n))
	for _, name := range n {
		out = append(out, hashed(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// hashed returns the hash of a name, or the key if it is a hash.
func hashed(key string) string {
	if strings.HasPrefix(key, hashPrefix) {
		return key
	}
	return hashOf(key)
}

// Encode returns the state as text; "" for the zero value. It fails for a state that does not fit into an annotation.
func (r Rollout) Encode() (string, error) {
	size := r.Also.bytes() + r.Down.bytes() + r.Excused.bytes() + r.Mute.bytes()
	for name := range r.Before {
		size += len(name)
	}
	if size > maxNameBytes {
		r.Also, r.Down, r.Excused, r.Mute = r.Also.hashed(), r.Down.hashed(),
			r.Excused.hashed(), r.Mute.hashed()
		baselines := make(map[string]Before, len(r.Before))
		for name, b := range r.Before {
			baselines[hashed(name)] = b
		}
		r.Before = baselines
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

// DecodeRollout decodes what Encode returned, in this version or an earlier one.
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
	// Others may have written it.
	for _, n := range []nameSet{r.Also, r.Down, r.Excused, r.Mute} {
		slices.Sort(n)
	}
	return r, nil
}

// hasRoom reports whether the state fits into an annotation with one more target in each of its sets. There is room for
// 14,000 targets that were selected out of order.
func (r *Rollout) hasRoom() bool {
	const texts = 4 << 10 // everything else, with a sentence
	return texts+hashBytes*(len(r.Also)+len(r.Down)+len(r.Excused)+len(r.Mute)+4)+
		baselineBytes*(len(r.Before)+1) <= MaxRollout
}

// TakenOver returns the part of the state with which the rollout to another revision begins.
func (r Rollout) TakenOver() Rollout {
	return Rollout{Down: r.Down, Excused: r.Excused, Mute: r.Mute}
}

func (r Rollout) clone() Rollout {
	r.Also, r.Before = slices.Clone(r.Also), maps.Clone(r.Before)
	r.Down, r.Excused, r.Mute = slices.Clone(r.Down), slices.Clone(r.Excused),
		slices.Clone(r.Mute)
	return r
}

func (r Rollout) equal(other Rollout) bool {
	return r.Started.Equal(other.Started) && r.Ill == other.Ill && r.To == other.To &&
		slices.Equal(r.Also, other.Also) &&
		slices.Equal(r.Down, other.Down) && slices.Equal(r.Excused, other.Excused) &&
		slices.Equal(r.Mute, other.Mute) &&
		maps.Equal(r.Before, other.Before) && r.Soaked == other.Soaked && r.Since.Equal(other.Since) &&
		r.Promoted == other.Promoted && r.Failed == other.Failed && r.FailedAt.Equal(other.FailedAt)
}

// Gone returns the selected targets, by name or hash, that are not among the targets.
func (r Rollout) Gone(targets []string) []string {
	there := make(map[string]bool, len(targets))
	for _, name := range targets {
		if there[name] = true; len(r.Also) > 0 && strings.HasPrefix(r.Also[0], hashPrefix) {
			there[hashOf(name)] = true
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

// resolveHashes replaces hashes by names, as far as there are targets with them.
func (r *Rollout) resolveHashes(target func(key string) *slot) {
	name := func(key string) string {
		if !strings.HasPrefix(key, hashPrefix) {
			return key
		}
		if t := target(key); t != nil {
			return t.Name
		}
		return key
	}
	for _, n := range []nameSet{r.Also, r.Down, r.Excused, r.Mute} {
		if len(n) == 0 || !strings.HasPrefix(n[0], hashPrefix) {
			continue
		}
		for i := range n {
			n[i] = name(n[i])
		}
		slices.Sort(n)
	}
	named := make(map[string]Before, len(r.Before))
	for key, b := range r.Before {
		named[name(key)] = b
	}
	if len(named) > 0 {
		r.Before = named
	}
}

// encodesAs reports whether both are encoded as the same text, be it by names or by hashes.
func (r Rollout) encodesAs(other Rollout) bool {
	text, err := r.Encode()
	same, otherErr := other.Encode()
	return err == nil && otherErr == nil && text == same
}

// selected reports whether the target is selected.
func (r *Rollout) selected(name string) bool { return name <= r.To || r.Also.has(name) }

func (r *Rollout) markSelected(name string) {
	if name > r.To {
		r.Also = r.Also.with(name)
	}
}

// baseline returns the baseline of a canary; the zero value if it was well.
func (r *Rollout) baseline(name string) Before {
	if b, ok := r.Before[name]; ok || len(r.Before) == 0 {
		return b
	}
	return r.Before[hashOf(name)]
}

// setBaseline stores the baseline of a target.
func (r *Rollout) setBaseline(name string, b Before) {
	if b == (Before{}) {
		return
	}
	if r.Before == nil {
		r.Before = map[string]Before{}
	}
	if _, ok := r.Before[hashOf(name)]; ok {
		name = hashOf(name)
	}
	r.Before[name] = b
}

// Took reports whether the rollout has selected the target.
func (r Rollout) Took(name string) bool { return r.selected(name) }
