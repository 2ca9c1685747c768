// Package reports defines what the manager serves about the targets of an object. Package server answers with it, and
// kubectl hlp reads it.
//
// Below Path it is a stream of JSON documents, one a line. A Head comes first, and then a Target for each target that
// has a pod. Below SamplesPath it is one sampling.Sample, and below DiagnosisPath one Diagnosis.
//
// The two are upgraded separately, so fields are added, never renamed or given another unit, and a reader accepts a
// document without them. A figure that is not known is absent, never 0.
//
// The package must never make a request.
package reports

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// Path, SamplesPath and DiagnosisPath are what paths begin with. A namespace, a slash and the name of an object
	// follow.
	Path, SamplesPath, DiagnosisPath = "/reports/", "/samples/", "/diagnosis/"
	// Resource and Subresource are what a reader must be allowed to get, in the object's namespace. SamplesSubresource
	// takes the place of Subresource for samples, which are data.
	Resource, Subresource, SamplesSubresource = "hyperliquidparsers", "reports", "samples"
	// QueryTarget names a target. For reports it may be repeated, and without it all targets are served. A sample needs
	// one. A diagnosis without it is that of the manager.
	QueryTarget = "target"
	// QueryStream, QueryCoin and QueryRecords are the fields of a sampling.Filter.
	QueryStream, QueryCoin, QueryRecords = "stream", "coin", "records"
	// QuerySamples asks for the totals of the last minute.
	QuerySamples = "samples"
	// NotLeading is the text of the answer 503 of a manager that does not lead. Another one does.
	NotLeading = "this manager does not lead: ask another one"
	// ContentType is that of the stream.
	ContentType = "application/x-ndjson"
)

// Head is the first document.
type Head struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Now       time.Time `json:"now"` // by the manager's clock, as all times except those in a report
	// Targets is the number of documents that follow. A stream with fewer was cut off.
	Targets int `json:"targets"`
}

// Target is what the manager knows of one target.
type Target struct {
	Target string `json:"target"`
	Pod    string `json:"pod"`
	// Verdict, Reason, Message and Since are those of the current judgement. Fading is true if the newest poll no longer
	// shows it.
	Verdict string    `json:"verdict"`
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Fading  bool      `json:"fading,omitempty"`
	// Shows is what the newest poll shows, confirmed or not, with current figures.
	Shows *Judgement `json:"shows,omitempty"`
	// Alerts are those that are raised, worst first.
	Alerts []Alert `json:"alerts,omitempty"`
	// Reports counts those of the running process, and Missed the latest polls in a row that brought none. Failure is why
	// the last one did not.
	Reports int    `json:"reports"`
	Missed  int    `json:"missed,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Report is the parser's newest one, which arrived At; absent if the pod's container has sent none.
	Report *report.Report `json:"report,omitempty"`
	At     time.Time      `json:"at,omitzero"`
	// Rates are over the last minute. A stream whose rates are not known is absent.
	Rates []Rate `json:"rates,omitempty"`
	// Samples are the totals of the last minute, oldest first, if they were asked for.
	Samples []Sample `json:"samples,omitempty"`
}

// Judgement is a verdict with its cause.
type Judgement struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Alert is an alert that is raised.
type Alert struct {
	Alert   string    `json:"alert"`
	Since   time.Time `json:"since"`
	Message string    `json:"message,omitempty"`
}

// Rate has the rates of a stream.
type Rate struct {
	Stream  string  `json:"stream"`
	Written float64 `json:"written"` // bytes of the node's lines per second
	Acked   float64 `json:"acked"`   // likewise
	// SinkBusy is the share of time in which the sink was waited for or retried, and ReadWait that in which the parser
	// waited for the reader though lines were on disk; from 0 to 1.
	SinkBusy float64 `json:"sinkBusy"`
	ReadWait float64 `json:"readWait"`
}

// Sample has the totals of a stream at one time, in bytes since its process started. Uncommitted is no total.
type Sample struct {
	At          time.Time `json:"at"`
	Stream      string    `json:"stream"`
	Written     int64     `json:"written"`
	Uncommitted int64     `json:"uncommitted"`
	Acked       int64     `json:"acked"`
}

// Diagnosis shows what a process does. It holds no record and no credential: stacks have no arguments.
type Diagnosis struct {
	// Stacks are the stacks of its goroutines, and Metrics all of its metrics, as text. They are at most 64 KiB and 256
	// KiB. The manager's metrics are served at /metrics, and never here.
	Stacks  string `json:"stacks,omitempty"`
	Metrics string `json:"metrics,omitempty"`
	// Missing says why one of them is.
	Missing []string `json:"missing,omitempty"`
}

const (
	// maxDocument bounds a document that is read, in bytes: a report of eight streams with the longest texts is a fraction
	// of it.
	maxDocument = 1 << 20
	// maxTargets bounds the number of documents. Objects with more targets than nodes that a cluster may have do not
	// exist.
	maxTargets = 100_000
)

// ErrTruncated means that a stream ended before all of its targets.
var ErrTruncated = errors.New("the answer was cut off")

// ReadOne reads an answer that is one document into it. It fails for one longer than a mebibyte.
func ReadOne(from io.Reader, document any) error {
	text, err := io.ReadAll(io.LimitReader(from, maxDocument+1))
	if err != nil {
		return fmt.Errorf("reading the manager's answer: %w", err)
	}
	if len(text) > maxDocument {
		return errors.New("the manager's answer is longer than a mebibyte")
	}
	if err := json.Unmarshal(text, document); err != nil {
		return fmt.Errorf("decoding the manager's answer: %w", err)
	}
	return nil
}

// Read reads a stream. It fails with ErrTruncated if targets are missing, and for a document longer than a mebibyte.
func Read(from io.Reader) (Head, []Target, error) {
	var head Head
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 64<<10), maxDocument)
	next := func(document any) error {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return fmt.Errorf("reading the manager's answer: %w", err)
			}
			return ErrTruncated
		}
		if err := json.Unmarshal(lines.Bytes(), document); err != nil {
			return fmt.Errorf("decoding the manager's answer: %w", err)
		}
		return nil
	}
	if err := next(&head); err != nil {
		return Head{}, nil, err
	}
	if head.Targets < 0 || head.Targets > maxTargets {
		return Head{}, nil, fmt.Errorf("the manager's answer announces %d targets", head.Targets)
	}
	targets := make([]Target, head.Targets)
	for i := range targets {
		if err := next(&targets[i]); err != nil {
			return Head{}, nil, err
		}
	}
	return head, targets, nil
}
