package controller

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestWhenEventsAreLookedAt(t *testing.T) {
	never, last := time.Time{}, noon
	before := mountsLook{at: last, looked: map[types.UID]bool{"a": true, "b": true}, missing: map[types.UID]bool{"b": true}}
	tests := map[string]struct {
		look mountsLook
		long []types.UID
		want time.Time
	}{
		"never for pods that start in time":            {before, nil, never},
		"at once for the first pod":                    {mountsLook{}, []types.UID{"a"}, time.Time{}.Add(lookApart)},
		"no more for one that is explained":            {before, []types.UID{"b"}, never},
		"seldom for one that is not":                   {before, []types.UID{"a", "b"}, last.Add(lookAgain)},
		"soon for a new one, and not for each of many": {before, []types.UID{"a", "b", "c", "d"}, last.Add(lookApart)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.look.next(test.long); !got.Equal(test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
