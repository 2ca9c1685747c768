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
	// answerTimeout is how long the server may take to answer anything at all while an answer is due.
	answerTimeout = 5 * time.Second
	// severAfter is how long a publish may go on after its context has ended before the connection is cut under it.
	severAfter = 100 * time.Millisecond
)

// conn is one connection, from its dial to its end. It is never made anew by the client library, which would send what is published
// after a disconnection and forget what was published before it: an order that no caller could mend.
type conn struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	dial *dialer
	gone chan struct{} // closed when the connection is

	mu      sync.Mutex
	trouble error // the last that the server said out of turn, such as a missing permission
	since   time.Time
}

// dialer dials one connection, and can cut it.
type dialer struct {
	ctx context.Context // until it is dialled

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

// sever ends the connection without a word.
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
			c.trouble, c.since = err, time.Now()
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
			err = fmt.Errorf("the server does not let this user in (credentialsFile %q): %w", o.Config.CredentialsFile, err)
		}
		return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connecting to %s: %w", o.Config.URL, err)
	}
	return c, nil
}

// alive tells whether the connection can be used, for all that is known. It does not ask the library, which lets nobody in while a
// publish is held up.
func (c *conn) alive() bool {
	select {
	case <-c.gone:
		return false
	default:
		return !c.dial.severed()
	}
}

// publish hands a message to the library. No error does not mean that it was sent.
func (c *conn) publish(m *nats.Msg) error {
	if err := c.nc.PublishMsg(m); err != nil {
		if errors.Is(err, nats.ErrConnectionClosed) {
			c.dial.sever()
		}
		return fmt.Errorf("publishing to %s: %w", m.Subject, err)
	}
	return nil
}

// guard cuts the connection if what is done under it goes on after the context has ended: a server that takes nothing holds up the
// library's publish, which knows no context.
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

// silence is the error of an answer that did not come.
func (c *conn) silence() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trouble != nil && time.Since(c.since) < 2*answerTimeout {
		return fmt.Errorf("no answer in %v; the server said: %w", answerTimeout, c.trouble)
	}
	return fmt.Errorf("no answer in %v", answerTimeout)
}

// answer is what the server says to a publish.
type answer struct {
	Error  *jetstream.APIError `json:"error"`
	Stream string              `json:"stream"`
	Seq    uint64              `json:"seq"`
	Batch  string              `json:"batch"`
	Count  int                 `json:"count"`
}

// inbox receives the answers to one sink's publishes on one connection. They belong to exchanges, one after the other; what comes for
// an earlier exchange is dropped.
type inbox struct {
	conn      *conn
	sub       *nats.Subscription
	prefix    string
	jetStream string
	good      []byte // how an answer begins that is no error
	progress  chan struct{}

	mu    sync.Mutex
	first uint64 // number of the exchange's first publish
	came  []bool // by the publish's number, from first
	open  int    // publishes without an answer
	err   error  // the first bad answer
	last  []byte // the latest answer to the exchange's last publish
	reply []byte
}

func (c *conn) newInbox(jetStream string) (*inbox, error) {
	in := &inbox{
		conn: c, prefix: c.nc.NewInbox() + ".", jetStream: jetStream, good: fmt.Appendf(nil, "{%q:%q,", "stream", jetStream),
		progress: make(chan struct{}, 1),
	}
	var err error
	if in.sub, err = c.nc.Subscribe(in.prefix+"*", in.receive); err != nil {
		return nil, fmt.Errorf("subscribing to answers: %w", err)
	}
	return in, nil
}

// close lets go of the subscription, without waiting for a connection that is held up. If it has ended there is nothing to let go of.
func (in *inbox) close() { go func() { _ = in.sub.Unsubscribe() }() }

// begin starts an exchange.
func (in *inbox) begin() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.first += uint64(len(in.came))
	in.came, in.open, in.err, in.last = in.came[:0], 0, nil, nil
}

// expect returns the subject for the answer to the exchange's next publish, and how many answers are due.
func (in *inbox) expect() (subject string, open int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reply = strconv.AppendUint(append(in.reply[:0], in.prefix...), in.first+uint64(len(in.came)), 10)
	in.came = append(in.came, false)
	in.open++
	return string(in.reply), in.open
}

// state returns how many answers are due, and the first bad one.
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
	err = in.judge(m)
	in.mu.Lock()
	defer in.mu.Unlock()
	if n < in.first || n-in.first >= uint64(len(in.came)) || in.came[n-in.first] {
		return
	}
	in.came[n-in.first] = true
	in.open--
	if err != nil && in.err == nil {
		in.err = err
	}
	if n-in.first == uint64(len(in.came))-1 {
		in.last = m.Data
	}
	select {
	case in.progress <- struct{}{}:
	default:
	}
}

// judge returns what an answer says went wrong.
func (in *inbox) judge(m *nats.Msg) error {
	switch {
	case len(m.Data) == 0 && m.Header.Get("Status") != "":
		return nats.ErrNoResponders
	case len(m.Data) == 0 || bytes.HasPrefix(m.Data, in.good): // staged in a batch, or stored
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
		return fmt.Errorf("the stream %s took a record that was meant for %s: give one of them other subjects", a.Stream, in.jetStream)
	}
	return nil
}

// wait returns when at most so many answers are due, or one is bad, or none comes.
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
			return in.conn.silence()
		}
	}
}

// committed returns the answer to the exchange's last publish, which came.
func (in *inbox) committed() (answer, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var a answer
	if err := json.Unmarshal(in.last, &a); err != nil {
		return a, fmt.Errorf("reading the server's answer to a batch: %w", err)
	}
	return a, nil
}
