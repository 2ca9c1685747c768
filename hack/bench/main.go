// Command bench measures hlparser and its peers on this machine in one run, because only ratios are portable:
//
//	go run ./hack/bench                  # the quick set, some minutes
//	go run ./hack/bench --write FILE     # also update FILE, such as docs/benchmarks.md
//	go run ./hack/bench --backlog        # only a backlog of 44 million lines
//
// It creates its data and removes it. It runs from the module's root, on Linux: memory and processor time come from
// /proc. A peer that is not installed (rsyslog) or does not build (the collector) is left out, and the results say so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// bareCommand makes this program run the bare loop, so that its time includes the start of a process, as hlparser's
// does.
const bareCommand = "bare-loop"

func main() {
	if len(os.Args) == 4 && os.Args[1] == bareCommand {
		if err := bareLoop(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	dir      string // removed at the end
	hlparser string // the program under test
	events   int64  // in each dataset
	runs     int    // the best of them counts
}

func run(ctx context.Context, args []string) (err error) {
	b := bench{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	parent := fs.String("dir", "", "parent of the temporary directory (default: the system's)")
	only := fs.String("only", "", "comma-separated sections to measure: end-to-end, merged, normalized, swap, "+
		"memory, latency, rest, sinks")
	write := fs.String("write", "", "file to update with the results, such as docs/benchmarks.md")
	backlog := fs.Bool("backlog", false, "only measure the draining of a backlog")
	backlogLines := fs.Int64("backlog-lines", 44_000_000, "lines of the backlog, 478 bytes each")
	fs.Int64Var(&b.events, "events", 1_000_000, "events in each dataset of the quick set")
	fs.IntVar(&b.runs, "runs", 5, "number of runs; the best counts")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || b.events < 1 || b.runs < 1 || *backlogLines < 1 {
		return errors.New("invalid flags: counts must be at least 1, and arguments are not accepted")
	}
	if b.dir, err = os.MkdirTemp(*parent, "hlparser-bench-"); err != nil {
		return fmt.Errorf("creating a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.hlparser = filepath.Join(b.dir, "hlparser")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.hlparser, "./cmd/hlparser")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := timed(build); err != nil {
		return fmt.Errorf("building hlparser: %w", err)
	}

	title, sections := "The quick set", []section{
		{"end-to-end", b.endToEnd}, {"merged", b.merged}, {"normalized", normalized},
		{"swap", swap}, {"memory", b.deadSink}, {"latency", b.latency}, {"rest", b.atRest}, {"sinks", sinks},
	}
	if *backlog {
		drain := func(ctx context.Context) (string, error) { return b.backlog(ctx, *backlogLines) }
		title, sections = "The backlog", []section{{"backlog", drain}}
	}
	text := results.Machine()
	fmt.Print(text)
	for _, s := range sections {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		part, err := s.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Print("\n", part)
		text += "\n" + part
	}
	if *write == "" {
		return nil
	}
	return results.Replace(*write, title, text)
}

// section is one measurement, formatted as Markdown.
type section struct {
	name    string
	measure func(ctx context.Context) (string, error)
}

// say prints progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "… "+format+"\n", args...)
}
