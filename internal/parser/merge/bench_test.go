package merge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// BenchmarkMerge measures what the order costs a record, with a destination that costs nothing: in streaming mode,
// with one record a line, and in by-block mode, with many.
func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct {
		name    string
		perLine int
		perSlot int // lines
	}{{"streaming", 1, 400}, {"by-block", 400, 1}} {
		b.Run(c.name, func(b *testing.B) { benchmark(b, c.perLine, c.perSlot) })
	}
}

type sinkholeOutput struct{ *sinkhole }

func (o sinkholeOutput) Open(context.Context, string, json.RawMessage) (sink.Sink, error) {
	return o.sinkhole, nil
}

// sinkhole acknowledges everything.
type sinkhole struct{ records int64 }

func (s *sinkhole) Close() error                                      { return nil }
func (s *sinkhole) Committed(context.Context) error                   { return nil }
func (s *sinkhole) Delivered() int64                                  { return s.records }
func (s *sinkhole) Flush(context.Context, bool) (sink.Flushed, error) { return sink.Flushed{}, nil }

func (s *sinkhole) Write(_ context.Context, b sink.Batch) error {
	s.records += int64(len(b.Records))
	return nil
}

func benchmark(b *testing.B, perLine, perSlot int) {
	const streams, size, linesPerBlock = 3, 400, 100
	sources := make([]Source, streams)
	names := make([]string, 0, streams+1)
	names = append(names, Stream)
	for i := range sources {
		sources[i] = Source{Name: fmt.Sprint("S", i), Kebab: fmt.Sprint("s", i)}
		names = append(names, sources[i].Kebab)
	}
	state, err := checkpoint.Acquire(b.Context(), vfs.OS, b.TempDir(), names, nil)
	if err != nil {
		b.Fatal(err)
	}
	hole := &sinkhole{}
	m := New(Options{
		Streams: sources, Patience: time.Hour, Output: sinkholeOutput{hole}, CloseTimeout: time.Second,
		Store: func() (*checkpoint.Store, error) { return state.Store(Stream) },
	})
	var wg sync.WaitGroup
	sinks := make([]sink.Sink, streams)
	for i, s := range sources {
		if sinks[i], err = m.Open(b.Context(), s.Kebab, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	for i, s := range sources {
		wg.Go(func() {
			file := position.FileID{Directory: s.Kebab, Date: "20260430", Hour: 8, Generation: "1a2b3c4d"}
			blockTime := []byte(`"2026-04-30T20:46:43.372877283"`)
			batch := sink.Batch{File: file, Data: bytes.Repeat([]byte("x"), size*perLine*perSlot),
				Records: make([]sink.Record, perLine*perSlot)}
			parts := make([]Part, perSlot)
			line := int64(0)
			for left := b.N / streams; left > 0; left -= perLine * perSlot {
				for p := range parts {
					block := 1 + line
					if perLine == 1 {
						block = 1 + line/linesPerBlock
					}
					parts[p] = Part{Offset: line * 1000, Block: block, Events: perLine, Last: int32(perLine - 1), End: true,
						Whole: perLine > 1, BlockTime: blockTime, LocalTime: blockTime}
					for r := range perLine {
						n := p*perLine + r
						batch.Records[n] = sink.Record{End: (n + 1) * size, Offset: line * 1000, Index: int32(r), Block: block}
					}
					line++
				}
				m.Expect(s.Kebab, parts)
				for _, w := range []sink.Batch{batch, {File: file}} {
					if err := sinks[i].Write(b.Context(), w); err != nil {
						b.Error(err)
						return
					}
				}
			}
			if _, err := sinks[i].Flush(b.Context(), true); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	for _, s := range sinks {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}
}
