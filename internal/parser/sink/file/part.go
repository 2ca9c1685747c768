package file

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
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
	name   string // without its suffix
	zstd   bool   // holds zstd frames, each of whole records
	length int64  // bytes of acknowledged records, as they are in the file
	since  time.Time

	file     vfs.File // nil unless open for writing; changed under stream.handles
	changes  int      // counts changes of the file
	synced   int      // the value of changes up to which they are durable
	overlong bool     // the file may be longer than length

	// saves is the number of checkpoints on disk that list the part as complete. offered reports whether the state of
	// the last Flush does.
	saves   int
	offered bool
}

// dirty reports whether the file has changes that may not be durable.
func (p *part) dirty() bool { return p.changes > p.synced }

// partName names a part after the position of its first record. The name includes the directory, because a stream's
// other modes have files of the same hour, and the generation, because a file may be recreated. Names sort by hour,
// then by the node's file, then by the position in it. A marker's negative index counts down from 99999 after a "-",
// which sorts before any digit.
func partName(p position.Position) string {
	index := fmt.Sprintf("%06d", p.Index)
	if p.Index < 0 {
		index = fmt.Sprintf("-%05d", 100_000+p.Index)
	}
	return fmt.Sprintf("%s%015d-%s", filePrefix(p.File), p.Offset, index)
}

// filePrefix is the common prefix of the names of all parts whose first record is from f.
func filePrefix(f position.FileID) string {
	return fmt.Sprintf("%s-%02d-%s-%s-", f.Date, f.Hour, f.Directory, f.Generation)
}

// startsIn reports whether the part's first record is from f.
func (p *part) startsIn(f position.FileID) bool { return strings.HasPrefix(p.name, filePrefix(f)) }

// openName is the name of the part's file while it grows.
func (p *part) openName() string {
	if p.zstd {
		return p.name + zstdPartSuffix
	}
	return p.name + partSuffix
}

// closedName is the name of the part's file once it is closed.
func (p *part) closedName() string {
	if p.zstd {
		return p.name + zstdClosedSuffix
	}
	return p.name + closedSuffix
}

var partPattern = regexp.MustCompile(`^\d{8}-\d{2}-[a-z0-9_]+-[0-9a-f]{8}-\d{15,}-(-\d{5}|\d{6,})$`)

// classify reports whether this package gave a file its name, and whether the file is closed and so belongs to
// consumers.
func classify(file string) (ours, closed bool) {
	for _, suffix := range []string{partSuffix, zstdPartSuffix, closedSuffix, zstdClosedSuffix} {
		if name, ok := strings.CutSuffix(file, suffix); ok && partPattern.MatchString(name) {
			return true, suffix == closedSuffix || suffix == zstdClosedSuffix
		}
	}
	return false, false
}

// state is the sink's part of a stream's checkpoint.
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
	// Saves counts the checkpoints that list the part as complete, including this one.
	Saves int `json:"saves"`
}

// validate rejects a state that no parser wrote. A checkpoint may be damaged or forged, and the sink truncates and
// renames the files that it names.
func (st *state) validate() error {
	names := map[string]bool{}
	check := func(name string, bytes int64) error {
		switch {
		case !partPattern.MatchString(name):
			return fmt.Errorf("%q does not name a file of the output", name)
		case names[name]:
			return fmt.Errorf("%s is named twice", name)
		case bytes < 0:
			return fmt.Errorf("%s has a length of %d bytes", name, bytes)
		}
		names[name] = true
		return nil
	}
	if st.Open != nil {
		if err := check(st.Open.Name, st.Open.Bytes); err != nil {
			return err
		}
	}
	for _, c := range st.Complete {
		if err := check(c.Name, c.Bytes); err != nil {
			return err
		}
		if c.Saves < 1 {
			return fmt.Errorf("%s is listed as complete by %d checkpoints", c.Name, c.Saves)
		}
	}
	return nil
}
