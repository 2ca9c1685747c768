// Command pause writes a docker-archive of an image that does nothing until it is asked to end: what every pod's
// sandbox runs, for clusters that reach no registry. It is for the machine's own architecture.
//
//	go run ./pause NAME ARCHIVE
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/archive"
)

// source waits for SIGTERM or SIGINT. As the first process of a PID namespace it would ignore them without a handler.
const source = `package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	<-c
}
`

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pause NAME ARCHIVE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "pause: %v\n", err)
		os.Exit(1)
	}
}

func write(image, out string) error {
	tag, err := name.NewTag(image)
	if err != nil {
		return fmt.Errorf("parsing the image's name: %w", err)
	}
	dir, err := os.MkdirTemp("", "pause")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(source), 0o600); err != nil {
		return fmt.Errorf("writing the program: %w", err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "pause"), main)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the program: %w", err)
	}
	program, err := archive.Read(filepath.Join(dir, "pause"), "/pause", 0o755)
	if err != nil {
		return err
	}
	built, err := archive.Image(v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
		archive.Metadata{User: "65535:65535", Entrypoint: []string{"/pause"}}, []archive.File{program})
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(out, tag, built); err != nil {
		return fmt.Errorf("writing %s: %w", out, err)
	}
	return nil
}
