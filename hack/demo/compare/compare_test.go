package compare_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/hack/demo/compare"
	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
)

func write(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func record(event string) string {
	return `{"stream":"Fills","pos":"p","block":1,"index":0,"blockTime":"","localTime":null,"event":` + event + `}`
}

func TestDeliveredEventsAreComparedWithWrittenOnes(t *testing.T) {
	a, b, c := `["0xa",{"tid":1, "px":"1.0"}]`, `["0xb",{"tid":2}]`, `["0xc",{"tid":3}]`
	for name, tc := range map[string]struct {
		delivered []string
		want      compare.Result
	}{
		"all of it":              {[]string{a, b, c}, compare.Result{}},
		"files interleaved":      {[]string{c, a, b}, compare.Result{}},
		"one lost":               {[]string{a, c}, compare.Result{Lost: 1}},
		"one twice":              {[]string{a, b, b, c}, compare.Result{Duplicated: 1}},
		"two in wrong order":     {[]string{b, a, c}, compare.Result{Disordered: 1}},
		"one changed by a space": {[]string{a, b, `["0xc", {"tid":3}]`}, compare.Result{Lost: 1, Foreign: 1}},
		"nothing":                {nil, compare.Result{Lost: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			data, out := t.TempDir(), t.TempDir()
			src := gen.Source{Stream: gen.Fills, Mode: gen.ByBlock}
			hourly := filepath.Join(data, "node_fills_by_block", "hourly", "20260430")
			write(t, filepath.Join(hourly, "8"), `{"local_time":"","block_number":1,"events":[`+a+`,`+b+`]}`,
				`{"local_time":"","block_number":2,"events":[]}`, "")
			write(t, filepath.Join(hourly, "9"), `{"local_time":"","block_number":3,"events":[`+c+`]}`, "")
			lines := make([]string, 0, len(tc.delivered))
			for _, event := range tc.delivered {
				lines = append(lines, record(event))
			}
			half := len(lines) / 2
			write(t, filepath.Join(out, "1.jsonl"), append(lines[:half:half], "")...)
			write(t, filepath.Join(out, "2.part"), append(lines[half:len(lines):len(lines)], "")...)
			write(t, filepath.Join(out, "other.tmp"), "not ours")

			got, err := compare.Stream(data, src, out)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Events = 3
			wrong := tc.want.Lost+tc.want.Duplicated+tc.want.Foreign+tc.want.Disordered > 0
			if wrong == got.Exact() || wrong == (len(got.Examples) == 0) {
				t.Errorf("exact: %v, examples %q", got.Exact(), got.Examples)
			}
			got.Examples = nil
			if got.Events != tc.want.Events || got.Lost != tc.want.Lost || got.Duplicated != tc.want.Duplicated ||
				got.Foreign != tc.want.Foreign || got.Disordered != tc.want.Disordered {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if n, err := compare.Count(out); err != nil || n != int64(len(tc.delivered)) {
				t.Errorf("counted %d, %v", n, err)
			}
		})
	}
}

func TestTornDeliveryIsAnError(t *testing.T) {
	data, out := t.TempDir(), t.TempDir()
	src := gen.Source{Stream: gen.Fills, Mode: gen.Line}
	write(t, filepath.Join(data, "node_fills", "hourly", "20260430", "8"), `["0xa",{}]`, "")
	write(t, filepath.Join(out, "1.part"), record(`["0xa",{}]`))
	if _, err := compare.Stream(data, src, out); err == nil || !strings.Contains(err.Error(), "torn") {
		t.Errorf("got %v", err)
	}
}
