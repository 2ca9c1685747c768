package poller

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// maxName bounds the names of streams, modes, states and errors, at twice what a parser says. They are printable
	// ASCII: whatever else there is in one, a liar made it, and the report is refused.
	maxName = 64
	// maxText bounds all other strings: they are cleaned, and cut there. A parser bounds its messages at half of that.
	// What they quote, an error of a sink or the name of a file, may hold anything: a report is not refused for it, since
	// that would make an honest parser Unreachable. Strings are kept for as long as a window of reports reaches.
	maxText = 1 << 10
	// absurdText is longer than any message, and any path of a file: only a liar says so much, and the report is refused.
	absurdText = 8 << 10
	// maxCount bounds figures: 36 PB, which takes a year at a gigabyte a second. The judgement adds them up; 64 streams'
	// are below what an int64 holds. A figure beyond it counts as it, and one below zero as zero: it is the liar's own
	// verdict that goes by it.
	maxCount = 1 << 55
	// maxAmount bounds seconds, cores and shares likewise: 300 years.
	maxAmount = 1e10
)

// names are the fields that hold a name.
var names = map[string]bool{"Name": true, "Mode": true, "State": true, "Errno": true}

// layout is which fields of a struct hold what must be bounded.
type layout []field

type field struct {
	index int
	kind  reflect.Kind // of the value, or of what it points to
	point bool         // a pointer to the value
	name  string       // in the document
	named bool         // holds a name, if it is a string
	of    layout       // of the struct
}

// layoutOfReport and layoutOfStream have every field of a report. One of a kind that nothing here bounds cannot be
// added: then no program starts.
var (
	layoutOfReport = layoutOf(reflect.TypeFor[report.Report]())
	layoutOfStream = layoutOf(reflect.TypeFor[report.Stream]())
)

// bound makes a report hold nothing that no parser says. It fails for what only a liar says.
func bound(r *report.Report) error {
	if err := layoutOfReport.bound(reflect.ValueOf(r).Elem()); err != nil {
		return fmt.Errorf("the report says more than a parser does: %w", err)
	}
	for i := range r.Streams {
		s := &r.Streams[i]
		if err := layoutOfStream.bound(reflect.ValueOf(s).Elem()); err != nil {
			return fmt.Errorf("the report says more of stream %.20q than a parser does: %w", s.Name, err)
		}
	}
	return nil
}

func layoutOf(t reflect.Type) layout {
	out := make(layout, 0, t.NumField())
	for i := range t.NumField() {
		of := t.Field(i)
		tag, _, _ := strings.Cut(of.Tag.Get("json"), ",")
		f := field{index: i, kind: of.Type.Kind(), name: tag, named: names[of.Name]}
		kind := of.Type
		if f.point = f.kind == reflect.Pointer; f.point {
			kind = of.Type.Elem()
			f.kind = kind.Kind()
		}
		switch {
		case f.kind == reflect.Bool, kind == reflect.TypeFor[time.Time]():
			continue // there are no others; years end with 9999, and differences of times at 292 years
		case kind == reflect.TypeFor[[]report.Stream]():
			continue // each by itself
		case f.kind == reflect.Struct:
			f.of = layoutOf(kind)
		case f.kind == reflect.String, f.kind == reflect.Int, f.kind == reflect.Int64, f.kind == reflect.Float64:
		default:
			panic(fmt.Sprintf("poller: nothing bounds field %s of a report", of.Name))
		}
		out = append(out, f)
	}
	return out
}

// bound bounds the fields of a struct.
func (l layout) bound(v reflect.Value) error {
	for i := range l {
		f := &l[i]
		at := v.Field(f.index)
		if f.point {
			if at.IsNil() {
				continue
			}
			at = at.Elem()
		}
		switch f.kind { //nolint:exhaustive // layoutOf makes no others
		case reflect.String:
			if err := f.boundText(at); err != nil {
				return err
			}
		case reflect.Float64:
			if n := at.Float(); !(n >= 0 && n <= maxAmount) { // also not a number
				at.SetFloat(min(max(n, 0), maxAmount))
			}
		case reflect.Struct:
			if err := f.of.bound(at); err != nil {
				return err
			}
		default:
			if n := at.Int(); n < 0 || n > maxCount {
				at.SetInt(min(max(n, 0), maxCount))
			}
		}
	}
	return nil
}

func (f *field) boundText(at reflect.Value) error {
	text := at.String()
	switch {
	case f.named && !prose.Plain(text, maxName):
		return fmt.Errorf("its %s %.20q is none that a parser says", f.name, text)
	case len(text) > absurdText:
		return fmt.Errorf("its %s has %d bytes", f.name, len(text))
	case f.named:
		return nil
	}
	if line := prose.Line(text, maxText); line != text {
		at.SetString(line)
	}
	return nil
}
