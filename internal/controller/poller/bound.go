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
	// maxName bounds, in bytes, the names of streams, modes, states and errors: twice what a parser reports. They are
	// printable ASCII. A report with any other name is forged, and is refused.
	maxName = 64
	// maxText bounds all other strings, in bytes: they are cleaned and truncated. A parser bounds its messages at half of
	// that. They may quote anything, such as an error of a sink or the name of a file, so a report is not refused for
	// them: that would make an honest parser Unreachable. Strings are retained for as long as a window of reports.
	maxText = 1 << 10
	// absurdText is longer, in bytes, than any message or file path. A report with a longer string is forged, and is
	// refused.
	absurdText = 8 << 10
	// maxCount bounds counts: 36 PB, a year at a gigabyte per second. The judgement adds counts up; the sum over 64
	// streams fits an int64. A larger count becomes maxCount, and a negative one 0: only the forger's own verdict depends
	// on it.
	maxCount = 1 << 55
	// maxAmount bounds seconds, cores and shares likewise: 300 years in seconds.
	maxAmount = 1e10
)

// nameFields are the fields that hold a name.
var nameFields = map[string]bool{"Name": true, "Mode": true, "State": true, "Errno": true}

// layout lists the fields of a struct that must be bounded.
type layout []field

type field struct {
	index   int
	kind    reflect.Kind // of the value, or of what it points to
	pointer bool
	name    string // JSON name
	isName  bool   // for a string: it holds a name
	fields  layout // of a struct
}

// layoutOfReport and layoutOfStream cover every field of a report. A new field of a kind that is not bounded here makes
// every program panic at its start.
var (
	layoutOfReport = layoutOf(reflect.TypeFor[report.Report]())
	layoutOfStream = layoutOf(reflect.TypeFor[report.Stream]())
)

// sanitize bounds all values of a report to what a parser may report. It fails for a report that no parser makes.
func sanitize(r *report.Report) error {
	if err := layoutOfReport.sanitize(reflect.ValueOf(r).Elem()); err != nil {
		return fmt.Errorf("the report is invalid: %w", err)
	}
	for i := range r.Streams {
		s := &r.Streams[i]
		if err := layoutOfStream.sanitize(reflect.ValueOf(s).Elem()); err != nil {
			return fmt.Errorf("the report of stream %.20q is invalid: %w", s.Name, err)
		}
	}
	return nil
}

func layoutOf(t reflect.Type) layout {
	out := make(layout, 0, t.NumField())
	for i := range t.NumField() {
		member := t.Field(i)
		tag, _, _ := strings.Cut(member.Tag.Get("json"), ",")
		f := field{index: i, kind: member.Type.Kind(), name: tag, isName: nameFields[member.Name]}
		kind := member.Type
		if f.pointer = f.kind == reflect.Pointer; f.pointer {
			kind = member.Type.Elem()
			f.kind = kind.Kind()
		}
		switch {
		case f.kind == reflect.Bool, kind == reflect.TypeFor[time.Time]():
			continue // bounded by their types: years end with 9999, and differences of times at 292 years
		case kind == reflect.TypeFor[[]report.Stream]():
			continue // sanitize visits each stream
		case f.kind == reflect.Struct:
			f.fields = layoutOf(kind)
		case f.kind == reflect.String, f.kind == reflect.Int, f.kind == reflect.Int64, f.kind == reflect.Float64:
		default:
			panic(fmt.Sprintf("poller: field %s of a report is not bounded", member.Name))
		}
		out = append(out, f)
	}
	return out
}

// sanitize bounds the fields of a struct.
func (l layout) sanitize(v reflect.Value) error {
	for i := range l {
		f := &l[i]
		at := v.Field(f.index)
		if f.pointer {
			if at.IsNil() {
				continue
			}
			at = at.Elem()
		}
		switch f.kind { //nolint:exhaustive // layoutOf makes no others
		case reflect.String:
			if err := f.sanitizeText(at); err != nil {
				return err
			}
		case reflect.Float64:
			if n := at.Float(); !(n >= 0 && n <= maxAmount) { // also not a number
				at.SetFloat(min(max(n, 0), maxAmount))
			}
		case reflect.Struct:
			if err := f.fields.sanitize(at); err != nil {
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

func (f *field) sanitizeText(at reflect.Value) error {
	text := at.String()
	switch {
	case f.isName && !prose.Plain(text, maxName):
		return fmt.Errorf("%s %.20q is not a valid name", f.name, text)
	case len(text) > absurdText:
		return fmt.Errorf("%s has %d bytes", f.name, len(text))
	case f.isName:
		return nil
	}
	if line := prose.Line(text, maxText); line != text {
		at.SetString(line)
	}
	return nil
}
