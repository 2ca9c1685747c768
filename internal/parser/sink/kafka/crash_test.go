package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// crashSeed names the environment variable with the seed of a run to repeat.
const crashSeed = "HLPARSER_KAFKA_SEED"

// crashing is a parser whose process ends at any moment, over two files of a node that alternate, as late appends
// cause. Each record holds one number; the files have the even and the odd numbers.
type crashing struct {
	t     *testing.T
	rand  *rand.Rand
	c     *cluster
	files [2]position.FileID
	size  [2]int // number of records in each file

	saved    [2]int // records before the checkpoint
	state    json.RawMessage
	before   [2]int // the same for the previous checkpoint, which is used if the last one is damaged
	previous json.RawMessage

	crashes, damaged, reopened int
}

// batch returns records of a file with alternating coins.
func (p *crashing) batch(file, first, next int) sink.Batch {
	b := sink.Batch{File: p.files[file]}
	for i := first; i < next; i++ {
		n := 2*i + file
		one := batch(n, n+1)
		r := one.Records[0]
		b.Data = append(b.Data, one.Data...)
		r.End, r.Offset, r.Index = len(b.Data), int64(i/10*100), int32(i%10)-1
		b.Records = append(b.Records, r)
	}
	return b
}

// run is one process. It ends when it has delivered everything, or after the given number of steps.
func (p *crashing) run(steps int) (done bool) {
	ctx := p.t.Context()
	out := p.c.output(p.c.config(config.ExactlyOnce))
	if p.previous != nil && p.rand.IntN(10) == 0 {
		p.damaged++
		p.state, p.saved = p.previous, p.before
	}
	s, err := out.Open(ctx, "fills", p.state)
	if err != nil {
		if errors.Is(err, sink.ErrFailed) {
			p.t.Fatal(err)
		}
		return false
	}
	defer func() {
		p.crashes++
		if err := s.Close(); err != nil {
			p.t.Error(err)
		}
	}()
	at := p.saved
	for range steps {
		if at == p.size && p.saved == p.size {
			return true
		}
		if p.rand.IntN(4) > 0 && at != p.size {
			file := p.rand.IntN(2)
			next := min(p.size[file], at[file]+1+p.rand.IntN(300))
			if next == at[file] {
				continue
			}
			ctx, cancel := context.WithCancel(ctx)
			ends := p.rand.IntN(12) == 0 // the write is interrupted; Kafka may still complete it
			if ends {
				time.AfterFunc(time.Duration(p.rand.IntN(4000))*time.Microsecond, cancel)
			}
			err := s.Write(ctx, p.batch(file, at[file], next))
			cancel()
			if ends {
				return false
			}
			if errors.Is(err, sink.ErrReopen) {
				p.reopened++
				return false
			}
			if err == nil {
				at[file] = next
			}
			continue
		}
		f, err := s.Flush(ctx, false)
		if err != nil {
			return false
		}
		if f.Sync != nil {
			if err := f.Sync(ctx); err != nil {
				p.reopened++
				return false
			}
		}
		if p.rand.IntN(6) == 0 {
			return false // before the checkpoint is saved
		}
		p.previous, p.before = p.state, p.saved
		p.state, p.saved = slices.Clone(f.State), at
		if p.rand.IntN(6) == 0 {
			return false // before Committed
		}
		if err := s.Committed(ctx); err != nil {
			p.t.Fatal(err)
		}
	}
	return false
}

func TestNothingIsLostOrDoubledThroughCrashesOfTheSink(t *testing.T) {
	crashes := 200
	if testing.Short() {
		crashes = 20
	}
	seed := time.Now().UnixNano()
	if text := os.Getenv(crashSeed); text != "" {
		var err error
		if seed, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", crashSeed, seed)
	c := newCluster(t)
	p := &crashing{t: t, rand: rand.New(rand.NewPCG(uint64(seed), 0)), c: c}
	for i := range p.files {
		p.files[i] = position.FileID{Directory: "node_fills_by_block", Date: "20260430", Hour: 8 + i,
			Generation: "1a2b3c4d"}
	}
	// The connection fails repeatedly.
	stop := make(chan struct{})
	var flapping sync.WaitGroup
	flapping.Go(func() {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(800)) * time.Millisecond):
			}
			switch r.IntN(4) {
			case 0:
				c.proxy.setDown(true)
				time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				c.proxy.setDown(false)
			case 1:
				c.proxy.setMute(true)
				time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
				c.proxy.setMute(false)
			default:
				c.proxy.cut()
			}
		}
	})
	defer func() { close(stop); flapping.Wait() }()
	for p.crashes < crashes {
		p.size[0] += 100 + p.rand.IntN(200)
		p.size[1] = p.size[0]
		p.run(p.rand.IntN(20))
	}
	for deadline := time.Now().Add(5 * time.Minute); !p.run(10_000); {
		if time.Now().After(deadline) {
			t.Fatal("timed out delivering the rest")
		}
	}
	c.mustHoldByFile(p.size[0] * 2)
	t.Logf("%d crashes, %d damaged checkpoints, %d restarts of the stream, %d records",
		p.crashes, p.damaged, p.reopened, 2*p.size[0])
}
