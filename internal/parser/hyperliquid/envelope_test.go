package hyperliquid

import (
	"strings"
	"testing"
)

func TestBlockNumberOfTheBeginningOfALine(t *testing.T) {
	for text, want := range map[string]int64{
		blockStart:                                978995377,
		`{"block_number":999999999999999999,`:     999999999999999999,
		`{"block_number":1000000000000000000,`:    0,
		`{"block_number":7`:                       0, // more digits may follow
		`{"block_number":7]`:                      0,
		`{"block_number":,`:                       0,
		`{"block_number":-7,`:                     0,
		`{"block_number":"7",`:                    0,
		`{"block_time":"t"}`:                      0,
		"":                                        0,
		strings.Repeat(" ", 256) + blockStart[1:]: 0,
	} {
		if got, ok := BlockNumber([]byte(text)); got != want || ok != (want > 0) {
			t.Errorf("%.80q: got %d, %v; want %d", text, got, ok, want)
		}
	}
}
