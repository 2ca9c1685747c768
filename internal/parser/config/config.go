// Package config defines the configuration of one parser: the file that the operator renders, and the same fields as
// command-line flags. Validation is here and nowhere else, so that the operator can refuse early what the parser would
// refuse.
//
// The package must not know Kubernetes, touch the disk beyond reading the requested file, or hold anything that differs
// between the pods of one revision: those values (the target, the pod's name) come from the environment.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"sigs.k8s.io/yaml"
)

// Stream names one kind of output of a Hyperliquid node.
type Stream string

// The streams that a node can write.
const (
	OrderStatuses Stream = "OrderStatuses"
	Fills         Stream = "Fills"
	Trades        Stream = "Trades"
	RawBookDiffs  Stream = "RawBookDiffs"
	MiscEvents    Stream = "MiscEvents"
	OracleUpdates Stream = "OracleUpdates"
	SystemActions Stream = "SystemActions"
	TwapStatuses  Stream = "TwapStatuses"
)

// Streams lists every stream, in the order in which messages list them.
func Streams() []Stream {
	return []Stream{OrderStatuses, Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates, SystemActions, TwapStatuses}
}

// Kebab returns the stream's name in flags, file names and metrics, such as "order-statuses".
func (s Stream) Kebab() string { return kebab(string(s)) }

// Mode is how a stream's events are framed in lines.
type Mode string

// The modes that a node can write. Auto follows the directory that the node writes.
const (
	Auto      Mode = "Auto"
	Line      Mode = "Line"      // one bare event per line
	Streaming Mode = "Streaming" // the block's envelope, normally one event per line, written as events happen
	ByBlock   Mode = "ByBlock"   // the block's envelope, one block per line
)

// Modes lists every mode.
func Modes() []Mode { return []Mode{Auto, Line, Streaming, ByBlock} }

// Format is the shape of a record.
type Format string

const (
	// Raw records are the event's own bytes, verbatim.
	Raw Format = "Raw"
	// Enveloped records hold the event verbatim, in an object that describes its origin.
	Enveloped Format = "Enveloped"
	// EnvelopedRows records are Enveloped ones, except that an event of MiscEvents or OracleUpdates with many entries
	// has a record for each.
	EnvelopedRows Format = "EnvelopedRows"
	// Normalized records have one shape per stream, independent of the node's field names: see docs/schemas. An event of
	// MiscEvents or OracleUpdates has a record for each of its entries.
	Normalized Format = "Normalized"
)

// Formats lists every format.
func Formats() []Format { return []Format{Raw, Enveloped, EnvelopedRows, Normalized} }

// StartAt is where a target without a checkpoint begins.
type StartAt string

const (
	// End begins after the last newline of the newest file.
	End StartAt = "End"
	// Beginning begins at the first byte of the oldest file on disk.
	Beginning StartAt = "Beginning"
	// AtBlock begins at the first line of a block, or of the next later one.
	AtBlock StartAt = "Block"
)

// OrderBy is how the records of several streams are ordered.
type OrderBy string

// OrderByBlock delivers the streams as one, by the number of the block.
const OrderByBlock OrderBy = "Block"

// Compression is the compression of the file sink's files. Empty means none.
type Compression string

// Zstd files can be read with any zstd tool.
const Zstd Compression = "zstd"

// Rotation is what closes a file of the file sink, in addition to its size.
type Rotation string

const (
	// RotateBySize closes a file by its size and its age.
	RotateBySize Rotation = "Size"
	// RotateByHour closes a file by its size, and when the records of another of the node's hour files begin. Its age
	// has no effect.
	RotateByHour Rotation = "Hour"
)

// MetricsDetail is a part of the metrics that is not served by default, since each series has its price at the scraper.
type MetricsDetail string

const (
	// AllMetrics are all metrics of the parser, of the Go runtime and of the process.
	AllMetrics MetricsDetail = "All"
	// ClassicBuckets are the classic buckets of the histograms, for scrapers without native histograms.
	ClassicBuckets MetricsDetail = "ClassicBuckets"
	// CreatedSamples are samples with the start of each counter, in OpenMetrics.
	CreatedSamples MetricsDetail = "CreatedSamples"
)

// MetricsDetails lists all of them.
func MetricsDetails() []MetricsDetail {
	return []MetricsDetail{AllMetrics, ClassicBuckets, CreatedSamples}
}

// Kebab returns the value of the flag and of a scrape's parameter, such as "classic-buckets".
func (d MetricsDetail) Kebab() string { return kebab(string(d)) }

// ParseMetricsDetail parses the form used in the flag and in a scrape's parameter, such as "classic-buckets".
func ParseMetricsDetail(s string) (MetricsDetail, error) {
	for _, d := range MetricsDetails() {
		if d.Kebab() == s {
			return d, nil
		}
	}
	return "", fmt.Errorf("%q is unknown: write one of %s", s, joinKebab(MetricsDetails()))
}

// Bounds of the settings, and the defaults of omitted fields.
const (
	DefaultBufferLimit       Bytes = 32 << 20
	MinBufferLimit           Bytes = 4 << 20
	MaxBufferLimit           Bytes = 4 << 30
	DefaultParallelThreshold       = 1000
	DefaultMaxLineBytes      Bytes = 64 << 20
	MinMaxLineBytes          Bytes = 1 << 10
	MaxMaxLineBytes          Bytes = 1 << 30
	MinReadRate              Bytes = 4 << 20 // below it one long line would take longer than the timeout of a hang
	MaxReadRate              Bytes = 1 << 40
	MaxWorkers                     = 256
	MaxStartAtBlock          int64 = 999_999_999_999_999_999 // the encoder refuses numbers of more digits
	DefaultMaxSize           Bytes = 1 << 30
	MinMaxSize               Bytes = 64 << 10
	DefaultMaxAge                  = time.Hour
	MinMaxAge                      = time.Second
	DefaultShutdownTimeout         = 20 * time.Second
	DefaultPatience                = 5 * time.Second
	MinPatience                    = 100 * time.Millisecond
	MaxPatience                    = time.Hour
	MaxFilterValues                = 1024
	MaxFilterValueLength           = 128
)

// Config is the configuration of one parser. The zero value of a field means its default.
type Config struct {
	// Target is what this parser reads for: a node's name, or the host's. It is not part of the file; see the package
	// comment.
	Target string `json:"-"`
	// Writer identifies this parser among all that write to one destination, such as
	// <cluster>/<namespace>/<name>/<target>. A sink that fences admits one writer per name at a time. Defaults to the
	// target. It is not part of the file.
	Writer string `json:"-"`
	// Pod is the name of the pod that this process runs in; empty outside Kubernetes. It is not part of the file.
	Pod string `json:"-"`
	// Namespace and PodUID are those of the pod, and NodeAddress is the address of its node. They are empty outside
	// Kubernetes, and if the pod's template does not set them. They are not part of the file.
	Namespace   string `json:"-"`
	PodUID      string `json:"-"`
	NodeAddress string `json:"-"`
	// SealKey is the file of this pod's key pair, and OperatorKeys the file of its operator's public keys. With both,
	// only the operator can read the report. With both empty, any client can. They are not part of the file.
	SealKey      string `json:"-"`
	OperatorKeys string `json:"-"`

	// DataDir is the node's data directory, which holds node_order_statuses, node_fills, ….
	DataDir string `json:"dataDir"`
	// LinkDirs are absolute paths of directories outside of DataDir that symbolic links in it may lead to. Other links
	// are not followed: otherwise any user who can write to DataDir could have the parser read any file that it can
	// read.
	LinkDirs []string `json:"linkDirs,omitempty"`
	// StateDir holds checkpoints and dead letters. Losing it loses the position, so it must outlive the process.
	StateDir string `json:"stateDir"`
	// Streams lists the streams to follow: at least one, each at most once.
	Streams []StreamConfig `json:"streams"`
	// Filter applies to the streams that have none of their own.
	Filter Filter `json:"filter,omitzero"`
	// Format is the format of records. Defaults to Enveloped.
	Format Format `json:"format,omitempty"`
	// Sink is where the records of all streams are delivered. Exactly one of Sink and Sinks must be set. With Sinks,
	// each stream chooses one by name.
	Sink   Sink        `json:"sink,omitzero"`
	Sinks  []NamedSink `json:"sinks,omitempty"`
	Engine Engine      `json:"engine,omitzero"`
	// Order is how the streams' records are ordered. Defaults to each stream by itself.
	Order Order `json:"order,omitzero"`
	// Listen is the address of the report's HTTP server, as host:port. Empty means no server.
	Listen string `json:"listen,omitempty"`
	// Metrics is what every scrape gets beyond the default metrics. A scrape may ask for more.
	Metrics []MetricsDetail `json:"metrics,omitempty"`
	// Once reads to the sizes observed at start, delivers, commits and exits.
	Once bool `json:"once,omitempty"`
	// LogBatches logs one line per batch.
	LogBatches bool `json:"logBatches,omitempty"`
	// ShutdownTimeout bounds how long the process continues after a stop was requested, whatever the sink does.
	// Defaults to 20s. It must be shorter than the time after which the process is killed.
	ShutdownTimeout Duration `json:"shutdownTimeout,omitzero"`
}

// StreamConfig is one stream to follow.
type StreamConfig struct {
	Name Stream `json:"name"`
	Mode Mode   `json:"mode,omitempty"` // defaults to Auto
	Sink string `json:"sink,omitempty"` // the name of one of Sinks, if they are set
	// Filter, if not nil, replaces the common filter for this stream. An empty one passes all events.
	Filter *Filter `json:"filter,omitempty"`
}

// Order is how the records of several streams are ordered.
type Order struct {
	// By is Block, or empty. With Block, all streams are delivered to one sink as one stream, ordered by block: the
	// streams' records of one block, in the order OrderStatuses, RawBookDiffs, Fills, others, and then a marker that
	// describes the block. It is not available in line mode, and for format Raw.
	By OrderBy `json:"by,omitempty"`
	// Patience is how long the other streams wait for one that brings nothing. They then continue without it, and a
	// marker says so. Defaults to 5s.
	Patience Duration `json:"patience,omitzero"`
}

// Engine sizes the pipeline.
type Engine struct {
	// BufferLimit bounds the buffers of the whole process, in bytes. Defaults to 32Mi.
	BufferLimit Bytes `json:"bufferLimit,omitempty"`
	// ParallelThreshold is the number of lines from which a batch uses all workers; a batch of 1 MiB does too. Defaults
	// to 1000.
	ParallelThreshold int `json:"parallelThreshold,omitempty"`
	// Workers is the number of workers per stream. Defaults to the number of CPUs that this process may use.
	Workers int `json:"workers,omitempty"`
	// StartAt is where a target without a checkpoint begins. Defaults to End, or to Beginning with Once.
	StartAt StartAt `json:"startAt,omitempty"`
	// StartAtBlock is the block that a target begins at if StartAt is Block. It is not available in line mode.
	StartAtBlock int64 `json:"startAtBlock,omitempty"`
	// MaxLineBytes bounds the length of a line, in bytes. Longer lines are skipped and counted. Defaults to 64Mi.
	MaxLineBytes Bytes `json:"maxLineBytes,omitempty"`
	// ReadRate bounds what the whole process reads from disk, in bytes per second. 0 means no limit.
	ReadRate Bytes `json:"readRate,omitempty"`
	// DeduplicateBlocks skips blocks that a node writes again after a restart. It is not available in line mode.
	DeduplicateBlocks bool `json:"deduplicateBlocks,omitempty"`
	// Markers adds records of the stream "_marker" that report gaps, replays, late blocks and skipped data.
	Markers bool `json:"markers,omitempty"`
}

// Bytes is a size in bytes, written as a number or with a unit: 33554432, "32Mi", "1G".
type Bytes int64

// UnmarshalJSON accepts a number of bytes, or a string with a binary (Ki, Mi, Gi) or decimal (k, M, G) unit.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var n int64
	if json.Unmarshal(data, &n) == nil {
		*b = Bytes(n)
		return nil
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return errors.New(`a size is a number of bytes or a string such as "32Mi"`)
	}
	return b.Set(s)
}

// MarshalJSON writes the number of bytes.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(int64(b)) }

// Set parses a size in the form used in flags.
func (b *Bytes) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size: write a number of bytes, or one with a unit such as 32Mi", s)
	}
	*b = Bytes(n)
	return nil
}

// String returns the size in a human-readable form.
func (b Bytes) String() string { return humanize.IBytes(uint64(max(b, 0))) }

// Type is the kind of value that a command's usage shows.
func (b *Bytes) Type() string { return "size" }

// Duration is a length of time in Go's notation, such as "1h30m".
type Duration struct{ time.Duration }

// UnmarshalJSON accepts a string such as "90s".
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return errors.New(`a duration is a string such as "90s"`)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`%q is not a duration: write it as "90s" or "1h30m"`, s)
	}
	d.Duration = v
	return nil
}

// MarshalJSON writes the duration in the form that UnmarshalJSON reads.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// FieldError reports a wrong field and what to write instead.
type FieldError struct {
	Field  string // as in the file: "sink.file.path"
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Load reads a configuration file, YAML or JSON. An unknown field is an error, because a misspelled filter must not
// pass all events. The result is not validated yet, since flags may complete it.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	var c Config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		text := strings.TrimPrefix(oneLine(err), "error unmarshaling JSON: while decoding JSON: ")
		return Config{}, fmt.Errorf("parsing the configuration %s: %s", path, text)
	}
	return c, nil
}

// WithDefaults sets the omitted fields to their defaults. cpus is the number of CPUs that this process may use.
func (c Config) WithDefaults(cpus int) Config {
	c.Streams = slices.Clone(c.Streams)
	for i := range c.Streams {
		setDefault(&c.Streams[i].Mode, Auto)
	}
	setDefault(&c.Format, Enveloped)
	setDefault(&c.Engine.BufferLimit, DefaultBufferLimit)
	setDefault(&c.Engine.ParallelThreshold, DefaultParallelThreshold)
	setDefault(&c.Engine.Workers, max(cpus, 1))
	setDefault(&c.Engine.MaxLineBytes, DefaultMaxLineBytes)
	startAt := End
	if c.Once {
		startAt = Beginning
	}
	setDefault(&c.Engine.StartAt, startAt)
	setDefault(&c.ShutdownTimeout.Duration, DefaultShutdownTimeout)
	if c.Order.By != "" {
		setDefault(&c.Order.Patience.Duration, DefaultPatience)
	}
	c.Sink = c.Sink.withDefaults()
	c.Sinks = slices.Clone(c.Sinks)
	for i := range c.Sinks {
		c.Sinks[i].Sink = c.Sinks[i].withDefaults()
	}
	return c
}

// Validate returns the first invalid setting as a *FieldError. Call it after WithDefaults.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return &FieldError{"dataDir", "is missing: name the node's data directory, such as /home/hluser/hl/data"}
	}
	for i, dir := range c.LinkDirs {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
			return &FieldError{fmt.Sprintf("linkDirs[%d]", i),
				fmt.Sprintf("%q: write an absolute path without . and .., and not /", dir)}
		}
	}
	if c.StateDir == "" {
		return &FieldError{"stateDir", "is missing: name a directory that outlives the process; it holds the position"}
	}
	if err := c.validateStreams(); err != nil {
		return err
	}
	if err := c.Filter.validate("filter"); err != nil {
		return err
	}
	for i, s := range c.Streams {
		if s.Filter == nil {
			continue
		}
		if err := s.Filter.validate(fmt.Sprintf("streams[%d].filter", i)); err != nil {
			return err
		}
	}
	if err := c.validateFormat(); err != nil {
		return err
	}
	if err := c.validateSinks(); err != nil {
		return err
	}
	for i, d := range c.Metrics {
		if !slices.Contains(MetricsDetails(), d) {
			return &FieldError{fmt.Sprintf("metrics[%d]", i),
				fmt.Sprintf("%q is unknown: write one of %s", d, joinNames(MetricsDetails()))}
		}
	}
	if c.ShutdownTimeout.Duration < 0 {
		return &FieldError{"shutdownTimeout", "is negative: write it as \"20s\""}
	}
	if err := c.validateSealing(); err != nil {
		return err
	}
	if err := c.validateOrder(); err != nil {
		return err
	}
	return c.Engine.validate()
}

func (c Config) validateSealing() error {
	switch {
	case (c.SealKey == "") != (c.OperatorKeys == ""):
		return &FieldError{"seal-key, operator-keys",
			"must be set together: the report is sealed with the first for the holders of the second"}
	case c.SealKey != "" && c.Listen == "":
		return &FieldError{"seal-key", "has no effect without a server: add --listen"}
	}
	return nil
}

func (c Config) validateOrder() error {
	const orderBy = "order.by"
	switch {
	case c.Order == Order{}:
		return nil
	case c.Order.By == "":
		return &FieldError{"order.patience", "has no effect without order.by: add by: Block"}
	case c.Order.By != OrderByBlock:
		return &FieldError{orderBy, fmt.Sprintf("%q is unknown: write Block, or omit it", c.Order.By)}
	case c.Order.Patience.Duration < MinPatience || c.Order.Patience.Duration > MaxPatience:
		return &FieldError{"order.patience", fmt.Sprintf("%s is out of range: %s to %s", c.Order.Patience.Duration,
			MinPatience, MaxPatience)}
	case c.Format == Raw:
		return &FieldError{orderBy, "Block needs records that name their stream, which format Raw does not: write " +
			"format: Enveloped or Normalized, or omit order"}
	}
	for i, s := range c.Streams {
		if s.Mode == Line {
			return &FieldError{orderBy, fmt.Sprintf("Block needs lines that name their block, but %s has mode Line: set "+
				"streams[%d].mode to Streaming or ByBlock, or omit order", s.Name, i)}
		}
		if s.Sink != c.Streams[0].Sink {
			return &FieldError{orderBy, fmt.Sprintf("Block delivers all streams to one sink, but %s and %s name different "+
				"ones: name the same sink, or omit order", c.Streams[0].Name, s.Name)}
		}
	}
	return nil
}

func (c Config) validateStreams() error {
	if len(c.Streams) == 0 {
		return &FieldError{"streams", "is empty: name at least one of " + joinNames(Streams())}
	}
	seen := map[Stream]bool{}
	for i, s := range c.Streams {
		field := fmt.Sprintf("streams[%d]", i)
		if !slices.Contains(Streams(), s.Name) {
			return &FieldError{field + ".name", fmt.Sprintf("%q is unknown: write one of %s", s.Name, joinNames(Streams()))}
		}
		if !slices.Contains(Modes(), s.Mode) {
			return &FieldError{field + ".mode", fmt.Sprintf("%q is unknown: write one of %s", s.Mode, joinNames(Modes()))}
		}
		if c.Engine.DeduplicateBlocks && s.Mode == Line {
			return &FieldError{"engine.deduplicateBlocks", fmt.Sprintf(
				"%s has mode Line, whose lines do not name their block: omit it, or set %s.mode to Streaming or ByBlock",
				s.Name, field)}
		}
		if c.Engine.StartAt == AtBlock && s.Mode == Line {
			return &FieldError{"engine.startAt", fmt.Sprintf(
				"%s has mode Line, whose lines do not name their block: write End or Beginning, or set %s.mode to Streaming "+
					"or ByBlock", s.Name, field)}
		}
		if seen[s.Name] {
			return &FieldError{field + ".name", fmt.Sprintf("%s is listed twice: list each stream once", s.Name)}
		}
		seen[s.Name] = true
	}
	return nil
}

func (c Config) validateFormat() error {
	if !slices.Contains(Formats(), c.Format) {
		return &FieldError{"format", fmt.Sprintf("%q is unknown: write one of %s", c.Format, joinNames(Formats()))}
	}
	return nil
}

func (e Engine) validate() error {
	switch {
	case e.BufferLimit < MinBufferLimit || e.BufferLimit > MaxBufferLimit:
		return &FieldError{"engine.bufferLimit", fmt.Sprintf("%s is out of range: %s to %s", e.BufferLimit, MinBufferLimit,
			MaxBufferLimit)}
	case e.ParallelThreshold < 1:
		return &FieldError{"engine.parallelThreshold", "must be at least 1"}
	case e.Workers < 1 || e.Workers > MaxWorkers:
		return &FieldError{"engine.workers", fmt.Sprintf("%d is out of range: 0 (the number of CPUs) to %d", e.Workers,
			MaxWorkers)}
	case e.MaxLineBytes < MinMaxLineBytes || e.MaxLineBytes > MaxMaxLineBytes:
		return &FieldError{"engine.maxLineBytes", fmt.Sprintf("%s is out of range: %s to %s", e.MaxLineBytes, MinMaxLineBytes,
			MaxMaxLineBytes)}
	case e.ReadRate != 0 && (e.ReadRate < MinReadRate || e.ReadRate > MaxReadRate):
		return &FieldError{"engine.readRate", fmt.Sprintf(
			"%s per second is out of range: %s to %s, or 0 for no limit", e.ReadRate, MinReadRate, MaxReadRate)}
	case e.StartAt != End && e.StartAt != Beginning && e.StartAt != AtBlock:
		return &FieldError{"engine.startAt", fmt.Sprintf("%q is unknown: write End, Beginning or Block", e.StartAt)}
	case e.StartAt == AtBlock && (e.StartAtBlock < 1 || e.StartAtBlock > MaxStartAtBlock):
		return &FieldError{"engine.startAtBlock", fmt.Sprintf("%d is out of range: write the number of a block, 1 to %d",
			e.StartAtBlock, MaxStartAtBlock)}
	case e.StartAt != AtBlock && e.StartAtBlock != 0:
		return &FieldError{"engine.startAtBlock", fmt.Sprintf(
			"has no effect with startAt %s: omit it, or write startAt: Block", e.StartAt)}
	}
	return nil
}

// ParseStreamFlag parses a stream in the form used in flags: "order-statuses", "fills:by-block".
func ParseStreamFlag(s string) (StreamConfig, error) {
	name, mode, hasMode := strings.Cut(s, ":")
	var out StreamConfig
	for _, v := range Streams() {
		if v.Kebab() == name {
			out.Name = v
		}
	}
	if out.Name == "" {
		return out, fmt.Errorf("%q is unknown: write one of %s", name, joinKebab(Streams()))
	}
	if !hasMode {
		return out, nil
	}
	for _, v := range Modes() {
		if kebab(string(v)) == mode {
			out.Mode = v
		}
	}
	if out.Mode == "" {
		return out, fmt.Errorf("%q is unknown: write one of %s after the colon", mode, joinKebab(Modes()))
	}
	return out, nil
}

// ParseStartAtFlag parses a start in the form used in flags: "end", "beginning", "block:978995377".
func ParseStartAtFlag(s string) (at StartAt, block int64, err error) {
	name, number, isBlock := strings.Cut(s, ":")
	if !isBlock {
		if name == kebab(string(AtBlock)) {
			return "", 0, fmt.Errorf("%q names no block: write block:NUMBER, such as block:978995377", s)
		}
		if name != "" {
			name = strings.ToUpper(name[:1]) + name[1:]
		}
		return StartAt(name), 0, nil
	}
	if block, err = strconv.ParseInt(number, 10, 64); err != nil || block < 1 || name != kebab(string(AtBlock)) {
		return "", 0, fmt.Errorf("%q is unknown: write end, beginning or block:NUMBER, such as block:978995377", s)
	}
	return AtBlock, block, nil
}

// ParseSinkFlag parses a sink in the form used in flags: "stdout", "file:DIR", "nats://host:4222/STREAM",
// "kafka://host:9092/TOPIC". Settings may follow a question mark: for NATS subject, delivery, credentials and
// create=true; for Kafka key, delivery, compression and create=true.
func ParseSinkFlag(s string) (Sink, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "stdout":
		return Sink{Stdout: &StdoutSink{}}, nil
	case kind == "file" && rest != "":
		return Sink{File: &FileSink{Path: filepath.Clean(rest)}}, nil
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok && slices.Contains(sinkSchemes, scheme) {
		return parseSinkURL(s)
	}
	return Sink{}, fmt.Errorf("%q is unknown: write stdout, file:DIR, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC",
		s)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// kebab converts "ByBlock" to "by-block".
func kebab(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func joinNames[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

func joinKebab[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = kebab(string(v))
	}
	return strings.Join(out, ", ")
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
