package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// The bare loop searches for the coin's name first: its letters are rare in a line, so the search is fast. Unlike the
// filter it accepts the bytes anywhere in the line.
const (
	coinName = `BTC"`
	coinKey  = `"coin":"`
)

const page = 4 << 10

// bareLoop is the minimum of any parser: read, search, write in order with two workers, sync. It has no positions, torn
// lines, growing files or JSON, so nothing that has them can be faster.
func bareLoop(from, to string) error {
	const (
		workers = 2
		chunk   = 256 << 10
		ahead   = page // for the end of the last line; longer lines grow the buffer
	)
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("opening the input: %w", err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("reading the size of the input: %w", err)
	}
	out, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("creating the output: %w", err)
	}
	chunks := (info.Size() + chunk - 1) / chunk
	turns := make([]chan struct{}, chunks+1) // turns[i] is closed when chunk i may be written
	for i := range turns {
		turns[i] = make(chan struct{})
	}
	close(turns[0])

	var taken atomic.Int64
	var failed [workers]error
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			memory, found := make([]byte, page+chunk+ahead), make([]byte, 0, chunk)
			for i := taken.Add(1) - 1; i < chunks; i = taken.Add(1) - 1 {
				lines, err := linesOf(in, &memory, i*chunk, chunk)
				found = search(found[:0], lines)
				<-turns[i]
				if err == nil && len(found) > 0 {
					_, err = out.Write(found)
				}
				failed[w] = errors.Join(failed[w], err)
				close(turns[i+1])
			}
		})
	}
	group.Wait()
	return errors.Join(failed[0], failed[1], out.Sync(), out.Close())
}

// linesOf returns the lines that start in the size bytes at offset at. The file ends with a newline.
func linesOf(in *os.File, memory *[]byte, at, size int64) ([]byte, error) {
	// The byte before the chunk determines whether a line starts there. Reading from the start of a page is cheaper.
	from := max(at-page, 0)
	for {
		n, err := in.ReadAt(*memory, from)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading the input: %w", err)
		}
		data := (*memory)[:n]
		begin := 0
		if at > 0 {
			before := int(at - from - 1)
			begin = before + bytes.IndexByte(data[before:], '\n') + 1
		}
		last := int(at + size - 1 - from) // last byte of the chunk
		if last >= n {
			last = n - 1
		}
		if at > 0 && begin < int(at-from) || begin > last {
			return nil, nil // an earlier line spans the whole chunk
		}
		if end := bytes.IndexByte(data[last:], '\n'); end >= 0 {
			return data[begin : last+end+1], nil
		}
		*memory = make([]byte, 2*len(*memory))
	}
}

// search appends the lines that contain the coin.
func search(found, lines []byte) []byte {
	for from := 0; ; {
		i := bytes.Index(lines[from:], []byte(coinName))
		if i < 0 {
			return found
		}
		if from += i; !bytes.HasSuffix(lines[:from], []byte(coinKey)) {
			from++
			continue
		}
		begin := bytes.LastIndexByte(lines[:from], '\n') + 1
		end := from + bytes.IndexByte(lines[from:], '\n') + 1
		found = append(found, lines[begin:end]...)
		lines, from = lines[end:], 0
	}
}
