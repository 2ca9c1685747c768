package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/hyperliquid"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// memoryBound is the bound on the resident memory that docs/design.md promises, in bytes.
func memoryBound(bufferLimit, workers, streams, longestLine int) int64 {
	return int64(64<<20 + bufferLimit + max(bufferLimit, workers*streams<<20) + 2*max(longestLine-1<<20, 0))
}

// hostileLine is the content of one line or, in line mode, of as many lines as there are events.
type hostileLine struct {
	name   string
	local  string // the header's local_time
	events []string
}

const plainFill = `["0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",{"coin":"BTC","px":"1.5","sz":"1","side":"A",` +
	`"time":1777580000000,"tid":101,"oid":1}]`

// shortLines have at most 1 MiB each. Their records are up to 150 times as long.
func shortLines() []hostileLine {
	const localTime = "2026-04-30T20:46:46.266580134"
	padded := func(pad string) string { return strings.TrimSuffix(plainFill, "}]") + `,"pad":` + pad + "}]" }
	return []hostileLine{
		{"the smallest events", localTime, slices.Repeat([]string{`["",{}]`}, 130_000)},
		{"small events, and one that is not JSON at their end", localTime,
			append(slices.Repeat([]string{plainFill}, 7_000), `["",{"a":tru}]`)},
		{"the smallest malformed events", localTime, slices.Repeat([]string{`1`}, 50_000)},
		{"a header of 300 KiB", strings.Repeat("9", 300<<10), slices.Repeat([]string{plainFill}, 600)},
		{"a header of 65 bytes", strings.Repeat("9", 65), []string{plainFill}},
		{"a header of 64 bytes", strings.Repeat("9", 64), slices.Repeat([]string{`["",{}]`}, 20_000)},
		{"no events", localTime, nil},
		{"nesting at the limit", localTime, []string{padded(strings.Repeat("[", 9_990) + strings.Repeat("]", 9_990)),
			plainFill}},
		{"nesting beyond the limit", localTime, []string{padded(strings.Repeat("[", 400_000) + strings.Repeat("]", 400_000)),
			plainFill}},
		{"escapes", localTime, []string{padded(`"` + strings.Repeat(`\u00e9`, 150_000) + `"`), plainFill}},
		{"keys with escapes", localTime, []string{padded(`1` + strings.Repeat(`,"\u0070ad":1`, 60_000)), plainFill}},
		{"a long coin", localTime, []string{strings.Replace(plainFill, "BTC", strings.Repeat("B", 900_000), 1), plainFill}},
		{"a long coin with an escape", localTime, []string{strings.Replace(plainFill, "BTC",
			`\u0042`+strings.Repeat("B", 900_000), 1), plainFill}},
		{"long numbers", localTime, []string{strings.Replace(plainFill, "101", strings.Repeat("1", 900_000), 1),
			strings.Replace(plainFill, "1.5", strings.Repeat("9", 100_000), 1)}},
		{"text that is not UTF-8", localTime, []string{plainFill, padded(`"` + strings.Repeat("\xff", 500_000) + `"`),
			padded(`"\ud800"`), padded(`"\ud83d\ude00"`)}},
	}
}

// longLines have up to maxLineBytes. They follow one another, so that memory retained by one shows with the next.
func longLines() []hostileLine {
	pad := func(n int) []string {
		return []string{strings.TrimSuffix(plainFill, "}]") + `,"pad":"` + strings.Repeat("x", n) + `"}]`}
	}
	return []hostileLine{
		{"one event of 20 MiB", "l", pad(20 << 20)},
		{"one event of nearly 64 MiB", "l", pad(64<<20 - 1000)},
		{"a key of nearly 64 MiB, with an escape", "l", []string{
			strings.TrimSuffix(plainFill, "}]") + `,"\u0070` + strings.Repeat("x", 64<<20-1000) + `":1}]`,
		}},
		{"brackets", "l", []string{`["",{"a":` + strings.Repeat("[", 10<<20) + strings.Repeat("]", 10<<20) + "}]"}},
		{"escapes", "l", []string{strings.Replace(plainFill, "BTC", strings.Repeat(`\u0042`, 2<<20), 1)}},
		{"a block of 6 MiB", "l", slices.Repeat([]string{plainFill}, 45_000)},
	}
}

// frame writes hostile lines as a node does in a mode. An ordinary line follows each of them.
func frame(w io.Writer, mode string, lines []hostileLine) {
	for i, l := range lines {
		if mode == "line" {
			for _, e := range append(slices.Clip(l.events), plainFill) {
				_, _ = io.WriteString(w, e+"\n")
			}
			continue
		}
		for k, h := range []hostileLine{l, {local: "l", events: []string{plainFill}}} {
			_, _ = fmt.Fprintf(w, `{"local_time":"%s","block_time":"b","block_number":%d,"events":[`, h.local, 2*i+k+1)
			for j, e := range h.events {
				if j > 0 {
					_, _ = io.WriteString(w, ",")
				}
				_, _ = io.WriteString(w, e)
			}
			_, _ = io.WriteString(w, "]}\n")
		}
	}
}

// TestMemoryIsBoundedWhateverALineHolds measures the real binary: a test of allocations shows neither what the
// collector retains nor memory outside of the heap. The records must match those computed with encoding/json.
func TestMemoryIsBoundedWhateverALineHolds(t *testing.T) {
	binary := buildParser(t)
	oracle := &oracle{verdicts: map[string]verdict{}}
	for _, kind := range []struct {
		name  string
		lines []hostileLine
		long  bool
	}{{"lines of 1 MiB", shortLines(), false}, {"lines up to 64 MiB", longLines(), true}} {
		for _, mode := range []string{"line", "streaming", "by-block"} {
			if mode == "streaming" && kind.long {
				continue // it is read like by-block mode
			}
			data := t.TempDir()
			file := filepath.Join(data, strings.TrimSuffix(strings.ReplaceAll("node_fills_"+mode, "-", "_"), "_line"),
				"hourly/20260430/8")
			longest, size := write(t, file, mode, kind.lines)
			for _, format := range []string{"raw", "enveloped", "normalized"} {
				for _, limit := range []int{4, 32} {
					t.Run(fmt.Sprintf("%s/%s/%s/%dMi", kind.name, mode, format, limit), func(t *testing.T) {
						t.Parallel()
						const workers = 2
						p := startHostile(t, binary, data, "--stream", "fills:"+mode, "--format", format,
							"--buffer-limit", fmt.Sprint(limit, "Mi"), "--workers", fmt.Sprint(workers))
						label := p.label()
						want, expected := io.Pipe()
						go func() {
							w := bufio.NewWriterSize(expected, 1<<20)
							oracle.deliver(w, kind.lines, mode, format, label)
							_ = expected.CloseWithError(w.Flush())
						}()
						compared := make(chan error, 1)
						go func() { compared <- sameText(p.stdout, want) }()
						p.finish(size, compared, memoryBound(limit<<20, workers, 1, longest))
					})
				}
			}
		}
	}
}

// TestMemoryIsBoundedForAllStreamsTogether writes hostile lines in all eight streams at the same time, and lines that
// each cause a marker.
func TestMemoryIsBoundedForAllStreamsTogether(t *testing.T) {
	const workers, gaps = 2, 20_000
	binary, data := buildParser(t), t.TempDir()
	args := []string{"--format", "enveloped", "--workers", fmt.Sprint(workers), "--markers", "--deduplicate-blocks"}
	streams := config.Streams()
	events, longest := 0, 0
	for _, stream := range streams {
		args = append(args, "--stream", stream.Kebab()+":by-block")
		event := `{}`
		if stream == config.Fills {
			event = `["",{}]`
		}
		dir := filepath.Join(data, hyperliquid.Directory(stream, config.ByBlock), "hourly/20260430")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		for i := range 2 {
			n := (1<<20 - 100) / (len(event) + 1)
			was := text.Len()
			_, _ = fmt.Fprintf(&text, `{"local_time":"l","block_time":"b","block_number":%d,"events":[%s]}`+"\n", i+1,
				strings.Repeat(","+event, n)[1:])
			longest = max(longest, text.Len()-was)
			events += n
		}
		for i := range gaps {
			_, _ = fmt.Fprintf(&text, `{"block_number":%d,"events":[]}`+"\n", 2*i+4)
		}
		if err := os.WriteFile(filepath.Join(dir, "8"), text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{4, 32} {
		t.Run(fmt.Sprintf("%dMi", limit), func(t *testing.T) {
			p := startHostile(t, binary, data, append(args, "--buffer-limit", fmt.Sprint(limit, "Mi"))...)
			compared := make(chan error, 1)
			go func() {
				n := 0
				for b := make([]byte, 1<<20); ; {
					read, err := p.stdout.Read(b)
					n += bytes.Count(b[:read], []byte("\n"))
					if err != nil {
						break
					}
				}
				if want := events + len(streams)*gaps; n != want {
					compared <- fmt.Errorf("%d records and markers; want %d", n, want)
				}
				close(compared)
			}()
			p.finish(2<<20, compared, memoryBound(limit<<20, workers, len(streams), longest))
		})
	}
}

func buildParser(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("the test moves gigabytes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reports the peak of the resident memory")
	}
	binary := filepath.Join(t.TempDir(), "hlparser")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the parser: %v\n%s", err, out)
	}
	return binary
}

// write writes a node's file. It returns the length of its longest line, and its size, in bytes.
func write(t *testing.T, path, mode string, lines []hostileLine) (longest int, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	frame(w, mode, lines)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		length := len(l.local) + 100
		for _, e := range l.events {
			length += len(e) + 1
			if mode == "line" {
				longest = max(longest, len(e)+1)
			}
		}
		if mode != "line" {
			longest = max(longest, length)
		}
	}
	return longest, size
}

// hostileRun is a parser that reads hostile lines.
type hostileRun struct {
	t       *testing.T
	cmd     *exec.Cmd
	stdout  io.Reader
	logs    bytes.Buffer
	mu      sync.Mutex // guards logs
	address string
}

func startHostile(t *testing.T, binary, data string, args ...string) *hostileRun {
	t.Helper()
	p := &hostileRun{t: t}
	p.cmd = exec.CommandContext(t.Context(), binary, append([]string{"run", "--data-dir", data, "--state-dir", t.TempDir(),
		"--start-at", "beginning",
		"--sink", "stdout", "--listen", "127.0.0.1:0", "--id", "node"}, args...)...)
	var err error
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	address := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			_, _ = fmt.Fprintln(&p.logs, lines.Text())
			p.mu.Unlock()
			if _, at, ok := strings.Cut(lines.Text(), "address="); ok {
				address <- at
			}
		}
		close(address)
	}()
	if p.address = <-address; p.address == "" {
		t.Fatalf("the parser's log: %s", p.log())
	}
	return p
}

func (p *hostileRun) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs.String()
}

// wait polls the report until it satisfies a condition.
func (p *hostileRun) wait(enough func([]report.Stream) bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + p.address + "/status")
		if err != nil {
			p.t.Fatal(err)
		}
		var r report.Report
		err = json.NewDecoder(resp.Body).Decode(&r)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			p.t.Fatal(err)
		case len(r.Streams) > 0 && enough(r.Streams):
			return
		case time.Now().After(deadline):
			p.t.Fatalf("the report says %+v\n%s", r, p.log())
		}
	}
}

var positionLabel = regexp.MustCompile(`^(.+@[0-9a-f]{8}):`)

// label returns the file in the positions of records.
func (p *hostileRun) label() (label string) {
	p.t.Helper()
	p.wait(func(s []report.Stream) bool {
		if m := positionLabel.FindStringSubmatch(s[0].Position); m != nil && !strings.HasSuffix(m[1], "@00000000") {
			label = m[1]
		}
		return label != ""
	})
	return label
}

// finish waits until everything is committed, checks the peak memory, ends the parser, and checks its output.
func (p *hostileRun) finish(size int64, compared <-chan error, bound int64) {
	p.t.Helper()
	p.wait(func(streams []report.Stream) bool {
		return !slices.ContainsFunc(streams, func(s report.Stream) bool {
			return s.ReadBytesTotal < size || s.UncommittedBytes == nil || *s.UncommittedBytes > 0
		})
	})
	peak, err := results.PeakOf(p.cmd.Process.Pid)
	if err != nil {
		p.t.Fatal(err)
	}
	if peak > bound {
		p.t.Errorf("the peak of the resident memory is %.1f MiB; the bound is %.1f", float64(peak)/(1<<20),
			float64(bound)/(1<<20))
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	if err := <-compared; err != nil {
		p.t.Error(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the parser ended with %v\n%s", err, p.log())
	}
}

// sameText compares two texts to their ends.
func sameText(got, want io.Reader) error {
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := 0; ; {
		n, errGot := io.ReadFull(got, a)
		m, errWant := io.ReadFull(want, b)
		if !bytes.Equal(a[:n], b[:m]) {
			for i := range min(n, m) {
				if a[i] != b[i] {
					return fmt.Errorf("at %d: got %.300q, want %.300q", at+i, a[max(i-100, 0):n], b[max(i-100, 0):m])
				}
			}
			return fmt.Errorf("at %d: got %d bytes more, want %d", at, n, m)
		}
		if errGot != nil || errWant != nil {
			_, _ = io.Copy(io.Discard, got)
			_, _ = io.Copy(io.Discard, want)
			return nil
		}
		at += n
	}
}

// oracle computes the expected records with encoding/json. It shares nothing with the parser.
type oracle struct {
	mu       sync.Mutex
	verdicts map[string]verdict
}

// verdict is the expected result for an event in each format.
type verdict struct {
	valid, strict bool
	record        string // the members of a Normalized record, up to the block; empty if a required one is missing
}

func (o *oracle) deliver(w io.Writer, lines []hostileLine, mode, format, label string) {
	offset, number := 0, 0
	var b []byte // appended to, because Fprintf takes a minute with the race detector
	record := func(v verdict, e, local string, index int) {
		b = b[:0]
		pos := func() {
			b = append(append(b, `"pos":"`...), label...)
			b = strconv.AppendInt(append(b, ':'), int64(offset), 10)
			b = strconv.AppendInt(append(b, ':'), int64(index), 10)
			b = append(b, '"')
		}
		place := func() {
			if mode == "line" {
				b = append(b, `,"block":null,"index":null`...)
				return
			}
			b = strconv.AppendInt(append(b, `,"block":`...), int64(number), 10)
			b = strconv.AppendInt(append(b, `,"index":`...), int64(index), 10)
		}
		times := func() {
			if mode == "line" {
				b = append(b, `,"blockTime":null,"localTime":null`...)
			} else {
				b = append(append(append(b, `,"blockTime":"b","localTime":"`...), local...), '"')
			}
		}
		switch {
		case format == "raw" && v.valid:
			b = append(b, e...)
		case format == "enveloped" && v.strict:
			b = append(b, `{"target":"node","stream":"Fills",`...)
			pos()
			place()
			times()
			b = append(append(append(b, `,"event":`...), e...), '}')
		case format == "normalized" && v.strict && v.record != "":
			b = append(append(b, '{'), v.record...)
			place()
			times()
			b = append(b, ',')
			pos()
			b = append(b, '}')
		default:
			return
		}
		_, _ = w.Write(append(b, '\n'))
	}
	for _, l := range lines {
		if mode == "line" {
			for _, e := range append(slices.Clip(l.events), plainFill) {
				record(o.verdictOf(e), e, "", 0)
				offset += len(e) + 1
			}
			continue
		}
		for _, h := range []hostileLine{l, {local: "l", events: []string{plainFill}}} {
			number++
			length := len(fmt.Sprintf(`{"local_time":"%s","block_time":"b","block_number":%d,"events":[]}`+"\n", h.local,
				number)) + max(len(h.events)-1, 0)
			for i, e := range h.events {
				if len(h.local) <= 64 {
					record(o.verdictOf(e), e, h.local, i)
				}
				length += len(e)
			}
			offset += length
		}
	}
}

var halfSurrogate = regexp.MustCompile(`\\ud800`) // the only one in the lines

func (o *oracle) verdictOf(event string) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	v, known := o.verdicts[event]
	if known {
		return v
	}
	var pair []json.RawMessage
	var user string
	if json.Unmarshal([]byte(event), &pair) == nil && len(pair) == 2 && json.Unmarshal(pair[0], &user) == nil &&
		pair[1][0] == '{' {
		v.valid = true
		v.strict = utf8.ValidString(event) && !halfSurrogate.MatchString(event)
		v.record = normalizedFill(pair)
	}
	o.verdicts[event] = v
	return v
}

// normalizedFill returns the record of a fill; of duplicate keys the first counts.
func normalizedFill(pair []json.RawMessage) string {
	members := map[string]string{}
	var extra []byte
	dec := json.NewDecoder(bytes.NewReader(pair[1]))
	for _, _ = dec.Token(); dec.More(); {
		before := dec.InputOffset()
		key, _ := dec.Token()
		name := bytes.TrimLeft(pair[1][before:dec.InputOffset()], ",")
		var value json.RawMessage
		_ = dec.Decode(&value)
		if !slices.Contains([]string{"tid", "oid", "coin", "px", "sz", "side", "time"}, key.(string)) {
			if extra == nil {
				extra = append(extra, '{')
			} else {
				extra[len(extra)-1] = ','
			}
			extra = append(append(append(append(extra, name...), ':'), value...), '}')
		}
		if _, twice := members[key.(string)]; !twice {
			members[key.(string)] = string(value)
		}
	}
	for _, needed := range []string{"tid", "oid", "coin", "px", "sz", "side", "time"} {
		if members[needed] == "" {
			return ""
		}
	}
	if extra == nil {
		extra = []byte("null")
	}
	var ms int64
	_ = json.Unmarshal([]byte(members["time"]), &ms)
	side := map[string]string{`"A"`: "Ask", `"B"`: "Bid"}[members["side"]]
	return fmt.Sprintf(`"id":%s,"orderId":%s,"coin":%s,"side":"%s","price":%s,"size":%s,"owner":%s,"time":"%s",`+
		`"direction":null,"closedPnl":null,"fee":null,`+
		`"feeToken":null,"crossed":null,"hash":null,"cloid":null,"liquidation":null,`+
		`"startPosition":null,"twapId":null,"builder":null,"builderFee":null,"deployerFee":null,"priorityGas":null,`+
		`"extra":%s`, members["tid"], members["oid"], members["coin"], side, members["px"], members["sz"], pair[0],
		time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000000000"), extra)
}
