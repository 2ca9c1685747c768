package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// soakLost is how long an hour or a day may be missing before it counts as lost, with a margin for a busy machine.
const soakLost = 2 * time.Second

// soakFault is what is out of sight of a stream.
type soakFault struct {
	rel   string // "": nothing
	away  string // its current path; "": in its place, with mode 000
	mode  fs.FileMode
	since time.Time
	final bool // it may count as lost
}

func soakSleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// randomDuration returns a random duration in a range.
func randomDuration(r *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(r.Int64N(int64(to-from)))
}

// soakPause returns how long something is out of sight.
func soakPause(r *rand.Rand) time.Duration {
	if r.IntN(2) == 0 {
		return randomDuration(r, 100*time.Millisecond, 700*time.Millisecond)
	}
	return randomDuration(r, 100*time.Millisecond, 5*time.Second)
}

// faults hides directories and files of a stream, one after another, until the context is done.
func (s *soakStream) faults(ctx context.Context, r *rand.Rand, aside string, chmod bool) error {
	for ctx.Err() == nil {
		soakSleep(ctx, randomDuration(r, 100*time.Millisecond, 4*time.Second))
		d, err := s.hide(r, aside, chmod)
		if err != nil {
			return err
		}
		soakSleep(ctx, d)
		if err := s.show(); err != nil {
			return err
		}
	}
	return nil
}

// hide hides something, and returns for how long.
func (s *soakStream) hide(r *rand.Rand, aside string, chmod bool) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hour := s.rel(max(0, s.hour-r.IntN(3)))
	targets := []string{"stream", "hourly", "day", "hour"}
	i := r.IntN(len(targets))
	f := soakFault{rel: []string{s.dir, filepath.Join(s.dir, "hourly"), filepath.Dir(hour), hour}[i], since: time.Now()}
	path := filepath.Join(s.data, f.rel)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	d := soakPause(r)
	what := "mode 000"
	if chmod && r.IntN(2) == 0 {
		f.mode = info.Mode().Perm()
		err = os.Chmod(path, 0)
	} else {
		what = "away"
		f.away, f.final = filepath.Join(aside, s.name), i >= 2
		switch {
		case f.final && s.strict:
			d = randomDuration(r, 100*time.Millisecond, soakLost)
		case f.final && r.IntN(3) == 0:
			d = randomDuration(r, soakLost, 15*time.Second)
		}
		if f.final && d > soakLost {
			s.longAway = time.Now().Add(d)
		}
		err = os.Rename(path, f.away)
	}
	s.fault = f
	s.counts.add(targets[i] + " " + what)
	return d, err
}

// show ends what hide began.
func (s *soakStream) show() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	s.fault = soakFault{}
	path := filepath.Join(s.data, f.rel)
	switch {
	case f.rel == "":
		return nil
	case f.away == "":
		return os.Chmod(path, f.mode)
	}
	if now := time.Now(); f.final && now.Sub(f.since) > soakLost {
		s.longAway = now
	}
	return os.Rename(f.away, path)
}

// soakMount is the data directory of the parsers: a link to the volume.
type soakMount struct {
	link, volume, empty string
	counts              soakCounts
}

// point changes the target of the link.
func (m *soakMount) point(to string) error {
	if err := os.Symlink(to, m.link+".new"); err != nil {
		return err
	}
	return os.Rename(m.link+".new", m.link)
}

// faults unmounts the volume from time to time, until the context is done: an empty directory takes its place, or
// nothing.
func (m *soakMount) faults(ctx context.Context, r *rand.Rand) error {
	for ctx.Err() == nil {
		soakSleep(ctx, randomDuration(r, time.Second, 12*time.Second))
		var err error
		if r.IntN(3) > 0 {
			m.counts.add("unmounts")
			err = m.point(m.empty)
		} else {
			m.counts.add("data directory gone")
			err = os.Remove(m.link)
		}
		if err != nil {
			return err
		}
		soakSleep(ctx, soakPause(r))
		if err := m.point(m.volume); err != nil {
			return err
		}
	}
	return nil
}

// outputFaults takes the permission to write or to read from a parser's output directory from time to time.
func (p *soakParser) outputFaults(ctx context.Context, r *rand.Rand) error {
	for ctx.Err() == nil {
		soakSleep(ctx, randomDuration(r, 5*time.Second, 20*time.Second))
		dir := p.out
		if r.IntN(2) == 0 {
			dir = filepath.Join(p.out, p.streams[r.IntN(len(p.streams))].name)
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		mode := []fs.FileMode{0, 0o500}[r.IntN(2)]
		p.counts.add(fmt.Sprintf("output mode %03o", mode))
		p.shut.Store(time.Now().UnixNano())
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
		soakSleep(ctx, randomDuration(r, 100*time.Millisecond, 3*time.Second))
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// prune deletes every file of the parser that was not written for soakPruneAge, as the node's pruner does. A parser
// that touches its files is far from that age. While no parser touches them, prune pauses. It returns an error for
// files that it deleted.
func (p *soakParser) prune() error {
	for i, dir := range []string{p.state, p.out} {
		var newest time.Time
		var old []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			var info fs.FileInfo
			if err == nil && d.Type().IsRegular() && filepath.Ext(path) != ".jsonl" { // closed files belong to the consumer
				info, err = d.Info()
			}
			switch {
			case errors.Is(err, fs.ErrNotExist): // renamed or removed meanwhile
				return nil
			case err != nil || info == nil:
				return err
			}
			if info.ModTime().After(newest) {
				newest = info.ModTime()
			}
			if time.Since(info.ModTime()) > soakPruneAge {
				old = append(old, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		up := p.up.Load()
		shut := dir == p.out && time.Since(time.Unix(0, p.shut.Load())) < 2*soakPruneAge
		if up == 0 || shut || time.Since(time.Unix(0, up)) < 2*time.Second || time.Since(newest) > time.Second {
			p.touched[i] = 0
			continue
		}
		if p.touched[i]++; p.touched[i] < 3 {
			continue
		}
		p.counts.add("prunes of state or output")
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
		if len(old) > 0 {
			return fmt.Errorf("the pruner deleted %q: the parser does not touch them", old)
		}
	}
	return nil
}
