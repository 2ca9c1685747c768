package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheDocumentedMarkersAreWhatItWrites simulates the node of the section on markers in docs/records.md, and compares
// the markers and the dead letter with those of the document.
func TestTheDocumentedMarkersAreWhatItWrites(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "records.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := func(name string) string {
		_, block, found := strings.Cut(string(doc), "\n```json "+name+"\n")
		text, _, closed := strings.Cut(block, "```")
		if !found || !closed {
			t.Fatalf("docs/records.md has no block of %s", name)
		}
		return text
	}

	dir := t.TempDir()
	line := func(number int, local, block, events string) string {
		return fmt.Sprintf(`{"local_time":"2026-04-30T20:46:46.%s","block_time":"2026-04-30T20:46:43.%s","block_number":%d,`+
			`"events":[%s]}`+"\n",
			local, block, number, events)
	}
	appendHour := func(hour string, lines ...string) {
		appendTo(t, filepath.Join(dir, "data", "node_fills_by_block", "hourly", "20260430", hour), strings.Join(lines, ""))
	}
	markers := func() (out string) {
		cmd := hlparser(t.Context(), "run", "--once", "--markers", "--max-line-bytes", "1Ki", "--id", "node-1",
			"--stream", "fills:by-block", "--sink", "stdout", "--format", "raw",
			"--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "state"))
		records, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for record := range strings.Lines(string(records)) {
			if strings.Contains(record, `"stream":"_marker"`) {
				out += record
			}
		}
		return out
	}

	again := line(978995380, "329831336", "493310104", "")
	appendHour("20", line(978995377, "266580134", "304461819", ""))
	appendHour("21", again,
		line(978995381, "346254286", "567322829", `["0xfca397d8b8de71639d9e4573d7ecc8199cbff42f",{"coin":"BTC",`+
			`"px":76471.0.0}]`),
		"not a line of a node\n",
		strings.Repeat("x", 1702)+"\n",
		line(978995382, "369766674", "640395958", ""),
		again)
	got := markers()
	appendHour("20", line(978995378, "293176096", "372877283", ""))
	got += markers()
	if want := documented("markers"); got != want {
		t.Errorf("the parser writes\n%s\nand the document has\n%s", got, want)
	}

	entries, err := os.ReadFile(filepath.Join(dir, "state", "deadletter", "fills.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	when := regexp.MustCompile(`"time":"[^"]*Z"`)
	got, want := when.ReplaceAllString(string(entries), ""), when.ReplaceAllString(documented("entries"), "")
	if got != want {
		t.Errorf("the dead letter has\n%s\nand the document\n%s", entries, documented("entries"))
	}
}
