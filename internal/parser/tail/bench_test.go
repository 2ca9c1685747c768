package tail

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/buffer"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// BenchmarkRead measures the reader alone, from the page cache. The "bare" case reads the same size without it.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct {
		mode config.Mode
		line int
	}{{config.Line, 480}, {config.ByBlock, 365_000}} {
		b.Run(fmt.Sprintf("%s/%d", c.mode, c.line), func(b *testing.B) {
			line := append(bytes.Repeat([]byte("x"), c.line-1), '\n')
			data := bytes.Repeat(line, 64<<20/c.line)
			d := newDisk(b)
			d.append("node_fills/20260430/8", string(data))
			opt := newSetup(d, func(o *Options) { o.Directories[0].Mode = c.mode })
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r := open(b, opt, nil)
				f := r.tail.dirs[0].files[0]
				d.noError(r.tail.openFile(f))
				for f.limit() > f.scanned {
					d.noError(r.tail.readBlock(b.Context(), r.tail.dirs[0], f))
					batch := r.buf.Swap()
					for _, block := range batch.Blocks() {
						r.buf.Release(block)
					}
					r.buf.Recycle(batch)
				}
				r.tail.Close()
			}
		})
	}
	b.Run("bare", func(b *testing.B) {
		d := newDisk(b)
		d.append("node_fills/20260430/8", string(make([]byte, 64<<20)))
		memory := make([]byte, buffer.BlockSize)
		b.SetBytes(64 << 20)
		for b.Loop() {
			h, err := os.Open(d.path("node_fills/20260430/8"))
			d.noError(err)
			for at := int64(0); at < 64<<20; at += buffer.BlockSize {
				if _, err := h.ReadAt(memory, at); err != nil {
					b.Fatal(err)
				}
			}
			d.noError(h.Close())
		}
	})
}
