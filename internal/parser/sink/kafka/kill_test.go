package kafka_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
)

// killCount names the variable with the number of kills of the real binary. killSeed names the one with the seed for
// the node's output and for the pauses between the kills.
const (
	killCount = "HLPARSER_KILLS"
	killSeed  = "HLPARSER_KAFKA_SEED"
)

// behind is a broker's listener that makes the broker advertise the proxy in front of it.
type behind struct {
	net.Listener
	front net.Addr
}

func (b behind) Addr() net.Addr { return b.front }

// newProxied returns a cluster whose brokers advertise only the proxies' addresses.
func newProxied(t *testing.T) *cluster {
	t.Helper()
	p := newProxy(t)
	brokers := map[string]string{} // by the proxy's address
	advertise := func(address string) (string, error) {
		front, err := p.front(address)
		brokers[front] = address
		return front, err
	}
	var c *cluster
	if realBrokers() {
		c = newReal(t, broker.Options{Advertise: advertise})
	} else {
		c = newFake(t, kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address)
			if err != nil {
				return nil, err
			}
			front, err := advertise(l.Addr().String())
			if err != nil {
				return nil, err
			}
			addr, err := net.ResolveTCPAddr(network, front)
			return behind{l, addr}, err
		}))
	}
	c.proxy = p
	c.direct = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, brokers[address])
	}
	return c
}

// killNode is a node that writes two streams while the parser is killed: order statuses by line, and fills by block.
// Some blocks arrive late.
type killNode struct {
	t        *testing.T
	data     string
	rand     *rand.Rand
	statuses int
	fills    int
	blocks   int
	late     int
}

var killCoins = []string{"BTC", "ETH", "xyz:GOLD", "@107", "kPEPE"}

func killStatus(i int) string {
	return fmt.Sprintf(`{"time":"2026-04-30T20:46:43.304461819","user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",`+
		`"hash":null,"builder":null,"status":"open",`+
		`"order":{"coin":%q,"side":"A","limitPx":"76466.0","sz":"0.0686","oid":%d,"timestamp":1777582003304}}`,
		killCoins[i%len(killCoins)], i)
}

func killFill(i int) string {
	return fmt.Sprintf(`["0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",{"coin":%q,"px":"76466.0","sz":"0.0686","side":"B",`+
		`"time":1777582003304,"dir":"Open Long","oid":1,"crossed":true,"fee":"0.1","tid":%d,"feeToken":"USDC"}]`,
		killCoins[i%len(killCoins)], i)
}

func (n *killNode) append(directory string, hour int, text string) {
	path := filepath.Join(n.data, directory, "hourly", fmt.Sprintf("202604%02d", 1+hour/24), strconv.Itoa(hour%24))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Error(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteString(text); err != nil {
		n.t.Error(err)
	}
}

// write writes until stop is closed. An hour lasts a few seconds.
func (n *killNode) write(stop <-chan struct{}) {
	const perHour = 60 // rounds
	for round := 0; ; round++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(n.rand.IntN(20)) * time.Millisecond):
		}
		hour := round / perHour
		var text strings.Builder
		for range 1 + n.rand.IntN(40) {
			text.WriteString(killStatus(n.statuses) + "\n")
			n.statuses++
		}
		half := n.rand.IntN(text.Len())
		n.append("node_order_statuses", hour, text.String()[:half])
		n.append("node_order_statuses", hour, text.String()[half:])
		text.Reset()
		for range 1 + n.rand.IntN(3) {
			fmt.Fprintf(&text, `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`+
				`"block_number":%d,"events":[`, 1000+n.blocks)
			n.blocks++
			for i := range n.rand.IntN(30) {
				if i > 0 {
					text.WriteByte(',')
				}
				text.WriteString(killFill(n.fills))
				n.fills++
			}
			text.WriteString("]}\n")
		}
		if hour > 0 && n.rand.IntN(15) == 0 {
			n.late++
			hour--
		}
		n.append("node_fills_by_block", hour, text.String())
	}
}

func TestNothingIsLostOrDoubledThroughKill9OfTheParser(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and kills the parser")
	}
	number := func(name string, otherwise int64) int64 {
		if os.Getenv(name) == "" {
			return otherwise
		}
		n, err := strconv.ParseInt(os.Getenv(name), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	kills, seed := number(killCount, 10), number(killSeed, time.Now().UnixNano())
	t.Logf("%s=%d", killSeed, seed)
	dir := t.TempDir()
	binary := filepath.Join(dir, "hlparser")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary,
		"github.com/hlparser/hyperliquid-parser-operator/cmd/hlparser").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := newProxied(t)
	for _, stream := range []string{"order-statuses", "fills"} {
		c.createTopic(c.topic(stream), 3)
	}
	args := []string{
		"run", "--data-dir", filepath.Join(dir, "data"), "--state-dir", filepath.Join(dir, "state"), "--id", "node-" + c.unit,
		"--stream", "order-statuses:line", "--stream", "fills:by-block", "--start-at", "beginning", "--format", "raw",
		"--listen", "",
		"--sink", "kafka://" + strings.Join(c.seeds, ",") + "/hl." + c.unit + ".{stream}",
	}
	node := &killNode{t: t, data: filepath.Join(dir, "data"), rand: rand.New(rand.NewPCG(uint64(seed), 1))}
	r := rand.New(rand.NewPCG(uint64(seed), 2))
	stop := make(chan struct{})
	var side sync.WaitGroup
	halt := sync.OnceFunc(func() {
		close(stop)
		side.Wait()
	})
	defer halt()
	side.Go(func() { node.write(stop) })
	side.Go(func() {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(1500)) * time.Millisecond):
			}
			if r.IntN(3) > 0 {
				c.proxy.cut()
				continue
			}
			c.proxy.setDown(true)
			time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
			c.proxy.setDown(false)
		}
	})
	for range kills {
		pause := 20 + r.IntN(400) // most kills are during the start or soon after
		if r.IntN(3) == 0 {
			pause = r.IntN(2500)
		}
		killParser(t, binary, args, time.Duration(pause)*time.Millisecond)
	}
	halt()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, binary, append(args, "--once")...).CombinedOutput(); err != nil {
		t.Fatalf("the last run: %v\n%s", err, out)
	}
	c.mustBeWhole("order-statuses", "oid", node.statuses, true)
	c.mustBeWhole("fills", "tid", node.fills, false) // late blocks change the order
	t.Logf("%d kills; %d statuses, %d fills in %d blocks, %d of them late",
		kills, node.statuses, node.fills, node.blocks, node.late)
}

func killParser(t *testing.T, binary string, args []string, pause time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	var logs bytes.Buffer
	cmd.Stderr = &logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("the parser ended on its own: %v\n%s", err, &logs)
	case <-time.After(pause):
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatal("the parser ended on its own")
	}
	if strings.Contains(logs.String(), "level=ERROR") {
		t.Fatalf("the parser logged an error:\n%s", &logs)
	}
}

// mustBeWhole checks that a stream's consumers received the events 0 to n-1 once each and, if ordered is set, in that
// order for each key.
func (c *cluster) mustBeWhole(stream, number string, n int, ordered bool) {
	c.t.Helper()
	records, err := c.consume(c.topic(stream))
	if err != nil {
		c.t.Fatal(err)
	}
	times := make([]int, n)
	last := map[string]int{}
	for _, r := range records {
		i, coin := eventOf(c.t, r, number)
		if i < 0 || i >= n || coin != killCoins[i%len(killCoins)] || coin != string(r.Key) {
			c.t.Fatalf("a consumer of %s received %q with the key %q", stream, r.Value, r.Key)
		}
		if before, ok := last[coin]; ordered && ok && i < before {
			c.t.Fatalf("a consumer of %s received event %d of %s after event %d", stream, i, coin, before)
		}
		last[coin] = i
		times[i]++
	}
	if i := slices.IndexFunc(times, func(n int) bool { return n != 1 }); i >= 0 {
		c.t.Fatalf("%[2]s has event %[3]d of %[1]d %[4]d times, and %[5]d records in total", n, stream, i, times[i],
			len(records))
	}
}

// eventOf returns the number and the coin of a status or of a fill. A fill follows its user.
func eventOf(t *testing.T, r *kgo.Record, number string) (int, string) {
	t.Helper()
	_, after, _ := bytes.Cut(r.Value, []byte(`"`+number+`":`))
	digits, _, _ := bytes.Cut(after, []byte(","))
	i, err := strconv.Atoi(string(digits))
	if err != nil || !json.Valid(r.Value) {
		t.Fatalf("a consumer received %q, which is not an event", r.Value)
	}
	_, after, _ = bytes.Cut(r.Value, []byte(`"coin":"`))
	coin, _, _ := bytes.Cut(after, []byte(`"`))
	return i, string(coin)
}
