package engine

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
)

// batchLines bounds how many batches per second are logged individually. Above it, the next line counts the omitted
// ones.
const batchLines = 10

// batchLog logs one line per batch, to observe the sizes of snapshots. One goroutine uses it.
type batchLog struct {
	log     *slog.Logger
	enabled bool
	second  time.Time
	count   int
	omitted int
}

func (b *batchLog) record(batch *buffer.Snapshot) {
	if !b.enabled || batch.Lines == 0 {
		return
	}
	if now := time.Now().Truncate(time.Second); !now.Equal(b.second) {
		b.second, b.count = now, 0
	}
	if b.count++; b.count > batchLines {
		b.omitted++
		return
	}
	text := fmt.Sprintf("Processing batch snapshot: %d lines (buffer cleared)", batch.Lines)
	if b.omitted > 0 {
		b.log.Info(text, "bytes", batch.Bytes, "batchesNotLogged", b.omitted)
	} else {
		b.log.Info(text, "bytes", batch.Bytes)
	}
	b.omitted = 0
}
