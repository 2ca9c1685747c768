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
	partSuffix   = ".part"
	closedSuffix = ".jsonl"
)

// part is one file of the output.
type part struct {
	name   string // without suffix
	length int64  // bytes of acknowledged records
	since  time.Time

	file   vfs.File // nil when not open for writing
	dirty  bool     // changed since the last sync
	ragged bool     // the file may be longer than length

	// saves is how many checkpoints on disk record the part as complete, and
	// offered that the state last returned by Flush does.
	saves   int
	offered bool
}

// partName names a part after the position of its first record. The directory
// is part of it, because the same hour has files in a stream's other modes, and
// the generation, because a file may be created anew. Names sort by the hour
// first, then by the node's file, then by the place in it.
func partName(p checkpoint.Position) string {
	f := p.File
	return fmt.Sprintf("%s-%02d-%s-%s-%015d-%06d", f.Date, f.Hour, f.Directory, f.Generation, p.Offset, p.Index)
}

var partPattern = regexp.MustCompile(`^\d{8}-\d{2}-[^-/]+-[0-9a-f]{8}-\d{15,}-\d{6,}$`)

// cutName splits a file's name if this package gave it.
func cutName(file string) (name, suffix string, ours bool) {
	for _, suffix := range []string{partSuffix, closedSuffix} {
		if name, ok := strings.CutSuffix(file, suffix); ok && partPattern.MatchString(name) {
			return name, suffix, true
		}
	}
	return "", "", false
}

// state is what the checkpoint keeps of a stream's output.
type state struct {
	Open     *openPart      `json:"open,omitempty"`
	Complete []completePart `json:"complete,omitempty"`
}

type openPart struct {
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"`
	Since time.Time `json:"since"`
}

type completePart struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	// Saves counts the checkpoints that record the part as complete, this one
	// included.
	Saves int `json:"saves"`
}
