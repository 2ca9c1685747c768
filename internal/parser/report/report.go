// Package report defines the document that a parser serves about itself: the JSON of GET /status, which the operator
// polls and judges. Other files of the package hold the HTTP server and the Prometheus metrics, which serve the same
// figures.
//
// The types are the contract between two programs that are upgraded separately: the operator of version N reads reports
// of N-1 and N-2. Therefore fields are added, never renamed or given another unit, and a reader must accept a document
// without them. An unknown figure is null in the document and nil here, never 0.
//
// A report must never carry the stream's data, a secret, or anything whose size grows with the traffic.
package report

import "time"

// StreamState is what a stream's pipeline is doing.
type StreamState string

const (
	// Running: the stream's directory exists and is being read.
	Running StreamState = "Running"
	// WaitingForData: nothing to read has appeared yet. The data directory or the stream's directory is missing or
	// empty, or has not been scanned yet; Message says which.
	WaitingForData StreamState = "WaitingForData"
	// Blocked: a file or folder that should be read cannot be read; Stream.Blocked names it. Reading is retried.
	Blocked StreamState = "Blocked"
	// Draining: the parser is shutting down; data already read is being delivered and committed.
	Draining StreamState = "Draining"
	// Failed: the stream stopped and does not recover without intervention; Message says why and what to do. Its
	// backlog is still reported.
	Failed StreamState = "Failed"
)

// SinkState is the result of the last request to the sink.
type SinkState string

const (
	// SinkHealthy: the last request was acknowledged, or none was made yet.
	SinkHealthy SinkState = "Healthy"
	// SinkRetrying: the last request failed and is being retried with backoff; nothing is dropped.
	SinkRetrying SinkState = "Retrying"
	// SinkFailed: the sink refused permanently, so that a retry cannot help; the stream is Failed.
	SinkFailed SinkState = "Failed"
)

// Report is the whole document. All times are in UTC. All totals count from the start of the process.
type Report struct {
	Version string `json:"version"` // version of the parser's build
	// Parser is always "hlparser". It distinguishes this document from another program's on the same port.
	Parser string `json:"parser"`
	// Target is what this parser reads for: a node's name, or the host's name outside Kubernetes.
	Target string `json:"target"`
	Pod    string `json:"pod"` // empty outside Kubernetes
	// Namespace is the pod's namespace. It is empty outside Kubernetes, and if the pod's template does not set it.
	Namespace string `json:"namespace"`
	// PodUID is the pod's UID; empty as Namespace is. It distinguishes the pod from one of the same name, in another
	// namespace or from earlier.
	PodUID    string    `json:"podUID"`
	StartedAt time.Time `json:"startedAt"` // start of the process
	Now       time.Time `json:"now"`       // when the figures were collected, by the parser's clock
	Process   Process   `json:"process"`
	Streams   []Stream  `json:"streams"` // in configuration order
}

// Process describes the parser's process as a whole.
type Process struct {
	RSSBytes         *int64  `json:"rssBytes"`  // resident set; null where the system does not provide it
	HeapBytes        int64   `json:"heapBytes"` // live objects and dead objects not yet swept
	Goroutines       int     `json:"goroutines"`
	MemoryLimitBytes int64   `json:"memoryLimitBytes"` // limit of the cgroup; 0: none
	CPUSecondsTotal  float64 `json:"cpuSecondsTotal"`  // user and system time
	CPULimit         float64 `json:"cpuLimit"`         // cores that this process may use
}

// Stream describes one pipeline.
type Stream struct {
	Name  string      `json:"name"` // OrderStatuses, Fills, …
	Mode  string      `json:"mode"` // Line, Streaming or ByBlock; Auto until a directory is chosen
	State StreamState `json:"state"`
	// Message is what the stream waits for or what is wrong, in words. At most 512 bytes.
	Message string `json:"message,omitempty"`
	// Blocked is what should be read but cannot be read, in any State. Absent if there is nothing.
	Blocked *BlockedPath `json:"blocked,omitempty"`

	BufferLines int64 `json:"bufferLines"` // in the live buffer: read, but not yet taken by a batch
	BufferBytes int64 `json:"bufferBytes"` // likewise, in bytes of whole lines
	// BufferLimitBytes is the limit of all buffers of the process together. At the limit the reader waits.
	BufferLimitBytes int64 `json:"bufferLimitBytes"`
	InFlightLines    int64 `json:"inFlightLines"`  // taken by the current batch, but not yet acknowledged
	InFlightBytes    int64 `json:"inFlightBytes"`  // likewise, in bytes
	LastBatchLines   int64 `json:"lastBatchLines"` // size of the last snapshot

	BatchesTotal int64 `json:"batchesTotal"` // number of snapshots
	// LinesTotal counts whole lines processed, including malformed lines and skipped repeats.
	LinesTotal int64 `json:"linesTotal"`
	// EventsTotal counts the events in those lines, before the filter. It excludes malformed events.
	EventsTotal   int64 `json:"eventsTotal"`
	FilteredTotal int64 `json:"filteredTotal"` // events of EventsTotal that the filter dropped
	// DeliveredTotal counts records that the sink added to the destination. It excludes records that the destination
	// already had.
	DeliveredTotal int64 `json:"deliveredTotal"`
	// MalformedTotal counts lines, events and refused records in the dead letter, and blank lines, which are not in it.
	MalformedTotal int64 `json:"malformedTotal"`
	// OversizeTotal counts lines longer than maxLineBytes. They are skipped, and not in LinesTotal.
	OversizeTotal     int64 `json:"oversizeTotal"`
	LateTotal         int64 `json:"lateTotal"`         // lines read from a file after a newer file had begun
	PrunedUnreadTotal int64 `json:"prunedUnreadTotal"` // files that disappeared before they were read to the end
	SkippedBytesTotal int64 `json:"skippedBytesTotal"` // bytes of whole lines that were on disk and are never read
	// RepeatedBytesTotal counts bytes read again because a file shrank below the delivered position.
	RepeatedBytesTotal int64 `json:"repeatedBytesTotal"`
	// MalformedLinesTotal is the number of lines in LinesTotal that are malformed or contain a malformed event. Divided
	// by LinesTotal it is the share of lines that the parser does not understand.
	MalformedLinesTotal int64 `json:"malformedLinesTotal"`
	// PassedOverBytesTotal is the number of bytes that the start skipped on purpose: data on disk before startAt End,
	// and the directories that mode Auto does not read.
	PassedOverBytesTotal int64 `json:"passedOverBytesTotal"`
	BlockGapsTotal       int64 `json:"blockGapsTotal"` // block numbers missing between two lines (by-block mode)
	// BlockRepeatsTotal counts lines whose block was seen before. With deduplicateBlocks they are skipped.
	BlockRepeatsTotal int64 `json:"blockRepeatsTotal"`
	// BlockLateTotal is, with deduplicateBlocks or markers, the number of blocks that arrived after a higher one and
	// were missing, in part or in whole.
	BlockLateTotal int64 `json:"blockLateTotal"`
	LastBlock      int64 `json:"lastBlock"` // highest block number delivered or filtered; 0 in line mode

	// DeadLetterDroppedTotal is the number of lines and records whose entries in the dead letter were dropped to make
	// room.
	DeadLetterDroppedTotal int64 `json:"deadLetterDroppedTotal"`

	// UncommittedBytes is the number of bytes of whole lines, on disk or in memory, that are not yet committed, in all
	// files. A torn tail is not counted. Null before the first scan of the disk, and while the position is unknown.
	UncommittedBytes *int64 `json:"uncommittedBytes"`
	// LagSeconds is the age of the oldest unacknowledged line, from when any parser process first observed it on disk;
	// 0 if there is none. The checkpoint has that time, so the age survives restarts. Null when UncommittedBytes is null.
	LagSeconds *float64 `json:"lagSeconds"`
	// LagEstimated reports whether no process observed that line arrive, so that its age is that of the file's last
	// write.
	LagEstimated bool `json:"lagEstimated,omitempty"`
	// MalformedShare and FilteredShare cover the last minute, from 0 to 1: the share of lines that are malformed or
	// contain a malformed event, and the share of events that the filter dropped. Null if there were no lines or
	// events.
	MalformedShare *float64 `json:"malformedShare"`
	FilteredShare  *float64 `json:"filteredShare"`
	// LargestLineBytes is the length of the longest line, newline included.
	LargestLineBytes int64 `json:"largestLineBytes"`

	// Progress of each stage, in bytes of the node's lines. These advance within a batch, so a stage that does not
	// advance is stuck.
	ReadBytesTotal      int64 `json:"readBytesTotal"`
	ParsedBytesTotal    int64 `json:"parsedBytesTotal"`
	AckedBytesTotal     int64 `json:"ackedBytesTotal"`
	CommittedBytesTotal int64 `json:"committedBytesTotal"`
	// ReadWaitSecondsTotal is the time in which the processor waited for the reader while lines were on disk.
	ReadWaitSecondsTotal float64 `json:"readWaitSecondsTotal"`

	File              string `json:"file"`              // file being read, relative to the data directory
	Position          string `json:"position"`          // next byte to read
	CommittedPosition string `json:"committedPosition"` // next byte to read after a restart
	// LastLineAt is when the last whole line was observed on disk. Null: none yet.
	LastLineAt   *time.Time `json:"lastLineAt"`
	LastCommitAt *time.Time `json:"lastCommitAt"` // null: nothing is committed yet

	Sink Sink `json:"sink"`
}

// BlockedPath is a file or folder that should be read and cannot be.
type BlockedPath struct {
	Path  string    `json:"path"`            // relative to the data directory, "." for itself; at most 512 bytes
	Error string    `json:"error"`           // at most 512 bytes
	Errno string    `json:"errno,omitempty"` // symbolic, such as EACCES; absent when the error has none that has a name
	Since time.Time `json:"since"`
	Count int       `json:"count"` // how many are blocked; Path is the one that matters most

	// Denies, Owner, Bits and RunsAs describe a denied permission, if the parser can determine it: the path that denies
	// it, which is Path or a folder above it; the owner of that path and the bits of its mode, such as 0700; and the
	// user that the parser runs as. Absent otherwise.
	Denies string `json:"denies,omitempty"`
	Owner  *int64 `json:"owner,omitempty"`
	Bits   string `json:"bits,omitempty"`
	RunsAs *int64 `json:"runsAs,omitempty"`
}

// Sink describes one stream's requests to its sink.
type Sink struct {
	// Kind is the kind of the sink: stdout, file, nats or kafka. Destination is its name, if the streams have several.
	Kind         string     `json:"kind,omitempty"`
	Destination  string     `json:"destination,omitempty"`
	State        SinkState  `json:"state"`
	Since        *time.Time `json:"since"`               // when State began
	LastError    string     `json:"lastError,omitempty"` // at most 512 bytes
	RetriesTotal int64      `json:"retriesTotal"`
	// MissingSecret is the path of a missing password or key file, without which the sink cannot be reached.
	MissingSecret string     `json:"missingSecret,omitempty"`
	LastAckAt     *time.Time `json:"lastAckAt"` // null: nothing is acknowledged yet
	// OutstandingSeconds is the age of the outstanding request, including an open; 0 if there is none.
	OutstandingSeconds float64 `json:"outstandingSeconds"`
	BusySecondsTotal   float64 `json:"busySecondsTotal"` // time with an outstanding request
}
