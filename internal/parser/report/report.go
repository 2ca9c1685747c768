// Package report is what a parser tells about itself: the JSON document of GET /status, which the operator polls and judges,
// and (in its own files) the HTTP server and the Prometheus metrics that serve the same figures.
//
// The types are the contract between two programs that are upgraded separately: the operator of version N reads reports of
// N-1 and N-2. So fields are added, never renamed or given another unit, and a reader must accept a document without them.
// It must never carry the stream's data, a secret, or anything whose size grows with the traffic.
package report

import "time"

// StreamState is what a stream's pipeline is doing.
type StreamState string

const (
	// Running: the stream's directory was found and is read.
	Running StreamState = "Running"
	// WaitingForData: nothing to read has appeared yet: the data directory or the stream's directory is missing or empty.
	WaitingForData StreamState = "WaitingForData"
	// Draining: the parser is shutting down; what was read is being delivered and committed.
	Draining StreamState = "Draining"
	// Failed: the stream stopped and will not go on by itself; Message says why and what to do.
	Failed StreamState = "Failed"
)

// SinkState is how the last exchange with the sink went.
type SinkState string

const (
	// SinkHealthy: the last request was acknowledged, or none was made yet.
	SinkHealthy SinkState = "Healthy"
	// SinkRetrying: the last request failed and is being repeated with backoff; nothing is dropped.
	SinkRetrying SinkState = "Retrying"
	// SinkFailed: the sink refused in a way that repeating cannot cure; the stream is Failed.
	SinkFailed SinkState = "Failed"
)

// Report is the whole document. All times are UTC, all totals count from the start of the process.
type Report struct {
	Version   string    `json:"version"`   // of the parser's build
	Parser    string    `json:"parser"`    // always "hlparser": tells this document from another program's on the same port
	Target    string    `json:"target"`    // what this parser was started for: a node's name, or the host's when alone
	Pod       string    `json:"pod"`       // empty outside Kubernetes
	StartedAt time.Time `json:"startedAt"` // of the process
	Now       time.Time `json:"now"`       // when the figures were gathered, by the parser's clock
	Process   Process   `json:"process"`
	Streams   []Stream  `json:"streams"` // in the order of the configuration
}

// Process is the parser's process as a whole.
type Process struct {
	RSSBytes         int64   `json:"rssBytes"`         // resident set; 0 where the system does not tell
	HeapBytes        int64   `json:"heapBytes"`        // live and not yet swept heap objects
	Goroutines       int     `json:"goroutines"`       //
	MemoryLimitBytes int64   `json:"memoryLimitBytes"` // of the cgroup; 0: none
	CPUSecondsTotal  float64 `json:"cpuSecondsTotal"`  // user and system
	CPULimit         float64 `json:"cpuLimit"`         // cores this process may use
}

// Stream is one pipeline.
type Stream struct {
	Name    string      `json:"name"`              // OrderStatuses, Fills, …
	Mode    string      `json:"mode"`              // Line, Streaming or ByBlock; Auto until a directory was chosen
	State   StreamState `json:"state"`             //
	Message string      `json:"message,omitempty"` // one sentence for a person when State needs explaining; at most 512 bytes

	BufferLines      int64 `json:"bufferLines"`      // in the live buffer: read, not yet taken by a batch
	BufferBytes      int64 `json:"bufferBytes"`      // same, in bytes of whole lines
	BufferLimitBytes int64 `json:"bufferLimitBytes"` // what the process's buffers may hold together; the reader waits there
	InFlightLines    int64 `json:"inFlightLines"`    // taken by the current batch, not yet acknowledged
	InFlightBytes    int64 `json:"inFlightBytes"`    // same, in bytes
	LastBatchLines   int64 `json:"lastBatchLines"`   // size of the last snapshot taken

	BatchesTotal       int64 `json:"batchesTotal"`       // snapshots taken
	LinesTotal         int64 `json:"linesTotal"`         // whole lines processed
	EventsTotal        int64 `json:"eventsTotal"`        // events found in them, whether or not the filter let them pass
	DeliveredTotal     int64 `json:"deliveredTotal"`     // records acknowledged by the sink
	MalformedTotal     int64 `json:"malformedTotal"`     // lines and events that went to the dead letter
	OversizeTotal      int64 `json:"oversizeTotal"`      // lines longer than maxLineBytes, skipped
	LateTotal          int64 `json:"lateTotal"`          // lines read from a file after a newer one had begun
	PrunedUnreadTotal  int64 `json:"prunedUnreadTotal"`  // files that vanished before they were read to their end
	SkippedBytesTotal  int64 `json:"skippedBytesTotal"`  // bytes known to have been there and never read
	RepeatedBytesTotal int64 `json:"repeatedBytesTotal"` // bytes read again because a file shrank below what was delivered
	BlockGapsTotal     int64 `json:"blockGapsTotal"`     // block numbers missing between two lines (by-block mode)
	BlockRepeatsTotal  int64 `json:"blockRepeatsTotal"`  // lines whose block was seen before; with deduplicateBlocks they were left out
	BlockLateTotal     int64 `json:"blockLateTotal"`     // with deduplicateBlocks: blocks older than the highest, missing until then, and delivered
	LastBlock          int64 `json:"lastBlock"`          // highest block number delivered or filtered out; 0 in line mode

	// UncommittedBytes are whole lines on disk or in hand that are not yet committed, over all files; a torn tail is not counted.
	UncommittedBytes int64 `json:"uncommittedBytes"`
	// LagSeconds is the age of the oldest unacknowledged line since it was first seen on disk; 0 when there is none.
	LagSeconds float64 `json:"lagSeconds"`
	// LargestLineBytes is the longest line seen, newline included.
	LargestLineBytes int64 `json:"largestLineBytes"`

	// Progress of each stage, in bytes of the node's lines. They move within a batch, so a stage that stands still is stuck.
	ReadBytesTotal       int64   `json:"readBytesTotal"`
	ParsedBytesTotal     int64   `json:"parsedBytesTotal"`
	AckedBytesTotal      int64   `json:"ackedBytesTotal"`
	CommittedBytesTotal  int64   `json:"committedBytesTotal"`
	ReadWaitSecondsTotal float64 `json:"readWaitSecondsTotal"` // the processor waited for the reader while lines were on disk

	File              string     `json:"file"`              // being read, relative to the data directory
	Position          string     `json:"position"`          // next byte to read
	CommittedPosition string     `json:"committedPosition"` // next byte after a restart
	LastLineAt        *time.Time `json:"lastLineAt"`        // when the last whole line was seen on disk
	LastCommitAt      *time.Time `json:"lastCommitAt"`

	Sink Sink `json:"sink"`
}

// Sink is one stream's exchange with where its records go.
type Sink struct {
	State              SinkState  `json:"state"`
	Since              *time.Time `json:"since"`                   // of State
	LastError          string     `json:"lastError,omitempty"`     // at most 512 bytes
	RetriesTotal       int64      `json:"retriesTotal"`            //
	MissingSecret      string     `json:"missingSecret,omitempty"` // path of a password's or key's file without which the sink cannot be reached
	LastAckAt          *time.Time `json:"lastAckAt"`               // null: nothing acknowledged yet
	OutstandingSeconds float64    `json:"outstandingSeconds"`      // age of the request being waited for; 0 when there is none
	BusySecondsTotal   float64    `json:"busySecondsTotal"`        // time with a request outstanding
}
