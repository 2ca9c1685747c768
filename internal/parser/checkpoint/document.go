package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// The versions of the document. A reader refuses a higher version than it knows. The version therefore rises only if an
// older parser would misread the document: a slot that refers to a base means nothing to a parser that does not know
// bases.
const (
	formatWhole   = 1
	formatChanges = 2
)

const (
	// slotBytes is the maximum number of bytes that a commit writes, if the state is small apart from its lists.
	slotBytes = 16 << 10
	// changesBytes is the size of the changes, in bytes, above which a new base is worthwhile.
	changesBytes = slotBytes / 2
	// maxDocument is the maximum number of bytes that are read. It holds 300,000 files; no parser writes more.
	maxDocument = 128 << 20
)

// document is the content of a slot or a base. The checksum covers the checkpoint's JSON without whitespace between
// tokens. Reformatting is therefore harmless, and a changed value is detected.
type document struct {
	Format     int             `json:"format"`
	CRC32C     string          `json:"crc32c"`
	Checkpoint json.RawMessage `json:"checkpoint"`
}

// delta is the checkpoint of a document of formatChanges.
type delta struct {
	Base baseRef `json:"base"`
	// State is the state without Files and Blocks.
	State State       `json:"state"`
	Files []run[File] `json:"files"`
	// Lists holds the changes of the lists in Blocks, by field name. Blocks holds the other fields; it is nil if State
	// has none.
	Lists  map[string][]run[json.RawMessage] `json:"lists,omitempty"`
	Blocks json.RawMessage                   `json:"blocks,omitempty"`
}

// baseRef identifies a base and its required content.
type baseRef struct {
	Number uint64 `json:"number"`
	CRC32C string `json:"crc32c"`
}

// base is a complete State on disk, in two copies, to which slots refer.
type base struct {
	baseRef
	doc   []byte
	files list[File, fileKey]
	lists map[string]list[json.RawMessage, string] // the lists in Blocks, by field name
}

func newBase(ref baseRef, doc []byte, state State) (*base, error) {
	b := &base{
		baseRef: ref,
		doc:     doc,
		files:   newList(state.Files, keyOfFile, sameFile),
		lists:   map[string]list[json.RawMessage, string]{},
	}
	lists, _, err := blockLists(state.Blocks)
	for name, elements := range lists {
		b.lists[name] = newList(elements, keyOfText, sameText)
	}
	return b, err
}

// blockLists returns the lists of the blocks as JSON, by field name, and the JSON of the other fields.
func blockLists(blocks *Blocks) (lists map[string][]json.RawMessage, rest json.RawMessage, err error) {
	if blocks == nil {
		return nil, nil, nil
	}
	text, err := json.Marshal(blocks)
	var fields map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	lists = map[string][]json.RawMessage{}
	for name, value := range fields {
		if err == nil && bytes.HasPrefix(value, []byte("[")) {
			var elements []json.RawMessage
			err = json.Unmarshal(value, &elements)
			lists[name] = elements
			delete(fields, name)
		}
	}
	if err == nil {
		rest, err = json.Marshal(fields)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encoding: %w", err)
	}
	return lists, rest, nil
}

// changes encodes the state as changes from the base, and returns the number of bytes that the changes take. It refuses
// a state that could not be read back unchanged.
func (b *base) changes(state State) (doc []byte, changedBytes int, err error) {
	c := delta{
		Base:  b.baseRef,
		State: state,
		Files: b.files.changes(state.Files),
		Lists: map[string][]run[json.RawMessage]{},
	}
	c.State.Files, c.State.Blocks = nil, nil
	// The parts that come from the base were validated when the base was created.
	err = c.State.validate()
	for _, r := range c.Files {
		err = errors.Join(err, validateFiles(r.New))
	}
	if state.Blocks != nil {
		err = errors.Join(err, state.Blocks.validate())
	}
	if err != nil {
		return nil, 0, err
	}
	lists, blocks, err := blockLists(state.Blocks)
	if err != nil {
		return nil, 0, err
	}
	c.Blocks = blocks
	for name, elements := range lists {
		from, ok := b.lists[name]
		if !ok {
			from = newList[json.RawMessage](nil, keyOfText, sameText)
		}
		c.Lists[name] = from.changes(elements)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return nil, 0, fmt.Errorf("encoding: %w", err)
	}
	rest, err := json.Marshal(c.State)
	if err != nil {
		return nil, 0, fmt.Errorf("encoding: %w", err)
	}
	doc, err = seal(formatChanges, payload, "")
	return doc, len(payload) - len(rest), err
}

// apply returns the state that results from applying the changes to the base.
func (b *base) apply(c *delta) (State, error) {
	state := c.State
	var err error
	if state.Files, err = apply(b.files.elements, c.Files); err != nil {
		return State{}, fmt.Errorf("files: %w", err)
	}
	for i := range state.Files { // later changes to the state must not change the base
		state.Files[i].Markers = slices.Clone(state.Files[i].Markers)
	}
	if c.Blocks == nil {
		return state, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(c.Blocks, &fields); err != nil || fields == nil {
		return State{}, fmt.Errorf("blocks: want an object: %w", err)
	}
	for name, runs := range c.Lists {
		elements, err := apply(b.lists[name].elements, runs)
		if err == nil {
			fields[name], err = json.Marshal(elements)
		}
		if err != nil {
			return State{}, fmt.Errorf("blocks: %s: %w", name, err)
		}
	}
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &state.Blocks)
	}
	if err != nil {
		return State{}, fmt.Errorf("blocks: %w", err)
	}
	return state, nil
}

// encodeWhole encodes the complete state. It refuses a state that could not be read back unchanged.
func encodeWhole(state State) ([]byte, error) {
	if err := state.validate(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	if len(payload) > maxDocument/2 { // the other half is for whitespace between tokens
		return nil, fmt.Errorf("encoding: %d files take %d bytes, at most %d can be read back", len(state.Files),
			len(payload), maxDocument/2)
	}
	return seal(formatWhole, payload, "  ")
}

// seal wraps a payload in a document with its checksum.
func seal(format int, payload []byte, indent string) ([]byte, error) {
	d := document{Format: format, CRC32C: checksum(payload), Checkpoint: payload}
	doc, err := json.Marshal(d)
	if indent != "" {
		doc, err = json.MarshalIndent(d, "", indent)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	return append(doc, '\n'), nil
}

// newerFormatError is the error for an intact checkpoint in a format that this parser does not know.
type newerFormatError struct{ format int }

func (e *newerFormatError) Error() string {
	return fmt.Sprintf("format %d was written by a newer hlparser, this one reads up to %d: "+
		"run that version, or put an older checkpoint back", e.format, formatChanges)
}

// unseal returns the content of a document whose checksum is right.
func unseal(doc []byte) (format int, payload []byte, sum string, err error) {
	if len(doc) > maxDocument {
		return 0, nil, "", fmt.Errorf("not a checkpoint: it has %d bytes, more than %d", len(doc), maxDocument)
	}
	var d document
	if err := json.Unmarshal(doc, &d); err != nil {
		return 0, nil, "", fmt.Errorf("not a checkpoint: %w", err)
	}
	if d.Format > formatChanges {
		return 0, nil, "", &newerFormatError{format: d.Format}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, d.Checkpoint); err != nil {
		return 0, nil, "", fmt.Errorf("not a checkpoint: %w", err)
	}
	if sum := checksum(compact.Bytes()); sum != d.CRC32C {
		return 0, nil, "", fmt.Errorf("checksum is %s, the file has %q", sum, d.CRC32C)
	}
	return d.Format, compact.Bytes(), d.CRC32C, nil
}

// decode returns the state of a slot's document, and the base that it refers to. The base is nil if the document is
// complete. findBase returns a base.
func decode(doc []byte, stream string, findBase func(baseRef) (*base, error)) (State, *base, error) {
	format, payload, _, err := unseal(doc)
	if err != nil {
		return State{}, nil, err
	}
	if format != formatChanges {
		state, err := decodeWhole(payload, stream)
		return state, nil, err
	}
	var c delta
	if err := json.Unmarshal(payload, &c); err != nil {
		return State{}, nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	b, err := findBase(c.Base)
	if err != nil {
		return State{}, nil, err
	}
	state, err := b.apply(&c)
	if err != nil {
		return State{}, nil, fmt.Errorf("not a checkpoint: %w", err)
	}
	return state, b, validateFor(&state, stream)
}

func decodeWhole(payload []byte, stream string) (State, error) {
	var state State
	if err := json.Unmarshal(payload, &state); err != nil {
		return State{}, fmt.Errorf("not a checkpoint: %w", err)
	}
	return state, validateFor(&state, stream)
}

func validateFor(state *State, stream string) error {
	if state.Stream != stream {
		return fmt.Errorf("it is the checkpoint of stream %q", state.Stream)
	}
	return state.validate()
}

// decodeBase returns the content of one copy of a base.
func decodeBase(doc []byte, stream string, ref baseRef) (*base, error) {
	format, payload, sum, err := unseal(doc)
	switch {
	case err != nil:
		return nil, err
	case format != formatWhole:
		return nil, fmt.Errorf("format %d is not a base", format)
	case sum != ref.CRC32C:
		return nil, fmt.Errorf("checksum is %s, the checkpoint requires %q", sum, ref.CRC32C)
	}
	state, err := decodeWhole(payload, stream)
	if err != nil {
		return nil, err
	}
	return newBase(ref, doc, state)
}

func checksum(p []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}
