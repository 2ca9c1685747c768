// Package results is how the measuring programs of hack/ tell what they found: tables that read well as text and as Markdown, what a
// process takes of the machine, where the figures come from, and chapters of docs/benchmarks.md, of which each program replaces its own.
package results

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Table is text in columns; the first is a name, the others are figures.
type Table [][]string

// Row adds a line.
func (t *Table) Row(cells ...string) { *t = append(*t, cells) }

// String renders Markdown that also reads well as it is.
func (t *Table) String() string {
	widths := make([]int, len((*t)[0]))
	for _, row := range *t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for r, row := range *t {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				out.WriteString("| " + cell + pad)
			} else {
				out.WriteString(" | " + pad + cell)
			}
		}
		out.WriteString(" |\n")
		if r > 0 {
			continue
		}
		for i, w := range widths {
			if i == 0 {
				out.WriteString("|" + strings.Repeat("-", w+2))
			} else {
				out.WriteString("|" + strings.Repeat("-", w+1) + ":")
			}
		}
		out.WriteString("|\n")
	}
	return out.String()
}

// Reached is the last column of a goal.
func Reached(yes bool) string {
	if yes {
		return "yes"
	}
	return "**no**"
}

// Machine says where the figures come from. Other machines give others.
func Machine() string {
	model, kernel := "an unknown processor", "unknown"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Release[:])
	}
	load := "unknown"
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ = strings.Cut(string(text), " ")
	}
	return fmt.Sprintf("Measured on %s, on %s, %d cores, Linux %s, %s; load before the start: %s.\n",
		time.Now().UTC().Format(time.DateOnly), model, runtime.NumCPU(), kernel, runtime.Version(), load)
}

const preface = `# Benchmarks

Written by ` + "`make bench`, `make bench-backlog`, `make bench-fleet` and `make simulate`" + `.
Times vary from machine to machine and from hour to hour; ratios between rows of one table are what counts.
`

// Replace puts text in the place of the chapter with that title, or at the end.
func Replace(path, title, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the results of before: %w", err)
	}
	const mark = "\n## "
	out, done := preface, false
	chapter := mark + title + "\n\n" + text
	for _, c := range strings.Split(string(old), mark)[1:] {
		if strings.HasPrefix(c, title+"\n") {
			out, done = out+chapter, true
			continue
		}
		out += mark + c
	}
	if !done {
		out += chapter
	}
	if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}
