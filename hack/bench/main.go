// Command bench measures hlparser beside its peers, on this machine and in one run, since only ratios travel:
//
//	go run ./hack/bench                  # the quick set, some minutes
//	go run ./hack/bench --write FILE     # likewise, into FILE, such as docs/benchmarks.md
//	go run ./hack/bench --backlog        # a backlog of 44 million lines and nothing else
//
// It makes its data, and removes it. It runs from the module's root, on Linux: memory and processor time come from /proc.
// What is not installed (rsyslog) or does not build (the collector) is left out, and said so.
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

// bareCommand makes this program the bare loop, so that its time includes the start of a process as hlparser's does.
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
	dir      string // removed in the end
	hlparser string // the program under test
	events   int64  // in each of the data sets
	runs     int    // of which the best counts
}

func run(ctx context.Context, args []string) (err error) {
	b := bench{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	parent := fs.String("dir", "", "where to make a temporary directory (default: the system's place)")
	only := fs.String("only", "", "sections to measure, by comma: end-to-end, normalized, swap, memory, latency, rest, sinks")
	write := fs.String("write", "", "file to write the results into, such as docs/benchmarks.md")
	backlog := fs.Bool("backlog", false, "drain a backlog, and measure nothing else")
	backlogLines := fs.Int64("backlog-lines", 44_000_000, "lines of the backlog, 478 bytes each")
	fs.Int64Var(&b.events, "events", 1_000_000, "events in each data set of the quick set")
	fs.IntVar(&b.runs, "runs", 5, "runs of which the best counts")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || b.events < 1 || b.runs < 1 || *backlogLines < 1 {
		return errors.New("see --help: counts are at least 1, and there are no arguments")
	}
	if b.dir, err = os.MkdirTemp(*parent, "hlparser-bench-"); err != nil {
		return fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.hlparser = filepath.Join(b.dir, "hlparser")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.hlparser, "./cmd/hlparser")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := timed(build); err != nil {
		return fmt.Errorf("building hlparser: %w", err)
	}

	title, sections := "The quick set", []section{
		{"end-to-end", b.endToEnd}, {"normalized", normalized}, {"swap", swap},
		{"memory", b.deadSink}, {"latency", b.latency}, {"rest", b.atRest}, {"sinks", sinks},
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

// section is one question, answered in Markdown.
type section struct {
	name    string
	measure func(ctx context.Context) (string, error)
}

// say tells a person what takes so long.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "… "+format+"\n", args...)
}
