package sinktest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
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

// unusualBytes writes what an event may be without being the JSON object that it
// should be: the node's bytes are delivered as they are.
func unusualBytes(p *process) {
	s := p.stream("fills")
	texts := []string{
		"0", "{}", "[]", " ", "\t", "null", `""`, "\r", "{}\r", " {} ", "\x00", "a\x00b", "\x01\x02\x1b[0m", "\xff\xfe", "\xc3\x28",
		`{"a":"<b>&amp;\u003c"}`, `{"coin":"ПРИВЕТ/日本/🚀","e":"é"}`, "\u2028\u2029", "\ufeff{}", "{\"a\" : 1 }", `{"b":1,"a":2}`, "'", `\`, `\n`,
		"1e400", "-0", "NaN", strings.Repeat("{", 1000), strings.Repeat("日", 30_000),
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

// unusualCoins names coins as a node may come to, and in ways that mean
// something to a destination: parts of a subject, of a path, of a key.
func unusualCoins(p *process) {
	s := p.stream("fills")
	coins := []string{
		"", "_", "a", "@1", "#2", "xyz:TSLA", "PURR/USDC", "k.PEPE", ".", "..", "...", ".a", "a.", "a..b", "*", ">", "a.*", "a.>", "$JS", "$",
		" ", "a b", "\t", "\r\n", "\x00", "\xff", "ΩMEGA", "日本", "🚀", "%s", "%2e", "{coin}", "{stream}", "_marker", `"`, `\`, "/", "a/../b",
		strings.Repeat("x", 255), strings.Repeat("日", 200),
	}
	s.layout.coin = func(n int) string { return coins[n%len(coins)] }
	for range 3 {
		s.mustWrite(len(coins) + 1)
		s.mustCommit()
	}
	s.finish()
}

// markers writes lines of a single block in which all that differs is the index.
func markers(p *process) {
	s := p.stream("fills")
	file := hour(8)
	s.layout.place = func(n int) (checkpoint.FileID, place) {
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

// interleave gives a stream records of several files. Each file begins at offset
// 0, and is appended to after the next one has begun.
func (s *stream) interleave() {
	type at struct {
		file checkpoint.FileID
		place
	}
	const run = 7
	made, records := []at{}, map[int]int{} // by hour
	s.layout.place = func(n int) (checkpoint.FileID, place) {
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
				p.t.Fatalf("flush: %v", err)
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
	// A slow machine may take longer for one of them than a destination has to answer, which is an outage.
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
					p.t.Errorf("write to %s: %v", s.name, err)
				}
				if _, err := s.commit(false); err != nil {
					p.t.Errorf("commit %s: %v", s.name, err)
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

func flushAgain(p *process) {
	s := p.stream("fills")
	s.mustWrite(5)
	s.mustCommit()
	for changed, tries := true, 0; changed; tries++ {
		var err error
		if changed, err = s.commit(false); err != nil {
			p.t.Fatalf("commit: %v", err)
		}
		if tries == 10 {
			p.t.Fatalf("the state never stays the same")
		}
	}
	// No I/O: not even a dead destination is noticed.
	p.target.Outage(true)
	for range 3 {
		f, err := s.sink.Flush(p.t.Context(), false)
		switch {
		case err != nil:
			p.t.Fatalf("a flush with nothing new: %v", err)
		case string(f.State) != string(s.state):
			p.t.Fatalf("a flush with nothing new returned the state %s, and %s before", f.State, s.state)
		case f.Sync != nil:
			p.t.Fatalf("a flush with nothing new asks for a sync")
		}
	}
	p.target.Outage(false)
	s.deliver(5)
	s.finish()
}

// besideSync writes while a commit is carried out, then loses what came after its line.
func besideSync(p *process) {
	s := p.stream("fills")
	for range 20 {
		s.mustWrite(7)
		f, err := s.sink.Flush(p.t.Context(), false)
		if err != nil {
			p.t.Fatalf("flush: %v", err)
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
			p.t.Fatalf("write beside a sync: %v; sync: %v", err, syncErr)
		}
		s.save(f.State, line)
		s.mustWrite(2)
		if err := s.committed(p.t.Context()); err != nil {
			p.t.Fatalf("complete the commit: %v", err)
		}
		s.mustWrite(1)
	}
	p.crash()
	s = p.stream("fills")
	s.mustWrite(30)
	s.finish()
}

// syncLeftOut gives up what a flush asked for, as an engine does that must stop.
func syncLeftOut(p *process) {
	s := p.stream("fills")
	for range 3 {
		s.mustWrite(5)
		if _, err := s.sink.Flush(p.t.Context(), false); err != nil {
			p.t.Fatalf("flush: %v", err)
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
				p.t.Fatalf("tell of a commit again: %v", err)
			}
		}
	}
	p.crash()
	s = p.stream("fills")
	s.finish()
}

// lastFlush ends a stream with --once three times, and by a crash after each of
// its commits.
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
					p.t.Fatalf("last commit: %v", err)
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
				p.t.Fatalf("flush: %v", err)
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
			p.t.Fatalf("flush: %v", err)
		}
		s.save(state, s.next)
		p.crash()
	}
	p.stream("fills").finish()
}

// replaced has a process that was taken for dead go on beside the one that took its place.
func replaced(p *process) {
	if !p.target.Fenced {
		p.t.Skip("this destination has one process at a time, or none is shut out")
	}
	old := p.stream("fills")
	old.mustWrite(10)
	old.mustCommit()
	old.mustWrite(5)
	before := *old
	p.letGo()
	p.start()
	s := p.stream("fills")
	s.mustWrite(7)
	_ = before.write(p.t.Context(), 9) // what it says may come too late to be heard
	_, _ = before.flush(false)
	s.mustWrite(20)
	s.mustCommit()
	_ = before.write(p.t.Context(), 9)
	s.finish()
}
