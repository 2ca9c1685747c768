package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// recording is what a Prometheus answered to the queries of a dashboard. The test of hack/prometheus writes it.
type recording struct {
	From   float64             `json:"from"` // seconds since 1970
	To     float64             `json:"to"`
	Panels map[string][]answer `json:"panels"` // by the number of the panel, a query each
}

// answer is a matrix as Prometheus writes it.
type answer []series

type series struct {
	Metric map[string]string `json:"metric"`
	Values []sample          `json:"values"`
}

// sample is a time and a value.
type sample struct{ at, value float64 }

// UnmarshalJSON reads a sample as Prometheus writes it: [time, "value"].
func (s *sample) UnmarshalJSON(text []byte) error {
	var value string
	if err := json.Unmarshal(text, &[]any{&s.at, &value}); err != nil {
		return err
	}
	var err error
	s.value, err = strconv.ParseFloat(value, 64)
	return err
}

// board is what a picture needs of a dashboard.
type board struct {
	Title  string  `json:"title"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X, Y, W, H float64
	} `json:"gridPos"`
	Targets []struct {
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit       string `json:"unit"`
			Thresholds struct {
				Steps []step `json:"steps"`
			} `json:"thresholds"`
			Mappings []struct {
				Options map[string]struct{ Text, Color string } `json:"options"`
			} `json:"mappings"`
			Custom struct {
				DrawStyle string                `json:"drawStyle"`
				Stacking  struct{ Mode string } `json:"stacking"`
			} `json:"custom"`
		} `json:"defaults"`
		Overrides []struct {
			Matcher    struct{ Options string } `json:"matcher"`
			Properties []struct {
				ID    string `json:"id"`
				Value any    `json:"value"`
			} `json:"properties"`
		} `json:"overrides"`
	} `json:"fieldConfig"`
	Transformations []struct {
		Options struct {
			IndexByName  map[string]int    `json:"indexByName"`
			RenameByName map[string]string `json:"renameByName"`
		} `json:"options"`
	} `json:"transformations"`
}

// step is a colour of a value and what is above it. The first has no value.
type step struct {
	Value *float64 `json:"value"`
	Color string   `json:"color"`
}

// drawAll draws each dashboard.
func drawAll(dashboards, data, pictures string) error {
	for _, name := range names() {
		var b board
		if err := readJSON(filepath.Join(dashboards, name+".json"), &b); err != nil {
			return fmt.Errorf("reading dashboard %s: %w", name, err)
		}
		var r recording
		if err := readJSON(filepath.Join(data, name+".json"), &r); err != nil {
			return fmt.Errorf("reading the answers for dashboard %s: %w", name, err)
		}
		path := filepath.Join(pictures, "grafana-"+name+".svg")
		if err := os.WriteFile(path, picture(b, r), 0o644); err != nil {
			return fmt.Errorf("drawing dashboard %s: %w", name, err)
		}
	}
	return nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// Sizes in pixels.
const (
	columnWidth = 48.0 // of the dashboard's 24 columns
	unitHeight  = 24.0 // of a panel's height
	gap         = 6.0
	header      = 46.0
	lineGap     = 14.0 // between lines of text
	axisLeft    = 58.0
	axisBottom  = 16.0
)

const noData = "No data"

// style is that of all pictures. Classes keep a picture small.
const style = `<style>
text{font:11px "Liberation Sans",Arial,sans-serif;fill:#444}
.p{fill:#fff;stroke:#ddd}.t{font-weight:bold;fill:#111}.r{font-size:14px;font-weight:bold;fill:#111}
.h{font-size:18px;font-weight:bold;fill:#111}.n{fill:#999}.b{font-size:26px}.g{stroke:#eee;fill:none}
.l{fill:none;stroke-width:1.4;stroke-linejoin:round}.e{text-anchor:end}.m{text-anchor:middle}
.s{font-size:10px}.d{stroke-dasharray:4 3;fill:none}
</style>
`

// palette are the colours of series, by their place.
var palette = []string{
	"#3871dc", "#37872d", "#e0752d", "#c4162a", "#8f3bb8", "#1f9e9e", "#b877d9", "#967302", "#5c6b73", "#d6618c",
}

// named are the colours that dashboards name.
var named = map[string]string{
	green: "#37872d", yellow: "#c69a00", orange: "#e0752d", red: "#c4162a", blue: "#1f60c4",
}

// picture returns an SVG of a dashboard.
func picture(b board, r recording) []byte {
	c := &canvas{from: r.From, to: r.To}
	bottom := 0.0
	for i := range b.Panels {
		p := &b.Panels[i]
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
		c.panel(p, r.Panels[strconv.Itoa(p.ID)])
	}
	width, height := 24*columnWidth+gap, header+bottom*unitHeight+gap
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f">`+"\n",
		width, height, width, height)
	out.WriteString(style)
	fmt.Fprintf(&out, "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#f4f5f5\"/>\n", width, height)
	fmt.Fprintf(&out, "<text class=\"h\" x=\"%.0f\" y=\"24\">%s</text>\n", gap, escape(b.Title))
	fmt.Fprintf(&out, "<text class=\"n\" x=\"%.0f\" y=\"40\">%.0f seconds of a test with faults. "+
		"Drawn by hack/grafana from the answers of a Prometheus; this is not Grafana's rendering.</text>\n", gap, r.To-r.From)
	out.WriteString(c.out.String())
	out.WriteString("</svg>\n")
	return []byte(out.String())
}

// canvas draws panels. Its methods append to out.
type canvas struct {
	out      strings.Builder
	from, to float64
}

func (c *canvas) text(class string, x, y float64, text string) {
	if text != "" {
		fmt.Fprintf(&c.out, "<text class=\"%s\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", class, x, y, escape(text))
	}
}

func (c *canvas) colored(class, color string, x, y float64, text string) {
	fmt.Fprintf(&c.out, "<text class=\"%s\" style=\"fill:%s\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", class, color, x, y,
		escape(text))
}

func (c *canvas) rect(color string, opacity, x, y, width, height float64) {
	fmt.Fprintf(&c.out, "<rect fill=\"%s\" fill-opacity=\"%.2g\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
		color, opacity, x, y, width, height)
}

// box is the inside of a panel.
type box struct{ x, y, w, h float64 }

func (c *canvas) panel(p *panel, answers []answer) {
	in := box{gap + p.GridPos.X*columnWidth, header + p.GridPos.Y*unitHeight, p.GridPos.W*columnWidth - gap,
		p.GridPos.H*unitHeight - gap}
	if p.Type == "row" {
		c.text("r", in.x, in.y+15, p.Title)
		return
	}
	fmt.Fprintf(&c.out, "<rect class=\"p\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n",
		in.x, in.y, in.w, in.h)
	c.text("t", in.x+8, in.y+16, p.Title)
	in = box{in.x + 8, in.y + 24, in.w - 16, in.h - 30}
	switch all := linesOf(p, answers); {
	case len(all) == 0 && p.Type != "stat":
		c.text("n m", in.x+in.w/2, in.y+in.h/2, noData)
	case p.Type == "stat":
		c.figure(p, in, all)
	case p.Type == "table":
		c.table(p, in, all)
	case p.Type == "state-timeline":
		c.bands(p, in, all)
	default:
		c.graph(p, in, all)
	}
}

// line is a series with its name.
type line struct {
	name   string
	labels map[string]string
	values []sample
}

func (l *line) last() float64 { return l.values[len(l.values)-1].value }

var placeholder = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// linesOf returns the series of a panel with their names. Values that are no numbers are left out.
func linesOf(p *panel, answers []answer) []line {
	var out []line
	for i, a := range answers {
		for _, s := range a {
			values := slices.DeleteFunc(s.Values, func(v sample) bool { return math.IsNaN(v.value) || math.IsInf(v.value, 0) })
			if len(values) == 0 {
				continue
			}
			name := placeholder.ReplaceAllStringFunc(p.Targets[i].LegendFormat, func(text string) string {
				return s.Metric[placeholder.FindStringSubmatch(text)[1]]
			})
			out = append(out, line{name, s.Metric, values})
		}
	}
	return out
}

// colorOf returns the colour of a value.
func colorOf(steps []step, value float64) string {
	color := "#111"
	for _, s := range steps {
		if s.Value == nil || value >= *s.Value {
			if hex, ok := named[s.Color]; ok {
				color = hex
			}
		}
	}
	return color
}

func (c *canvas) figure(p *panel, in box, all []line) {
	if len(all) == 0 {
		c.text("n b m", in.x+in.w/2, in.y+in.h/2+8, noData)
		return
	}
	value := all[0].last()
	c.colored("b m", colorOf(p.FieldConfig.Defaults.Thresholds.Steps, value), in.x+in.w/2, in.y+in.h/2+8,
		format(p.FieldConfig.Defaults.Unit, value))
}

func (c *canvas) table(p *panel, in box, all []line) {
	options := p.Transformations[0].Options
	fields := slices.SortedFunc(maps.Keys(options.IndexByName), func(a, b string) int {
		return options.IndexByName[a] - options.IndexByName[b]
	})
	units := map[string]string{}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if unit, ok := property.Value.(string); ok && property.ID == "unit" {
				units[o.Matcher.Options] = unit
			}
		}
	}
	width := in.w / float64(len(fields))
	for i, field := range fields {
		c.text("t s", in.x+float64(i)*width, in.y+10, options.RenameByName[field])
	}
	slices.SortStableFunc(all, func(a, b line) int { return strings.Compare(a.labels["target"], b.labels["target"]) })
	for row, l := range all {
		y := in.y + 26 + float64(row)*lineGap
		if y > in.y+in.h {
			return
		}
		for i, field := range fields {
			text := l.labels[field]
			if field == fieldValue {
				text = format(units[options.RenameByName[field]], l.last())
			}
			c.text("s", in.x+float64(i)*width, y, text)
		}
	}
}

// bands draws a row for each series, with its value over time as a colour.
func (c *canvas) bands(p *panel, in box, all []line) {
	const left = 150.0
	options := p.FieldConfig.Defaults.Mappings[0].Options
	height := min((in.h-axisBottom)/float64(len(all)), 18)
	for i, l := range all {
		y := in.y + float64(i)*height
		c.text("s", in.x, y+height/2+3, l.name)
		every := spacing(l.values)
		for j := 0; j < len(l.values); {
			k := j
			for k+1 < len(l.values) && l.values[k+1].value == l.values[j].value &&
				l.values[k+1].at-l.values[k].at < 1.5*every {
				k++
			}
			hex, ok := named[options[strconv.FormatFloat(l.values[j].value, 'f', -1, 64)].Color]
			opacity := 0.8
			if !ok {
				hex, opacity = "#e5e7e9", 1
			}
			from, to := c.x(in, left, l.values[j].at), c.x(in, left, min(l.values[k].at+every, c.to))
			c.rect(hex, opacity, from, y+2, to-from, height-4)
			j = k + 1
		}
	}
	c.times(in, left)
}

// spacing is the shortest time between two values.
func spacing(values []sample) float64 {
	least := math.Inf(1)
	for i := range values[1:] {
		least = min(least, values[i+1].at-values[i].at)
	}
	if math.IsInf(least, 1) {
		return 1
	}
	return least
}

// x is the place of a time, right of a margin.
func (c *canvas) x(in box, margin, at float64) float64 {
	return in.x + margin + (in.w-margin)*(at-c.from)/(c.to-c.from)
}

// times writes the axis of time: minutes since the beginning.
func (c *canvas) times(in box, margin float64) {
	every := niceStep((c.to-c.from)/60, 5)
	for m := 0.0; m <= (c.to-c.from)/60; m += every {
		c.text("n s m", c.x(in, margin, c.from+60*m), in.y+in.h, strconv.FormatFloat(m, 'f', -1, 64)+" min")
	}
}

// niceStep divides a range into at most n steps of 1, 2 or 5 times a power of ten.
func niceStep(length float64, n int) float64 {
	power := math.Pow(10, math.Floor(math.Log10(length/float64(n))))
	for _, f := range []float64{1, 2, 5} {
		if length/(f*power) <= float64(n) {
			return f * power
		}
	}
	return 10 * power
}

// legendWidth is the part of a graph that its legend takes.
const legendWidth = 0.34

func (c *canvas) graph(p *panel, in box, all []line) {
	stack := p.FieldConfig.Defaults.Custom.Stacking.Mode == "normal"
	slices.SortStableFunc(all, func(a, b line) int { return strings.Compare(a.name, b.name) })
	plot := box{in.x, in.y, in.w * (1 - legendWidth), in.h}
	heights := make([][]sample, 0, len(all)) // what is drawn of each series
	below := map[float64]float64{}
	highest := 0.0
	for _, l := range all {
		drawn := slices.Clone(l.values)
		for i := range drawn {
			if stack {
				below[drawn[i].at] += drawn[i].value
				drawn[i].value = below[drawn[i].at]
			}
			highest = max(highest, drawn[i].value)
		}
		heights = append(heights, drawn)
	}
	unit := p.FieldConfig.Defaults.Unit
	base := 1.0
	if strings.HasPrefix(unit, "b") { // bytes are counted in powers of 1024
		base = math.Pow(1024, math.Floor(math.Log(max(highest, 1))/math.Log(1024)))
	}
	if highest == 0 {
		highest = 1
	}
	every := niceStep(highest/base, 4) * base
	top := math.Ceil(highest/every-1e-9) * every
	y := func(value float64) float64 { return plot.y + 4 + (plot.h-axisBottom-8)*(1-value/top) }
	for v := 0.0; v <= top*1.001; v += every {
		fmt.Fprintf(&c.out, "<path class=\"g\" d=\"M%.0f %.1fH%.0f\"/>\n", plot.x+axisLeft, y(v), plot.x+plot.w)
		c.text("n s e", plot.x+axisLeft-4, y(v)+3, format(unit, v))
	}
	c.times(plot, axisLeft)
	for i, drawn := range slices.Backward(heights) { // a stack's lowest last
		color := palette[i%len(palette)]
		x := func(at float64) float64 { return c.x(plot, axisLeft, at) }
		if p.FieldConfig.Defaults.Custom.DrawStyle == "bars" {
			c.bars(color, drawn, x, y)
		} else {
			c.curve(color, drawn, x, y, stack)
		}
	}
	for _, s := range p.FieldConfig.Defaults.Thresholds.Steps {
		if hex, ok := named[s.Color]; ok && s.Value != nil && *s.Value <= top {
			fmt.Fprintf(&c.out, "<path class=\"d\" stroke=\"%s\" d=\"M%.0f %.1fH%.0f\"/>\n", hex, plot.x+axisLeft, y(*s.Value),
				plot.x+plot.w)
		}
	}
	for i, l := range all {
		at := plot.y + 10 + float64(i)*lineGap
		if at > in.y+in.h {
			return
		}
		c.rect(palette[i%len(palette)], 1, plot.x+plot.w+12, at-7, 10, 3)
		c.text("s", plot.x+plot.w+26, at-1, l.name)
		c.text("s e", in.x+in.w, at-1, format(unit, l.last()))
	}
}

func (c *canvas) bars(color string, values []sample, x, y func(float64) float64) {
	for _, v := range values {
		if v.value > 0 {
			c.rect(color, 0.7, x(v.at)-1.5, y(v.value), 3, y(0)-y(v.value))
		}
	}
}

// curve draws a line with a gap where values are missing. Points on a level line are left out, which keeps pictures
// small.
func (c *canvas) curve(color string, values []sample, x, y func(float64) float64, fill bool) {
	every := spacing(values)
	for len(values) > 0 {
		n := 1
		for n < len(values) && values[n].at-values[n-1].at < 1.5*every {
			n++
		}
		var path strings.Builder
		for i, v := range values[:n] {
			if 0 < i && i < n-1 && values[i-1].value == v.value && v.value == values[i+1].value {
				continue
			}
			letter := "L"
			if i == 0 {
				letter = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", letter, x(v.at), y(v.value))
		}
		if n == 1 {
			path.WriteString("h1")
		}
		if fill {
			fmt.Fprintf(&c.out, "<path fill=\"%s\" fill-opacity=\".35\" d=\"%sL%.1f %.1fL%.1f %.1fZ\"/>\n", color, path.String(),
				x(values[n-1].at), y(0), x(values[0].at), y(0))
		}
		fmt.Fprintf(&c.out, "<path class=\"l\" stroke=\"%s\" d=\"%s\"/>\n", color, path.String())
		values = values[n:]
	}
}

// format writes a value with its unit.
func format(unit string, v float64) string {
	short := func(v float64) string {
		if v != 0 && math.Abs(v) < 1 {
			return strconv.FormatFloat(v, 'g', 2, 64)
		}
		return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
	}
	scaled := func(base float64, names ...string) string {
		i := 0
		for ; i < len(names)-1 && math.Abs(v) >= base; i++ {
			v /= base
		}
		return short(v) + names[i]
	}
	switch unit {
	case unitPercent:
		return short(v*100) + " %"
	case unitBytes:
		return scaled(1024, " B", " KiB", " MiB", " GiB", " TiB")
	case unitRate:
		return scaled(1024, " B/s", " KiB/s", " MiB/s", " GiB/s")
	case unitSeconds:
		switch {
		case v != 0 && math.Abs(v) < 0.001:
			return short(v*1e6) + " µs"
		case v != 0 && math.Abs(v) < 1:
			return short(v*1e3) + " ms"
		case v < 600:
			return short(v) + " s"
		default:
			return short(v/60) + " min"
		}
	case unitPerSec:
		return scaled(1000, "", "K", "M") + "/s"
	default:
		return scaled(1000, "", "K", "M")
	}
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}
