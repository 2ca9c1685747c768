package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// usage is the resource usage of one run of a program.
type usage struct {
	wall time.Duration
	cpu  time.Duration // user and system
	peak int64         // maximum resident memory in bytes (VmHWM)
	// unsure reports whether this program itself had as much resident memory when it started the other, which inherits
	// that value.
	unsure bool
}

func (u usage) peakText() string {
	if u.unsure {
		return "≤ " + mebibytes(u.peak)
	}
	return mebibytes(u.peak)
}

// timed runs a program to its end.
func timed(cmd *exec.Cmd) (usage, error) {
	began := time.Now()
	p, err := start(cmd)
	if err != nil {
		return usage{}, err
	}
	return p.wait(began)
}

// process is a started program. The caller must call wait or stop.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// start starts a program and captures its standard error for error messages. When cmd's context ends, it sends SIGTERM,
// as stop does.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd}
	cmd.Stderr = &p.stderr
	if cmd.Cancel != nil {
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	}
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return p, nil
}

// wait waits for the end of a program that started at began.
func (p *process) wait(began time.Time) (usage, error) {
	err := p.cmd.Wait()
	u := usage{wall: time.Since(began)}
	if err != nil {
		text := p.stderr.String()
		return u, fmt.Errorf("running %s: %w: %s", p.cmd.Path, err, text[max(len(text)-2000, 0):])
	}
	u.cpu = p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	if r, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peak = r.Maxrss << 10
	}
	own, err := results.PeakOf(os.Getpid())
	if err != nil {
		return u, err
	}
	u.unsure = u.peak <= own
	return u, nil
}

// stop ends a program that would run forever, and returns its usage from began to ended.
func (p *process) stop(began, ended time.Time) (usage, error) {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	u, waitErr := p.wait(began)
	u.wall = ended.Sub(began)
	return u, errors.Join(err, waitErr)
}

// pause waits for d, unless the context or the program ends.
func (p *process) pause(ctx context.Context, d time.Duration) error {
	for until := time.Now().Add(d); time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(50*time.Millisecond, time.Until(until))):
		}
		if _, err := results.PeakOf(p.cmd.Process.Pid); err != nil {
			_, waitErr := p.wait(until)
			return errors.Join(errors.New("the program ended unexpectedly"), err, waitErr)
		}
	}
	return nil
}
