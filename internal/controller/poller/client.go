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
	// maxBody bounds a report, in bytes. Eight streams with the longest messages stay under 32 KiB.
	maxBody = 256 << 10
	// keptBody is the largest buffer, in bytes, that is kept for another report.
	keptBody = 64 << 10
	// maxStacks bounds, in bytes, the goroutine dump that is logged before a restart. A parser has some tens of
	// goroutines, half a KiB each.
	maxStacks = 64 << 10
	// maxHeader bounds the headers of a response, in bytes, and maxLines their number.
	maxHeader = 16 << 10
	maxLines  = 64
	// maxStreams bounds the streams of a report. There are eight kinds of stream.
	maxStreams = 64
	// timeout bounds one poll. A parser answers from memory; one that takes two seconds is on a machine in trouble.
	timeout = 2 * time.Second
	// keepAlive is how long a connection stays idle between polls. Poll intervals are seconds, at most ten minutes.
	keepAlive = 90 * time.Second
	// ioBuffer is the size of an exchange's two buffers: a report of eight streams fits.
	ioBuffer = 8 << 10
)

// Client fetches reports. It does not trust responses: addresses are reused by other pods, and a pod may answer
// anything. A report counts only if the pod's own parser has sealed it for the request.
type Client struct {
	// transport is used without an http.Client: redirects must not be followed, and a proxy does not reach pods.
	transport *transport
	port      string
	// host returns the host of a pod's URLs.
	host func(namespace string, e Endpoint) string
	// limit bounds one poll.
	limit time.Duration
	// bodies holds *bytes.Buffer for responses that are being read and opened.
	bodies sync.Pool
}

// NewClient returns a client that connects to pods at their addresses, at the given port.
func NewClient(port int) *Client {
	dialer := &net.Dialer{Timeout: timeout, KeepAlive: -1}
	address := func(_ string, e Endpoint) string { return e.IP }
	return newClient(port, timeout, address, dialer.DialContext)
}

func newClient(
	port int, limit time.Duration, host func(string, Endpoint) string,
	dial func(ctx context.Context, network, address string) (net.Conn, error),
) *Client {
	return &Client{
		port: strconv.Itoa(port), host: host, limit: limit, transport: newTransport(dial),
		bodies: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}
}

// Close closes idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Fetch reads the report of the parser in a target's pod into r, and reuses its memory. After an error r is undefined.
// It takes at most the shorter of the interval and the client's limit: two seconds, or five through the API server. Its
// errors are readable, on one line, and without the address.
func (c *Client) Fetch(
	ctx context.Context, namespace string, e Endpoint, interval time.Duration, r *report.Report,
) error {
	session, err := e.session(nil)
	if err != nil {
		return err
	}
	return c.fetch(ctx, namespace, e, session, interval, r)
}

// fetch is Fetch with the session of the endpoint's two keys; nil for a parser that answers any client.
func (c *Client) fetch(
	ctx context.Context, namespace string, e Endpoint, session *seal.Session, interval time.Duration, r *report.Report,
) error {
	limit := min(c.limit, interval)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	response, opened := c.getBuffer(), c.getBuffer()
	defer func() { c.putBuffer(response); c.putBuffer(opened) }()
	text, err := c.get(ctx, namespace, e, session, document{report.StatusPath, "the report", limit}, response, opened)
	if err != nil {
		return err
	}
	if err := decode(text, e, r); err != nil {
		return failed(Invalid, err)
	}
	return failed(WrongPod, e.checkOwner(namespace, r))
}

// maxStartDelay is the longest time from the start of a container, by its node's clock, to the start that its process
// records. Kubelets report the former in whole seconds.
const maxStartDelay = time.Minute

// checkOwner fails for the report of another pod: pods of several namespaces have the same names, and addresses are
// reused. A field that a report leaves out proves nothing. For a sealed report the key is proof enough. A parser
// without a key that does not report its UID must have started when the pod's container did.
func (e *Endpoint) checkOwner(namespace string, r *report.Report) error {
	switch {
	case r.Namespace != "" && r.Namespace != namespace:
		return fmt.Errorf("the report is from a pod in namespace %.63q", r.Namespace)
	case r.PodUID != "" && e.Pod.UID != "" && r.PodUID != e.Pod.UID:
		return errors.New("the report is from another pod of the same name: its UID differs")
	case !e.Plain || r.PodUID != "" || e.Started.IsZero():
		return nil
	case r.StartedAt.Before(e.Started.Add(-time.Second)) || r.StartedAt.After(e.Started.Add(maxStartDelay)):
		return errors.New("the report may be from another pod of the same name: " +
			"its process did not start when this pod's container did")
	}
	return nil
}

// Stacks returns the goroutine dump of the parser in a target's pod, at most its first 64 KiB. It takes no longer than
// Fetch.
func (c *Client) Stacks(ctx context.Context, namespace string, e Endpoint) (string, error) {
	session, err := e.session(nil)
	if err != nil {
		return "", err
	}
	text, err := c.ask(ctx, namespace, e, session, document{report.StackPath, "the goroutine dump", c.limit})
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(text[:min(len(text), maxStacks)]), "?"), nil
}

// document is what is requested from a parser.
type document struct {
	path  string
	name  string // in errors
	limit time.Duration
}

// get requests a document from a parser. The returned bytes are in one of the two buffers.
func (c *Client) get(
	ctx context.Context, namespace string, e Endpoint, session *seal.Session, d document, body, opened *bytes.Buffer,
) ([]byte, error) {
	request, err := c.request(ctx, namespace, e, d.path)
	if err != nil {
		return nil, fmt.Errorf("requesting %s: %w", d.name, err)
	}
	var challenge seal.Challenge
	maxLength := maxBody
	if session != nil {
		var header string
		if header, challenge, err = session.Request(d.path); err != nil {
			return nil, fmt.Errorf("requesting %s: %w", d.name, err)
		}
		request.Header.Set(seal.Header, header)
		maxLength += seal.Overhead
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, withoutAddress("requesting "+d.name, err, d.limit)
	}
	defer func() { _ = response.Body.Close() }()
	switch encoding := response.Header.Get("Content-Encoding"); {
	case session != nil && response.StatusCode == http.StatusUnauthorized:
		return nil, failed(Unauthorized, errors.New("the parser does not know the operator's key, which its kubelet "+
			"delivers within minutes, or another process answers at its address"))
	case session != nil && response.StatusCode == http.StatusNotFound && d.path != report.StatusPath:
		return nil, failed(BadStatus, fmt.Errorf("the parser does not serve %s: its image is older", d.name))
	case response.StatusCode != http.StatusOK:
		return nil, failed(BadStatus, fmt.Errorf("GET %s returned %d", d.path, response.StatusCode))
	case encoding != "":
		return nil, failed(Invalid, fmt.Errorf("%s is compressed (%.20q), which was not requested", d.name, encoding))
	}
	if _, err := body.ReadFrom(io.LimitReader(response.Body, int64(maxLength)+1)); err != nil {
		return nil, withoutAddress("reading "+d.name, err, d.limit)
	}
	if session == nil && d.path == report.StackPath {
		return body.Bytes(), nil // truncated: a part is useful too
	}
	if body.Len() > maxLength {
		return nil, failed(Invalid, fmt.Errorf("%s is longer than %d KiB", d.name, maxBody>>10))
	}
	if session == nil {
		return body.Bytes(), nil
	}
	opened.Grow(body.Len())
	text, err := session.Open(opened.AvailableBuffer(), body.Bytes(), challenge)
	return text, failed(NotSealed, err)
}

// getBuffer returns an empty buffer.
func (c *Client) getBuffer() *bytes.Buffer { return c.bodies.Get().(*bytes.Buffer) }

func (c *Client) putBuffer(b *bytes.Buffer) {
	if b.Cap() <= keptBody {
		b.Reset()
		c.bodies.Put(b)
	}
}

// session returns the session of the operator's key and the pod's, reusing before when it is that one; nil for a parser
// that has no key and answers any client. It fails when the parser has a key and either key is unknown: such a parser
// is never polled in plain HTTP.
func (e *Endpoint) session(before *seal.Session) (*seal.Session, error) {
	switch {
	case e.Plain:
		return nil, nil
	case e.Key == seal.PublicKey{}:
		return nil, failed(NoKey, errors.New("the pod's status has no public key of its parser: its init container wrote "+
			"none; its image may not support sealed reports"))
	case e.Operator == nil:
		return nil, failed(NoKey, errors.New("the operator has no key to request reports with: see its log"))
	case before.Between(e.Operator, e.Key):
		return before, nil
	}
	s, err := seal.NewOperatorSession(e.Operator, e.Key)
	if err != nil {
		return nil, failed(NoKey, fmt.Errorf("the pod's status has no public key of its parser: %w", err))
	}
	return s, nil
}

func (c *Client) request(ctx context.Context, namespace string, e Endpoint, path string) (*http.Request, error) {
	address := "http://" + net.JoinHostPort(c.host(namespace, e), c.port) + path
	return http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
}

// decode reads a report. It refuses a report that is not from the target's parser or is certainly forged, and bounds
// all values: strings are printable and short, figures are neither negative nor absurd.
func decode(body []byte, e Endpoint, r *report.Report) error {
	*r = report.Report{Streams: r.Streams[:0]} // a field that is left out must not have the value of the last report
	if err := json.Unmarshal(body, r, limitStreams); err != nil {
		return fmt.Errorf("the response is not a report: %w", err)
	}
	switch {
	case r.Parser != "hlparser":
		return errors.New("the response is not a parser's report")
	case r.Pod != e.PodName:
		return failed(WrongPod, fmt.Errorf("the report is from pod %.63q", r.Pod))
	case r.Target != e.Target:
		return failed(WrongPod, fmt.Errorf("the report is for target %.63q", r.Target))
	case len(r.Streams) == 0:
		return errors.New("the report has no streams") // it could never show a fault
	}
	return sanitize(r)
}

// limitStreams bounds the streams of a report while it is decoded. Bodies of the largest size could make a gigabyte of
// streams over all workers, and each worker keeps the memory of its last report.
var limitStreams = json.WithUnmarshalers(json.UnmarshalFromFunc(decodeStreams))

func decodeStreams(from *jsontext.Decoder, streams *[]report.Stream) error {
	if from.PeekKind() != jsontext.KindBeginArray {
		return errors.ErrUnsupported // the default decoder reports the error
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
}

// maxError bounds, in bytes, what an error quotes of an invalid response.
const maxError = 200

// withoutAddress strips addresses and ephemeral ports from an error, so that the same fault has the same text each
// time. What it quotes of a response, which may be anything, is truncated and on one line.
func withoutAddress(doing string, err error, limit time.Duration) error {
	var network *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failed(Timeout, fmt.Errorf("no answer within %s", limit))
	case errors.As(err, &network):
		return fmt.Errorf("%s: %s: %w", doing, network.Op, network.Err)
	}
	if text := err.Error(); len(text) > maxError || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%s: %.*q", doing, maxError, strings.ToValidUTF8(text, "?"))
	}
	return fmt.Errorf("%s: %w", doing, err)
}
