// Package broker builds and runs real nats-servers with JetStream as processes of this machine, for tests.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hlparser/hyperliquid-parser-operator/hack/child"
)

// Version is one of the versions of nats-server that Build knows.
type Version string

const (
	// Oldest is the newest patch of the oldest minor version with atomic batches. hack/nats/oldest/go.mod names it.
	Oldest Version = "oldest"
	// Newest is the version in this repository's go.mod.
	Newest Version = "newest"
)

const (
	program    = "github.com/nats-io/nats-server/v2"
	module     = "github.com/hlparser/hyperliquid-parser-operator"
	host       = "127.0.0.1"
	startLimit = time.Minute
)

// Build builds a version of nats-server from Go modules, into a directory. It returns the path of the program and the
// number of its version. It must run in this repository.
func Build(ctx context.Context, v Version, dir string) (path, number string, err error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	if err != nil {
		return "", "", fmt.Errorf("finding the repository: %w", err)
	}
	switch v {
	case Newest:
	case Oldest:
		root = filepath.Join(root, "hack", "nats", "oldest")
	default:
		return "", "", fmt.Errorf("building nats-server %q: the versions are %q and %q", v, Oldest, Newest)
	}
	path = filepath.Join(dir, "nats-server")
	if _, err := output(ctx, "go", "-C", root, "build", "-o", path, program); err != nil {
		return "", "", fmt.Errorf("building the %s nats-server: %w", v, err)
	}
	// It prints "nats-server: v2.12.15".
	text, err := output(ctx, path, "--version")
	if err != nil {
		return "", "", fmt.Errorf("reading the version of nats-server: %w", err)
	}
	return path, strings.TrimPrefix(text, "nats-server: "), nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// Options configures a Server.
type Options struct {
	// Program is the path of nats-server.
	Program string
	// Dir is an existing directory. It holds streams, settings and the log.
	Dir string
	// Port is the server's port on 127.0.0.1. 0 means a free one.
	Port int
	// MaxPayload is the size of the largest message in bytes. Defaults to 1 MiB, like the server's.
	MaxPayload int
}

// Server is a nats-server.
type Server struct {
	opts  Options
	group child.Group
	child *child.Child
}

// Start starts a server and waits until it serves JetStream. The server ends with Close, and on Linux with this
// process.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.Port == 0 {
		var err error
		if opts.Port, err = child.FreePort(host); err != nil {
			return nil, err
		}
	}
	if opts.MaxPayload == 0 {
		opts.MaxPayload = 1 << 20
	}
	s := &Server{opts: opts}
	settings := fmt.Sprintf("listen: %q\nmax_payload: %d\nmax_pending: %d\njetstream { store_dir: %q }\n",
		s.Address(), opts.MaxPayload, max(64<<20, 8*opts.MaxPayload), s.StoreDir())
	if err := os.WriteFile(s.path("nats.conf"), []byte(settings), 0o644); err != nil {
		return nil, fmt.Errorf("writing the settings of nats-server: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) path(name string) string { return filepath.Join(s.opts.Dir, name) }

// Address returns the server's host and port.
func (s *Server) Address() string { return net.JoinHostPort(host, strconv.Itoa(s.opts.Port)) }

// StoreDir returns the directory of the streams.
func (s *Server) StoreDir() string { return s.path("store") }

// Kill ends the server with SIGKILL, and waits until it has ended.
func (s *Server) Kill() { s.Stop(0) }

// Stop asks the server to end, and kills it after the grace period. It waits until the server has ended.
func (s *Server) Stop(grace time.Duration) {
	s.child.Stop(grace)
	<-s.child.Done()
}

// Start starts a server that was stopped or killed, with its streams.
func (s *Server) Start(ctx context.Context) (err error) {
	s.child, err = s.group.Start("nats-server", exec.Command(s.opts.Program, "--config", s.path("nats.conf")),
		s.path("log"))
	if err != nil {
		return err
	}
	return s.child.WaitUntil(ctx, func(context.Context) error {
		conn, err := nats.Connect("nats://"+s.Address(), nats.Timeout(time.Second))
		if err != nil {
			return err
		}
		defer conn.Close()
		js, err := conn.JetStream(nats.MaxWait(time.Second))
		if err != nil {
			return err
		}
		_, err = js.AccountInfo()
		return err
	}, startLimit)
}

// Close kills the server. Its streams stay, as after a crash.
func (s *Server) Close() { s.group.Close(0) }
