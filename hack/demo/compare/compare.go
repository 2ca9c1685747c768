// Package compare compares what a Hyperliquid node wrote with what a parser delivered into files, event by event. It
// shares no code with the parser: lines are split at newlines and decoded with encoding/json.
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

// Result is the result of one or more comparisons.
type Result struct {
	// Events is the number of events that the node wrote.
	Events int64
	// Lost is the number of events that were written and not delivered.
	Lost int64
	// Duplicated is the number of deliveries of an event after its first.
	Duplicated int64
	// Foreign is the number of delivered events that were never written, or not byte for byte.
	Foreign int64
	// Disordered is the number of events delivered after a later event of the same file.
	Disordered int64
	// Examples describes a few of the deviations.
	Examples []string
}

// Add adds another result to r.
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

// Exact reports whether every event was delivered once and in order, and nothing else was delivered.
func (r *Result) Exact() bool {
	return r.Lost == 0 && r.Duplicated == 0 && r.Foreign == 0 && r.Disordered == 0
}

func (r *Result) example(format string, args ...any) {
	const maxExamples = 10
	if len(r.Examples) < maxExamples {
		r.Examples = append(r.Examples, fmt.Sprintf(format, args...))
	}
}

// place is the position of a written event.
type place struct {
	file, number int32
	delivered    int32
}

// Stream compares one source below a node's data directory with the enveloped records in a directory of the file sink,
// both closed and open files.
func Stream(dataDir string, src gen.Source, outDir string) (Result, error) {
	var result Result
	written, names, err := readWritten(dataDir, src)
	if err != nil {
		return result, err
	}
	result.Events = int64(len(written))

	last := make([]int32, len(names)) // by file: the number of the last delivered event, plus one
	err = eachRecord(outDir, func(file string, line []byte) error {
		var record struct{ Event json.RawMessage }
		if err := json.Unmarshal(line, &record); err != nil || record.Event == nil {
			return fmt.Errorf("decoding %s: not an enveloped record: %.200q", file, line)
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
			result.example("%s: event %d of %s was delivered after event %d", src, at.number, names[at.file], last[at.file]-1)
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

// readWritten returns the place of every event by its hash, and the names of the files.
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
				return fmt.Errorf("decoding %s: %w", name, err)
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
		return nil, nil, fmt.Errorf("reading what the node wrote: %w", err)
	}
	return written, names, nil
}

// Count returns the number of records in a directory of the file sink. It is cheap, and shows when a comparison makes
// sense.
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

// eachRecord reads the files of a directory of the file sink. Their names sort by position.
func eachRecord(outDir string, do func(file string, line []byte) error) error {
	entries, err := os.ReadDir(outDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what was delivered: %w", err)
	}
	for _, e := range entries {
		stem, open := strings.CutSuffix(e.Name(), openSuffix)
		if !open && !strings.HasSuffix(e.Name(), closedSuffix) {
			continue
		}
		each := func(line []byte) error { return do(e.Name(), line) }
		err := eachLine(filepath.Join(outDir, e.Name()), each)
		if open && errors.Is(err, fs.ErrNotExist) {
			err = eachLine(filepath.Join(outDir, stem+closedSuffix), each) // it was closed meanwhile
		}
		if err != nil {
			return fmt.Errorf("reading what was delivered: %w", err)
		}
	}
	return nil
}

// eachLine requires whole lines. A torn line at the end is an error, because both sides are at rest.
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
