package engine

import (
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// maxCounts bounds the files whose counts are remembered.
const maxCounts = 4

// counts are the counts after the newest lines of recently read files, the newest first. A file that begins within the
// block in which the one before it ends continues the count. In streaming mode they number the events of a block.
type counts []fileCount

type fileCount struct {
	file  position.FileID
	count hyperliquid.BlockCount
}

// of returns the count at the end of what is known of a file.
func (c counts) of(file position.FileID) hyperliquid.BlockCount {
	for i := range c {
		if c[i].file == file {
			return c[i].count
		}
	}
	if len(c) > 0 {
		return c[0].count
	}
	return hyperliquid.BlockCount{}
}

// set sets the count of a file, which becomes the newest.
func (c *counts) set(file position.FileID, count hyperliquid.BlockCount) {
	i := slices.IndexFunc(*c, func(f fileCount) bool { return f.file == file })
	switch {
	case i < 0 && len(*c) < maxCounts:
		i = len(*c)
		*c = append(*c, fileCount{})
	case i < 0:
		i = len(*c) - 1
	}
	copy((*c)[1:i+1], (*c)[:i])
	(*c)[0] = fileCount{file, count}
}

// checkpoint returns what a checkpoint records of c.
func (c counts) checkpoint() []checkpoint.Count {
	if len(c) == 0 {
		return nil
	}
	out := make([]checkpoint.Count, 0, len(c))
	for _, f := range c {
		out = append(out, checkpoint.Count{FileID: f.file, Block: f.count.Block, Events: f.count.Events})
	}
	return out
}

// newCounts restores the counts of a checkpoint.
func newCounts(saved []checkpoint.Count) counts {
	saved = saved[:min(len(saved), maxCounts)]
	c := make(counts, 0, len(saved))
	for _, s := range saved {
		c = append(c, fileCount{s.FileID, hyperliquid.BlockCount{Block: s.Block, Events: s.Events}})
	}
	return c
}
