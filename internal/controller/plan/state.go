package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
)

// Rollout is what must outlive a leader of the way from Current to Update. The zero value is that of a rollout that has not
// begun. It belongs to Update: whoever keeps it drops it when another revision becomes Update.
type Rollout struct {
	// Started is when the first target was taken, to the second.
	Started time.Time `json:"started,omitzero"`
	// Ill is how many targets were bad by a fault of their own then.
	Ill int `json:"ill,omitempty"`
	// To and Also are the targets that were taken: those up to To by name, and those in Also, sorted.
	To   string   `json:"to,omitempty"`
	Also []string `json:"also,omitempty"`
	// Before is how canaries were before they were taken; those that are left out were well.
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

// Encode returns the state as text; "" for the zero value.
func (r Rollout) Encode() (string, error) {
	data, err := json.Marshal(r)
	if string(data) == "{}" {
		return "", nil
	}
	return string(data), err
}

// DecodeRollout reads what Encode wrote.
func DecodeRollout(text string) (Rollout, error) {
	var r Rollout
	if text == "" {
		return r, nil
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Rollout{}, fmt.Errorf("decoding the state of a rollout: %w", err)
	}
	return r, nil
}

func (r Rollout) clone() Rollout {
	r.Also, r.Before = slices.Clone(r.Also), maps.Clone(r.Before)
	return r
}

func (r Rollout) equal(other Rollout) bool {
	return r.Started.Equal(other.Started) && r.Ill == other.Ill && r.To == other.To && slices.Equal(r.Also, other.Also) &&
		maps.Equal(r.Before, other.Before) && r.Soaked == other.Soaked && r.Since.Equal(other.Since) &&
		r.Promoted == other.Promoted && r.Failed == other.Failed && r.FailedAt.Equal(other.FailedAt)
}

// has reports whether the target was taken.
func (r *Rollout) has(name string) bool {
	_, also := slices.BinarySearch(r.Also, name)
	return also || name <= r.To
}

func (r *Rollout) add(name string) {
	if i, ok := slices.BinarySearch(r.Also, name); !ok && name > r.To {
		r.Also = slices.Insert(r.Also, i, name)
	}
}
