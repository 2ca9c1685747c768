package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

const table = "a/b  traffic  9 lines/s  ready 1/1\n"

func TestATableIsDrawnInPlaceAndPausesAreShortened(t *testing.T) {
	lines, err := parse("0.0\tbegin\n1.0\t" + table + "1.0\t  node-1 Unknown\n" +
		"100.0\tmessage\n100.0\t" + table + "100.0\t  node-1 Healthy\n101.0\t\n101.0\tlost=0")
	if err != nil {
		t.Fatal(err)
	}
	all := frames("run", lines)
	last := all[len(all)-1]
	want := "$ run|begin|message||" + strings.TrimSpace(table) + "|  node-1 Healthy||lost=0"
	texts := make([]string, 0, len(last.rows))
	for _, r := range last.rows {
		texts = append(texts, r.text)
	}
	if got := strings.Join(texts, "|"); got != want {
		t.Errorf("the last frame is\n%s, want\n%s", got, want)
	}
	if limit := 2 * time.Second; last.at > limit {
		t.Errorf("the drawing takes %s, want %s at most", last.at, limit)
	}
}

func TestALineWithoutItsTimeIsAnError(t *testing.T) {
	if _, err := parse("1.0\tfine\nno time"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v, want an error that names line 2", err)
	}
}

func TestLinesAreRecordedWithTheirTimes(t *testing.T) {
	var recording, screen strings.Builder
	elapsed := func() time.Duration { return 1500 * time.Millisecond }
	err := recordLines(strings.NewReader("a\nb\n"), &recording, &screen, elapsed)
	if err != nil || recording.String() != "1.5\ta\n1.5\tb\n" || screen.String() != "a\nb\n" {
		t.Errorf("recorded %q, showed %q, %v", recording.String(), screen.String(), err)
	}
}

// TestTheDrawingIsOfTheRecording keeps docs/demo.svg what this program makes of the recording.
func TestTheDrawingIsOfTheRecording(t *testing.T) {
	var drawn strings.Builder
	if err := run("", "make demo", []string{"demo.log"}, nil, &drawn); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile("../../docs/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	if drawn.String() != string(stored) {
		t.Error("docs/demo.svg is not drawn from demo.log: go run ./hack/screencast hack/screencast/demo.log > docs/demo.svg")
	}
	decoder := xml.NewDecoder(strings.NewReader(drawn.String()))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("docs/demo.svg is no XML: %v", err)
		}
	}
	if !strings.Contains(drawn.String(), "lost=0") {
		t.Error("the recording does not end with a comparison that lost nothing")
	}
}

func TestALongLineIsWrappedBetweenWords(t *testing.T) {
	rows := wrap("0:28  event " + strings.Repeat("word ", 40))
	if len(rows) != 2 || rows[0].class != "yellow" || rows[1].class != "yellow" || rows[1].text[:10] != "      word" {
		t.Errorf("wrapped into %q", rows)
	}
	for _, r := range wrap(strings.Repeat("x", 3*columns)) {
		if len(r.text) > columns {
			t.Errorf("a row has %d columns", len(r.text))
		}
	}
}
