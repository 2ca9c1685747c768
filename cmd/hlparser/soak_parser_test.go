package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	soakPruneAge = 10 * time.Second // for the parser's files
	soakExit     = time.Minute      // until a parser must have ended after a signal
	// soakIdentityBytes is the length of the beginning by which the parser identifies a file. All bytes of a shorter
	// file may count as repeated when its inode is reused.
	soakIdentityBytes = 1 << 10
)

// soakParser is a parser with its own state and output. It is started, stopped and killed.
type soakParser struct {
	name       string
	args       []string
	state, out string
	logs       string // a file
	command    string
	user       *syscall.Credential
	streams    []*soakStream

	up, shut atomic.Int64 // since when it reports, and when its output was last changed; 0: it does not report, never
	touched  [2]int       // consecutive checks in which the state, or the output, was touched
	counts   soakCounts
}

// consume removes the closed files, as an archiver does.
func (p *soakParser) consume() error {
	for _, s := range p.streams {
		names, err := filepath.Glob(filepath.Join(p.out, s.name, "*.jsonl"))
		if err != nil {
			return err
		}
		written := map[string]time.Time{}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			written[name] = info.ModTime()
		}
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(written[a].Compare(written[b]), strings.Compare(a, b)) })
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if err := s.takeFile(content); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(name), err)
			}
			if err := os.Remove(name); err != nil {
				return err
			}
			p.counts.add("files")
		}
	}
	return nil
}

// run starts the parser and ends it with signals until the context is done.
func (p *soakParser) run(ctx context.Context, r *rand.Rand) error {
	for ctx.Err() == nil {
		pause := randomDuration(r, 5*time.Millisecond, 200*time.Millisecond) // most runs end at the start or during recovery
		switch n := r.IntN(12); {
		case n < 4:
			pause = randomDuration(r, 0, 3*time.Second)
		case n < 6:
			pause = randomDuration(r, 3*time.Second, 15*time.Second)
		}
		signal := syscall.SIGKILL
		if r.IntN(6) == 0 {
			signal = syscall.SIGTERM
			pause += 500 * time.Millisecond
			p.counts.add("stops")
		} else {
			p.counts.add("kills")
		}
		if err := p.runFor(ctx, pause, signal); err != nil {
			return err
		}
		if r.IntN(15) == 0 {
			p.counts.add("rests")
			soakSleep(ctx, randomDuration(r, 0, 4*time.Second))
		}
	}
	return nil
}

// process returns the parser's command, not started yet.
func (p *soakParser) process(ctx context.Context, args ...string) *exec.Cmd {
	cmd := hlparser(ctx, append(p.args, args...)...)
	cmd.Path, cmd.Args[0] = p.command, p.command
	cmd.Env = append(cmd.Env, asTouchEvery+"="+pruneTouch.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user}
	return cmd
}

// finish runs the parser to the end of the data, and consumes its output.
func (p *soakParser) finish(ctx context.Context) error {
	if text, err := p.process(ctx, "--once").CombinedOutput(); err != nil {
		return fmt.Errorf("the last run of parser %s: %w\n%s", p.name, err, text)
	}
	if err := p.consume(); err != nil {
		return err
	}
	if left, err := filepath.Glob(filepath.Join(p.out, "*", "*.part")); err != nil || len(left) > 0 {
		return fmt.Errorf("left behind: %q, %w", left, err)
	}
	return nil
}

// runFor runs the parser for a while and ends it with a signal.
func (p *soakParser) runFor(ctx context.Context, pause time.Duration, signal syscall.Signal) (err error) {
	cmd := p.process(context.WithoutCancel(ctx))
	logs := &lockedBuffer{}
	cmd.Stderr = logs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		if text := logs.String(); err != nil {
			err = fmt.Errorf("the parser started at %s: %w\n%s", began.Format(time.TimeOnly+".000"), err, text)
		} else {
			err = appendLog(p.logs, text)
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill := func(err error) error {
		return errors.Join(err, cmd.Process.Kill(), ignore(<-ended))
	}
	address := ""
	for end := began.Add(pause); time.Now().Before(end); {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended without a signal: %w", err)
		case <-time.After(min(time.Until(end), 100*time.Millisecond)):
		case <-ctx.Done():
			end = time.Time{}
		}
		if _, after, ok := strings.Cut(logs.String(), "address="); address == "" && ok && strings.Contains(after, "\n") {
			address = strings.Fields(after)[0]
			p.up.Store(time.Now().UnixNano())
		}
		if address != "" {
			if err := p.checkReport(ctx, address, began); err != nil {
				return kill(err)
			}
		}
	}
	p.up.Store(0)
	if err := cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case err = <-ended:
	case <-time.After(soakExit):
		return kill(fmt.Errorf("it does not end after %v", signal))
	}
	text := logs.String()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == signal &&
		text == "" {
		return nil // on a busy machine it had not installed its signal handler yet
	}
	if (err == nil) != (signal == syscall.SIGTERM) {
		return fmt.Errorf("after %v it ended with %w", signal, err)
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "level=ERROR") && !p.explained(line, began) {
			return fmt.Errorf("it logged an error: %s", line)
		}
	}
	return nil
}

// explained reports whether the faults explain an error in the log.
func (p *soakParser) explained(line string, began time.Time) bool {
	return strings.Contains(line, "a file or folder cannot be read; trying again") ||
		strings.Contains(line, "a file was removed before it was read") &&
			slices.ContainsFunc(p.streams, func(s *soakStream) bool { return s.mayCount(began) })
}

// mayCount reports whether a parser that started at that time may have counted data that was away for long.
func (s *soakStream) mayCount(began time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longAway.After(began)
}

func ignore(error) error { return nil }

func appendLog(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// checkReport reads a report, which must not contain losses.
func (p *soakParser) checkReport(ctx context.Context, address string, began time.Time) error {
	at := time.Now()
	client := http.Client{Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, "http://"+address+"/status",
		nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	var report struct {
		Streams []struct {
			Name, State, Message                                     string
			PrunedUnreadTotal, SkippedBytesTotal, RepeatedBytesTotal int64
			MalformedTotal, DeadLetterDroppedTotal, OversizeTotal    int64
			LagSeconds                                               *float64
			Blocked                                                  any
		}
	}
	if err := json.Unmarshal(body, &report); err != nil {
		return fmt.Errorf("%w in %s", err, body)
	}
	if len(report.Streams) != len(p.streams) {
		return fmt.Errorf("its report is %s", body)
	}
	for i, r := range report.Streams {
		s := p.streams[i]
		lost := r.PrunedUnreadTotal + r.SkippedBytesTotal
		if s.mayCount(began) {
			lost = 0
		}
		s.mu.Lock()
		repeated := max(r.RepeatedBytesTotal-s.recreated*soakIdentityBytes, 0)
		s.mu.Unlock()
		if lost+repeated+r.DeadLetterDroppedTotal+r.OversizeTotal > 0 || r.MalformedTotal > 0 && !s.chain ||
			r.State == "Failed" {
			return fmt.Errorf("%s is wrong in the report %s", s.name, body)
		}
		if r.Blocked != nil {
			p.counts.add("reports of a block")
		} else if r.LagSeconds != nil && r.State == "Running" {
			s.mu.Lock()
			s.caughtUp = at.Add(-time.Duration(*r.LagSeconds * float64(time.Second)))
			s.mu.Unlock()
		}
	}
	p.counts.add("reports")
	return nil
}

// soakRepeat repeats a function at intervals until the context is done.
func soakRepeat(ctx context.Context, every time.Duration, do func() error) error {
	for ctx.Err() == nil {
		if err := do(); err != nil {
			return err
		}
		soakSleep(ctx, every)
	}
	return nil
}
