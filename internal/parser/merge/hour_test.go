package merge

import (
	"fmt"
	"testing"
)

// Files of the merged stream sort as their blocks do, also if a line that a restarted node writes again opens a block.
func TestPositionsNeverGoBackToAnEarlierHour(t *testing.T) {
	file := firstFile
	for _, c := range []struct {
		time, want string
	}{
		{`"2026-04-30T22:59:59.9"`, "20260430/22"},
		{`"2026-04-30T23:00:00"`, "20260430/23"},
		{`"2026-04-30T22:54:00.25"`, "20260430/23"},
		{`null`, "20260430/23"},
		{`"2026-05-01T00:00:00"`, "20260501/0"},
		{`"2026-04-30T23:59:59"`, "20260501/0"},
	} {
		file = fileAt([]byte(c.time), file)
		if got := fmt.Sprintf("%s/%d", file.Date, file.Hour); got != c.want {
			t.Errorf("after %s: %s; want %s", c.time, got, c.want)
		}
	}
}
