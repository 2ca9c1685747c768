package nats_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
	hlnats "github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/nats"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sinktest"
)

// parser delivers numbered records as the engine does: it retries after an outage, and restarts from its checkpoint
// after ErrReopen.
type parser struct {
	t         *testing.T
	out       *hlnats.Output
	sink      sink.Sink
	state     json.RawMessage // of the checkpoint
	committed int             // records before the checkpoint
	next      int             // acknowledged records
	reopened  int
}

func (p *parser) open() {
	p.t.Helper()
	retry(p.t, func() (err error) { p.sink, err = p.out.Open(p.t.Context(), "fills", p.state); return err })
	p.next = p.committed
}

// step makes a call that may meet an outage or return ErrReopen. It reports whether the call succeeded.
func (p *parser) step(call func() error) (done bool) {
	p.t.Helper()
	var reopen bool
	retry(p.t, func() error {
		err := call()
		if reopen = errors.Is(err, sink.ErrReopen); reopen {
			return nil
		}
		return err
	})
	if reopen {
		p.reopened++
		must(p.t, p.sink.Close())
		p.open()
	}
	return !reopen
}

func (p *parser) deliver(to int) {
	p.t.Helper()
	for p.next < to {
		b := batch(p.next, "BTC", numbered(p.next, to-p.next)...)
		if p.step(func() error { return p.sink.Write(p.t.Context(), b) }) {
			p.next = to
		}
	}
}

func (p *parser) commit() {
	p.t.Helper()
	for to := p.next; p.committed < to; {
		p.deliver(to)
		var state json.RawMessage
		if p.step(func() (err error) { state, err = sinktest.Flush(p.t.Context(), p.sink, false); return err }) {
			p.state, p.committed = state, to
			must(p.t, p.sink.Committed(p.t.Context()))
		}
	}
}

// lossesOfStream are ways to lose the stream under a sink. recreate creates it again if the sink may not.
var lossesOfStream = map[string]func(t *testing.T, s *running, recreate func()) *running{
	"deleted": func(t *testing.T, s *running, recreate func()) *running {
		must(t, client(t, s.url()).DeleteStream(t.Context(), "HL"))
		recreate()
		return s
	},
	"deleted and recreated unnoticed": func(t *testing.T, s *running, _ func()) *running {
		js := client(t, s.url())
		must(t, js.DeleteStream(t.Context(), "HL"))
		createStream(t, js)
		return s
	},
	"on a server that lost its storage": func(t *testing.T, s *running, recreate func()) *running {
		s.stop()
		must(t, os.RemoveAll(s.storeDir))
		s = startServerOn(t, s.port(t), t.TempDir(), largestPayload)
		recreate()
		return s
	},
}

func createStream(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "HL", Subjects: []string{"hl.>", "hlparser.HL.*"}, AllowAtomicPublish: true,
	})
	must(t, err)
}

func TestARecreatedStreamReceivesEverythingUncommitted(t *testing.T) {
	for title, lose := range lossesOfStream {
		for _, delivery := range bothDeliveries {
			for _, create := range []bool{true, false} {
				for _, uncommitted := range []int{0, 10} {
					t.Run(fmt.Sprintf("%s, %s, create %t, %d uncommitted", title, delivery, create, uncommitted), func(t *testing.T) {
						s := startServer(t)
						createStream(t, client(t, s.url()))
						p := &parser{t: t, out: newOutput(t, settings(s.url(), func(c *config.NATSSink) {
							c.Delivery = delivery
							if !create {
								c.Create = nil
							}
						}))}
						p.open()
						p.deliver(10)
						p.commit()
						p.deliver(10 + uncommitted)
						s = lose(t, s, func() {
							if create {
								return
							}
							eventually(t, "an outage with instructions", func() bool {
								err := p.sink.Write(t.Context(), batch(p.next, "BTC", numbered(p.next, 5)...))
								if err == nil || isNoOutage(err) {
									t.Fatalf("got %v, want an outage", err)
								}
								return strings.Contains(err.Error(), "create it with the subjects")
							})
							createStream(t, client(t, s.url()))
						})
						p.deliver(30)
						p.commit()
						p.deliver(40)
						p.commit()
						got, err := messages(t.Context(), client(t, s.url()), "hl.>")
						must(t, err)
						held := strings.Fields(string(records(got)))
						if delivery == config.AtLeastOnce { // some records may be duplicated or out of order
							slices.Sort(held)
							held = slices.Compact(held)
						}
						if !slices.Equal(held, numbered(10, 30)) {
							t.Errorf("the stream holds %d records, %q, want those from 10 to 39", len(got), held)
						}
					})
				}
			}
		}
	}
}
