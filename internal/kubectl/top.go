package kubectl

import (
	"encoding/json"
	"fmt"
	"strings"
)

// topLines is how many rows top shows unless it shows all.
const topLines = 20

// outputWide is a value of --output.
const outputWide = "wide"

// topOptions are how top shows rows.
type topOptions struct {
	output string // "", wide, json or name
	all    bool
	// objects is set if rows may belong to several objects.
	objects bool
}

// renderTop returns the rows of top, which are sorted.
func renderTop(s screen, fleets []fleet, rows []row, o topOptions) (string, error) {
	switch o.output {
	case "json":
		if rows == nil {
			rows = []row{}
		}
		text, err := json.MarshalIndent(rows, "", "  ")
		if err != nil {
			return "", fmt.Errorf("encoding the rows: %w", err)
		}
		return string(text) + "\n", nil
	case "name":
		var out strings.Builder
		for i := range rows {
			fmt.Fprintln(&out, rows[i].Target)
		}
		return out.String(), nil
	case "", outputWide:
	default:
		return "", usagef("--output is %q: write wide, json or name", o.output)
	}
	shown := rows
	limit := topLines
	if s.height > 0 {
		limit = max(min(limit, s.height-3-2*len(fleets)), 1)
	}
	if !o.all && len(rows) > limit {
		shown = rows[:limit]
	}
	var out strings.Builder
	for i := range fleets {
		out.WriteString(s.headline(&fleets[i]))
	}
	if len(shown) > 0 {
		out.WriteString(s.topTable(fleets, shown, o))
	}
	if n := len(rows) - len(shown); n > 0 {
		fmt.Fprintf(&out, "and %s more: --all shows them\n", plural(n, "target"))
	}
	for i := range fleets {
		f := &fleets[i]
		own := 0
		for j := range rows {
			if rows[j].Namespace == f.object.Namespace && rows[j].Name == f.object.Name {
				own++
			}
		}
		if text := without(f, own); text != "" {
			out.WriteString(s.paint(cut(printable(text), s.width), yellow) + "\n")
		}
		if f.missing != "" {
			text := fmt.Sprintf("%s: no figures, and no verdicts but those of bad targets: %s", f.object.Name, f.missing)
			out.WriteString(s.paint(cut(printable(text), s.width), yellow) + "\n")
		}
	}
	return out.String(), nil
}

// headline returns one line about an object.
func (s screen) headline(f *fleet) string {
	st := &f.object.Status
	text := fmt.Sprintf("%s/%s", f.object.Namespace, f.object.Name)
	if st.ObservedGeneration < 1 {
		return s.paint(cut(text+"  no operator has seen it", s.width), yellow) + "\n"
	}
	state := st.State
	if state == "" {
		state = "Unknown"
	}
	text += fmt.Sprintf("  %s: %s  (%d of %d ready, %d bad, %s)", state, printable(st.Story), st.Ready, st.Desired, st.Bad,
		plural(int(st.Restarts), "restart"))
	with := green
	switch {
	case healthOf([]fleet{*f}, nil) == ExitBad:
		with = red
	case state != "Delivering":
		with = yellow
	}
	return s.paint(cut(text, s.width), with) + "\n"
}

// topTable returns the table of top.
func (s screen) topTable(fleets []fleet, rows []row, o topOptions) string {
	now := map[string]*fleet{}
	for i := range fleets {
		now[fleets[i].object.Namespace+"/"+fleets[i].object.Name] = &fleets[i]
	}
	plain := func(texts ...string) (cells []cell) {
		for _, text := range texts {
			cells = append(cells, cell{text: text})
		}
		return cells
	}
	var heading []cell
	if o.objects {
		heading = plain("OBJECT")
	}
	heading = append(heading,
		plain("TARGET", "VERDICT", "SINCE", "LAG", "WAITING", "WRITTEN", "ACKED", "MEMORY", "LOST")...)
	first := len(heading) - 7
	figures := map[int]bool{}
	for i := first; i < len(heading); i++ {
		figures[i] = true
	}
	if o.output == outputWide {
		figures[len(heading)], figures[len(heading)+1] = true, true
		heading = append(heading, plain("BUFFERS", "REPORT", "POD")...)
	}
	heading = append(heading, cell{text: "WHY"})
	table := append(make([][]cell, 0, 1+len(rows)), heading)
	for i := range rows {
		r := &rows[i]
		f := now[r.Namespace+"/"+r.Name]
		var cells []cell
		if o.objects {
			cells = plain(r.Namespace + "/" + r.Name)
		}
		verdict := r.Verdict
		if verdict == "" {
			verdict = unknown
		}
		if r.Fading {
			verdict += " (fading)"
		}
		lost := cell{text: bytesOf(r.LostBytes)}
		if r.LostBytes != nil && *r.LostBytes > 0 {
			lost.paint = red
		}
		memory := bytesOf(r.MemoryBytes)
		if r.MemoryBytes != nil && r.MemoryLimitBytes != nil {
			memory += fmt.Sprintf(" (%d%%)", *r.MemoryBytes*100 / *r.MemoryLimitBytes)
		}
		cells = append(cells, plain(printable(r.Target))...)
		cells = append(cells, cell{verdict, colourOf(r.Verdict, r.Fading)})
		cells = append(cells, plain(since(r.Since, f.now), secondsOf(r.LagSeconds), bytesOf(r.WaitingBytes),
			rateOf(r.WrittenBytesPerSec), rateOf(r.AckedBytesPerSec), memory)...)
		cells = append(cells, lost)
		if o.output == outputWide {
			cells = append(cells, plain(bytesOf(r.BufferBytes), since(r.ReportAt, f.now), printable(r.Pod))...)
		}
		table = append(table, append(cells, cell{text: whyOf(r), paint: dim}))
	}
	return s.table(table, figures)
}

// whyOf returns the last column of top: why a target is as it is.
func whyOf(r *row) string {
	text := r.Message
	if text == "" && r.Verdict != "Healthy" {
		text = r.Reason
	}
	if r.NoReport != "" && !strings.Contains(text, r.NoReport) {
		text = strings.TrimPrefix(text+"; "+r.NoReport, "; ")
	}
	if len(r.Alerts) > 0 {
		text = strings.TrimSuffix(strings.Join(r.Alerts, ", ")+"; "+text, "; ")
	}
	return printable(text)
}
