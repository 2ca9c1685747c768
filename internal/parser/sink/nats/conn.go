package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink/secret"
)

const (
	// answerTimeout is how long the server may send no answer at all while an answer is outstanding.
	answerTimeout = 5 * time.Second
	// severAfter is how long a publish may continue after its context has ended. Then the connection is cut.
	severAfter = 100 * time.Millisecond
)

// conn is one connection, from dial to close. The client library never reconnects it. A reconnect would send messages
// published after the disconnection and forget those published before it, and no caller could repair that order.
type conn struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	dial *dialer
	gone chan struct{} // closed with the connection

	mu       sync.Mutex
	asyncErr error // the last asynchronous error from the server, such as a missing permission
	asyncAt  time.Time
}

// dialer dials one connection, and can cut it.
type dialer struct {
	ctx context.Context // bounds the dial

	mu   sync.Mutex
	conn net.Conn
	cut  bool
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: answerTimeout}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn = c; d.cut {
		_ = c.Close()
	}
	return c, nil
}

// sever closes the connection without the protocol's shutdown.
func (d *dialer) sever() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = true
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

func (d *dialer) severed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

func connect(ctx context.Context, o *Options) (*conn, error) {
	c := &conn{gone: make(chan struct{}), dial: &dialer{ctx: ctx}}
	options := []nats.Option{
		nats.Name("hlparser " + o.Writer),
		nats.NoReconnect(),
		nats.SetCustomDialer(c.dial),
		nats.SkipHostLookup(),
		nats.Timeout(answerTimeout),
		nats.FlusherTimeout(answerTimeout),
		nats.PingInterval(2 * answerTimeout),
		nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(*nats.Conn) { close(c.gone) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.asyncErr, c.asyncAt = err, time.Now()
		}),
	}
	tls, err := secret.TLS(o.Config.TLS, "") // the library fills in the host that it dials
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
	}
	if tls != nil {
		options = append(options, nats.Secure(tls))
	}
	if file := o.Config.CredentialsFile; file != "" {
		if _, err := secret.Read(file); err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
		}
		options = append(options, nats.UserCredentials(file))
	}
	stop := context.AfterFunc(ctx, c.dial.sever)
	defer stop()
	if c.nc, err = nats.Connect(o.Config.URL, options...); err != nil {
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			err = fmt.Errorf("the server rejects this user (credentialsFile %q): %w", o.Config.CredentialsFile, err)
		}
		return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
	}
	return c, nil
}

// alive reports whether the connection appears usable. It does not ask the library, which blocks while a publish
// blocks.
func (c *conn) alive() bool {
	select {
	case <-c.gone:
		return false
	default:
		return !c.dial.severed()
	}
}

// publish hands a message to the library. A nil error does not mean that it was sent.
func (c *conn) publish(m *nats.Msg) error {
	if err := c.nc.PublishMsg(m); err != nil {
		if errors.Is(err, nats.ErrConnectionClosed) {
			c.dial.sever()
		}
		return fmt.Errorf("publishing to %s: %w", m.Subject, err)
	}
	return nil
}

// guard cuts the connection if the work under it continues after the context has ended. A server that stops reading
// blocks the library's publish, which takes no context.
func (c *conn) guard(ctx context.Context) (done func()) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(severAfter)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
			c.dial.sever()
		}
	})
	return func() { stop(); close(ended) }
}

// noAnswer returns the error for an answer that did not arrive.
func (c *conn) noAnswer() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asyncErr != nil && time.Since(c.asyncAt) < 2*answerTimeout {
		return fmt.Errorf("no answer in %v; the server reported: %w", answerTimeout, c.asyncErr)
	}
	return fmt.Errorf("no answer in %v", answerTimeout)
}

// answer is the server's answer to a publish.
type answer struct {
	Error  *jetstream.APIError `json:"error"`
	Stream string              `json:"stream"`
	Seq    uint64              `json:"seq"`
	Batch  string              `json:"batch"`
	Count  int                 `json:"count"`
}

// inbox receives the answers to one sink's publishes on one connection. They belong to consecutive exchanges. Answers
// to an earlier exchange are dropped.
type inbox struct {
	conn      *conn
	sub       *nats.Subscription
	prefix    string
	jetStream string
	okPrefix  []byte // how an answer without an error begins
	progress  chan struct{}

	mu      sync.Mutex
	first   uint64          // number of the exchange's first publish
	pending []pendingAnswer // by number of the publish, starting at first
	open    int             // publishes without an answer
	taken   int64           // records in messages that the server stored
	err     error           // the first error answer
	last    []byte          // the latest answer to the exchange's last publish
	reply   []byte
}

// pendingAnswer is an expected answer.
type pendingAnswer struct {
	records int // in the message
	arrived bool
}

func (c *conn) newInbox(jetStream string) (*inbox, error) {
	in := &inbox{
		conn: c, prefix: c.nc.NewInbox() + ".", jetStream: jetStream,
		okPrefix: fmt.Appendf(nil, "{%q:%q,", "stream", jetStream),
		progress: make(chan struct{}, 1),
	}
	var err error
	if in.sub, err = c.nc.Subscribe(in.prefix+"*", in.receive); err != nil {
		return nil, fmt.Errorf("subscribing to answers: %w", err)
	}
	return in, nil
}

// close ends the subscription without waiting for a blocked connection. If the connection has ended, there is nothing
// to end.
func (in *inbox) close() { go func() { _ = in.sub.Unsubscribe() }() }

// begin starts an exchange.
func (in *inbox) begin() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.first += uint64(len(in.pending))
	in.pending, in.open, in.err, in.last, in.taken = in.pending[:0], 0, nil, nil, 0
}

// stored returns how many records of the exchange the server has stored, according to its answers so far. Records that
// it already had do not count.
func (in *inbox) stored() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.taken
}

// expect registers the exchange's next publish, which holds the given number of records. It returns the subject for its
// answer and the number of outstanding answers.
func (in *inbox) expect(records int) (subject string, open int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reply = strconv.AppendUint(append(in.reply[:0], in.prefix...), in.first+uint64(len(in.pending)), 10)
	in.pending = append(in.pending, pendingAnswer{records: records})
	in.open++
	return string(in.reply), in.open
}

// state returns the number of outstanding answers and the first error answer.
func (in *inbox) state() (open int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open, in.err
}

func (in *inbox) receive(m *nats.Msg) {
	n, err := strconv.ParseUint(m.Subject[len(in.prefix):], 10, 64)
	if err != nil {
		return
	}
	err = in.answerError(m)
	in.mu.Lock()
	defer in.mu.Unlock()
	if n < in.first || n-in.first >= uint64(len(in.pending)) || in.pending[n-in.first].arrived {
		return
	}
	answered := &in.pending[n-in.first]
	answered.arrived = true
	in.open--
	switch {
	case err != nil && in.err == nil:
		in.err = err
	case err == nil && !bytes.Contains(m.Data, duplicateField):
		in.taken += int64(answered.records)
	}
	if n-in.first == uint64(len(in.pending))-1 {
		in.last = m.Data
	}
	select {
	case in.progress <- struct{}{}:
	default:
	}
}

// duplicateField appears in the answer to a message whose id the server already knows.
var duplicateField = []byte(`,"duplicate":`)

// answerError returns the error that an answer reports.
func (in *inbox) answerError(m *nats.Msg) error {
	switch {
	case len(m.Data) == 0 && m.Header.Get("Status") != "":
		return nats.ErrNoResponders
	case len(m.Data) == 0 || bytes.HasPrefix(m.Data, in.okPrefix): // staged in a batch, or stored
		return nil
	}
	var a answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if a.Error != nil {
		return a.Error
	}
	if a.Stream != in.jetStream {
		return fmt.Errorf("the stream %s stored a record that was meant for %s: change the subjects of one of them",
			a.Stream, in.jetStream)
	}
	return nil
}

// wait returns when at most the given number of answers is outstanding, when one is an error, or when none arrives in
// time.
func (in *inbox) wait(ctx context.Context, most int) error {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	for {
		open, err := in.state()
		if err != nil || open <= most {
			return err
		}
		select {
		case <-in.progress:
			timer.Reset(answerTimeout)
		case <-ctx.Done():
			return ctx.Err()
		case <-in.conn.gone:
			return fmt.Errorf("the connection ended: %w", errors.Join(nats.ErrConnectionClosed, in.conn.nc.LastError()))
		case <-timer.C:
			return in.conn.noAnswer()
		}
	}
}

// committed returns the answer to the exchange's last publish. The answer must have arrived.
func (in *inbox) committed() (answer, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var a answer
	if err := json.Unmarshal(in.last, &a); err != nil {
		return a, fmt.Errorf("reading the server's answer to a batch: %w", err)
	}
	return a, nil
}
