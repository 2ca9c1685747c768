package poller

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

func TestAReportHasNothingOfTheOneBefore(t *testing.T) {
	var r, fresh report.Report
	e := Endpoint{Target: "t", PodName: "p"}
	whole := `{"parser":"hlparser","version":"v","target":"t","pod":"p","now":"2026-05-01T12:00:00Z",
		"process":{"rssBytes":1},"streams":[
		{"name":"Fills","message":"m","linesTotal":7,"uncommittedBytes":7,"lagSeconds":0,"blocked":{"path":"x"},
		"lastLineAt":"2026-05-01T12:00:00Z","sink":{"state":"Retrying","lastError":"e"}},{"name":"Trades"}]}`
	bare := `{"parser":"hlparser","target":"t","pod":"p","streams":[{}]}`
	null := `{"parser":"hlparser","target":"t","pod":"p","process":{"rssBytes":null},
		"streams":[{"uncommittedBytes":null,"lagSeconds":null}]}`
	for _, body := range []string{whole, bare, whole, null} {
		fresh = report.Report{}
		if err := decode([]byte(body), e, &r); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(body), &fresh); err != nil || !reflect.DeepEqual(r, fresh) {
			t.Errorf("got  %+v\nwant %+v, %v", r, fresh, err)
		}
	}
}

func TestAReportThatSaysTooMuchOfWhatCannotBeReadIsRefused(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for name, blocked := range map[string]report.BlockedPath{
		"path": {Path: long}, "error": {Error: long}, "errno": {Errno: long},
	} {
		body, err := json.Marshal(
			report.Report{
				Parser: "hlparser", Target: "t", Pod: "p", Streams: []report.Stream{{Name: "Fills", Blocked: &blocked}},
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		var r report.Report
		if err := decode(body, Endpoint{Target: "t", PodName: "p"}, &r); err == nil || len(err.Error()) > 200 {
			t.Errorf("a long %s: %.300v", name, err)
		}
	}
}

// fullReport returns a report of target t with every optional field set.
func fullReport() *report.Report {
	r := &report.Report{Streams: make([]report.Stream, 1)}
	fill(reflect.ValueOf(r).Elem())
	r.Parser, r.Target, r.Pod = "hlparser", "t", "p"
	return r
}

// fill sets all pointers in a struct.
func fill(v reflect.Value) {
	for _, at := range v.Fields() {
		switch {
		case at.Kind() == reflect.Slice:
			for j := range at.Len() {
				fill(at.Index(j))
			}
		case at.Kind() == reflect.Pointer:
			at.Set(reflect.New(at.Type().Elem()))
			fillStruct(at.Elem())
		default:
			fillStruct(at)
		}
	}
}

func fillStruct(v reflect.Value) {
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() {
		fill(v)
	}
}

// each calls do with every leaf value in v and its path.
func each(where string, v reflect.Value, do func(where string, v reflect.Value)) {
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			each(where, v.Elem(), do)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			each(where, v.Index(i), do)
		}
	case v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]():
		for i := range v.NumField() {
			each(where+"."+v.Type().Field(i).Name, v.Field(i), do)
		}
	default:
		do(where, v)
	}
}

// fieldsOf returns the paths of a report's values of the given kinds.
func fieldsOf(kinds ...reflect.Kind) []string {
	var out []string
	each("", reflect.ValueOf(fullReport()), func(where string, v reflect.Value) {
		if slices.Contains(kinds, v.Kind()) {
			out = append(out, where)
		}
	})
	return out
}

// TestNoStringOfAReportIsUnbounded forges every string of a report in turn, including those that are added later.
func TestNoStringOfAReportIsUnbounded(t *testing.T) {
	const refused, cleaned = false, true
	identity := []string{".Parser", ".Target", ".Pod"}
	named := []string{".Streams.Name", ".Streams.Mode", ".Streams.State", ".Streams.Blocked.Errno", ".Streams.Sink.State"}
	fields := fieldsOf(reflect.String)
	if len(fields) < 16 {
		t.Fatalf("%d strings: %v", len(fields), fields)
	}
	for _, where := range fields {
		for name, forged := range map[string]struct {
			text, becomes string
			want          bool // of a text; a name is always refused
		}{
			"100 KB":                 {strings.Repeat("x", 100_000), "", refused},
			"100 KB of control":      {strings.Repeat("\x1b", 100_000), "", refused},
			"a page":                 {strings.Repeat("x", 5000), strings.Repeat("x", maxText-3) + "…", cleaned},
			"an escape sequence":     {"\x1b[2J\x1b]0;owned\a", "\ufffd[2J\ufffd]0;owned\ufffd", cleaned},
			"lines":                  {"no space left\r\non device\n", "no space left  on device ", cleaned},
			"NUL":                    {"a\x00b", "a\ufffdb", cleaned},
			"overrides of direction": {"a\u202eb\u2066c", "a\ufffdb\ufffdc", cleaned},
			"line separators":        {"a\u2028b\u2029c\u0085d", "a b c d", cleaned},
			"without width":          {"a\u200bb\ufeffc", "a\ufffdb\ufffdc", cleaned},
		} {
			body := fullReport()
			each("", reflect.ValueOf(body), func(at string, v reflect.Value) {
				if at == where {
					v.SetString(forged.text)
				}
			})
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			var r report.Report
			err = decode(text, Endpoint{Target: "t", PodName: "p"}, &r)
			want := forged.want && !slices.Contains(named, where) && !slices.Contains(identity, where)
			if (err == nil) != want {
				t.Errorf("%s in %s: accepted %v, want %v: %.200v", name, where, err == nil, want, err)
			}
			if err != nil {
				if line := err.Error(); len(line) > 300 || !printable(line) {
					t.Errorf("%s in %s is refused with %q", name, where, line)
				}
				continue
			}
			each("", reflect.ValueOf(&r), func(at string, v reflect.Value) {
				switch {
				case v.Kind() != reflect.String:
				case at == where && v.String() != forged.becomes:
					t.Errorf("%s in %s becomes %.40q, want %.40q", name, where, v.String(), forged.becomes)
				case len(v.String()) > maxText || !printable(v.String()):
					t.Errorf("%s in %s: %s is %.40q", name, where, at, v.String())
				}
			})
		}
	}
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r != ' ' &&
			!unicode.IsPrint(r)
	})
}

func TestAReportThatIsNotUTF8OrSaysAThingTwiceIsRefused(t *testing.T) {
	for name, body := range map[string]string{
		"invalid UTF-8": `{"parser":"hlparser","target":"t","pod":"p",` +
			`"streams":[{"message":"a` + "\xff\xfe" + `"}]}`,
		"half a surrogate":    `{"parser":"hlparser","target":"t","pod":"p","streams":[{"message":"\ud800"}]}`,
		"the pod twice":       `{"parser":"hlparser","target":"t","pod":"p","pod":"p","streams":[{}]}`,
		"a long name twice":   `{"` + strings.Repeat("x", 100_000) + `":1,"` + strings.Repeat("x", 100_000) + `":1}`,
		"not a number":        `{"parser":"hlparser","target":"t","pod":"p","streams":[{"lagSeconds":NaN}]}`,
		"a number beyond all": `{"parser":"hlparser","target":"t","pod":"p","streams":[{"lagSeconds":1e999}]}`,
		"a count beyond all": `{"parser":"hlparser","target":"t","pod":"p",` +
			`"streams":[{"linesTotal":99999999999999999999}]}`,
		"a year beyond all": `{"parser":"hlparser","target":"t","pod":"p",` +
			`"now":"99999-01-01T00:00:00Z","streams":[{}]}`,
		"a word for a count":        `{"parser":"hlparser","target":"t","pod":"p","streams":[{"linesTotal":"7"}]}`,
		"a report and something":    `{"parser":"hlparser","target":"t","pod":"p","streams":[{}]} x`,
		"a blocked path of no text": `{"parser":"hlparser","target":"t","pod":"p","streams":[{"blocked":{"path":7}}]}`,
	} {
		var r report.Report
		if err := decode([]byte(body), Endpoint{Target: "t", PodName: "p"}, &r); err == nil {
			t.Errorf("%s is accepted: %+v", name, r)
		}
	}
}

// TestNoFigureOfAReportIsAbsurd puts absurd figures into every number of a report in turn.
func TestNoFigureOfAReportIsAbsurd(t *testing.T) {
	accepts := func(where string, r *report.Report) *report.Report {
		t.Helper()
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		out := new(report.Report)
		if err := decode(text, Endpoint{Target: "t", PodName: "p"}, out); err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		return out
	}
	for _, where := range fieldsOf(reflect.Int, reflect.Int64) {
		for forged, want := range map[int64]int64{
			-1: 0, math.MinInt64: 0, math.MaxInt64: maxCount, maxCount + 1: maxCount, maxCount: maxCount, 0: 0, 7: 7,
		} {
			r := fullReport()
			each("", reflect.ValueOf(r), func(at string, v reflect.Value) {
				if at == where {
					v.SetInt(forged)
				}
			})
			each("", reflect.ValueOf(accepts(where, r)), func(at string, v reflect.Value) {
				if at == where && v.Int() != want {
					t.Errorf("%d in %s becomes %d, want %d", forged, where, v.Int(), want)
				}
			})
		}
	}
	for _, where := range fieldsOf(reflect.Float64) {
		for forged, want := range map[float64]float64{
			-1: 0, -math.MaxFloat64: 0, math.MaxFloat64: maxAmount, 1e300: maxAmount,
			math.SmallestNonzeroFloat64: math.SmallestNonzeroFloat64, 0.25: 0.25,
		} {
			r := fullReport()
			each("", reflect.ValueOf(r), func(at string, v reflect.Value) {
				if at == where {
					v.SetFloat(forged)
				}
			})
			each("", reflect.ValueOf(accepts(where, r)), func(at string, v reflect.Value) {
				if at == where && v.Float() != want {
					t.Errorf("%g in %s becomes %g, want %g", forged, where, v.Float(), want)
				}
			})
		}
	}
}

// BenchmarkDecode decodes a report of two streams.
func BenchmarkDecode(b *testing.B) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)
	stream := report.Stream{
		Name: "OrderStatuses", Mode: "Streaming", State: report.Running, BufferLines: 421, BufferBytes: 201234,
		BufferLimitBytes: 32 << 20,
		InFlightLines:    211, InFlightBytes: 101234, LastBatchLines: 1011, BatchesTotal: 12345, LinesTotal: 123456789,
		EventsTotal:    123456789,
		DeliveredTotal: 12345678, LastBlock: 987654321, UncommittedBytes: new(int64(1001234)), LagSeconds: new(0.0912),
		LargestLineBytes: 2048,
		ReadBytesTotal:   123456789012, ParsedBytesTotal: 123456789012, AckedBytesTotal: 123456789012,
		CommittedBytesTotal: 123456789012,
		File:                "node_order_statuses_streaming/hourly/20260430/20",
		Position:            "node_order_statuses_streaming/hourly/20260430/20:123456789",
		CommittedPosition:   "node_order_statuses_streaming/hourly/20260430/20:123000000", LastLineAt: &now,
		LastCommitAt: &now,
		Sink:         report.Sink{State: report.SinkHealthy, Since: &now, LastAckAt: &now, BusySecondsTotal: 3.2512},
	}
	body, err := json.Marshal(report.Report{
		Version: "v1", Parser: "hlparser", Target: "node-1", Pod: "mainnet-5qgrl2jesj", StartedAt: now, Now: now,
		Process: report.Process{
			RSSBytes: new(int64(60123456)), HeapBytes: 30123456, Goroutines: 40, MemoryLimitBytes: 512 << 20, CPULimit: 2,
			CPUSecondsTotal: 123.4567,
		},
		Streams: []report.Stream{stream, stream},
	})
	if err != nil {
		b.Fatal(err)
	}
	var r report.Report
	endpoint := Endpoint{Target: "node-1", PodName: "mainnet-5qgrl2jesj"}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := decode(body, endpoint, &r); err != nil {
			b.Fatal(err)
		}
	}
}
