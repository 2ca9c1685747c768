// Package compare holds what a Hyperliquid node wrote against what a parser
// delivered of it into files, event by event. It shares no code with the parser:
// lines are split at newlines and decoded with encoding/json.
package compare

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

// Result of one or more comparisons.
type Result struct {
	// Events were written by the node.
	Events int64
	// Lost were written and not delivered.
	Lost int64
	// Duplicated counts deliveries of an event after its first.
	Duplicated int64
	// Foreign were delivered and never written, or not byte for byte.
	Foreign int64
	// Disordered were delivered after an event that stands behind them in the same file.
	Disordered int64
	// Examples of what is wrong, a few.
	Examples []string
}

// Add puts another result to this one.
func (r *Result) Add(other Result) {
	r.Events += other.Events
	r.Lost += other.Lost
	r.Duplicated += other.Duplicated
	r.Foreign += other.Foreign
	r.Disordered += other.Disordered
	for _, e := range other.Examples {
		r.example("%s", e)
	}
}

// Exact is true if every event was delivered once, in order, and nothing else.
func (r *Result) Exact() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Foreign == 0 && r.Disordered == 0
}

func (r *Result) example(format string, args ...any) {
	const enough = 10
	if len(r.Examples) < enough {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// place is where an event was written.
type place struct {
	file, number int32
	delivered    int32
}

// Stream compares one source below a node's data directory with the enveloped
// records in a directory of the file sink, closed files and the open one.
func Stream(dataDir string, src gen.Source, outDir string) (Result, error) {
	var result Result
	written, names, err := readWritten(dataDir, src)
	if err != nil {
		return result, err
	}
	result.Events = int64(len(written))

	last := make([]int32, len(names)) // by file: the number of the event delivered last, plus one
	err = eachRecord(outDir, func(file string, line []byte) error {
		var record struct{ Event json.RawMessage }
		if err := json.Unmarshal(line, &record); err != nil || record.Event == nil {
			return fmt.Errorf("%s holds what is no enveloped record: %.200q", file, line)
		}
		at := written[sha256.Sum256(record.Event)]
		switch {
		case at == nil:
			result.Foreign++
			result.example("%s %s: never written: %.200s", src, file, record.Event)
			return nil
		case at.delivered > 0:
			result.Duplicated++
			result.example("%s: delivered again in %s: event %d of %s", src, file, at.number, names[at.file])
		case at.number < last[at.file]:
			result.Disordered++
			result.example("%s: event %d of %s came after event %d", src, at.number, names[at.file], last[at.file]-1)
		default:
			last[at.file] = at.number + 1
		}
		at.delivered++
		return nil
	})
	if err != nil {
		return result, err
	}
	for _, at := range written {
		if at.delivered == 0 {
			result.Lost++
			result.example("%s: not delivered: event %d of %s", src, at.number, names[at.file])
		}
	}
	return result, nil
}

// readWritten gives the place of every event by its hash, and the files' names.
func readWritten(dataDir string, src gen.Source) (map[[sha256.Size]byte]*place, []string, error) {
	written := map[[sha256.Size]byte]*place{}
	var names []string
	root := filepath.Join(dataDir, filepath.FromSlash(src.Dir()))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dataDir, path)
		if err != nil {
			return err
		}
		names = append(names, name)
		number := int32(0)
		add := func(event []byte) error {
			sum := sha256.Sum256(event)
			if written[sum] != nil {
				return fmt.Errorf("%s holds an event twice: %.200s", name, event)
			}
			written[sum] = &place{file: int32(len(names) - 1), number: number}
			number++
			return nil
		}
		return eachLine(path, func(line []byte) error {
			if src.Mode == gen.Line {
				return add(line)
			}
			var envelope struct{ Events []json.RawMessage }
			if err := json.Unmarshal(line, &envelope); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, event := range envelope.Events {
				if err := add(event); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read what the node wrote: %w", err)
	}
	return written, names, nil
}

// Count says how many records a directory of the file sink holds: cheap, and
// enough to know when a comparison is worth its while.
func Count(outDir string) (int64, error) {
	var n int64
	err := eachRecord(outDir, func(string, []byte) error {
		n++
		return nil
	})
	return n, err
}

// Suffixes of the file sink's files.
const (
	closedSuffix = ".jsonl"
	openSuffix   = ".part"
)

// eachRecord reads the files of a directory of the file sink; their names sort
// by position.
func eachRecord(outDir string, do func(file string, line []byte) error) error {
	entries, err := os.ReadDir(outDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was delivered: %w", err)
	}
	for _, e := range entries {
		stem, open := strings.CutSuffix(e.Name(), openSuffix)
		if !open && !strings.HasSuffix(e.Name(), closedSuffix) {
			continue
		}
		each := func(line []byte) error { return do(e.Name(), line) }
		err := eachLine(filepath.Join(outDir, e.Name()), each)
		if open && errors.Is(err, fs.ErrNotExist) {
			err = eachLine(filepath.Join(outDir, stem+closedSuffix), each) // closed just now
		}
		if err != nil {
			return fmt.Errorf("read what was delivered: %w", err)
		}
	}
	return nil
}

// eachLine insists on whole lines: a file that ends in the middle of one is an
// error, since both sides have come to rest.
func eachLine(path string, do func(line []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s ends in a torn line", path)
		case err != nil:
			return err
		}
		if err := do(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return err
		}
	}
}
