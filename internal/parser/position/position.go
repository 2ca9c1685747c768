// Package position identifies the node's files, one incarnation of an hourly file each, and the events in them: by the
// byte offset of the line, and the event's index in it.
package position

import (
	"fmt"
	"strconv"
	"strings"
)

// FileID identifies one incarnation of one of the node's files.
type FileID struct {
	// Directory is the folder in the node's data directory, such as "node_fills_by_block". It consists of lower-case
	// letters, digits and "_".
	Directory string `json:"directory"`
	// Date is the UTC date of the file, as YYYYMMDD.
	Date string `json:"date"`
	// Hour is the UTC hour of the day, 0 to 23.
	Hour int `json:"hour"`
	// Generation is 8 hex digits of a hash of the first KiB of the file's first line, or of the whole line if it is
	// shorter. It distinguishes a file that was recreated at the same path from the previous one. It is empty while the
	// file has no complete line.
	Generation string `json:"generation"`
}

// String returns the file as "node_fills_by_block/20260430/20@1a2b3c4d".
func (f FileID) String() string {
	return fmt.Sprintf("%s/%s/%d@%s", f.Directory, f.Date, f.Hour, f.Generation)
}

// ParseFileID parses the result of FileID.String. The error names what is wrong.
func ParseFileID(s string) (FileID, error) {
	path, generation, ok := strings.Cut(s, "@")
	parts := strings.Split(path, "/")
	if !ok || len(parts) != 3 {
		return FileID{}, fmt.Errorf("file %q: want directory/YYYYMMDD/hour@generation", s)
	}
	hour, err := strconv.Atoi(parts[2])
	if err != nil {
		return FileID{}, fmt.Errorf("file %q: hour: %w", s, err)
	}
	f := FileID{Directory: parts[0], Date: parts[1], Hour: hour, Generation: generation}
	if err := f.Validate(); err != nil {
		return FileID{}, err
	}
	return f, nil
}

// Validate ensures that String joins the parts unambiguously, and that the names made from a FileID stay in their
// directory. The parts come from a checkpoint, which may be forged.
func (f FileID) Validate() error {
	switch {
	case f.Directory == "" || strings.Trim(f.Directory, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
		return fmt.Errorf("file %q: directory %q: want lower-case letters, digits and _", f, f.Directory)
	case !digits(f.Date, 8):
		return fmt.Errorf("file %q: date %q: want YYYYMMDD", f, f.Date)
	case f.Hour < 0 || f.Hour > 23:
		return fmt.Errorf("file %q: hour %d: want 0 to 23", f, f.Hour)
	case f.Generation != "" && !hexDigits(f.Generation, 8):
		return fmt.Errorf("file %q: generation %q: want 8 lower-case hex digits", f, f.Generation)
	}
	return nil
}

func digits(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789") == ""
}

func hexDigits(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// Position identifies one event: the byte offset of its line in the file, and its index in the line, which is 0 in line
// mode.
type Position struct {
	File   FileID
	Offset int64
	Index  int
}

// String returns the position as "<file>:<offset>:<index>".
func (p Position) String() string {
	return fmt.Sprintf("%s:%d:%d", p.File, p.Offset, p.Index)
}

// Parse parses the result of Position.String. The error names what is wrong.
func Parse(s string) (Position, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return Position{}, fmt.Errorf("position %q: want file:offset:index", s)
	}
	file, err := ParseFileID(parts[0])
	if err != nil {
		return Position{}, fmt.Errorf("position %q: %w", s, err)
	}
	offset, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || offset < 0 {
		return Position{}, fmt.Errorf("position %q: offset %q: want a number of bytes", s, parts[1])
	}
	index, err := strconv.Atoi(parts[2])
	if err != nil || index < 0 {
		return Position{}, fmt.Errorf("position %q: index %q: want a number from 0", s, parts[2])
	}
	return Position{File: file, Offset: offset, Index: index}, nil
}
