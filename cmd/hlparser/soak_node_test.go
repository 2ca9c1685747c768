package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	soakHour      = 4 * time.Second // approximate length of the node's hour
	soakHours     = 8               // hours of its day
	soakLateBy    = 3               // maximum, in hours
	soakReplay    = 12              // maximum number of blocks that a node writes again, minus two
	soakHistory   = 64              // number of recent blocks that are kept for that
	soakDelivered = 8 * time.Second // how long the pruner keeps a delivered file
)

// soakStream is a stream of the node, and the oracle for its output.
type soakStream struct {
	flag string // value of --stream
	name string // name of the output directory
	dir  string // directory of the node
	key  string // key of an event's number
	text func(event, block int) string
	rand *rand.Rand

	strict  bool // no hour or day is away long enough to count as lost
	chain   bool // its lines contain their block
	byBlock bool // mode of chain

	data string // the volume

	// history holds the recent blocks of a chain that are whole on disk. The newest are written again after an exit of
	// the node.
	history []soakBlock
	held    []soakHeld
	round   int
	hour    int

	mu        sync.Mutex
	events    []soakEvent
	files     []*soakFile
	hours     map[int]*soakFile // the files that are at their paths
	begun     map[int]bool      // the hours that have ever had a file
	recreated int64             // files that replaced a pruned one
	fault     soakFault         // what is currently hidden
	longAway  time.Time         // until then something was away long enough that it may have been counted as lost
	caughtUp  time.Time         // everything on disk at that time was acknowledged
	got       int               // number of delivered events
	taking    int               // number of the output file that is being read
	markers   map[string]int
	counts    soakCounts
}

type soakEvent struct {
	block, file int32 // the file that held it first; -1: none yet
	delivered   bool
}

// soakFile is a file of the node, as long as it is not replaced.
type soakFile struct {
	index                    int32
	hour, written, delivered int
	last, lastIn             int // the last delivered event, and the output file that contained it
	at                       time.Time
	torn                     bool // a node exited within its last line
}

// soakLine is a line and the range of its events.
type soakLine struct {
	text         string
	first, after int
}

type soakBlock []soakLine

// soakHeld is a line that is written late.
type soakHeld struct {
	soakLine
	round int
}

func (s *soakStream) rel(hour int) string {
	day := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, hour/soakHours)
	return filepath.Join(s.dir, "hourly", day.Format("20060102"), fmt.Sprint(hour%soakHours))
}

// path returns the current path of a file of the volume. The caller holds s.mu.
func (s *soakStream) path(rel string) string {
	if f := s.fault; f.away != "" && (rel == f.rel || strings.HasPrefix(rel, f.rel+"/")) {
		return f.away + rel[len(f.rel):]
	}
	return filepath.Join(s.data, rel)
}

// append appends to an hour's file, wherever it is, and records the lines that are whole in it.
func (s *soakStream) append(hour int, text string, whole []soakLine) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(s.rel(hour))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	file := s.hours[hour]
	if file == nil {
		if s.begun[hour] {
			s.recreated++
		}
		s.begun[hour] = true
		file = &soakFile{index: int32(len(s.files)), hour: hour, last: -1}
		s.hours[hour] = file
		s.files = append(s.files, file)
	}
	file.at = time.Now()
	if text != "" {
		file.torn = text[len(text)-1] != '\n'
	}
	for _, line := range whole {
		for i := line.first; i < line.after; i++ {
			if s.events[i].file >= 0 {
				continue
			}
			s.events[i].file = file.index
			file.written++
			if s.events[i].delivered {
				file.delivered++
			}
		}
	}
	return nil
}

// writeTorn writes lines in two steps. The first ends at a random position.
func (s *soakStream) writeTorn(hour int, lines []soakLine) error {
	text := join(lines)
	half := s.rand.IntN(len(text) + 1)
	if err := s.append(hour, text[:half], lines); err != nil { // a consumer may have a line as soon as it is written
		return err
	}
	time.Sleep(time.Duration(s.rand.IntN(4)) * time.Millisecond)
	return s.append(hour, text[half:], nil)
}

func join(lines []soakLine) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(line.text)
	}
	return b.String()
}

// event returns the text of a new event.
func (s *soakStream) event(block int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, soakEvent{block: int32(block), file: -1})
	return s.text(len(s.events)-1, block)
}

func (s *soakStream) line(block, events int) soakLine {
	line := soakLine{first: len(s.events), after: len(s.events) + events}
	texts := make([]string, events)
	for i := range texts {
		texts[i] = s.event(block)
	}
	if line.text = strings.Join(texts, ","); s.chain {
		line.text = fmt.Sprintf(`{"local_time":"2026-04-30T20:46:46.266580134",`+
			`"block_time":"2026-04-30T20:46:43.304461819","block_number":%d,"events":[%s]}`,
			block, line.text)
	}
	line.text += "\n"
	return line
}

// block returns the lines of the next block.
func (s *soakStream) block(number int) (b soakBlock) {
	if s.byBlock {
		return soakBlock{s.line(number, s.rand.IntN(30))} // possibly without events
	}
	for range 1 + s.rand.IntN(4) {
		b = append(b, s.line(number, 1+s.rand.IntN(3)))
	}
	return b
}

// write writes until the context is done, and then writes the lines that were held back.
func (s *soakStream) write(ctx context.Context) error {
	began := time.Now()
	for number := 1000; ctx.Err() == nil; s.round++ {
		if hour := int(time.Since(began) / soakHour); hour > s.hour {
			s.beginHour(hour)
		}
		var err error
		if s.chain {
			blocks := make([]soakBlock, 1+s.rand.IntN(2))
			for i := range blocks {
				blocks[i] = s.block(number)
				number++
			}
			err = s.writeBlocks(blocks)
		} else {
			err = s.writeLines()
		}
		if err := errors.Join(err, s.writeHeld(s.round)); err != nil {
			return err
		}
		time.Sleep(time.Duration(5+s.rand.IntN(40)) * time.Millisecond)
	}
	return s.writeHeld(s.round + soakHistory)
}

// beginHour begins an hour.
func (s *soakStream) beginHour(hour int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hour = hour
	s.counts.add("hours")
}

func (s *soakStream) writeLines() error {
	lines := make([]soakLine, 1+s.rand.IntN(30))
	for i := range lines {
		lines[i] = s.line(0, 1)
	}
	if s.rand.IntN(15) == 0 {
		return s.writeLate(lines)
	}
	return s.writeTorn(s.hour, lines)
}

// writeBlocks writes blocks in order. One of their lines may be held back. A node that exits meanwhile begins again
// before them.
func (s *soakStream) writeBlocks(blocks []soakBlock) error {
	var lines []soakLine
	hold := -1
	if s.rand.IntN(20) == 0 {
		hold = 0
	}
	for i, b := range blocks {
		for j, line := range b {
			if i == hold && j == len(b)-1 && line.after > line.first {
				s.held = append(s.held, soakHeld{line, s.round + 1 + s.rand.IntN(20)})
				continue
			}
			lines = append(lines, line)
		}
	}
	again := lines
	for torn := false; ; {
		if len(s.history) < soakReplay+2 || s.rand.IntN(40) > 0 && (len(again) == len(lines) || s.rand.IntN(4) > 0) {
			if torn { // the first line is appended to a torn one, and lost
				if err := s.append(s.hour, again[0].text, nil); err != nil {
					return err
				}
				again = again[1:]
			}
			if err := s.writeTorn(s.hour, again); err != nil {
				return err
			}
			break
		}
		// The node exits.
		text := join(again)
		cut := s.rand.IntN(len(text) + 1)
		var whole []soakLine
		end := 0
		for i, line := range again {
			if end += len(line.text); end > cut {
				break
			}
			if i > 0 || !torn {
				whole = append(whole, line)
			}
		}
		if err := s.append(s.hour, text[:cut], whole); err != nil {
			return err
		}
		if cut > 0 {
			torn = text[cut-1] != '\n'
		}
		if torn {
			s.counts.add("torn deaths")
		} else {
			s.counts.add("deaths")
		}
		time.Sleep(time.Duration(s.rand.IntN(300)) * time.Millisecond)
		if s.rand.IntN(5) == 0 { // until the next hour
			s.beginHour(s.hour + 1)
			torn = false
		}
		// Never begin with the current block: that cannot be distinguished from a block that continues.
		again = nil
		for _, b := range s.history[len(s.history)-2-s.rand.IntN(soakReplay):] {
			again = append(again, b...)
		}
		again = append(again, lines...)
	}
	s.history = append(s.history, blocks...)
	s.history = slices.Delete(s.history, 0, max(0, len(s.history)-soakHistory))
	return nil
}

// writeHeld writes the lines that were held back until a round.
func (s *soakStream) writeHeld(round int) error {
	for len(s.held) > 0 && s.held[0].round <= round {
		if err := s.writeLate([]soakLine{s.held[0].soakLine}); err != nil {
			return err
		}
		s.held = s.held[1:]
	}
	return nil
}

// writeLate writes to an earlier hour's file, which may have been pruned or is recreated.
func (s *soakStream) writeLate(lines []soakLine) error {
	hour := max(0, s.hour-s.rand.IntN(soakLateBy+1))
	s.mu.Lock()
	var err error
	if s.rand.IntN(3) == 0 {
		for back := range 2 * soakLateBy {
			if file := s.hours[s.hour-back]; file != nil && s.prunable(file) {
				hour = s.hour - back
				s.counts.add("hours recreated")
				err = s.remove(file)
				break
			}
		}
	}
	// a line that is appended to a torn one is lost
	for file := s.hours[hour]; file != nil && file.torn; file = s.hours[hour] {
		hour++
	}
	s.mu.Unlock()
	if hour < s.hour {
		s.counts.add("late writes")
	}
	return errors.Join(err, s.writeTorn(hour, lines))
}

// prunable reports whether a file was delivered long ago. The caller holds s.mu.
func (s *soakStream) prunable(f *soakFile) bool {
	return s.fault.rel == "" && f.hour < s.hour && f.delivered == f.written && s.caughtUp.Sub(f.at) > soakDelivered
}

func (s *soakStream) remove(f *soakFile) error {
	delete(s.hours, f.hour)
	return os.Remove(s.path(s.rel(f.hour)))
}

// prune deletes hours that were delivered long ago, and directories that become empty.
func (s *soakStream) prune() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hour, f := range s.hours {
		if hour >= s.hour-soakLateBy || !s.prunable(f) {
			continue
		}
		if err := s.remove(f); err != nil {
			return err
		}
		s.counts.add("hours pruned")
		if day := filepath.Dir(s.path(s.rel(hour))); hour/soakHours < (s.hour-soakLateBy)/soakHours {
			if names, err := os.ReadDir(day); err == nil && len(names) == 0 {
				if err := os.Remove(day); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// takeFile records the lines of one output file.
func (s *soakStream) takeFile(content []byte) error {
	s.taking++
	for line := range bytes.Lines(content) {
		if err := s.take(string(line)); err != nil {
			return err
		}
	}
	return nil
}

// take records a delivered line.
func (s *soakStream) take(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(line, `"stream":"_marker"`) {
		_, kind, _ := strings.Cut(line, `"kind":"`)
		kind, _, _ = strings.Cut(kind, `"`)
		if s.markers[kind]++; kind == "skipped" && s.longAway.IsZero() {
			return fmt.Errorf("a marker reports skipped data: %s", line)
		}
		return nil
	}
	i := -1
	if at := strings.Index(line, s.key); at >= 0 {
		if _, err := fmt.Sscanf(line[at+len(s.key):], "%d", &i); err != nil {
			i = -1
		}
	}
	if i < 0 || i >= len(s.events) || line != s.text(i, int(s.events[i].block))+"\n" {
		return fmt.Errorf("%s: got %.200q, which is not a written event", s.name, line)
	}
	e := &s.events[i]
	if e.delivered {
		return fmt.Errorf("%s was delivered twice", s.describe(i))
	}
	e.delivered = true
	s.got++
	if e.file < 0 {
		return nil
	}
	f := s.files[e.file]
	f.delivered++
	switch {
	case s.chain || i > f.last:
	case f.lastIn == s.taking:
		return fmt.Errorf("%s was delivered after event %d", s.describe(i), f.last)
	default: // a polling consumer cannot always determine which of two files was closed first
		s.counts.add("output files out of order")
	}
	f.last, f.lastIn = i, s.taking
	return nil
}

// describe identifies an event. The caller holds s.mu.
func (s *soakStream) describe(i int) string {
	e := s.events[i]
	where := "no file"
	if e.file >= 0 {
		where = s.rel(s.files[e.file].hour)
	}
	return fmt.Sprintf("%s: event %d of block %d, in %s", s.name, i, e.block, where)
}

// missing returns an error that describes which of the first n events were not delivered.
func (s *soakStream) missing(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing, first := 0, -1
	for i := range s.events[:n] {
		if e := &s.events[i]; !e.delivered {
			if missing++; first < 0 {
				first = i
			}
		}
	}
	if missing == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d events were not delivered; the first is %s", missing, n, s.describe(first))
}

func (s *soakStream) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// soakCounts counts faults by their names.
type soakCounts struct {
	mu sync.Mutex
	by map[string]int
}

func (c *soakCounts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]int{}
	}
	c.by[name]++
}

// count returns the count of a fault.
func (c *soakCounts) count(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[name]
}

// String lists the counts, ordered by name.
func (c *soakCounts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.by)) {
		fmt.Fprintf(&b, "%s %d, ", name, c.by[name])
	}
	return strings.TrimSuffix(b.String(), ", ")
}
