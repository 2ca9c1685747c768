package poller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/prose"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

// Requests that people make of one parser, beside the polls. They use the keys of the poll and no worker of it.

// ErrNoTarget reports that an object has no such target here.
var ErrNoTarget = errors.New("the object has no such target, or the target has no pod")

// ErrRefused reports that a parser answers and gives no sample.
var ErrRefused = errors.New("the parser gives no sample")

// endpoint returns where a target's parser runs.
func (p *Poller) endpoint(object types.NamespacedName, target string) (Endpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.objects[object][target]
	if e == nil {
		return Endpoint{}, ErrNoTarget
	}
	if !e.endpoint.Pod.Running || e.endpoint.IP == "" {
		return Endpoint{}, fmt.Errorf("the parser of pod %s does not run", e.endpoint.PodName)
	}
	return e.endpoint, nil
}

// Sample asks the parser of a target for a sample of what it delivers. It takes a sampling.Window and two polls at
// most. It fails with ErrNoTarget, and with ErrRefused if the parser says why it gives none. A parser without keys is
// not asked: it would answer anybody.
func (p *Poller) Sample(ctx context.Context, object types.NamespacedName, target string, f sampling.Filter) (
	sampling.Sample, error,
) {
	e, err := p.endpoint(object, target)
	if err != nil {
		return sampling.Sample{}, err
	}
	return p.options.Client.Sample(ctx, object.Namespace, e, f)
}

// Stacks asks the parser of a target for its goroutines' stacks. See Client.Stacks.
func (p *Poller) Stacks(ctx context.Context, object types.NamespacedName, target string) (string, error) {
	e, err := p.endpoint(object, target)
	if err != nil {
		return "", err
	}
	return p.options.Client.Stacks(ctx, object.Namespace, e)
}

// Metrics asks the parser of a target for all of its metrics, as text. See Client.Metrics.
func (p *Poller) Metrics(ctx context.Context, object types.NamespacedName, target string) (string, error) {
	e, err := p.endpoint(object, target)
	if err != nil {
		return "", err
	}
	return p.options.Client.Metrics(ctx, object.Namespace, e)
}

// errUnsealed means that a parser is asked for nothing that only the operator may have.
var errUnsealed = failed(NoKey, errors.New("the parser has no key, so that anybody could read its answer: "+
	"its pod is of a revision from before sealed reports"))

// Metrics returns all metrics of the parser in a target's pod, as text, at most the first 256 KiB. It takes no longer
// than Fetch. It fails for a parser without keys, whose metrics are only served to scrapers.
func (c *Client) Metrics(ctx context.Context, namespace string, e Endpoint) (string, error) {
	session, err := e.session(nil)
	if err != nil {
		return "", err
	}
	if session == nil {
		return "", errUnsealed
	}
	text, err := c.ask(ctx, namespace, e, session, document{report.SealedMetricsPath, "the metrics", c.limit})
	return strings.ToValidUTF8(string(text), "?"), err
}

// Sample returns a sample of what the parser in a target's pod delivers. See Poller.Sample.
func (c *Client) Sample(ctx context.Context, namespace string, e Endpoint, f sampling.Filter) (sampling.Sample, error) {
	if err := f.Check(); err != nil {
		return sampling.Sample{}, err
	}
	session, err := e.session(nil)
	if err != nil {
		return sampling.Sample{}, err
	}
	if session == nil {
		return sampling.Sample{}, errUnsealed
	}
	const name = "the sample"
	text, err := c.ask(ctx, namespace, e, session, document{sampling.Path, name, c.limit})
	if err != nil {
		return sampling.Sample{}, err
	}
	var token sampling.Token
	if err := json.Unmarshal(text, &token); err != nil {
		return sampling.Sample{}, failed(Invalid, fmt.Errorf("the response is not a token for a sample: %w", err))
	}
	path := sampling.SamplePath(token.Token, f)
	text, err = c.ask(ctx, namespace, e, session, document{path, name, c.limit + sampling.Window})
	if err != nil {
		return sampling.Sample{}, err
	}
	var answer sampling.Answer
	if err := json.Unmarshal(text, &answer); err != nil {
		return sampling.Sample{}, failed(Invalid, fmt.Errorf("the response is not a sample: %w", err))
	}
	if answer.Refused != "" {
		return sampling.Sample{}, fmt.Errorf("%w: %s", ErrRefused, prose.Line(answer.Refused, maxFailure))
	}
	if err := checkSample(&answer.Sample); err != nil {
		return sampling.Sample{}, failed(Invalid, err)
	}
	return answer.Sample, nil
}

// checkSample fails for a sample that no parser makes.
func checkSample(s *sampling.Sample) error {
	if len(s.Records) > sampling.MaxRecords || min(s.Delivered, s.Filtered, s.LeftOut) < 0 {
		return errors.New("the response is not a sample: its figures are out of range")
	}
	for i := range s.Records {
		r := &s.Records[i]
		if len(r.Text) > sampling.MaxRecordBytes || r.Bytes < len(r.Text) {
			return errors.New("the response is not a sample: a record's length is out of range")
		}
		r.Stream = prose.Line(r.Stream, maxFailure)
	}
	return nil
}

// ask requests a document within its limit. The bytes are the caller's.
func (c *Client) ask(ctx context.Context, namespace string, e Endpoint, session *seal.Session, d document) (
	[]byte, error,
) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	response, opened := c.getBuffer(), c.getBuffer()
	defer func() { c.putBuffer(response); c.putBuffer(opened) }()
	text, err := c.get(ctx, namespace, e, session, d, response, opened)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), text...), nil
}
