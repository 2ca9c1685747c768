// Package child runs programs that must not outlive this process: each in its own process group, stopped in an order
// that the caller chooses, and on Linux killed by the kernel if this process dies.
package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Group starts children, and stops the remaining ones in Close.
type Group struct {
	mu       sync.Mutex
	closed   bool
	children []*Child
}

// Child is a started program.
type Child struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// Start runs cmd and appends its output to the file log. name appears in messages.
func (g *Group) Start(name string, cmd *exec.Cmd, log string) (*Child, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("starting %s: the group is closed", name)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: opening its log: %w", name, err)
	}
	// The child has its own descriptor.
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c := &Child{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	g.children = append(g.children, c)
	go func() {
		// ProcessState holds the result; the error adds nothing to it.
		_ = cmd.Wait()
		// Processes that it started and left behind are killed, too.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		g.forget(c)
		close(c.done)
	}()
	return c, nil
}

func (g *Group) forget(c *Child) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.children = slices.DeleteFunc(g.children, func(other *Child) bool { return other == c })
}

// Close stops the running children, last started first, each with the full grace period. It refuses new children.
func (g *Group) Close(grace time.Duration) {
	g.mu.Lock()
	g.closed = true
	left := slices.Clone(g.children)
	g.mu.Unlock()
	for _, c := range slices.Backward(left) {
		c.Stop(grace)
		<-c.done
	}
}

// Done returns a channel that is closed when the program has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// PID returns the program's process id, also after its end.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Exit returns the exit code, or 128 plus the signal that ended the program, as a shell and a kubelet do. It may only
// be called after Done is closed.
func (c *Child) Exit() (code int, signal syscall.Signal) {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), status.Signal()
	}
	return c.cmd.ProcessState.ExitCode(), 0
}

// Stop asks the program and its children to end, and kills them after the grace period. It does not wait. Another call
// can only shorten the grace period.
func (c *Child) Stop(grace time.Duration) {
	if grace <= 0 {
		c.signal(syscall.SIGKILL)
		return
	}
	c.signal(syscall.SIGTERM)
	kill := time.AfterFunc(grace, func() { c.signal(syscall.SIGKILL) })
	go func() {
		<-c.done
		kill.Stop()
	}()
}

// signal signals the whole process group, unless the child has been waited for: its id may then belong to another
// process.
func (c *Child) signal(s syscall.Signal) {
	select {
	case <-c.done:
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, s)
	}
}

// WaitUntil polls ready until it succeeds, the program ends, ctx ends, or the limit is reached.
func (c *Child) WaitUntil(ctx context.Context, ready func(context.Context) error, limit time.Duration) error {
	deadline := time.After(limit)
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done:
			code, _ := c.Exit()
			return fmt.Errorf("%s ended with code %d before it was ready: see %s", c.name, code, c.log)
		case <-deadline:
			return fmt.Errorf("%s was not ready after %s (see %s): %w", c.name, limit, c.log, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
