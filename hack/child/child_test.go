//go:build unix

package child_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

func TestStopTerminatesFirstAndKillsAfterTheGracePeriod(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		code   int
		signal syscall.Signal
	}{
		"a program that obeys":   {script: `trap 'exit 3' TERM`, code: 3},
		"a program that refuses": {script: `trap '' TERM`, code: 137, signal: syscall.SIGKILL},
	} {
		t.Run(name, func(t *testing.T) {
			var group child.Group
			log := filepath.Join(t.TempDir(), "log")
			c, err := group.Start("script", exec.Command("sh", "-c", tc.script+"; echo up; while :; do sleep 0.01; done"), log)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.WaitUntil(t.Context(), func(context.Context) error {
				if text, _ := os.ReadFile(log); !strings.Contains(string(text), "up") {
					return errors.New("not up")
				}
				return nil
			}, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			c.Stop(300 * time.Millisecond)
			<-c.Done()
			if code, signal := c.Exit(); code != tc.code || signal != tc.signal {
				t.Errorf("ended with %d, %v, want %d, %v", code, signal, tc.code, tc.signal)
			}
		})
	}
}

func TestCloseStopsGrandchildrenTooAndRefusesMore(t *testing.T) {
	var group child.Group
	log := filepath.Join(t.TempDir(), "log")
	c, err := group.Start("script", exec.Command("sh", "-c", `sleep 60 & echo $!; wait`), log)
	if err != nil {
		t.Fatal(err)
	}
	for text := ""; text == ""; time.Sleep(10 * time.Millisecond) {
		raw, _ := os.ReadFile(log)
		text = string(raw)
	}
	group.Close(5 * time.Second)
	select {
	case <-c.Done():
	default:
		t.Error("Close returned before the program had ended")
	}
	// The grandchild was killed, but its new parent still has to reap it.
	for begin := time.Now(); syscall.Kill(-c.PID(), 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("a process of the group is left")
		}
	}
	if _, err := group.Start("late", exec.Command("true"), log); err == nil {
		t.Error("a closed group started a program")
	}
}

func TestWaitUntilDetectsAnEarlyEnd(t *testing.T) {
	var group child.Group
	c, err := group.Start("failing", exec.Command("sh", "-c", "exit 7"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	err = c.WaitUntil(t.Context(), func(context.Context) error { return errors.New("never") }, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "code 7") {
		t.Errorf("got %v, want an error with the exit code", err)
	}
}
