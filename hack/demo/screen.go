package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen prints messages. On a terminal it redraws a table below them. Elsewhere it prints the table as plain lines
// from time to time.
type screen struct {
	out      io.Writer
	width    int // 0: not a terminal
	color    bool
	begin    time.Time
	table    []string // as drawn last
	lastDraw time.Time
}

// plainEvery is the minimum time between two tables in a log.
const plainEvery = 5 * time.Second

func newScreen(out *os.File) *screen {
	s := &screen{out: out, begin: time.Now()}
	if !term.IsTerminal(int(out.Fd())) {
		return s
	}
	width, _, err := term.GetSize(int(out.Fd()))
	if err != nil || width < 40 {
		return s
	}
	s.width = width
	s.color = os.Getenv("NO_COLOR") == ""
	return s
}

// say prints a permanent line above the table.
func (s *screen) say(format string, args ...any) {
	elapsed := time.Since(s.begin).Truncate(time.Second)
	stamp := fmt.Sprintf("%d:%02d", int(elapsed.Minutes()), int(elapsed.Seconds())%60)
	s.print(s.paint(dim, stamp) + "  " + fmt.Sprintf(format, args...))
}

// print prints text unchanged above the table.
func (s *screen) print(text string) {
	s.erase()
	_, _ = fmt.Fprintln(s.out, s.wrap(text))
	s.redraw()
}

// wrap breaks long lines between words. Continuation lines are indented past the time.
func (s *screen) wrap(text string) string {
	const indent = "      "
	if s.width == 0 || strings.Contains(text, "\n") {
		return text
	}
	var out strings.Builder
	column := 0
	for i, word := range strings.Split(text, " ") {
		length := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+length > s.width:
			out.WriteString("\n" + indent)
			column = len(indent)
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += length
	}
	return out.String()
}

// draw replaces the table.
func (s *screen) draw(table []string) {
	if s.width == 0 {
		if time.Since(s.lastDraw) < plainEvery {
			return
		}
		s.lastDraw = time.Now()
		_, _ = fmt.Fprintln(s.out, strings.Join(table, "\n"))
		return
	}
	s.erase()
	s.table = table
	s.redraw()
}

// keepTable leaves the table in place and continues below it.
func (s *screen) keepTable() { s.table = nil }

func (s *screen) erase() {
	if len(s.table) > 0 {
		_, _ = fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", len(s.table))
	}
}

func (s *screen) redraw() {
	for _, line := range s.table {
		_, _ = fmt.Fprintln(s.out, s.cut(line))
	}
}

// cut shortens a line to the terminal's width, not counting colours. A line that wraps would break erasing.
func (s *screen) cut(line string) string {
	var out strings.Builder
	shown, escape := 0, false
	for len(line) > 0 {
		r, size := utf8.DecodeRuneInString(line)
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case shown == s.width-1:
			return out.String() + "\x1b[0m"
		default:
			shown++
		}
		out.WriteString(line[:size])
		line = line[size:]
	}
	return out.String()
}

// Colours as SGR codes.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (s *screen) paint(color, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}
