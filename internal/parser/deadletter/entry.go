package deadletter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

const (
	// inlineBytes is the maximum length of the bytes that an entry holds.
	inlineBytes = 1 << 20
	// reasonBytes is the maximum length of the reason that an entry holds, in bytes.
	reasonBytes = 1 << 10
	// reasonFlood is the reason of an entry that counts what followed after the share of one commit was written.
	reasonFlood = "over the limit between two commits: counted, not kept"
)

// run is the entry that is being built: adjacent lines or records with one reason, or a flood with any reasons. Its
// first and last positions and its count identify them exactly.
type run struct {
	firstTime   time.Time
	reason      string
	first, last position.Position
	lineBytes   int64 // length of the first line
	end         int64 // offset after the last line
	count       int64 // 0 means that there is no run
	totalBytes  int64 // of all lines or records
	kept        []byte
	byReference bool // the entry refers to the line instead of holding the bytes
	flood       bool // counts everything and keeps no bytes
}

func newRun(e Entry) run {
	r := run{
		firstTime:   time.Now().UTC(),
		reason:      e.Reason,
		first:       e.Position,
		lineBytes:   e.LineBytes,
		byReference: len(e.Bytes) > inlineBytes,
	}
	if len(r.reason) > reasonBytes {
		r.reason = strings.ToValidUTF8(r.reason[:reasonBytes], "") + "…"
	}
	if !r.byReference {
		r.kept = slices.Clone(e.Bytes)
	}
	r.add(e)
	return r
}

// accepts reports whether e belongs to the run, as the next event of the same line or as the next line.
func (r *run) accepts(e Entry) bool {
	if r.count == 0 || r.flood {
		return r.flood
	}
	p := e.Position
	next := p.Offset == r.end && p.Index == 0 || p.Offset == r.last.Offset && p.Index == r.last.Index+1
	return next && p.File == r.last.File && e.Reason == r.reason
}

func (r *run) add(e Entry) {
	r.last, r.end = e.Position, e.Position.Offset+e.LineBytes
	r.count++
	r.totalBytes += int64(len(e.Bytes))
}

// overflow turns the run into a flood.
func (r *run) overflow() {
	r.flood, r.byReference, r.kept, r.reason = true, true, nil, reasonFlood
}

// entry is a line of the file. Exactly one of Bytes, Base64 and Line is set.
type entry struct {
	// Count is the number of lines and records. Absent means 1. It comes first because countOf reads only a prefix.
	Count    int64     `json:"count,omitempty"`
	Time     time.Time `json:"time"`
	Position string    `json:"position"`
	// Last and TotalBytes are set for a run of more than one.
	Last       string  `json:"last,omitempty"`
	TotalBytes int64   `json:"totalBytes,omitempty"`
	Reason     string  `json:"reason"`
	Bytes      *string `json:"bytes,omitempty"`
	Base64     *string `json:"base64,omitempty"`
	Line       *line   `json:"line,omitempty"`
}

// line refers to a line in the node's file.
type line struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
}

// encode returns the run's entry. If the entry is longer than limit bytes, it refers to the line instead of holding the
// bytes, because it could never be kept otherwise.
func (r *run) encode(limit int64) ([]byte, error) {
	out := entry{Time: r.firstTime, Position: r.first.String(), Reason: r.reason}
	if r.count > 1 {
		out.Count, out.Last, out.TotalBytes = r.count, r.last.String(), r.totalBytes
	}
	reference := &line{File: r.first.File.String(), Offset: r.first.Offset, Length: r.lineBytes}
	switch {
	case r.byReference:
		out.Line = reference
	case utf8.Valid(r.kept):
		text := string(r.kept)
		out.Bytes = &text
	default:
		text := base64.StdEncoding.EncodeToString(r.kept)
		out.Base64 = &text
	}
	encoded, err := encode(out)
	if err == nil && int64(len(encoded)) > limit {
		out.Bytes, out.Base64, out.Line = nil, nil, reference
		encoded, err = encode(out)
	}
	return encoded, err
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return buf.Bytes(), err
}
