package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// maxBody bounds a report. Seven streams with the longest messages stay under 32 KiB.
	maxBody = 256 << 10
	// maxHeader bounds the headers of an answer.
	maxHeader = 16 << 10
	// maxStreams bounds what a report may claim: there are seven kinds of stream.
	maxStreams = 64
	// timeout bounds one poll. A parser answers from memory; two seconds is a machine in trouble.
	timeout = 2 * time.Second
	// keepAlive is how long a connection waits for the next poll; the longest poll interval is ten minutes, most are seconds.
	keepAlive = 90 * time.Second
)

// Client fetches reports. It trusts nothing that it gets: addresses are reused by other pods, and a pod may answer anything.
type Client struct {
	http *http.Client
	port int
}

// NewClient returns a client that asks pods at the given port.
func NewClient(port int) *Client {
	return &Client{port: port, http: &http.Client{
		// A pod must not send the operator elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			// No proxy: a proxy of the environment does not reach pods.
			DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: -1}).DialContext,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        keepAlive,
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true, // so that a small body stays small
		},
	}}
}

// Close ends the connections that wait for a next poll.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Fetch returns the report of the parser in the named pod. It takes at most the shorter of the interval and two seconds. Its
// errors are one line for a person, and do not name the address.
func (c *Client) Fetch(ctx context.Context, ip, pod string, interval time.Duration) (*report.Report, error) {
	limit := min(timeout, interval)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	address := "http://" + net.JoinHostPort(ip, strconv.Itoa(c.port)) + "/status"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking for the report: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, plain(err, limit)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer to GET /status is %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, plain(err, limit)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("the report is longer than %d KiB", maxBody>>10)
	}
	return decode(body, pod)
}

func decode(body []byte, pod string) (*report.Report, error) {
	var r report.Report
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("the answer is not a report: %w", err)
	}
	switch {
	case r.Parser != "hlparser":
		return nil, errors.New("the answer is not a parser's report")
	case r.Pod != pod:
		return nil, fmt.Errorf("the report is of pod %.63q", r.Pod)
	case len(r.Streams) == 0 || len(r.Streams) > maxStreams:
		return nil, fmt.Errorf("the report has %d streams", len(r.Streams)) // no stream could ever be bad
	}
	return &r, nil
}

// plain takes addresses and ephemeral ports out of an error, so that the same fault reads the same each time.
func plain(err error, limit time.Duration) error {
	var network *net.OpError
	var request *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", limit)
	case errors.As(err, &network):
		return fmt.Errorf("asking for the report: %s: %w", network.Op, network.Err)
	case errors.As(err, &request):
		return fmt.Errorf("asking for the report: %w", request.Err)
	}
	return fmt.Errorf("reading the report: %w", err)
}
