package poller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/go-json-experiment/json" // less than half the time of encoding/json, and a third of its allocations
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

const (
	// maxBody bounds a report. Seven streams with the longest messages stay under 32 KiB.
	maxBody = 256 << 10
	// keptBody is the largest buffer that is kept for the next report.
	keptBody = 64 << 10
	// maxStacks bounds what is logged of a parser that is about to be restarted. It has some tens of goroutines, of half a KiB each.
	maxStacks = 64 << 10
	// maxHeader bounds the headers of an answer, and maxLines how many there are.
	maxHeader = 16 << 10
	maxLines  = 64
	// maxStreams bounds what a report may claim: there are seven kinds of stream.
	maxStreams = 64
	// timeout bounds one poll. A parser answers from memory; two seconds is a machine in trouble.
	timeout = 2 * time.Second
	// keepAlive is how long a connection waits for the next poll; the longest poll interval is ten minutes, most are seconds.
	keepAlive = 90 * time.Second
	// ioBuffer is the size of an exchange's two buffers: a report of seven streams fits.
	ioBuffer = 8 << 10
)

// Client fetches reports. It trusts nothing that it gets: addresses are reused by other pods, and a pod may answer anything. What a pod's
// own parser did not seal for the request is no report.
type Client struct {
	// transport is asked without an http.Client: nobody sends the operator elsewhere, and a proxy does not reach pods.
	transport *transport
	port      string
	// host of the pod in the URL of its report.
	host func(namespace string, e Endpoint) string
	// limit bounds one poll.
	limit time.Duration
	// bodies holds *bytes.Buffer for answers that are being read and opened.
	bodies sync.Pool
}

// NewClient returns a client that asks pods at their addresses, at the given port.
func NewClient(port int) *Client {
	dialer := &net.Dialer{Timeout: timeout, KeepAlive: -1}
	address := func(_ string, e Endpoint) string { return e.IP }
	return newClient(port, timeout, address, dialer.DialContext)
}

func newClient(
	port int, limit time.Duration, host func(string, Endpoint) string, dial func(ctx context.Context, network, address string) (net.Conn, error),
) *Client {
	return &Client{
		port: strconv.Itoa(port), host: host, limit: limit, transport: newTransport(dial),
		bodies: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
}

// Close ends the connections that wait for a next poll.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Fetch reads the report of the parser in a target's pod into r, whose memory it uses again; after an error r is nothing to go by. It takes
// at most the shorter of the interval and the client's limit: two seconds, five through the API server. Its errors are one line for a
// person, and do not name the address.
func (c *Client) Fetch(ctx context.Context, namespace string, e Endpoint, interval time.Duration, r *report.Report) error {
	session, err := e.session(nil)
	if err != nil {
		return err
	}
	return c.fetch(ctx, namespace, e, session, interval, r)
}

// fetch is Fetch with what the endpoint's two keys have in common; nil where the parser answers anybody.
func (c *Client) fetch(
	ctx context.Context, namespace string, e Endpoint, session *seal.Session, interval time.Duration, r *report.Report,
) error {
	limit := min(c.limit, interval)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, opened := c.buffer(), c.buffer()
	defer func() { c.giveBack(answer); c.giveBack(opened) }()
	text, err := c.get(ctx, namespace, e, session, asked{report.StatusPath, "the report", limit}, answer, opened)
	if err != nil {
		return err
	}
	if err := decode(text, e, r); err != nil {
		return err
	}
	return e.owns(namespace, r)
}

// slowStart is the longest that a process takes from when its container starts, by the node's clock, until it notes
// when it began. Kubelets give the first in whole seconds.
const slowStart = time.Minute

// owns fails for the report of another pod: names of pods are alike in several namespaces, and addresses are used
// again. What a report leaves out proves nothing. Of a sealed one the key is proof enough. A parser of a revision that
// an older operator stored has no key and does not know its namespace: its process must have begun when the pod's
// container did.
func (e *Endpoint) owns(namespace string, r *report.Report) error {
	switch {
	case r.Namespace != "" && r.Namespace != namespace:
		return fmt.Errorf("the report is of a pod of namespace %.63q", r.Namespace)
	case r.PodUID != "" && e.Pod.UID != "" && r.PodUID != e.Pod.UID:
		return errors.New("the report is of another pod of that name: its UID differs")
	case !e.Plain || r.PodUID != "" || e.Started.IsZero():
		return nil
	case r.StartedAt.Before(e.Started.Add(-time.Second)) || r.StartedAt.After(e.Started.Add(slowStart)):
		return errors.New("the report may be of another pod of that name: its process did not begin when this pod's container did")
	}
	return nil
}

// Stacks returns where the goroutines of the parser in a target's pod are, the first 64 KiB of it. It takes no longer than Fetch.
func (c *Client) Stacks(ctx context.Context, namespace string, e Endpoint) (string, error) {
	session, err := e.session(nil)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	answer, opened := c.buffer(), c.buffer()
	defer func() { c.giveBack(answer); c.giveBack(opened) }()
	text, err := c.get(ctx, namespace, e, session, asked{report.StackPath, "the list of stacks", c.limit}, answer, opened)
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(text[:min(len(text), maxStacks)]), "?"), nil
}

// asked is what a parser is asked for.
type asked struct {
	path string
	what string // for a person
	// limit is how long it may take.
	limit time.Duration
}

// get asks a parser, and returns the document that it answers with, which is in one of the two buffers.
func (c *Client) get(
	ctx context.Context, namespace string, e Endpoint, session *seal.Session, what asked, answer, opened *bytes.Buffer,
) ([]byte, error) {
	request, err := c.request(ctx, namespace, e, what.path)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", what.what, err)
	}
	var challenge seal.Challenge
	most := maxBody
	if session != nil {
		var header string
		if header, challenge, err = session.Request(what.path); err != nil {
			return nil, fmt.Errorf("asking for %s: %w", what.what, err)
		}
		request.Header.Set(seal.Header, header)
		most += seal.Overhead
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, plain("asking for "+what.what, err, what.limit)
	}
	defer func() { _ = response.Body.Close() }()
	switch encoding := response.Header.Get("Content-Encoding"); {
	case session != nil && response.StatusCode == http.StatusUnauthorized:
		return nil, errors.New("the parser does not know the operator's key, which its kubelet shows it within minutes, " +
			"or something else answers at its address")
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the answer to GET %s is %d", what.path, response.StatusCode)
	case encoding != "":
		return nil, fmt.Errorf("%s is compressed (%.20q), which nobody asked for", what.what, encoding)
	}
	if _, err := answer.ReadFrom(io.LimitReader(response.Body, int64(most)+1)); err != nil {
		return nil, plain("reading "+what.what, err, what.limit)
	}
	if session == nil && what.path == report.StackPath {
		return answer.Bytes(), nil // as much of it as is wanted
	}
	if answer.Len() > most {
		return nil, fmt.Errorf("%s is longer than %d KiB", what.what, maxBody>>10)
	}
	if session == nil {
		return answer.Bytes(), nil
	}
	opened.Grow(answer.Len())
	return session.Open(opened.AvailableBuffer(), answer.Bytes(), challenge)
}

// buffer returns an empty one.
func (c *Client) buffer() *bytes.Buffer { return c.bodies.Get().(*bytes.Buffer) }

func (c *Client) giveBack(b *bytes.Buffer) {
	if b.Cap() <= keptBody {
		b.Reset()
		c.bodies.Put(b)
	}
}

// session returns what the operator's key and the pod's have in common, which is before when it was that already; nil for a parser that
// has no key and answers anybody. It fails where the parser has a key and one of the two is not known: such a parser is never asked in
// plain.
func (e *Endpoint) session(before *seal.Session) (*seal.Session, error) {
	switch {
	case e.Plain:
		return nil, nil
	case e.Key == seal.PublicKey{}:
		return nil, errors.New("the pod's status has no public key of its parser: its init container wrote none, " +
			"as one of an image older than sealed reports")
	case e.Operator == nil:
		return nil, errors.New("the operator has no key to ask with: its log says why")
	case before.Between(e.Operator, e.Key):
		return before, nil
	}
	s, err := seal.NewOperatorSession(e.Operator, e.Key)
	if err != nil {
		return nil, fmt.Errorf("the pod's status has no public key of its parser: %w", err)
	}
	return s, nil
}

func (c *Client) request(ctx context.Context, namespace string, e Endpoint, path string) (*http.Request, error) {
	address := "http://" + net.JoinHostPort(c.host(namespace, e), c.port) + path
	return http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
}

// decode reads a report. It refuses one that is not of the target's parser or holds what only a liar says, and bounds
// all that is left: strings are printable and short, figures are neither negative nor absurd.
func decode(body []byte, e Endpoint, r *report.Report) error {
	*r = report.Report{Streams: r.Streams[:0]} // what a report leaves out must not be that of the one before
	if err := json.Unmarshal(body, r, bounded); err != nil {
		return fmt.Errorf("the answer is not a report: %w", err)
	}
	switch {
	case r.Parser != "hlparser":
		return errors.New("the answer is not a parser's report")
	case r.Pod != e.PodName:
		return fmt.Errorf("the report is of pod %.63q", r.Pod)
	case r.Target != e.Target:
		return fmt.Errorf("the report is of target %.63q", r.Target)
	case len(r.Streams) == 0:
		return errors.New("the report has no streams") // none could ever be bad
	}
	return bound(r)
}

// bounded lets no report claim more streams than one may. A body of the largest size could make a gigabyte of them in the hands of all
// workers, and each worker keeps the memory of its last.
var bounded = json.WithUnmarshalers(json.UnmarshalFromFunc(func(from *jsontext.Decoder, streams *[]report.Stream) error {
	if from.PeekKind() != jsontext.KindBeginArray {
		return errors.ErrUnsupported // and told in the usual words
	}
	if _, err := from.ReadToken(); err != nil {
		return err
	}
	*streams = (*streams)[:0]
	for from.PeekKind() != jsontext.KindEndArray {
		if len(*streams) == maxStreams {
			return fmt.Errorf("more than %d streams", maxStreams)
		}
		*streams = append(*streams, report.Stream{})
		if err := json.UnmarshalDecode(from, &(*streams)[len(*streams)-1]); err != nil {
			return err
		}
	}
	_, err := from.ReadToken()
	return err
}))

// maxError bounds what an error repeats of an answer that is none.
const maxError = 200

// plain takes addresses and ephemeral ports out of an error of doing something, so that the same fault reads the same each time. What it
// says of an answer, which may be anybody's, is cut, and on one line.
func plain(doing string, err error, limit time.Duration) error {
	var network *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", limit)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %s: %w", doing, network.Op, network.Err)
	}
	if text := err.Error(); len(text) > maxError || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%s: %.*q", doing, maxError, strings.ToValidUTF8(text, "?"))
	}
	return fmt.Errorf("%s: %w", doing, err)
}
