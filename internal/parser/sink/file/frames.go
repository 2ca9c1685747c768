package file

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// maxFrameBytes is the most that one frame holds before compression, unless
	// one record is longer, and so what each stream keeps in memory. A longer
	// frame compresses hardly better.
	maxFrameBytes = 1 << 20
	// frameOverhead is the most by which a frame of maxFrameBytes can be longer
	// than what is in it: its header, a checksum, and 3 bytes for each 128 KiB.
	frameOverhead = 64
)

// newEncoder returns what all streams of an output compress with, one at a time:
// some 2 MiB once for the process, and no goroutine. On this text the fastest level
// packs as well as the next one, in two thirds of the time.
func newEncoder() (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxFrameBytes),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("make the zstd encoder: %w", err)
	}
	return e, nil
}

// frameBytes is how much a frame takes before compression. Even what does not
// compress then fits in an empty part.
func (o Options) frameBytes() int64 {
	if o.MaxBytes == 0 {
		return maxFrameBytes
	}
	return min(maxFrameBytes, max(1, o.MaxBytes-frameOverhead))
}

// frames compresses records.
type frames struct {
	encoder *zstd.Encoder
	// pending is acknowledged and not yet compressed: one batch, in which all
	// records together stand as one, since no part may begin between them.
	pending sink.Batch
	out     []byte // the last frame; reused
}

// encode returns data as one frame, good until the next call.
func (f *frames) encode(data []byte) []byte {
	if cap(f.out) > maxFrameBytes {
		f.out = nil // it was for one long record
	}
	f.out = f.encoder.EncodeAll(data, f.out[:0])
	return f.out
}

// gather takes b into the frame, or ends the frame and starts one with b, or
// writes a long b at once. An error leaves all of b out.
func (s *stream) gather(b sink.Batch) error {
	room := s.opts.frameBytes() - int64(len(s.pending.Data))
	if len(s.pending.Data) > 0 && (int64(len(b.Data)) > room || s.opts.Hourly && s.pending.File != b.File) {
		if err := s.endFrame(); err != nil {
			return err
		}
	}
	if int64(len(b.Data)) > s.opts.frameBytes() {
		return s.deliver(b)
	}
	if len(s.pending.Data) == 0 {
		first := b.Records[0]
		s.pending = sink.Batch{File: b.File, Data: s.pending.Data, Records: []sink.Record{first}}
	}
	s.pending.Data = append(s.pending.Data, b.Data...)
	s.pending.Records[0].End = len(s.pending.Data)
	return nil
}

// endFrame writes what was gathered. After an error it is still gathered. When
// there is nothing it lets go of the memory: the stream is idle.
func (s *stream) endFrame() error {
	if len(s.pending.Data) == 0 {
		s.pending.Data, s.out = nil, nil
		return nil
	}
	if err := s.deliver(s.pending); err != nil {
		return err
	}
	s.pending.Data = s.pending.Data[:0]
	return nil
}
