package kubectl

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
)

// screen is how text is shown.
type screen struct {
	width  int // in columns; 0: not cut
	height int // in lines; 0: not a terminal
	colour bool
}

// paint is an ANSI colour; "" for none.
type paint string

const (
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
	bold   paint = "1"
	dim    paint = "2"
)

func (s screen) paint(text string, with paint) string {
	if !s.colour || with == "" || strings.TrimSpace(text) == "" {
		return text
	}
	return "\x1b[" + string(with) + "m" + text + "\x1b[0m"
}

// colourOf returns the colour of a verdict.
func colourOf(verdict string, fading bool) paint {
	switch v := health.Verdict(verdict); {
	case v.Bad() && !fading:
		return red
	case v == health.Healthy:
		return green
	}
	return yellow
}

// printable returns text of others without control characters, which could move the cursor or forge lines.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// cut returns text of at most width columns; 0 for any.
func cut(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}

// cell is a field of a table.
type cell struct {
	text  string
	paint paint
}

// table returns rows of cells in columns, cut at the width of the screen. The first row is the heading. Figures are
// aligned to the right.
func (s screen) table(rows [][]cell, figures map[int]bool) string {
	if len(rows) == 0 {
		return ""
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	const gap = 2
	var out strings.Builder
	for n, row := range rows {
		left := s.width
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			text := c.text + pad
			switch {
			case figures[i]:
				text = pad + c.text
			case i == len(row)-1:
				text = c.text
			}
			if i > 0 {
				text = strings.Repeat(" ", gap) + text
			}
			if s.width > 0 {
				text = cut(text, left)
				if left -= utf8.RuneCountInString(text); text == "" {
					break
				}
			}
			with := c.paint
			if n == 0 {
				with = bold
			}
			out.WriteString(s.paint(text, with))
			if s.width > 0 && left <= 0 {
				break
			}
		}
		out.WriteByte('\n')
	}
	if s.colour {
		return out.String()
	}
	lines := strings.Split(out.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

const unknown = "-" // a figure that is not known

func bytesOf(n *int64) string {
	if n == nil {
		return unknown
	}
	return humanize.IBytes(uint64(max(*n, 0)))
}

func rateOf(perSecond *float64) string {
	if perSecond == nil {
		return unknown
	}
	return humanize.IBytes(uint64(max(*perSecond, 0))) + "/s"
}

func secondsOf(n *float64) string {
	switch {
	case n == nil:
		return unknown
	case *n < 10:
		return fmt.Sprintf("%.1fs", *n)
	}
	return duration.HumanDuration(time.Duration(*n * float64(time.Second)))
}

// since returns how long ago a time was; "-" for the zero time.
func since(at, now time.Time) string {
	if at.IsZero() {
		return unknown
	}
	return duration.HumanDuration(max(now.Sub(at), 0))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sparkline draws figures from 0 up to the largest of them; "" for fewer than two.
func sparkline(figures []float64) string {
	bars := []rune("▁▂▃▄▅▆▇█")
	if len(figures) < 2 {
		return ""
	}
	most := 0.0
	for _, f := range figures {
		most = max(most, f)
	}
	var out strings.Builder
	for _, f := range figures {
		i := 0
		if most > 0 {
			i = int(max(f, 0) / most * float64(len(bars)-1))
		}
		out.WriteRune(bars[i])
	}
	return out.String()
}
