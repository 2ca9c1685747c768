package sinktest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

func inOrder(p *process) {
	s := p.stream("fills")
	for _, n := range []int{1, 2, 500, 1, 30} {
		s.mustWrite(n)
		s.mustWrite(n)
		s.mustCommit()
	}
	s.mustWrite(3)
	s.finish()
}

// unusualBytes writes records that are not JSON objects, or unusual ones: the node's bytes are delivered unchanged.
func unusualBytes(p *process) {
	s := p.stream("fills")
	texts := []string{
		"0", "{}", "[]", " ", "\t", "null", `""`, "\r", "{}\r", " {} ", "\x00", "a\x00b", "\x01\x02\x1b[0m", "\xff\xfe",
		"\xc3\x28", `{"a":"<b>&amp;\u003c"}`, `{"coin":"ПРИВЕТ/日本/🚀","e":"é"}`, "\u2028\u2029", "\ufeff{}",
		"{\"a\" : 1 }", `{"b":1,"a":2}`, "'", `\`, `\n`, "1e400", "-0", "NaN", strings.Repeat("{", 1000),
		strings.Repeat("日", 30_000),
	}
	s.layout.text = func(n int) []byte {
		if n < len(texts) {
			return []byte(texts[n])
		}
		return fmt.Append(nil, n)
	}
	s.mustWrite(1)
	s.mustWrite(3)
	s.mustWrite(len(texts) - 4)
	s.mustWrite(100)
	s.finish()
}

// unusualCoins uses coin names that a node may use in the future, and names with a meaning to a destination: parts of a
// subject, of a path, of a key.
func unusualCoins(p *process) {
	s := p.stream("fills")
	coins := []string{
		"", "_", "a", "@1", "#2", "xyz:TSLA", "PURR/USDC", "k.PEPE", ".", "..", "...", ".a", "a.", "a..b", "*", ">", "a.*",
		"a.>", "$JS", "$", " ", "a b", "\t", "\r\n", "\x00", "\xff", "ΩMEGA", "日本", "🚀", "%s", "%2e", "{coin}", "{stream}",
		"_marker", `"`, `\`, "/", "a/../b", strings.Repeat("x", 255), strings.Repeat("日", 200),
	}
	s.layout.coin = func(n int) string { return coins[n%len(coins)] }
	for range 3 {
		s.mustWrite(len(coins) + 1)
		s.mustCommit()
	}
	s.finish()
}

// markers writes lines of one block that differ only in the index.
func markers(p *process) {
	s := p.stream("fills")
	file := hour(8)
	s.layout.place = func(n int) (position.FileID, place) {
		at := place{offset: int64(n/10) * 100, index: int32(n%10) - 3, block: 7}
		if at.index < 0 {
			at.block = 0
		}
		return file, at
	}
	for i := range 20 {
		s.mustWrite(1 + i)
		s.mustCommit()
	}
	p.restart()
	s = p.stream("fills")
	s.mustWrite(25)
	s.finish()
}

// interleave makes the stream's records come from several files. Each file starts at offset 0, and is appended to after
// the next one has started.
func (s *stream) interleave() {
	type at struct {
		file position.FileID
		place
	}
	const run = 7
	made, records := []at{}, map[int]int{} // records by hour
	s.layout.place = func(n int) (position.FileID, place) {
		for i := len(made); i <= n; i++ {
			r := i / run
			h := r / 4
			if r%4 == 1 || r%4 == 3 {
				h = max(h-1-r%2*(r/8)%2, 0)
			}
			made = append(made, at{hour(h % 24), inLine(records[h])})
			records[h]++
		}
		return made[n].file, made[n].place
	}
}

func manyFiles(p *process) {
	s := p.stream("fills")
	s.interleave()
	for i := range 20 {
		s.mustWrite(1 + i)
		if i%3 == 0 {
			s.mustCommit()
		}
	}
	s.finish()
}

func manyFilesWithCrashes(p *process) {
	for i := range 12 {
		s := p.opened("fills")
		if i == 0 {
			s.interleave()
		}
		s.mustCommit()
		s.mustWrite(10 + i)
		s.mustCommit()
		s.mustWrite(30)
		switch i % 3 {
		case 0:
			p.restart()
		case 1:
			if _, err := s.flush(false); err != nil {
				p.t.Fatalf("flushing: %v", err)
			}
			p.crash()
		default:
			p.crash()
		}
	}
	s := p.stream("fills")
	s.finish()
}

func hugeRecord(p *process) {
	const hugeBytes = 20_000_000
	s := p.stream("fills")
	huge := []int{3, 7}
	s.mayRefuse = func(n int) bool { return slices.Contains(huge, n) }
	s.size = func(n int) int {
		if s.mayRefuse(n) {
			return hugeBytes
		}
		return 10
	}
	// On a slow machine one of them may take longer than the answer timeout, which is an outage.
	s.deliver(7) // in the middle
	s.deliver(1) // alone
	s.mustCommit()
	s.deliver(5)
	s.finish()
}

func manyStreams(p *process) {
	var wg sync.WaitGroup
	streams := make([]*stream, 4)
	for i := range streams {
		streams[i] = p.stream(fmt.Sprintf("stream-%d", i))
		streams[i].pad(i * 300)
	}
	for _, s := range streams {
		wg.Go(func() {
			for i := range 12 {
				if err := s.write(p.t.Context(), 1+i*5); err != nil {
					p.t.Errorf("writing to %s: %v", s.name, err)
				}
				if _, err := s.commit(false); err != nil {
					p.t.Errorf("committing %s: %v", s.name, err)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range streams {
		s.finish()
	}
}

func nothingWritten(p *process) {
	s := p.stream("fills")
	s.mustCommit()
	s.finish()
}

func unchangedFlush(p *process) {
	s := p.stream("fills")
	s.mustWrite(5)
	s.mustCommit()
	for changed, tries := true, 0; changed; tries++ {
		var err error
		if changed, err = s.commit(false); err != nil {
			p.t.Fatalf("committing: %v", err)
		}
		if tries == 10 {
			p.t.Fatalf("the state never becomes stable")
		}
	}
	// The flush does no I/O: it does not even detect a dead destination.
	p.target.Outage(true)
	for range 3 {
		f, err := s.sink.Flush(p.t.Context(), false)
		switch {
		case err != nil:
			p.t.Fatalf("flushing with nothing new: %v", err)
		case string(f.State) != string(s.state):
			p.t.Fatalf("a flush with nothing new returned the state %s, want the previous %s", f.State, s.state)
		case f.Sync != nil:
			p.t.Fatalf("a flush with nothing new returned a sync")
		}
	}
	p.target.Outage(false)
	s.deliver(5)
	s.finish()
}

// besideSync writes during a commit, then loses the records after the commit's flush.
func besideSync(p *process) {
	s := p.stream("fills")
	for range 20 {
		s.mustWrite(7)
		f, err := s.sink.Flush(p.t.Context(), false)
		if err != nil {
			p.t.Fatalf("flushing: %v", err)
		}
		line := s.next
		synced := make(chan error, 1)
		go func() {
			if f.Sync == nil {
				synced <- nil
				return
			}
			synced <- f.Sync(p.t.Context())
		}()
		err = s.write(p.t.Context(), 3)
		if err == nil {
			err = s.write(p.t.Context(), 20)
		}
		if syncErr := <-synced; err != nil || syncErr != nil {
			p.t.Fatalf("writing during a sync: %v; syncing: %v", err, syncErr)
		}
		s.save(f.State, line)
		s.mustWrite(2)
		if err := s.committed(p.t.Context()); err != nil {
			p.t.Fatalf("completing the commit: %v", err)
		}
		s.mustWrite(1)
	}
	p.crash()
	s = p.stream("fills")
	s.mustWrite(30)
	s.finish()
}

// syncLeftOut abandons the sync of a flush, as an engine that must stop does.
func syncLeftOut(p *process) {
	s := p.stream("fills")
	for range 3 {
		s.mustWrite(5)
		if _, err := s.sink.Flush(p.t.Context(), false); err != nil {
			p.t.Fatalf("flushing: %v", err)
		}
	}
	s.mustCommit()
	p.crash()
	s = p.stream("fills")
	if s.next != 15 {
		p.t.Fatalf("the checkpoint covers %d records, want 15", s.next)
	}
	s.finish()
}

func committedTwice(p *process) {
	s := p.stream("fills")
	for range 3 {
		s.mustWrite(5)
		s.mustCommit()
		for range 2 {
			if err := s.committed(p.t.Context()); err != nil {
				p.t.Fatalf("calling Committed again: %v", err)
			}
		}
	}
	p.crash()
	s = p.stream("fills")
	s.finish()
}

// lastFlush ends a stream with --once three times, and with a crash after each of its commits.
func lastFlush(p *process) {
	for i := range 3 {
		s := p.stream("fills")
		s.mustWrite(10)
		s.finish()
		p.restart()
		for range i {
			s = p.stream("fills")
			s.mustWrite(5)
			for range i {
				if _, err := s.commit(true); err != nil {
					p.t.Fatalf("committing last: %v", err)
				}
			}
			p.crash()
		}
	}
	p.stream("fills").finish()
}

func restart(p *process) {
	for range 5 {
		s := p.stream("fills")
		s.mustWrite(10)
		s.mustCommit()
		p.restart()
	}
	p.stream("fills").finish()
}

func crashBeforeSave(p *process) {
	for flushed := range 2 {
		s := p.stream("fills")
		s.mustWrite(10)
		s.mustCommit()
		s.mustWrite(10)
		if flushed == 1 {
			if _, err := s.flush(false); err != nil {
				p.t.Fatalf("flushing: %v", err)
			}
		}
		p.crash()
	}
	s := p.stream("fills")
	s.mustWrite(40)
	s.finish()
}

func crashBeforeCommitted(p *process) {
	for i := range 5 {
		s := p.stream("fills")
		s.mustWrite(10)
		state, err := s.flush(i == 4)
		if err != nil {
			p.t.Fatalf("flushing: %v", err)
		}
		s.save(state, s.next)
		p.crash()
	}
	p.stream("fills").finish()
}

// replaced lets a process that was considered dead continue while its replacement runs.
func replaced(p *process) {
	if !p.target.Fenced {
		p.t.Skip("this destination does not fence earlier processes")
	}
	old := p.stream("fills")
	old.mustWrite(10)
	old.mustCommit()
	old.mustWrite(5)
	before := *old
	p.abandon()
	p.start()
	s := p.stream("fills")
	s.mustWrite(7)
	_ = before.write(p.t.Context(), 9) // the replaced process may detect its replacement late, so the error is ignored
	_, _ = before.flush(false)
	s.mustWrite(20)
	s.mustCommit()
	_ = before.write(p.t.Context(), 9)
	s.finish()
}

// counted compares Delivered with the records at the destination: without faults, after the stream restarts in the same
// process, and after a crash.
func counted(p *process) {
	s := p.stream("fills")
	before := int64(0) // delivered by earlier processes
	check := func(when string) {
		p.t.Helper()
		s.end()
		if got, want := s.count+s.sink.Delivered(), s.reached()-before; got != want {
			p.t.Fatalf("%s the sink counts %d records as delivered, and the destination has %d", when, got, want)
		}
	}
	s.mustWrite(10)
	check("after a commit")
	for i := range 4 {
		s.mustWrite(5 + i)
		if i%2 == 1 {
			if _, err := s.flush(false); err != nil { // without a checkpoint
				p.t.Fatalf("flushing: %v", err)
			}
		}
		s.close()
		s = p.stream("fills")
		s.mustWrite(3)
		s.mustWrite(4)
		check("after a restart from the checkpoint")
	}
	s.mustWrite(5)
	if _, err := s.flush(false); err != nil {
		p.t.Fatalf("flushing: %v", err)
	}
	p.crash()
	s = p.stream("fills")
	s.count, before = 0, s.reached()
	s.mustWrite(20)
	check("after a crash")
	s.finish()
}
