package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// inOrderOnce checks that the positions of single-record messages strictly increase in each file. It returns the number
// of messages by stream.
func inOrderOnce(t testing.TB, messages []jetstream.Msg) map[string]int {
	t.Helper()
	type place struct{ offset, index int }
	last, counts := map[string]place{}, map[string]int{}
	for i, m := range messages {
		stream := m.Headers().Get("Hl-Stream")
		at := strings.Split(m.Headers().Get("Hl-Position"), ":")
		offset, err := strconv.Atoi(at[1])
		must(t, err)
		index, err := strconv.Atoi(at[2])
		must(t, err)
		before, ok := last[stream+at[0]]
		if ok && (offset < before.offset || offset == before.offset && index <= before.index) {
			t.Fatalf("message %d of %s in %s: position %d:%d follows %v", i, stream, at[0], offset, index, before)
		}
		last[stream+at[0]] = place{offset, index}
		counts[stream]++
	}
	return counts
}

// A process ends at any moment of a write or a commit, 200 times, and leaves its connection open, as a zombie does.
func TestCrashesAtAnyMomentStoreEachRecordOnce(t *testing.T) {
	const crashes, files = 200, 3
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	s := startServer(t)
	c := settings(s.url(), func(c *config.NATSSink) { c.Delivery = config.ExactlyOnce })

	type saved struct {
		state json.RawMessage
		read  [files]int
	}
	var disk saved
	var tried [files]int // the end of the records that may be stored
	write := func(ctx context.Context, w sink.Sink, read *[files]int) error {
		f, n := r.IntN(files), 1+r.IntN(40)
		if r.IntN(10) == 0 {
			n = 2500 // several atomic batches
		}
		b := batch(read[f], "BTC", numbered(read[f], n)...)
		b.File.Hour = f
		tried[f] = max(tried[f], read[f]+n)
		for range 50 {
			err := w.Write(ctx, b)
			if err == nil {
				read[f] += n
				return nil
			}
			if ctx.Err() != nil || isNoOutage(err) {
				return err
			}
		}
		return fmt.Errorf("the outage does not end")
	}
	for crash := range crashes + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		if crash < crashes {
			time.AfterFunc(time.Duration(r.IntN(30_000))*time.Microsecond, cancel)
		}
		o := newOutput(t, c)
		w, err := o.Open(ctx, "fills", disk.state)
		at := disk
		var f sink.Flushed
		behind := func() bool { return at.read[0] < tried[0] || at.read[1] < tried[1] || at.read[2] < tried[2] }
		for step := 0; err == nil && (crash < crashes || behind()); step++ {
			if step > 0 {
				err = write(ctx, w, &at.read)
			}
			if err == nil && (step == 0 || r.IntN(4) == 0) {
				if f, err = w.Flush(ctx, false); err == nil && (step == 0 || r.IntN(8) > 0) {
					at.state = f.State
					disk = at
					if r.IntN(4) > 0 {
						err = w.Committed(ctx)
					}
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			t.Fatalf("after %d crashes: %v", crash, err)
		}
		if crash == crashes {
			disk = at
		}
		cancel()
	}
	got, err := messages(t.Context(), client(t, s.url()), "hl.>")
	must(t, err)
	want := 0
	for _, n := range disk.read {
		want += n
	}
	if counts := inOrderOnce(t, got); counts["fills"] != want {
		t.Errorf("%d records are stored, want %d", counts["fills"], want)
	}
	t.Logf("%d crashes, %d records", crashes, want)
}

// node writes order statuses by line and fills by block. Some blocks arrive late in an older file.
type node struct {
	t            *testing.T
	data         string
	rand         *rand.Rand
	statuses     int
	fills        int
	blocks, late int
}

var coins = []string{"BTC", "ETH", "PURR/USDC", "@107", "xyz:TSLA"}

func (n *node) append(directory string, hour int, text string) {
	path := filepath.Join(n.data, directory, "hourly", fmt.Sprintf("202604%02d", 1+hour/24), strconv.Itoa(hour%24))
	must(n.t, os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(n.t, err)
	half := n.rand.IntN(len(text) + 1) // torn for a moment
	_, err = f.WriteString(text[:half])
	must(n.t, err)
	_, err = f.WriteString(text[half:])
	must(n.t, err)
	must(n.t, f.Close())
}

func (n *node) write(stop <-chan struct{}) {
	for round := 0; ; round++ {
		select {
		case <-stop:
			return
		default:
		}
		hour := round / 200
		var lines strings.Builder
		for range 1 + n.rand.IntN(60) {
			fmt.Fprintf(&lines, `{"time":"2026-04-30T20:46:43.304461819","user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",`+
				`"hash":null,"builder":null,`+
				`"status":"open","order":{"coin":%q,"side":"A","limitPx":"76466.0","sz":"0.0686","oid":%d,`+
				`"timestamp":1777582003304}}`+"\n",
				coins[n.rand.IntN(len(coins))], n.statuses)
			n.statuses++
		}
		n.append("node_order_statuses", hour, lines.String())
		lines.Reset()
		for range 1 + n.rand.IntN(3) {
			fmt.Fprintf(&lines, `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`+
				`"block_number":%d,"events":[`, 1000+n.blocks)
			n.blocks++
			for i := range n.rand.IntN(40) {
				if i > 0 {
					lines.WriteByte(',')
				}
				fmt.Fprintf(&lines, `["0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",{"coin":%q,"px":"76466.0","sz":"0.0686",`+
					`"side":"B","time":1777582003304,"dir":"Open Long","oid":1,"crossed":true,"fee":"0.1",`+
					`"tid":%d,"feeToken":"USDC"}]`,
					coins[n.rand.IntN(len(coins))], n.fills)
				n.fills++
			}
			lines.WriteString("]}\n")
		}
		if hour > 0 && n.rand.IntN(20) == 0 {
			n.late++
			hour--
		}
		n.append("node_fills_by_block", hour, lines.String())
		time.Sleep(time.Duration(n.rand.IntN(30)) * time.Millisecond)
	}
}

// numberOf returns the number after a field's name.
func numberOf(t testing.TB, data []byte, field string) int {
	t.Helper()
	_, after, ok := bytes.Cut(data, []byte(`"`+field+`":`))
	digits := after[:len(after)-len(bytes.TrimLeft(after, "0123456789"))]
	n, err := strconv.Atoi(string(digits))
	if !ok || err != nil {
		t.Fatalf("%.200q has no %s", data, field)
	}
	return n
}

// The real parser is killed at any moment while a node writes and its connection fails repeatedly. HLPARSER_KILLS sets
// the number of kills.
func TestNothingIsLostOrDoubledThroughKill9(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and kills the parser")
	}
	kills := 10
	if text := os.Getenv("HLPARSER_KILLS"); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		must(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	parser := filepath.Join(dir, "hlparser")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", parser,
		"github.com/hlparser/hyperliquid-parser-operator/cmd/hlparser").CombinedOutput(); err != nil {
		t.Fatalf("building the parser: %v\n%s", err, out)
	}
	s := startServer(t)
	p := startProxy(t, func() string { return s.address })
	n := &node{t: t, data: filepath.Join(dir, "data"), rand: rand.New(rand.NewPCG(seed, 2))}
	args := func(url string) []string {
		return []string{"run", "--data-dir", n.data, "--state-dir", filepath.Join(dir, "state"),
			"--stream", "order-statuses:line", "--stream", "fills:by-block", "--start-at", "beginning", "--format", "raw",
			"--id", "node-1", "--listen", "", "--sink", url + "/HL?create=true&delivery=ExactlyOnce"}
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	halt := sync.OnceFunc(func() { close(stop); busy.Wait() })
	defer halt()
	busy.Go(func() { n.write(stop) })
	var history bytes.Buffer // what the parsers log
	flaps := 0
	busy.Go(func() {
		line := rand.New(rand.NewPCG(seed, 3))
		for {
			select {
			case <-stop:
				p.hold(false)
				return
			case <-time.After(time.Duration(line.IntN(400)) * time.Millisecond):
			}
			switch flaps++; line.IntN(3) {
			case 0:
				p.hold(true)
			case 1:
				p.hold(false)
			default:
				p.hold(false)
				p.flap()
			}
		}
	})
	for kill := range kills {
		pause := 5 + r.IntN(400)
		if kill%4 == 0 {
			pause = 500 + r.IntN(1500)
		}
		cmd := exec.CommandContext(t.Context(), parser, args(p.url())...)
		var logs bytes.Buffer
		cmd.Stderr = &logs
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			t.Fatalf("after %d kills the parser ended on its own: %v\n%s", kill, err, &logs)
		case <-time.After(time.Duration(pause) * time.Millisecond):
		}
		must(t, cmd.Process.Kill())
		if err := <-ended; err == nil {
			t.Fatalf("after %d kills the parser ended on its own\n%s", kill, &logs)
		}
		fmt.Fprintf(&history, "%s: killed after %d ms:\n%s", time.Now().Format(time.StampMilli), pause, &logs)
		if strings.Contains(logs.String(), "the stream has failed") {
			t.Fatalf("after %d kills: %s", kill, &logs)
		}
	}
	halt()
	js := client(t, s.url())
	before := 0
	if got, err := messages(t.Context(), js, "hl.>"); err == nil {
		before = len(got)
	}
	lastRun := exec.CommandContext(t.Context(), parser, append(args(s.url()), "--once")...)
	out, err := lastRun.CombinedOutput()
	if err != nil {
		t.Fatalf("the last run: %v\n%s", err, out)
	}
	history.Write(out)
	got, err := messages(t.Context(), js, "hl.>")
	must(t, err)
	counts := inOrderOnce(t, got)
	last, fills := map[string]int{}, map[int]string{}
	var twice []string
	for _, m := range got {
		if m.Headers().Get("Hl-Stream") == "fills" {
			tid, at := numberOf(t, m.Data(), "tid"), m.Headers().Get("Hl-Position")
			if before, ok := fills[tid]; ok {
				twice = append(twice, fmt.Sprintf("fill %d at %s and %s", tid, before, at))
			}
			fills[tid] = at
			continue
		}
		oid := numberOf(t, m.Data(), "oid")
		if before, ok := last[m.Subject()]; ok && oid <= before {
			t.Fatalf("on %s status %d follows %d", m.Subject(), oid, before)
		}
		last[m.Subject()] = oid
	}
	if counts["order-statuses"] != n.statuses || counts["fills"] != n.fills || len(fills) != n.fills ||
		len(last) != len(coins) {
		t.Errorf("%d statuses and %d fills (%d different) are stored on %v; want %d and %d; twice:\n%s\nthe parsers:\n%s",
			counts["order-statuses"], counts["fills"], len(fills), slices.Sorted(maps.Keys(last)), n.statuses, n.fills,
			strings.Join(twice, "\n"), &history)
	}
	t.Logf("%d kills, the connection changed %d times; %d statuses and %d fills (%d late blocks), %d of them before "+
		"the last run",
		kills, flaps, n.statuses, n.fills, n.late, before)
}
