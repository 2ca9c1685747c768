package file

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

const (
	partSuffix       = ".part"
	closedSuffix     = ".jsonl"
	zstdPartSuffix   = ".zst.part"
	zstdClosedSuffix = ".jsonl.zst"
)

// part is one file of the output.
type part struct {
	name   string // without suffix
	zstd   bool   // holds zstd frames, each of whole records
	length int64  // bytes of acknowledged records, as they are in the file
	since  time.Time

	file    vfs.File // nil when not open for writing; changed under stream.handles
	changes int      // counts what was done to the file
	synced  int      // the changes that are known to be durable
	ragged  bool     // the file may be longer than length

	// saves is how many checkpoints on disk record the part as complete, and
	// offered that the state last returned by Flush does.
	saves   int
	offered bool
}

// dirty tells that something was done to the file that may not be durable.
func (p *part) dirty() bool { return p.changes > p.synced }

// partName names a part after the position of its first record. The directory
// is part of it, because the same hour has files in a stream's other modes, and
// the generation, because a file may be created anew. Names sort by the hour
// first, then by the node's file, then by the place in it: a marker's negative
// index counts down from 99999 behind a "-", which sorts before any digit.
func partName(p checkpoint.Position) string {
	index := fmt.Sprintf("%06d", p.Index)
	if p.Index < 0 {
		index = fmt.Sprintf("-%05d", 100_000+p.Index)
	}
	return fmt.Sprintf("%s%015d-%s", filePrefix(p.File), p.Offset, index)
}

// filePrefix is how the names of all parts begin whose first record is of f.
func filePrefix(f checkpoint.FileID) string {
	return fmt.Sprintf("%s-%02d-%s-%s-", f.Date, f.Hour, f.Directory, f.Generation)
}

// begunIn tells whether the part's first record is of f.
func (p *part) begunIn(f checkpoint.FileID) bool { return strings.HasPrefix(p.name, filePrefix(f)) }

// openName is the part's file while it may grow.
func (p *part) openName() string {
	if p.zstd {
		return p.name + zstdPartSuffix
	}
	return p.name + partSuffix
}

// closedName is the part's file once it is closed.
func (p *part) closedName() string {
	if p.zstd {
		return p.name + zstdClosedSuffix
	}
	return p.name + closedSuffix
}

var partPattern = regexp.MustCompile(`^\d{8}-\d{2}-[^-/]+-[0-9a-f]{8}-\d{15,}-(-\d{5}|\d{6,})$`)

// isOurs tells whether this package gave a file its name, and closed whether it
// belongs to consumers.
func isOurs(file string) (ours, closed bool) {
	for _, suffix := range []string{partSuffix, zstdPartSuffix, closedSuffix, zstdClosedSuffix} {
		if name, ok := strings.CutSuffix(file, suffix); ok && partPattern.MatchString(name) {
			return true, suffix == closedSuffix || suffix == zstdClosedSuffix
		}
	}
	return false, false
}

// state is what the checkpoint keeps of a stream's output.
type state struct {
	Open     *openPart      `json:"open,omitempty"`
	Complete []completePart `json:"complete,omitempty"`
}

type openPart struct {
	Name  string    `json:"name"`
	Zstd  bool      `json:"zstd,omitempty"`
	Bytes int64     `json:"bytes"`
	Since time.Time `json:"since"`
}

type completePart struct {
	Name  string `json:"name"`
	Zstd  bool   `json:"zstd,omitempty"`
	Bytes int64  `json:"bytes"`
	// Saves counts the checkpoints that record the part as complete, this one
	// included.
	Saves int `json:"saves"`
}
