package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/reports"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// sampled is what a manager serves of node-1's parser: two records of fourteen.
func sampled(filter sampling.Filter) sampling.Sample {
	all := []string{
		`{"target":"node-1","stream":"Fills","event":["0x1",{"coin":"BTC","px":"76450.0","sz":"0.5"}]}`,
		`{"target":"node-1","stream":"Fills","event":["0x2",{"coin":"BTC","px":"76451.0","sz":"0.1"}]}`,
	}
	out := sampling.Sample{Delivered: 14, LeftOut: 12}
	for _, text := range all[:min(len(all), filter.Records)] {
		out.Records = append(out.Records, sampling.Record{Stream: "Fills", Text: []byte(text), Bytes: len(text)})
	}
	if filter.Coin != "" {
		out.Filtered, out.LeftOut = 5, 7
	}
	return out
}

// tailing runs tail on a manager that answers so, with a clock that moves a second with each request.
func tailing(t *testing.T, o tailOptions, answers func(n int, r *http.Request) (int, any)) (
	out, errs string, err error,
) {
	t.Helper()
	now, n := noon, 0
	served := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		now = now.Add(time.Second)
		code, document := answers(n, r)
		if text, isText := document.(string); isText {
			http.Error(w, text, code)
			return
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	defer served.Close()
	streams, _, stdout, stderr := genericiooptions.NewTestIOStreams()
	r := newRunner(streams)
	r.now = func() time.Time { return now }
	r.wait = func(_ context.Context, d time.Duration) bool { now = now.Add(d); return true }
	*r.flags.Namespace = "hl"
	r.reader = &manager{options: managerOptions{address: served.URL}, config: &rest.Config{BearerToken: "a"}}
	defer r.close()
	err = r.tail(t.Context(), "mainnet", "node-1", o)
	return stdout.String(), stderr.String(), err
}

func ordinary() tailOptions {
	return tailOptions{count: 10, time: time.Minute, filter: sampling.Filter{Records: 10}}
}

func TestTailShowsRecordsAsJSONLinesAndCountsTheRest(t *testing.T) {
	o := ordinary()
	o.filter.Coin, o.filter.Stream, o.count = "BTC", "fills", 3
	var asked []string
	out, errs, err := tailing(t, o, func(n int, r *http.Request) (int, any) {
		query := r.URL.Query()
		asked = append(asked, fmt.Sprint(r.URL.Path, " ", query.Get(reports.QueryTarget), " ",
			query.Get(reports.QueryStream), " ", query.Get(reports.QueryCoin), " ", query.Get(reports.QueryRecords)))
		f := o.filter
		f.Records = 3 - 2*(n-1)
		return http.StatusOK, sampled(f)
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "tail.txt", "$ kubectl hlp tail mainnet node-1 --stream fills --coin BTC --count 3\n"+out+errs)
	want := []string{"/samples/hl/mainnet node-1 Fills BTC 3", "/samples/hl/mainnet node-1 Fills BTC 1"}
	if fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked %q", asked)
	}
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%s is not JSON", line)
		}
	}
}

func TestTailEnds(t *testing.T) {
	full := func(int, *http.Request) (int, any) { return http.StatusOK, sampled(sampling.Filter{Records: 2}) }
	none := func(int, *http.Request) (int, any) { return http.StatusOK, sampling.Sample{} }
	others := func(int, *http.Request) (int, any) { return http.StatusOK, sampling.Sample{Delivered: 9, Filtered: 9} }
	taken := func(int, *http.Request) (int, any) { return http.StatusTooManyRequests, "others read samples" }
	with := func(change func(*tailOptions)) tailOptions {
		o := ordinary()
		change(&o)
		return o
	}
	for name, test := range map[string]struct {
		options tailOptions
		answers func(int, *http.Request) (int, any)
		code    int
		lines   int
		says    string
	}{
		"with enough records": {ordinary(), full, 0, 10, "10 shown of 70 records of all streams"},
		"after its time":      {with(func(o *tailOptions) { o.follow = true }), full, 0, 120, "in 60 s; 720 left out."},
		"as counted":          {with(func(o *tailOptions) { o.follow, o.counted = true, true }), full, 0, 10, "in 5 s"},
		"when nothing comes":  {ordinary(), none, ExitUnknown, 0, "kubectl hlp why mainnet node-1 shows what waits"},
		"when only others come": {
			with(func(o *tailOptions) { o.filter.Coin = "X" }), others, ExitUnknown, 0, "of other coins than X",
		},
		"when others take it":     {ordinary(), taken, ExitUnknown, 0, "No sample was taken"},
		"when it may not":         {ordinary(), refuses(403, `user "a" may not get`), ExitFailure, 0, ""},
		"when there is no target": {ordinary(), refuses(404, "no such target"), ExitFailure, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, err := tailing(t, test.options, test.answers)
			if code := Exit(err, io.Discard); code != test.code || strings.Count(out, "\n") != test.lines ||
				!strings.Contains(errs, test.says) {
				t.Errorf("exit code %d, %d lines, %s, %v", code, strings.Count(out, "\n"), errs, err)
			}
		})
	}
}

func refuses(code int, text string) func(int, *http.Request) (int, any) {
	return func(int, *http.Request) (int, any) { return code, text }
}

func TestTailWaitsWhileOthersReadSamples(t *testing.T) {
	out, _, err := tailing(t, ordinary(), func(n int, _ *http.Request) (int, any) {
		switch n {
		case 1:
			return http.StatusTooManyRequests, "the parser gives no sample: others read"
		case 2:
			return http.StatusServiceUnavailable, "too many requests at once"
		}
		return http.StatusOK, sampled(sampling.Filter{Records: 2})
	})
	if err != nil || strings.Count(out, "\n") != 10 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestWhatTailDoesNotAccept(t *testing.T) {
	for _, change := range []func(*tailOptions){
		func(o *tailOptions) { o.count = 0 }, func(o *tailOptions) { o.count = 10_001 },
		func(o *tailOptions) { o.time = 0 }, func(o *tailOptions) { o.time = time.Hour },
		func(o *tailOptions) { o.filter.Records = 0 }, func(o *tailOptions) { o.filter.Records = 101 },
		func(o *tailOptions) { o.filter.Stream = "nonsense" }, func(o *tailOptions) { o.filter.Coin = "a b" },
	} {
		o := ordinary()
		change(&o)
		_, _, err := tailing(t, o, func(int, *http.Request) (int, any) {
			t.Errorf("%+v is asked for", o)
			return http.StatusOK, sampling.Sample{}
		})
		if Exit(err, io.Discard) != ExitUsage || !strings.Contains(err.Error(), "write ") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestARecordIsOneLineOfJSONWhateverItIs(t *testing.T) {
	const long = `{"coin":"BTC","x":"`
	invalid := func(bytes int, quoted string) string {
		return fmt.Sprintf(`{"incomplete":"not JSON","stream":"Fills","bytes":%d,"beginning":"%s"}`, bytes, quoted)
	}
	for name, test := range map[string]struct {
		text  string
		bytes int
		want  string
	}{
		"as it is": {`{"a": "é"}`, 11, `{"a": "é"}`},
		"cut": {
			long, 9000, `{"incomplete":"cut","stream":"Fills","bytes":9000,"beginning":"{\"coin\":\"BTC\",\"x\":\""}`,
		},
		"a control":    {"\"\u009b2J\u007f\"", 7, `"\u009b2J\u007f"`},
		"no JSON":      {"x\x1b[2J", 5, invalid(5, `x\u001b[2J`)},
		"several":      {"1\n2", 3, invalid(3, `1\n2`)},
		"a line break": {"[1,\n2]", 6, invalid(6, `[1,\n2]`)},
		"no UTF-8":     {"\"\xff\"", 3, invalid(3, `\"\ufffd\"`)},
	} {
		got := lineOf(&sampling.Record{Stream: "Fills", Text: []byte(test.text), Bytes: test.bytes})
		if string(got) != test.want || !json.Valid(got) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"a":"b"}`), 9)
	f.Fuzz(func(t *testing.T, text []byte, more int) {
		got := lineOf(&sampling.Record{Text: text, Bytes: len(text) + max(more, 0)})
		control := func(c rune) bool { return c < ' ' && c != '\t' || c >= 0x7f && c <= 0x9f }
		if !json.Valid(got) || strings.ContainsFunc(string(got), control) {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}

func TestABundleHasNoRecordsOfALog(t *testing.T) {
	log := `time=2026-05-01T11:00:00Z level=WARN msg="malformed; it goes to the dead letter" reason=json ` +
		`file=x offset=7 index=0 excerpt="[\"0x1\",{\"coin\":\"secret" more=1
level=WARN excerpt=secret
level=WARN excerpt="cut in the middle of \"secret
level=INFO msg="excerpts are kept"
`
	got := string(withoutExcerpts([]byte(log)))
	if strings.Contains(got, "secret") || strings.Count(got, "excerpt=(left out)") != 3 ||
		!strings.Contains(got, "(left out) more=1\n") || !strings.Contains(got, "excerpts are kept") ||
		strings.Count(got, "\n") != strings.Count(log, "\n") {
		t.Error(got)
	}
}

func TestABundleHasTheMetricsOfItsNamespaceAlone(t *testing.T) {
	got := string(ofNamespace([]byte(`# HELP a text
a{name="x",namespace="hl"} 1
a{namespace="other",name="x"} 1
a{exported_namespace="other"} 1
b 2
`), "hl"))
	if got != "# HELP a text\na{name=\"x\",namespace=\"hl\"} 1\na{exported_namespace=\"other\"} 1\nb 2\n" {
		t.Error(got)
	}
}

func TestTheNamedTargetIsFirstInABundle(t *testing.T) {
	f := watched()
	for target, want := range map[string]string{
		"":       "[node-2 node-4 node-3 node-1]",
		"node-1": "[node-1 node-2 node-4 node-3]",
	} {
		var names []string
		for _, r := range worst(&f, target) {
			names = append(names, r.Target)
		}
		if fmt.Sprint(names) != want {
			t.Errorf("%q: %v", target, names)
		}
	}
}
