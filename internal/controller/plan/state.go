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

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// Rollout is the state of a rollout from Current to Update. It must outlive a leader. The zero value is a rollout that
// has not begun. It belongs to Update: when another revision becomes Update, only CarriedOver remains.
type Rollout struct {
	// Started is when the first target was selected, to the second.
	Started time.Time `json:"started,omitzero"`
	// DegradedAtStart is how many targets were degraded, or awaited a verdict, at that time.
	DegradedAtStart int `json:"ill,omitempty"`
	// UpTo and OutOfOrder are the selected targets: those whose names sort up to UpTo, and those in OutOfOrder.
	UpTo       string  `json:"to,omitempty"`
	OutOfOrder nameSet `json:"also,omitempty"`
	// Baselines of canaries, by name or hash. Those that are missing were well.
	Baselines map[string]Baseline `json:"before,omitempty"`
	// Soaked is how long canaries were observed to be well before SoakingSince, since when they are well again.
	// SoakingSince is zero while the soak is paused.
	Soaked       metav1.Duration `json:"soaked,omitzero"`
	SoakingSince time.Time       `json:"since,omitzero"`
	// Promoted is set when the soak is over, or was ended by hand.
	Promoted bool `json:"promoted,omitempty"`
	// Failed is why the canary failed, as a sentence; "" if it did not. FailedAt is when.
	Failed   string    `json:"failed,omitempty"`
	FailedAt time.Time `json:"failedAt,omitzero"`
	// TakenDown are the targets whose ready pod was replaced by one of Current, and that have not been ready since.
	// UnreadyBefore are those that the operator did not disrupt, and that were unready before they were selected and
	// have been since. IndeterminateBefore are those that were indeterminate before and have been since: the revision
	// is not why. The next rollout keeps all three.
	TakenDown           nameSet `json:"down,omitempty"`
	UnreadyBefore       nameSet `json:"excused,omitempty"`
	IndeterminateBefore nameSet `json:"mute,omitempty"`
}

// Baseline is how a target was before a rollout selected it.
type Baseline struct {
	Verdict health.Verdict `json:"verdict,omitempty"`
	// Lag to the second.
	Lag metav1.Duration `json:"lag,omitzero"`
	// Restarts of the container within Age, the lifetime of its pod.
	Restarts int             `json:"restarts,omitempty"`
	Age      metav1.Duration `json:"age,omitzero"`
	Unready  bool            `json:"unready,omitempty"`
	// BootID is that of the node. Reboots is how often it has changed since.
	BootID  string `json:"boot,omitempty"`
	Reboots int    `json:"boots,omitempty"`
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
	size := r.OutOfOrder.bytes() + r.TakenDown.bytes() + r.UnreadyBefore.bytes() + r.IndeterminateBefore.bytes()
	for name := range r.Baselines {
		size += len(name)
	}
	if size > maxNameBytes {
		r.OutOfOrder, r.TakenDown, r.UnreadyBefore, r.IndeterminateBefore = r.OutOfOrder.hashed(), r.TakenDown.hashed(),
			r.UnreadyBefore.hashed(), r.IndeterminateBefore.hashed()
		baselines := make(map[string]Baseline, len(r.Baselines))
		for name, b := range r.Baselines {
			baselines[hashed(name)] = b
		}
		r.Baselines = baselines
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
	for _, n := range []nameSet{r.OutOfOrder, r.TakenDown, r.UnreadyBefore, r.IndeterminateBefore} {
		slices.Sort(n)
	}
	return r, nil
}

// hasRoom reports whether the state fits into an annotation with one more target in each of its sets. There is room for
// 14,000 targets that were selected out of order.
func (r *Rollout) hasRoom() bool {
	const texts = 4 << 10 // everything else, with a sentence
	return texts+hashBytes*(len(r.OutOfOrder)+len(r.TakenDown)+len(r.UnreadyBefore)+len(r.IndeterminateBefore)+4)+
		baselineBytes*(len(r.Baselines)+1) <= MaxRollout
}

// CarriedOver returns the part of the state with which the rollout to another revision begins.
func (r Rollout) CarriedOver() Rollout {
	return Rollout{TakenDown: r.TakenDown, UnreadyBefore: r.UnreadyBefore, IndeterminateBefore: r.IndeterminateBefore}
}

func (r Rollout) clone() Rollout {
	r.OutOfOrder, r.Baselines = slices.Clone(r.OutOfOrder), maps.Clone(r.Baselines)
	r.TakenDown, r.UnreadyBefore, r.IndeterminateBefore = slices.Clone(r.TakenDown), slices.Clone(r.UnreadyBefore),
		slices.Clone(r.IndeterminateBefore)
	return r
}

func (r Rollout) equal(other Rollout) bool {
	return r.Started.Equal(other.Started) && r.DegradedAtStart == other.DegradedAtStart && r.UpTo == other.UpTo &&
		slices.Equal(r.OutOfOrder, other.OutOfOrder) &&
		slices.Equal(r.TakenDown, other.TakenDown) && slices.Equal(r.UnreadyBefore, other.UnreadyBefore) &&
		slices.Equal(r.IndeterminateBefore, other.IndeterminateBefore) &&
		maps.Equal(r.Baselines, other.Baselines) && r.Soaked == other.Soaked && r.SoakingSince.Equal(other.SoakingSince) &&
		r.Promoted == other.Promoted && r.Failed == other.Failed && r.FailedAt.Equal(other.FailedAt)
}

// Absent returns the selected targets, by name or hash, that are not among the targets.
func (r Rollout) Absent(targets []string) []string {
	there := make(map[string]bool, len(targets))
	for _, name := range targets {
		if there[name] = true; len(r.OutOfOrder) > 0 && strings.HasPrefix(r.OutOfOrder[0], hashPrefix) {
			there[hashOf(name)] = true
		}
	}
	var out []string
	for _, key := range r.OutOfOrder {
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
	for _, n := range []nameSet{r.OutOfOrder, r.TakenDown, r.UnreadyBefore, r.IndeterminateBefore} {
		if len(n) == 0 || !strings.HasPrefix(n[0], hashPrefix) {
			continue
		}
		for i := range n {
			n[i] = name(n[i])
		}
		slices.Sort(n)
	}
	named := make(map[string]Baseline, len(r.Baselines))
	for key, b := range r.Baselines {
		named[name(key)] = b
	}
	if len(named) > 0 {
		r.Baselines = named
	}
}

// encodesAs reports whether both are encoded as the same text, be it by names or by hashes.
func (r Rollout) encodesAs(other Rollout) bool {
	text, err := r.Encode()
	same, otherErr := other.Encode()
	return err == nil && otherErr == nil && text == same
}

// selected reports whether the target is selected.
func (r *Rollout) selected(name string) bool { return name <= r.UpTo || r.OutOfOrder.has(name) }

func (r *Rollout) markSelected(name string) {
	if name > r.UpTo {
		r.OutOfOrder = r.OutOfOrder.with(name)
	}
}

// baseline returns the baseline of a canary; the zero value if it was well.
func (r *Rollout) baseline(name string) Baseline {
	if b, ok := r.Baselines[name]; ok || len(r.Baselines) == 0 {
		return b
	}
	return r.Baselines[hashOf(name)]
}

// setBaseline stores the baseline of a target.
func (r *Rollout) setBaseline(name string, b Baseline) {
	if b == (Baseline{}) {
		return
	}
	if r.Baselines == nil {
		r.Baselines = map[string]Baseline{}
	}
	if _, ok := r.Baselines[hashOf(name)]; ok {
		name = hashOf(name)
	}
	r.Baselines[name] = b
}

// Selected reports whether the rollout has selected the target.
func (r Rollout) Selected(name string) bool { return r.selected(name) }
