package hyperliquid

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// documentedTarget is the target in the examples of docs/records.md.
const documentedTarget = "node-1"

// example is a fenced block of docs/records.md whose info string has more than a language:
//
//	json line <stream> <mode> <file>:<offset>   lines of a node, at that place of the file
//	json record <format>                        what the parser writes of them: the first records, or all
//	json markers                                markers, and
//	json entries                                entries of the dead letter: cmd/hlparser compares both
type example struct {
	line int      // of the document, for messages
	info []string // after the language
	text string
}

func examples(doc string) []example {
	var out []example
	for i, text := range strings.Split(doc, "```") {
		info, body, found := strings.Cut(text, "\n")
		if words := strings.Fields(info); i%2 == 1 && found && len(words) > 1 {
			before := strings.Join(strings.Split(doc, "```")[:i], "```")
			out = append(out, example{line: strings.Count(before, "\n") + 1, info: words[1:], text: body})
		}
	}
	return out
}

func recordsDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "records.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// TestTheDocumentedRecordsAreWhatIsWritten encodes each documented line again, and validates each documented record.
func TestTheDocumentedRecordsAreWhatIsWritten(t *testing.T) {
	shown := map[string]bool{} // stream and format
	var node example
	var stream config.Stream
	for _, e := range examples(recordsDoc(t)) {
		switch {
		case e.info[0] == "line" && len(e.info) == 4:
			node, stream = e, config.Stream(e.info[1])
			continue
		case e.info[0] == "markers":
			validateLines(t, e, readSchema(t, "markers"))
			continue
		case e.info[0] == "block":
			record, marker, _ := strings.Cut(e.text, "\n")
			validateLines(t, example{line: e.line, text: record}, readSchema(t, "enveloped"))
			validateLines(t, example{line: e.line + 1, text: marker}, readSchema(t, "block-marker"))
			continue
		case e.info[0] == "entries":
			continue
		case e.info[0] != "record" || len(e.info) != 2:
			t.Fatalf("line %d: a block of %v", e.line, e.info)
		}
		place := node.info[3]
		colon := strings.LastIndexByte(place, ':')
		offset, err := strconv.ParseInt(place[colon+1:], 10, 64)
		if err != nil {
			t.Fatalf("line %d: the place of the line: %v", node.line, err)
		}
		mode, format := config.Mode(node.info[2]), config.Format(e.info[1])
		if directory, _, _ := strings.Cut(place, "/"); directory != Directory(stream, mode) {
			t.Errorf("line %d: %s of %s lies in %s, not in %s", node.line, mode, stream, Directory(stream, mode), directory)
		}
		encoder, err := NewEncoder(stream, mode, config.Filter{}, format, documentedTarget, false)
		if err != nil {
			t.Fatalf("line %d: %v", e.line, err)
		}
		var out Output
		encoder.NewWorker().Encode(&out, Span{Data: []byte(node.text), Offset: offset}, place[:colon])
		if len(e.text) == 0 || !bytes.HasPrefix(out.Data, []byte(e.text)) {
			t.Errorf("line %d: the document has\n%s\nand the parser writes\n%s", e.line, e.text, out.Data)
		}
		switch format {
		case config.Enveloped:
			validateLines(t, e, readSchema(t, "enveloped"))
		case config.EnvelopedRows:
			validateLines(t, e, readSchema(t, "enveloped-rows"))
		case config.Normalized:
			validateLines(t, e, schemaOf(t, stream))
		}
		shown[string(stream)+" "+string(format)] = true
	}
	for _, stream := range config.Streams() {
		for _, format := range config.Formats() {
			if !shown[string(stream)+" "+string(format)] &&
				(format != config.EnvelopedRows || stream == config.MiscEvents || stream == config.OracleUpdates) {
				t.Errorf("there is no example of %s in format %s", stream, format)
			}
		}
	}
}

func validateLines(t *testing.T, e example, s *schema) {
	t.Helper()
	for record := range strings.Lines(e.text) {
		if err := s.validate([]byte(record)); err != nil {
			t.Errorf("line %d: %v: %s", e.line, err, record)
		}
	}
}

var fieldRow = regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| ([a-z ]+) \\|")

// TestEveryFieldIsDocumented compares the tables of fields in docs/records.md with the schemas: their names, order and
// types.
func TestEveryFieldIsDocumented(t *testing.T) {
	doc := recordsDoc(t)
	rows := func(heading string) [][]string {
		_, section, found := strings.Cut(doc, "\n"+heading+"\n")
		if !found {
			t.Errorf("there is no section %q", heading)
		}
		if next := regexp.MustCompile(`(?m)^#+ `).FindStringIndex(section); next != nil {
			section = section[:next[0]]
		}
		return fieldRow.FindAllStringSubmatch(section, -1)
	}
	check := func(heading string, s *schema, documented [][]string) {
		names := make([]string, 0, len(documented))
		for _, row := range documented {
			name, kind := row[1], row[2]
			names = append(names, name)
			if property := s.Properties[name]; property == nil {
				t.Errorf("%s: the schema does not have %s", heading, name)
			} else if want := typeOf(property); kind != want {
				t.Errorf("%s: %s is documented as %s, and is %s", heading, name, kind, want)
			}
		}
		want := s.Required
		if s.AnyOf != nil { // no record has all of them
			want = slices.Sorted(maps.Keys(s.Properties))
			slices.Sort(names)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: fields are documented as %v, and are %v", heading, names, want)
		}
	}
	check("## Enveloped", readSchema(t, "enveloped"), rows("## Enveloped"))
	check("## EnvelopedRows", readSchema(t, "enveloped-rows"), append(rows("## Enveloped"), rows("## EnvelopedRows")...))
	check("## Markers", readSchema(t, "markers"), rows("## Markers"))
	common := rows("## Normalized")
	for _, stream := range config.Streams() {
		heading := "#### Normalized: " + string(stream)
		check(heading, schemaOf(t, stream), append(rows(heading), common...))
	}
}

// typeOf is a property's type in words.
func typeOf(s *schema) string {
	switch v := s.Type.(type) {
	case string:
		return v
	case []any:
		var names []string
		for _, name := range v {
			names = append(names, name.(string))
		}
		return strings.Join(names, " or ")
	}
	if s.Enum != nil || s.Const != nil {
		return "string"
	}
	return "any"
}

// TestEnvelopedRecordsFollowTheirSchema validates records of every stream and mode. Every member must be described, and
// null may be allowed only where it occurs.
func TestEnvelopedRecordsFollowTheirSchema(t *testing.T) {
	for format, name := range map[config.Format]string{
		config.Enveloped: "enveloped", config.EnvelopedRows: "enveloped-rows",
	} {
		t.Run(name, func(t *testing.T) { testEnvelopedSchema(t, format, readSchema(t, name)) })
	}
}

func testEnvelopedSchema(t *testing.T, format config.Format, s *schema) {
	if s.Schema != "https://json-schema.org/draft/2020-12/schema" || s.Title == "" {
		t.Errorf("%q, %q", s.Schema, s.Title)
	}
	for _, stream := range config.Streams() {
		if !slices.Contains(s.Properties["stream"].Enum, any(string(stream))) {
			t.Errorf("the schema does not have stream %s", stream)
		}
		for _, mode := range modes {
			events := append(eventsOf(stream), sampled(oddEventsOf(stream))...)
			input := lines(events...)
			if mode != config.Line {
				input = lines(block(events...), `{"block_number":7,"events":[`+events[0]+`]}`)
			}
			out := encode(t, setting{stream, mode, config.Filter{}, format}, input)
			if out.Delivered == 0 {
				t.Fatalf("%s %s: no records", stream, mode)
			}
			nulls := map[string]bool{}
			for record := range bytes.Lines(out.Data) {
				if err := s.validate(record); err != nil {
					t.Fatalf("%s %s: %v: %s", stream, mode, err, record)
				}
				members := rawObject(record)
				if len(members) != len(s.Properties) || len(members) != len(s.Required) {
					t.Fatalf("%s %s: %d members, %d properties, %d required: %s",
						stream, mode, len(members), len(s.Properties), len(s.Required), record)
				}
				for name, value := range members {
					nulls[name] = nulls[name] || string(value) == "null"
				}
			}
			for name := range s.Properties {
				times := name == "blockTime" || name == "localTime"
				if name == "item" {
					continue // null for most events
				}
				if want := times || mode == config.Line && (name == "block" || name == "index"); nulls[name] != want {
					t.Errorf("%s %s: %s is null: %t, want %t", stream, mode, name, nulls[name], want)
				}
			}
		}
	}
}
