// Command screencast draws a recorded terminal session as an animated SVG, without scripts, so that GitHub shows it:
//
//	make -s demo | go run ./hack/screencast --record hack/screencast/demo.log
//	go run ./hack/screencast hack/screencast/demo.log > docs/demo.svg
//
// A recording is text: for each line the seconds since the first, a tab, and the line. A table that the session prints
// again and again is drawn in place, below the other lines. Long pauses are shortened.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	record := flag.String("record", "", "file to record the session on standard input in, besides copying it")
	command := flag.String("command", "make demo", "command that the drawing begins with")
	flag.Parse()
	if err := run(*record, *command, flag.Args(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "screencast:", err)
		os.Exit(1)
	}
}

func run(record, command string, args []string, in io.Reader, out io.Writer) (err error) {
	if record != "" {
		file, err := os.Create(record)
		if err != nil {
			return fmt.Errorf("creating the recording: %w", err)
		}
		var begin time.Time // of the first line: what comes before is building
		elapsed := func() time.Duration {
			if begin.IsZero() {
				begin = time.Now()
			}
			return time.Since(begin)
		}
		if err := recordLines(in, file, out, elapsed); err != nil {
			return err
		}
		return file.Close()
	}
	if len(args) != 1 {
		return fmt.Errorf("want one recording, got %d arguments", len(args))
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("reading the recording: %w", err)
	}
	lines, err := parse(string(text))
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, draw(frames(command, lines)))
	return err
}

// recordLines copies lines to screen, and with their times to recording.
func recordLines(in io.Reader, recording, screen io.Writer, elapsed func() time.Duration) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if _, err := fmt.Fprintf(recording, "%.1f\t%s\n", elapsed().Seconds(), lines.Text()); err != nil {
			return fmt.Errorf("writing the recording: %w", err)
		}
		if _, err := fmt.Fprintln(screen, lines.Text()); err != nil {
			return fmt.Errorf("copying the session: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the session: %w", err)
	}
	return nil
}

// line is one line of a session.
type line struct {
	at   time.Duration
	text string
}

func parse(recording string) ([]line, error) {
	var lines []line
	for i, text := range strings.Split(strings.TrimSuffix(recording, "\n"), "\n") {
		at, text, found := strings.Cut(text, "\t")
		seconds, err := strconv.ParseFloat(at, 64)
		if !found || err != nil {
			return nil, fmt.Errorf("reading line %d: want seconds, a tab and text", i+1)
		}
		lines = append(lines, line{time.Duration(seconds * float64(time.Second)), text})
	}
	return lines, nil
}
