package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLimit is how long a process may take to end before it is killed.
const stopLimit = 15 * time.Second

// command is how a process of the cluster is started: at first and, after `cluster stop`, again.
type command struct {
	Args []string `json:"args"`
}

// process identifies a running process. A process ID alone does not: the kernel reuses it.
type process struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"` // in clock ticks since boot, from /proc/PID/stat
}

// define stores how the named process is started.
func (c *cluster) define(name string, args ...string) error {
	return writeJSON(c.path("cmd", name+".json"), command{Args: args})
}

// defined returns the names of all processes that were defined, sorted.
func (c *cluster) defined() ([]string, error) {
	entries, err := os.ReadDir(c.path("cmd"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the processes: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	return names, nil
}

// start starts the named process unless it runs. It survives this program; its output goes to log/NAME.
func (c *cluster) start(name string) error {
	if _, running, err := c.running(name); err != nil || running {
		return err
	}
	var cmd command
	if err := readJSON(c.path("cmd", name+".json"), &cmd); err != nil {
		names, _ := c.defined()
		return fmt.Errorf("starting %s: %w (the processes are %s)", name, err, strings.Join(names, ", "))
	}
	log, err := os.OpenFile(c.path("log", name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	run := exec.Command(cmd.Args[0], cmd.Args[1:]...)
	run.Dir, run.Stdout, run.Stderr = c.dir, log, log
	run.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := run.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	ticks, err := startTicks(run.Process.Pid)
	if err != nil {
		return fmt.Errorf("starting %s: %w; see %s", name, errors.Join(err, run.Wait()), log.Name())
	}
	if err := writeJSON(c.path("pid", name+".json"), process{run.Process.Pid, ticks}); err != nil {
		return errors.Join(err, run.Process.Kill())
	}
	// A process that ends while this program runs would stay a zombie, and seem to run.
	go func() { _ = run.Wait() }()
	return nil
}

// running returns the named process, and reports whether it runs.
func (c *cluster) running(name string) (process, bool, error) {
	var p process
	err := readJSON(c.path("pid", name+".json"), &p)
	if errors.Is(err, os.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("finding %s: %w", name, err)
	}
	ticks, err := startTicks(p.PID)
	return p, err == nil && ticks == p.Started, nil
}

// stop sends the named process a signal and waits until it has ended, or kills it after stopLimit. SIGSTOP only
// suspends the process, which SIGCONT resumes: it is sent and nothing more.
func (c *cluster) stop(ctx context.Context, name string, signal syscall.Signal) error {
	p, running, err := c.running(name)
	if err != nil {
		return err
	}
	if running {
		if err := syscall.Kill(p.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping %s: %w", name, err)
		}
		if signal == syscall.SIGSTOP || signal == syscall.SIGCONT {
			return nil
		}
		ended := func() bool { _, running, err := c.running(name); return err == nil && !running }
		if !eventually(ctx, stopLimit, ended) {
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
			if !eventually(ctx, stopLimit, ended) {
				return fmt.Errorf("stopping %s: process %d does not end", name, p.PID)
			}
		}
	}
	if err := os.Remove(c.path("pid", name+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stopping %s: %w", name, err)
	}
	return nil
}

// startTicks returns when a process started, in clock ticks since boot. It fails for a process that has ended, a
// zombie included.
func startTicks(pid int) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name, in parentheses, and may hold anything. Field 3 is the state, 22 the start.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("reading /proc/%d/stat: it has %d fields", pid, len(fields))
	}
	if state := string(fields[0]); slices.Contains([]string{"Z", "X"}, state) {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// eventually polls until the condition holds, and reports whether it did within the limit.
func eventually(ctx context.Context, limit time.Duration, holds func() bool) bool {
	deadline := time.Now().Add(limit)
	for !holds() {
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return true
}

// runTool runs a program to its end. Its output is part of the error when it fails.
func runTool(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("running %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return writeFile(path, data)
}

// writeFile writes a file that only root may read: some hold keys.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func readJSON(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}
