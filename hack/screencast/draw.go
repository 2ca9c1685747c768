package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	columns = 116
	// logRows is how many lines are above the table.
	logRows = 16
	// pace is how much faster than the session the drawing is, and longestPause bounds a pause in the drawing.
	pace         = 4
	longestPause = 1200 * time.Millisecond
	// sameFrame joins lines that are printed together.
	sameFrame = 80 * time.Millisecond
	// endPause is how long the last frame stays.
	endPause = 6 * time.Second

	charWidth  = 7.23 // of the font below, pixels
	lineHeight = 17
	fontSize   = 12
	margin     = 14
)

// row is one line of the screen. Its class colours all of it; without one, words have colours of their own.
type row struct{ class, text string }

// frame is what the screen shows from a moment on.
type frame struct {
	at   time.Duration // in the drawing
	rows []row
}

// frames plays a session. A table begins with a line that isTable accepts, and continues with indented lines.
func frames(command string, session []line) []frame {
	log := wrap("$ " + command)
	var table []row
	out := []frame{{0, slices.Clone(log)}}
	var now, before time.Duration
	for i := 0; i < len(session); i++ {
		l := session[i]
		if isTable(l.text) {
			table = append([]row{{}}, wrap(l.text)...)
			for i+1 < len(session) && strings.HasPrefix(session[i+1].text, "  ") {
				i++
				table = append(table, wrap(session[i].text)...)
			}
		} else {
			if l.text == "" && table != nil { // the session's end: the table stays, and text follows it
				log, table = append(log, table...), nil
			}
			log = append(log, wrap(l.text)...)
		}
		now += min((l.at-before)/pace, longestPause)
		before = l.at
		shown := slices.Concat(log[max(len(log)-logRows, 0):], table)
		if last := &out[len(out)-1]; now-last.at < sameFrame {
			last.rows = shown
		} else {
			out = append(out, frame{now, shown})
		}
	}
	return out
}

// wrap breaks a line between words where it is wider than the screen. Further rows are indented.
func wrap(text string) []row {
	const indent = "      "
	class := classOf(text)
	var rows []row
	for utf8.RuneCountInString(text) > columns {
		runes := []rune(text)
		end := columns
		for end > len(indent)+1 && runes[end] != ' ' {
			end--
		}
		if end == len(indent)+1 {
			end = columns // no word ends in this row
		}
		rows = append(rows, row{class, string(runes[:end])})
		text = indent + strings.TrimLeft(string(runes[end:]), " ")
	}
	return append(rows, row{class, text})
}

// isTable reports whether a line begins the demo's table of the fleet.
func isTable(text string) bool {
	name, rest, _ := strings.Cut(text, "  ")
	return strings.Contains(name, "/") && !strings.Contains(name, " ") && strings.Contains(rest, "lines/s")
}

// draw returns the SVG. Without animations it shows the last frame.
func draw(all []frame) string {
	rows := 0
	for _, f := range all {
		rows = max(rows, len(f.rows))
	}
	width, height := int(math.Ceil(columns*charWidth))+2*margin, rows*lineHeight+2*margin
	total := all[len(all)-1].at + endPause

	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" role="img"`)
	p(`  width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">`, width, height)
	p(`<title>A recorded session of make demo</title>`)
	p(`<style>`)
	p(`text { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre; }`, fontSize)
	p(`text { fill: #d0d7de; }`)
	p(`.dim { fill: #8b949e; } .red { fill: #ff7b72; } .green { fill: #7ee787; } .yellow { fill: #e3b341; }`)
	p(`.bold { fill: #ffffff; font-weight: bold; }`)
	p(`.f { visibility: hidden; } .f:last-of-type { visibility: visible; }`)
	p(`@media (prefers-reduced-motion: no-preference) {`)
	p(`.f, .f:last-of-type { visibility: hidden; animation: %.2fs step-end infinite; }`, total.Seconds())
	for i, f := range all {
		end := total
		if i+1 < len(all) {
			end = all[i+1].at
		}
		from, to := percent(f.at, total), percent(end, total)
		p(`@keyframes k%d { 0%% { visibility: %s; } %s%% { visibility: visible; } %s%% { visibility: %s; } }`,
			i, state(i == 0), from, to, state(i+1 == len(all)))
		p(`.k%d, .k%[1]d:last-of-type { animation-name: k%[1]d; }`, i)
	}
	p(`}`)
	p(`</style>`)
	p(`<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>`)
	for i, f := range all {
		p(`<g class="f k%d">`, i)
		for i, r := range f.rows {
			if r.text != "" {
				p(`<text x="%d" y="%d">%s</text>`, margin, margin+fontSize+i*lineHeight, paint(r))
			}
		}
		p(`</g>`)
	}
	p(`</svg>`)
	return b.String()
}

func state(visible bool) string {
	if visible {
		return "visible"
	}
	return "hidden"
}

func percent(of, total time.Duration) string {
	return fmt.Sprintf("%.3f", 100*float64(of)/float64(total))
}

// Classes of words.
const (
	green = "green"
	red   = "red"
)

// wordColors are classes of words, and lineColors those of lines by what they begin with or contain.
var (
	wordColors = map[string]string{
		"Healthy": green, "Stuck": red, "NotRunning": red, "Unreachable": red, "Unknown": "dim",
		"CatchingUp": "yellow", "lost=0": green, "duplicated=0": green,
	}
	lineColors = []struct{ part, class string }{
		{" lines/s ", "bold"}, {"NODE ", "dim"}, {"hangs from now on", red}, {"  event ", "yellow"},
	}
)

func classOf(text string) string {
	if strings.HasPrefix(text, "$ ") {
		return "bold"
	}
	for _, l := range lineColors {
		if strings.Contains(text, l.part) {
			return l.class
		}
	}
	return ""
}

// paint returns a row as SVG text.
func paint(r row) string {
	if r.class != "" {
		return span(r.class, r.text)
	}
	words := strings.Split(r.text, " ")
	for i, word := range words {
		if class, ok := wordColors[word]; ok {
			words[i] = span(class, word)
		} else {
			words[i] = html.EscapeString(word)
		}
	}
	return strings.Join(words, " ")
}

func span(class, text string) string {
	return `<tspan class="` + class + `">` + html.EscapeString(text) + `</tspan>`
}
