package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The soak test kills and stops the real binary for as long as HLPARSER_SOAK says, and at least HLPARSER_SOAK_KILLS times, if
// set. HLPARSER_SOAK_SEED repeats the node's writes and the pauses between the kills, as far as the machine's clock lets it.
const (
	soakFor   = "HLPARSER_SOAK"
	soakKills = "HLPARSER_SOAK_KILLS"
	soakSeed  = "HLPARSER_SOAK_SEED"
)

func soakNumber(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// soakNode writes two streams over many hours: order statuses by the line, and fills by the block, of which some come late.
type soakNode struct {
	t        *testing.T
	data     string
	rand     *rand.Rand
	statuses int
	fills    int
	blocks   int
	late     int // blocks that came to an hour's file after the next one's was begun
	torn     int // writes that ended within a line
}

func (n *soakNode) path(directory string, hour int) string {
	return filepath.Join(n.data, directory, "hourly", fmt.Sprintf("202604%02d", 1+hour/24), fmt.Sprint(hour%24))
}

// tear appends a text in two writes, the first of which ends anywhere.
func (n *soakNode) tear(path, text string) {
	half := n.rand.IntN(len(text) + 1)
	if half > 0 && text[half-1] != '\n' {
		n.torn++
	}
	appendTo(n.t, path, text[:half])
	time.Sleep(time.Duration(n.rand.IntN(4)) * time.Millisecond)
	appendTo(n.t, path, text[half:])
}

func (n *soakNode) block() string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819","block_number":%d,"events":[`, n.blocks)
	n.blocks++
	for i := range n.rand.IntN(40) { // none too
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(soakFill(n.fills))
		n.fills++
	}
	b.WriteString("]}\n")
	return b.String()
}

func soakFill(i int) string {
	return fmt.Sprintf(`["0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",{"coin":"BTC","px":"76466.0","sz":"0.0686","side":"B","time":1777582003304,`+
		`"dir":"Open Long","oid":1,"crossed":true,"fee":"0.1","tid":%d,"feeToken":"USDC"}]`, i)
}

// write goes on until stop is closed. An hour lasts a few seconds.
func (n *soakNode) write(stop <-chan struct{}) {
	const perHour = 250 // rounds
	for round := 0; ; round++ {
		select {
		case <-stop:
			return
		default:
		}
		hour := round / perHour
		var text strings.Builder
		for range 1 + n.rand.IntN(60) {
			text.WriteString(status(n.statuses) + "\n")
			n.statuses++
		}
		n.tear(n.path("node_order_statuses", hour), text.String())
		text.Reset()
		for range 1 + n.rand.IntN(3) {
			text.WriteString(n.block())
		}
		if hour > 0 && n.rand.IntN(20) == 0 {
			n.late++
			hour--
		}
		n.tear(n.path("node_fills_by_block", hour), text.String())
		time.Sleep(time.Duration(n.rand.IntN(30)) * time.Millisecond)
	}
}

// soakConsumer takes the closed files away, as an archiver does.
type soakConsumer struct {
	t        *testing.T
	out      string
	statuses int
	fills    map[int]bool
	files    int
}

// take returns a stream's lines in the order of the names of the files that hold them, and removes the files.
func (c *soakConsumer) take(stream string) (lines []string) {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.out, stream, "*.jsonl"))
	if err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(names)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			lines = append(lines, string(line))
		}
		if err := os.Remove(name); err != nil {
			c.t.Fatal(err)
		}
		c.files++
	}
	return lines
}

func (c *soakConsumer) consume() {
	c.t.Helper()
	for _, line := range c.take("order-statuses") {
		if line != status(c.statuses)+"\n" {
			c.t.Fatalf("got the status %.200q where event %d was due", line, c.statuses)
		}
		c.statuses++
	}
	for _, line := range c.take("fills") {
		_, after, _ := strings.Cut(line, `"tid":`)
		digits, _, _ := strings.Cut(after, ",")
		i, err := strconv.Atoi(digits)
		if err != nil || line != soakFill(i)+"\n" {
			c.t.Fatalf("got %.200q, which is no fill that was written", line)
		}
		if c.fills[i] {
			c.t.Fatalf("fill %d was delivered twice", i)
		}
		c.fills[i] = true
	}
}

// Like TestNothingIsLostOrDoubledThroughKill9, but for as long as one wants: two streams side by side, many hours, late blocks,
// a consumer that takes what is finished, and stops between the kills.
func TestSoak(t *testing.T) {
	if os.Getenv(soakFor) == "" {
		t.Skipf("set %s to a duration, such as 10m, or run make soak; the short form is TestNothingIsLostOrDoubledThroughKill9", soakFor)
	}
	duration, err := time.ParseDuration(os.Getenv(soakFor))
	if err != nil {
		t.Fatal(err)
	}
	atLeast, seed := soakNumber(t, soakKills, 0), soakNumber(t, soakSeed, time.Now().Nanosecond())
	t.Logf("%s=%d", soakSeed, seed)
	dir := t.TempDir()
	data, out := filepath.Join(dir, "data"), filepath.Join(dir, "out")
	args := []string{"run", "--data-dir", data, "--state-dir", filepath.Join(dir, "state"), "--stream", "order-statuses:line",
		"--stream", "fills:by-block", "--start-at", "beginning", "--sink", "file:" + out, "--max-size", "256Ki", "--format", "raw"}

	node := &soakNode{t: t, data: data, rand: rand.New(rand.NewPCG(uint64(seed), 1)), blocks: 1000}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() { node.write(stop) })
	halt := sync.OnceFunc(func() {
		close(stop)
		writing.Wait()
	})
	defer halt()

	consumer := &soakConsumer{t: t, out: out, fills: map[int]bool{}}
	r := rand.New(rand.NewPCG(uint64(seed), 2))
	kills, stops, said := 0, 0, time.Now()
	for began := time.Now(); time.Since(began) < duration || kills < atLeast; {
		pause := 5 + r.IntN(200) // most end at the start or in the recovery
		if r.IntN(3) == 0 {
			pause = r.IntN(3000)
		}
		if r.IntN(8) == 0 {
			stops++
			soakRun(t, args, time.Duration(500+pause)*time.Millisecond, syscall.SIGTERM)
		} else {
			kills++
			soakRun(t, args, time.Duration(pause)*time.Millisecond, syscall.SIGKILL)
		}
		consumer.consume()
		if time.Since(said) > time.Minute {
			said = time.Now()
			t.Logf("%v: %d kills, %d stops, %d statuses and %d fills delivered", time.Since(began).Round(time.Second), kills, stops,
				consumer.statuses, len(consumer.fills))
		}
	}
	halt()
	if msg, err := hlparser(t.Context(), append(args, "--once")...).CombinedOutput(); err != nil {
		t.Fatalf("the last run: %v\n%s", err, msg)
	}
	consumer.consume()
	if rest, err := filepath.Glob(filepath.Join(out, "*", "*.part")); err != nil || len(rest) > 0 {
		t.Errorf("left behind: %q, %v", rest, err)
	}
	if consumer.statuses != node.statuses || len(consumer.fills) != node.fills {
		t.Errorf("%d statuses and %d fills were delivered; %d and %d were written", consumer.statuses, len(consumer.fills), node.statuses, node.fills)
	}
	t.Logf("%d kills, %d stops; %d statuses and %d fills in %d blocks (%d late writes, %d torn ones), in %d files",
		kills, stops, node.statuses, node.fills, node.blocks-1000, node.late, node.torn, consumer.files)
}

// soakRun runs the parser for a while and ends it with a signal.
func soakRun(t *testing.T, args []string, pause time.Duration, signal syscall.Signal) {
	t.Helper()
	cmd := hlparser(t.Context(), args...)
	var logs bytes.Buffer
	cmd.Stderr = &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v\n%s", err, &logs)
	case <-time.After(pause):
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == signal && logs.Len() == 0 {
		return // a busy machine had not let it listen for the signal yet
	}
	if (err == nil) != (signal == syscall.SIGTERM) {
		t.Fatalf("after %v it ended with %v\n%s", signal, err, &logs)
	}
	if strings.Contains(logs.String(), "level=ERROR") {
		t.Fatalf("it met an error:\n%s", &logs)
	}
}
