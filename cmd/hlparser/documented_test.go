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
// documented returns a block of JSON in docs/records.md.
func documented(t *testing.T, name string) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "records.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(doc), "\n```json "+name+"\n")
	text, _, closed := strings.Cut(block, "```")
	if !found || !closed {
		t.Fatalf("docs/records.md has no block of %s", name)
	}
	return text
}

func TestTheDocumentedBlockIsWhatItWrites(t *testing.T) {
	dir := t.TempDir()
	line := func(events string) string {
		return `{"local_time":"2026-04-30T20:46:46.293176096","block_time":"2026-04-30T20:46:43.372877283",` +
			`"block_number":978995378,"events":[` + events + "]}\n"
	}
	diff := func(oid, coin string) string {
		return `{"user":"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f","oid":` + oid + `,"coin":"` + coin + `","side":"B",` +
			`"px":"76450.0","raw_book_diff":"remove"}`
	}
	for directory, events := range map[string]string{
		"node_raw_book_diffs_by_block": diff("1", "BTC") + "," + diff("2", "ETH"), "node_fills_by_block": "",
	} {
		appendTo(t, filepath.Join(dir, "data", directory, "hourly", "20260430", "20"), line(events))
	}
	cmd := hlparser(t.Context(), "run", "--once", "--order", "block", "--id", "node-1", "--coin", "BTC",
		"--stream", "fills:by-block", "--stream", "raw-book-diffs:by-block", "--sink", "stdout",
		"--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "state"))
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	position := regexp.MustCompile(`@[0-9a-f]{8}:`) // of the node's file: a hash of its content
	if want := documented(t, "block"); position.ReplaceAllString(string(got), "") !=
		position.ReplaceAllString(want, "") {
		t.Errorf("the parser writes\n%s\nand the document has\n%s", got, want)
	}
}

func TestTheDocumentedMarkersAreWhatItWrites(t *testing.T) {

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
	if want := documented(t, "markers"); got != want {
		t.Errorf("the parser writes\n%s\nand the document has\n%s", got, want)
	}

	entries, err := os.ReadFile(filepath.Join(dir, "state", "deadletter", "fills.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	when := regexp.MustCompile(`"time":"[^"]*Z"`)
	got, want := when.ReplaceAllString(string(entries), ""), when.ReplaceAllString(documented(t, "entries"), "")
	if got != want {
		t.Errorf("the dead letter has\n%s\nand the document\n%s", entries, documented(t, "entries"))
	}
}
