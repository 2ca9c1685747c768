package nats_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/nats/broker"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Environment variables that `make brokers` sets: brokersVariable makes tests run nats-server as a process of its own,
// and versionVariable chooses one of the versions that hack/nats/broker knows, by default the newest. Tests that need
// a server in this process are skipped then.
const (
	brokersVariable = "HLPARSER_BROKERS"
	versionVariable = "HLPARSER_NATS"
)

func realBrokers() bool { return os.Getenv(brokersVariable) != "" }

// sharedProgram is the nats-server that tests run. The first test that needs it builds it.
type sharedProgram struct {
	once sync.Once
	dir  string
	path string
	err  error
}

var program sharedProgram

// realServer returns the path of nats-server, or an empty one if real brokers are not wanted.
func realServer(t testing.TB) string {
	t.Helper()
	if !realBrokers() {
		return ""
	}
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "nats-"); program.err != nil {
			return
		}
		version := broker.Newest
		if text := os.Getenv(versionVariable); text != "" {
			version = broker.Version(text)
		}
		var number string
		// The test that builds it may end before others that use it.
		program.path, number, program.err = broker.Build(context.Background(), version, program.dir)
		fmt.Printf("tests run nats-server %s as a process\n", number)
	})
	must(t, program.err)
	return program.path
}

type testMain struct{ *testing.M }

// Run implements goleak.TestingM.
func (m testMain) Run() int {
	code := m.M.Run()
	if err := os.RemoveAll(program.dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return code
}

// The process of the server is killed by SIGKILL while records are written, and started again with its streams.
func TestNothingIsLostOrDoubledThroughKill9OfTheServer(t *testing.T) {
	if !realBrokers() {
		t.Skipf("needs nats-server as a process: set %s=1, or run make brokers", brokersVariable)
	}
	for title, edit := range deliveries {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			const kills = 15
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			s := startServer(t)
			c := settings(s.url(), edit)
			p := &parser{t: t, out: newOutput(t, c)}
			p.open()
			end := 0
			for range kills {
				pause := time.Duration(r.IntN(200)) * time.Millisecond
				var killing sync.WaitGroup
				killing.Go(func() {
					time.Sleep(pause) // a random moment of the calls
					s.process.Kill()
					if err := s.process.Start(t.Context()); err != nil {
						t.Error(err)
					}
				})
				for range 10 {
					end += 1 + r.IntN(1500)
					p.deliver(end)
					p.commit()
				}
				killing.Wait()
			}
			got, err := messages(t.Context(), client(t, s.url()), "hl.>")
			must(t, err)
			held := strings.Fields(string(records(got)))
			if c.Delivery == config.AtLeastOnce {
				slices.Sort(held)
				held = slices.Compact(held)
			}
			want := numbered(0, end)
			if c.Delivery == config.AtLeastOnce {
				slices.Sort(want)
			}
			if !slices.Equal(held, want) {
				t.Errorf("the stream holds %d records, want %d once each", len(held), end)
			}
			t.Logf("%d kills, %d records, %d restarts of the stream", kills, end, p.reopened)
		})
	}
}
