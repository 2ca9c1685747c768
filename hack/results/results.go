// Package results formats the results of the measuring programs in hack/: tables that are readable as text and as
// Markdown, the resource usage of processes, a description of the machine, and chapters of docs/benchmarks.md. Each
// program replaces its own chapter.
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

// Table is a table of text. The first column is a name, the others are figures.
type Table [][]string

// Row adds a row.
func (t *Table) Row(cells ...string) { *t = append(*t, cells) }

// String renders the table as Markdown that is also readable as text.
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

// Reached returns the text for the column that reports whether a goal was reached.
func Reached(yes bool) string {
	if yes {
		return "yes"
	}
	return "**no**"
}

// Machine describes the machine that the figures were measured on.
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

// Replace replaces the chapter with the given title, or appends it.
func Replace(path, title, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the previous results: %w", err)
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
