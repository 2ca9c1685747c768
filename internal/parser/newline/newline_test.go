package newline_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/newline"
)

func TestLastAgreesWithTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Repeat([]byte("x"), rapid.IntRange(0, 20_000).Draw(t, "length"))
		for _, at := range rapid.SliceOfN(rapid.IntRange(0, 20_000), 0, 3).Draw(t, "newlines") {
			if at < len(b) {
				b[at] = '\n'
			}
		}
		if got, want := newline.Last(b), bytes.LastIndexByte(b, '\n'); got != want {
			t.Fatalf("found at %d; want %d", got, want)
		}
	})
}
