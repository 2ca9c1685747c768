package buffer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

const mib = 1 << 20

// fill returns a block of n numbered lines, starting with number first.
func fill(t testing.TB, b *Buffer, first, n int) *Block {
	t.Helper()
	block, err := b.Get(context.Background(), 16*n)
	if err != nil {
		t.Fatal(err)
	}
	data := block.Memory()[:0]
	for i := range n {
		data = fmt.Appendf(data, "%d\n", first+i)
	}
	block.Data, block.Lines = data, n
	return block
}

// numbers returns the line numbers that fill wrote.
func numbers(t testing.TB, s *Snapshot) []int {
	t.Helper()
	var out []int
	for _, block := range s.Blocks() {
		for line := range bytes.Lines(block.Data) {
			var n int
			if _, err := fmt.Sscanf(string(line), "%d\n", &n); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			out = append(out, n)
		}
	}
	return out
}

func TestTheLiveBufferIsEmptyAfterTheSwapAndDuringProcessing(t *testing.T) {
	b := NewBudget(32*mib, 1).NewBuffer()
	b.Append(fill(t, b, 0, 1174))

	snapshot := b.Swap()
	if got := b.Stats(); got.Lines != 0 || got.Bytes != 0 {
		t.Fatalf("after the swap the live buffer holds %d lines, %d bytes; want none", got.Lines, got.Bytes)
	}
	if got := b.Stats(); got.InFlightLines != 1174 || got.LastBatchLines != 1174 || got.Swaps != 1 {
		t.Fatalf("after the swap: %+v; want 1174 lines in flight in batch 1", got)
	}

	// Lines that arrive during processing go to the next batch only.
	b.Append(fill(t, b, 1174, 3))
	if got := numbers(t, snapshot); len(got) != 1174 {
		t.Fatalf("the snapshot grew to %d lines while it was processed", len(got))
	}
	if got := b.Stats().Lines; got != 3 {
		t.Fatalf("the live buffer holds %d lines; want the 3 that arrived during processing", got)
	}
	for _, block := range snapshot.Blocks() {
		b.Release(block)
	}
	b.Recycle(snapshot)
	if got := numbers(t, b.Swap()); !slices.Equal(got, []int{1174, 1175, 1176}) {
		t.Fatalf("the next batch is %v; want 1174 to 1176", got)
	}
	if got := b.Stats().InFlightLines; got != 3 {
		t.Fatalf("%d lines in flight; want 3", got)
	}
}

func TestAnEmptySwapIsNotABatch(t *testing.T) {
	b := NewBudget(32*mib, 1).NewBuffer()
	s := b.Swap()
	if len(s.Blocks()) != 0 || b.Stats().Swaps != 0 {
		t.Fatalf("an empty swap took %d blocks and counted %d batches; want none", len(s.Blocks()), b.Stats().Swaps)
	}
}

// Every schedule of appends and swaps delivers every line exactly once and in order.
func TestNoLineIsLostOrDuplicatedUnderRandomSchedules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 60).Draw(t, "lines of each block")
		pause := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 20).Draw(t, "yields between swaps")
		budget := NewBudget(4*mib, rapid.IntRange(1, 7).Draw(t, "streams"))
		b := budget.NewBuffer()
		total := 0
		for _, n := range blocks {
			total += n
		}
		var reader sync.WaitGroup
		reader.Go(func() {
			next := 0
			for _, n := range blocks {
				block, err := b.Get(context.Background(), 16*n)
				if err != nil {
					panic(err)
				}
				data := block.Memory()[:0]
				for range n {
					data = binary.BigEndian.AppendUint64(data, uint64(next))
					next++
				}
				block.Data, block.Lines = data, n
				b.Append(block)
			}
		})
		want := uint64(0)
		for i := 0; want < uint64(total); i++ {
			s := b.Swap()
			lines := 0
			for _, block := range s.Blocks() {
				for data := block.Data; len(data) > 0; data = data[8:] {
					if got := binary.BigEndian.Uint64(data); got != want {
						t.Fatalf("got line %d, want %d", got, want)
					}
					want++
					lines++
				}
				b.Release(block)
			}
			if int64(lines) != s.Lines {
				t.Fatalf("a snapshot of %d lines reports %d", lines, s.Lines)
			}
			b.Recycle(s)
			for range pause[i%len(pause)] {
				runtime.Gosched()
			}
		}
		reader.Wait()
		if got := b.Stats(); got.Lines != 0 || got.InFlightLines != 0 || got.InFlightBytes != 0 {
			t.Fatalf("at the end the buffer reports %+v; want no lines", got)
		}
	})
}

// A block that a snapshot holds must not be given to the reader: its content would change during processing.
func TestABlockIsNotReusedWhileASnapshotHoldsIt(t *testing.T) {
	budget := NewBudget(8*mib, 1)
	b := budget.NewBuffer()
	b.Append(fill(t, b, 0, 100))
	s := b.Swap()
	held := s.Blocks()[0]
	memory := &held.Memory()[0]
	for range 200 {
		block := b.TryGet(BlockSize)
		if block == nil {
			break
		}
		if &block.Memory()[0] == memory {
			t.Fatal("the reader got memory that a snapshot holds")
		}
		for i := range block.Memory() {
			block.Memory()[i] = 'x'
		}
		b.Append(block)
	}
	if got := numbers(t, s); len(got) != 100 || got[99] != 99 {
		t.Fatalf("the snapshot's lines changed: %v", got)
	}
	b.Release(held)
	again := b.TryGet(BlockSize)
	for tries := 0; again == nil && tries < 2; tries++ {
		for _, block := range b.Swap().Blocks() {
			b.Release(block)
		}
		again = b.TryGet(BlockSize)
	}
	if again == nil {
		t.Fatal("releasing a block made no room")
	}
}

// The original implementation grew a little with every cycle.
func TestTheBufferDoesNotGrowOverManyCycles(t *testing.T) {
	budget := NewBudget(8*mib, 1)
	b := budget.NewBuffer()
	cycle := func() {
		for range 3 {
			block := b.TryGet(BlockSize)
			if block == nil {
				t.Fatal("there is no room although every block was released")
			}
			block.Data, block.Lines = block.Memory()[:100], 1
			b.Append(block)
		}
		s := b.Swap()
		if len(s.Blocks()) != 3 {
			t.Fatalf("the batch has %d blocks; want 3", len(s.Blocks()))
		}
		for _, block := range s.Blocks() {
			b.Release(block)
		}
		b.Recycle(s)
	}
	for range 100 {
		cycle()
	}
	settled := budget.Peak()
	for range 100_000 {
		cycle()
	}
	if got := budget.Peak(); got != settled {
		t.Fatalf("the peak grew from %d to %d bytes over 100,000 cycles", settled, got)
	}
	if got := cap(b.spare.blocks); got > 8 {
		t.Fatalf("the block list grew to %d", got)
	}
	if allocs := testing.AllocsPerRun(1000, cycle); allocs != 0 {
		t.Fatalf("%v allocations per cycle; want none", allocs)
	}
}

// The sink is ten times slower than the reader. The reader waits, and memory stays within the limit.
func TestAReaderFasterThanItsSinkWaitsAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 * mib
		budget := NewBudget(limit, 1)
		b := budget.NewBuffer()
		ctx, stop := context.WithCancel(t.Context())
		var reader sync.WaitGroup
		read := 0
		reader.Go(func() {
			for {
				block, err := b.Get(ctx, BlockSize)
				if err != nil {
					return
				}
				block.Data, block.Lines = block.Memory(), 500
				b.Append(block)
				read++
				time.Sleep(time.Millisecond)
			}
		})
		acked := 0
		for acked < 500 {
			s := b.Swap()
			for _, block := range s.Blocks() {
				time.Sleep(10 * time.Millisecond)
				b.Release(block)
				acked++
				if held := b.Stats(); held.Bytes+held.InFlightBytes > limit {
					t.Fatalf("%d bytes in the buffer; the limit is %d", held.Bytes+held.InFlightBytes, limit)
				}
			}
			b.Recycle(s)
			if len(s.Blocks()) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		stop()
		reader.Wait()
		if got := budget.Peak(); got > limit || got < limit/2 {
			t.Fatalf("the peak is %d bytes; want it near the limit of %d", got, limit)
		}
		if read > acked+limit/BlockSize {
			t.Fatalf("%d blocks were read when %d were acknowledged", read, acked)
		}
	})
}

func TestOneStreamCannotStarveAnother(t *testing.T) {
	budget := NewBudget(8*mib, 2)
	greedy, modest := budget.NewBuffer(), budget.NewBuffer()
	held := 0
	for {
		block := greedy.TryGet(BlockSize)
		if block == nil {
			if s := greedy.Swap(); len(s.Blocks()) > 0 { // in flight at an unavailable sink: nothing is released
				continue
			}
			break
		}
		block.Data, block.Lines = block.Memory(), 1
		greedy.Append(block)
		held++
	}
	if want := 6 * mib / BlockSize; held != want {
		t.Fatalf("the greedy stream holds %d blocks; want its reserved quarter and the shared half, %d", held, want)
	}
	got := 0
	for block := modest.TryGet(BlockSize); block != nil; block = modest.TryGet(BlockSize) {
		block.Data, block.Lines = block.Memory(), 1
		modest.Append(block)
		got++
	}
	if got == 0 {
		t.Fatal("the modest stream got nothing")
	}
	if peak := budget.Peak(); peak > 8*mib {
		t.Fatalf("together they hold %d bytes; the limit is 8 MiB", peak)
	}
}

func TestLinesLongerThanTheBudgetTakeTheTokenOneAtATime(t *testing.T) {
	budget := NewBudget(4*mib, 2)
	a, b := budget.NewBuffer(), budget.NewBuffer()
	const line = 20 * mib
	first := a.TryGet(line)
	if first == nil || len(first.Memory()) < line {
		t.Fatal("a long line got no memory")
	}
	if b.TryGet(line) != nil {
		t.Fatal("two long lines got memory together: it is not bounded")
	}
	if b.TryGet(BlockSize) == nil {
		t.Fatal("a long line of one stream blocks the short lines of another")
	}
	first.Data, first.Lines = first.Memory(), 1
	a.Append(first)
	a.Release(a.Swap().Blocks()[0])
	if second := b.TryGet(line); second != nil {
		t.Fatal("a stream that holds lines took the token; it must deliver them first")
	}
	if second := a.TryGet(line); second == nil {
		t.Fatal("the token was not released")
	}
	if budget.freeSum > 4*mib {
		t.Fatalf("%d bytes are kept for reuse", budget.freeSum)
	}
}

func TestAWaitingGetReturnsTheContextsError(t *testing.T) {
	b := NewBudget(4*mib, 1).NewBuffer()
	for block := b.TryGet(BlockSize); block != nil; block = b.TryGet(BlockSize) {
		b.Append(block)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Get(ctx, BlockSize); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Get returned %v; want the context's error", err)
	}
}

// For any use by the streams, the charges add up and the limit holds, except for one long line.
func TestTheBudgetHoldsUnderRandomUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		streams := rapid.IntRange(1, 7).Draw(t, "streams")
		limit := int64(rapid.IntRange(4, 40).Draw(t, "limit in MiB")) * mib
		budget := NewBudget(limit, streams)
		buffers := make([]*Buffer, streams)
		flight := make([][]*Block, streams)
		for i := range buffers {
			buffers[i] = budget.NewBuffer()
		}
		const longest = 6 * mib
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, streams-1).Draw(t, "stream")
			b := buffers[i]
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				size := rapid.SampledFrom([]int{1, BlockSize, BlockSize + 1, mib, 3 * mib, longest}).Draw(t, "size")
				if block := b.TryGet(size); block != nil {
					block.Data, block.Lines = block.Memory()[:size], 1
					if rapid.IntRange(0, 9).Draw(t, "discard") == 0 {
						b.Discard(block)
					} else {
						b.Append(block)
					}
				}
			case 2:
				flight[i] = append(flight[i], b.Swap().Blocks()...)
			case 3:
				if len(flight[i]) > 0 {
					b.Release(flight[i][0])
					flight[i] = flight[i][1:]
				}
			}
			if budget.inUse > limit+longest+mib {
				t.Fatalf("%d bytes in use; the limit is %d", budget.inUse, limit)
			}
		}
		for i, b := range buffers {
			for _, block := range append(flight[i], b.Swap().Blocks()...) {
				b.Release(block)
			}
			if got := b.Stats(); got.InFlightBytes != 0 || b.filling != 0 || (b.appended.charged-b.takenCharged.Load()) != 0 {
				t.Fatalf("stream %d holds nothing but reports %+v, filling %d, charged %d", i, got, b.filling,
					(b.appended.charged - b.takenCharged.Load()))
			}
			if budget.charged[b] != 0 {
				t.Fatalf("stream %d holds nothing but is charged %d", i, budget.charged[b])
			}
		}
		if budget.inUse != 0 || budget.lent != 0 || budget.token {
			t.Fatalf("nothing is held but the budget reports in use %d, lent %d, token %v", budget.inUse, budget.lent,
				budget.token)
		}
		if budget.freeSum > limit {
			t.Fatalf("%d bytes are kept for reuse; the limit is %d", budget.freeSum, limit)
		}
	})
}

// BenchmarkSwap measures one swap of a buffer with the given number of lines, while a writer appends continuously.
func BenchmarkSwap(b *testing.B) {
	for _, lines := range []int{1_000, 1_000_000, 40_000_000} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) { benchmarkSwap(b, lines) })
	}
}

func benchmarkSwap(b *testing.B, lines int) {
	// The blocks and their memory are real. They hold the shortest lines, so that 40 million of them fit on a test
	// machine.
	const line = "{}\n"
	full := bytes.Repeat([]byte(line), BlockSize/len(line))
	perBlock := BlockSize / len(line)
	budget := NewBudget(1<<40, 1)
	var blocks []*Block
	for rest := lines; rest > 0; rest -= perBlock {
		block := budget.freeOrNewBlock(BlockSize)
		n := min(rest, perBlock)
		block.Data, block.Lines = append(block.Memory()[:0], full[:n*len(line)]...), n
		blocks = append(blocks, block)
	}
	held := len(blocks)
	// The blocks that make up the size are followed by some that the writer is still appending during the swap.
	for range 64 {
		blocks = append(blocks, &Block{Data: []byte(line), Lines: 1})
	}
	buf := budget.NewBuffer()
	back := make(chan []*Block, 1)
	back <- blocks
	lists := [2][]*Block{slices.Clone(blocks), slices.Clone(blocks)} // the writer may still read one of them
	var writer sync.WaitGroup
	writer.Go(func() {
		for taken := range back {
			for _, block := range taken {
				buf.Append(block)
			}
		}
	})
	spent := make([]time.Duration, 0, 1<<20)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for buf.Stats().Lines < int64(lines) {
			runtime.Gosched()
		}
		start := time.Now()
		s := buf.Swap()
		took := time.Since(start)
		if len(spent) < cap(spent) {
			spent = append(spent, took)
		}
		list := lists[i%2]
		n := copy(list, s.Blocks())
		buf.Recycle(s)
		back <- list[:n] // the next swap takes what the writer has not appended yet
	}
	close(back)
	writer.Wait()
	slices.Sort(spent)
	b.ReportMetric(float64(spent[len(spent)/2].Nanoseconds()), "ns/op") // the swap only, without appending the lines again
	b.ReportMetric(float64(spent[len(spent)*999/1000].Nanoseconds()), "p99.9-ns")
	b.ReportMetric(float64(held), "blocks")
}

func TestReadAheadIsLimited(t *testing.T) {
	budget := NewBudget(32*mib, 1)
	budget.LimitReadAhead(2 * BlockSize)
	b := budget.NewBuffer()
	for range 2 {
		b.Append(b.TryGet(BlockSize))
	}
	if b.TryGet(BlockSize) != nil {
		t.Fatal("a third block was returned while two are waiting")
	}
	taken := b.Swap()
	third := b.TryGet(BlockSize)
	if third == nil {
		t.Fatal("no block was returned although none is waiting")
	}
	b.Discard(third)
	for _, block := range taken.Blocks() {
		b.Release(block)
	}
	b.Append(b.TryGet(1))
	if b.TryGet(3*BlockSize) != nil {
		t.Fatal("a long line did not wait")
	}
	b.Swap()
	if b.TryGet(3*BlockSize) == nil {
		t.Fatal("a line longer than the limit got no block")
	}
}
