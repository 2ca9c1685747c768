package file

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

const (
	// maxFrameBytes is the most that one frame holds before compression, unless one record is longer. It bounds the
	// memory of each stream. A longer frame hardly compresses better.
	maxFrameBytes = 1 << 20
	// frameOverhead is the most by which a frame of maxFrameBytes exceeds its content: its header, a checksum, and 3
	// bytes per 128 KiB.
	frameOverhead = 64
)

// newEncoder returns the encoder that all streams of an output share, one call at a time. It takes about 2 MiB once per
// process, and no goroutine. On this text the fastest level compresses as well as the next one, in two thirds of the
// time.
func newEncoder() (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxFrameBytes),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("making the zstd encoder: %w", err)
	}
	return e, nil
}

// frameBytes is the size of a full frame before compression. Even incompressible records of that size fit in an empty
// part.
func (o Options) frameBytes() int64 {
	if o.MaxBytes == 0 {
		return maxFrameBytes
	}
	return min(maxFrameBytes, max(1, o.MaxBytes-frameOverhead))
}

// frames buffers and compresses records.
type frames struct {
	encoder *zstd.Encoder
	// pending holds acknowledged records that are not compressed yet, as one batch with a single entry in Records,
	// because no part may begin between them.
	pending sink.Batch
	out     []byte // the last frame; its memory is reused
}

// encode returns data as one frame. The result is valid until the next call.
func (f *frames) encode(data []byte) []byte {
	if cap(f.out) > maxFrameBytes {
		f.out = nil // it was sized for one long record
	}
	f.out = f.encoder.EncodeAll(data, f.out[:0])
	return f.out
}

// buffer appends b to the pending frame, or ends that frame and starts another with b. It writes a b longer than a
// frame directly. After an error, none of b is buffered.
func (s *stream) buffer(b sink.Batch) error {
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

// endFrame writes the pending records. After an error they stay pending. If there are none, the stream is idle, and
// endFrame releases the memory.
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
