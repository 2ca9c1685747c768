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

	"github.com/go-json-experiment/json" // less than half the time of encoding/json, and a third of its allocations
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// maxBody bounds a report. Seven streams with the longest messages stay under 32 KiB.
	maxBody = 256 << 10
	// keptBody is the largest buffer that is kept for the next report.
	keptBody = 64 << 10
	// maxStacks bounds what is logged of a parser that is about to be restarted. It has some tens of goroutines, of half a KiB each.
	maxStacks = 64 << 10
	// maxHeader bounds the headers of an answer.
	maxHeader = 16 << 10
	// maxStreams bounds what a report may claim: there are seven kinds of stream.
	maxStreams = 64
	// maxName bounds the names of streams and states, and maxText messages, at twice what a parser says. They are kept for as long as
	// a window of reports reaches, so a parser that lies would fill the operator's memory with them.
	maxName = 64
	maxText = 1 << 10
	// timeout bounds one poll. A parser answers from memory; two seconds is a machine in trouble.
	timeout = 2 * time.Second
	// keepAlive is how long a connection waits for the next poll; the longest poll interval is ten minutes, most are seconds.
	keepAlive = 90 * time.Second
	// ioBuffer is the size of an exchange's two buffers: a report of seven streams fits.
	ioBuffer = 8 << 10
)

// Client fetches reports. It trusts nothing that it gets: addresses are reused by other pods, and a pod may answer anything.
type Client struct {
	// transport is asked without an http.Client: nobody sends the operator elsewhere, and a proxy does not reach pods.
	transport *transport
	port      string
	// host of the pod in the URL of its report.
	host func(namespace string, e Endpoint) string
	// limit bounds one poll.
	limit time.Duration
	// bodies holds *bytes.Buffer for reports that are being read.
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
	limit := min(c.limit, interval)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := c.request(ctx, namespace, e, "/status")
	if err != nil {
		return fmt.Errorf("asking for the report: %w", err)
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return plain("asking for the report", err, limit)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer to GET /status is %d", response.StatusCode)
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" {
		return fmt.Errorf("the report is compressed (%.20q), which nobody asked for", encoding)
	}
	body := c.bodies.Get().(*bytes.Buffer)
	defer func() {
		if body.Cap() <= keptBody {
			body.Reset()
			c.bodies.Put(body)
		}
	}()
	if _, err := body.ReadFrom(io.LimitReader(response.Body, maxBody+1)); err != nil {
		return plain("reading the report", err, limit)
	}
	if body.Len() > maxBody {
		return fmt.Errorf("the report is longer than %d KiB", maxBody>>10)
	}
	return decode(body.Bytes(), e, r)
}

// Stacks returns where the goroutines of the parser in a target's pod are, the first 64 KiB of it. It takes no longer than Fetch.
func (c *Client) Stacks(ctx context.Context, namespace string, e Endpoint) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	request, err := c.request(ctx, namespace, e, report.StackPath)
	if err != nil {
		return "", fmt.Errorf("asking for stacks: %w", err)
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return "", plain("asking for stacks", err, c.limit)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the answer to GET %s is %d", report.StackPath, response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxStacks))
	if err != nil {
		return "", plain("reading stacks", err, c.limit)
	}
	return strings.ToValidUTF8(string(text), "?"), nil
}

func (c *Client) request(ctx context.Context, namespace string, e Endpoint, path string) (*http.Request, error) {
	address := "http://" + net.JoinHostPort(c.host(namespace, e), c.port) + path
	return http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
}

// decode reads a report, and refuses one that is not of the target's parser or holds what no parser says.
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
	for i := range r.Streams {
		s := &r.Streams[i]
		if max(len(s.Name), len(s.State), len(s.Sink.State)) > maxName || max(len(s.Message), len(s.Sink.LastError)) > maxText {
			return fmt.Errorf("the report says more of stream %.63q than a parser does", s.Name)
		}
	}
	return nil
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

// plain takes addresses and ephemeral ports out of an error of doing something, so that the same fault reads the same each time.
func plain(doing string, err error, limit time.Duration) error {
	var network *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", limit)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %s: %w", doing, network.Op, network.Err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
