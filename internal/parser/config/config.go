// Package config is what one parser is told: the file that the operator renders, and the same fields as command-line flags.
// It is validated here and nowhere else, so that the operator can refuse early what the parser would refuse.
//
// It must not know Kubernetes, touch the disk beyond reading the file it is asked to, or hold anything that differs between
// the pods of one revision: those values (the target, the pod's name) come by environment.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
)

// Streams lists every stream, in the order in which messages name them.
func Streams() []Stream {
	return []Stream{OrderStatuses, Fills, Trades, RawBookDiffs, MiscEvents, OracleUpdates, SystemActions}
}

// Kebab is the stream's name in flags, file names and metrics: "order-statuses".
func (s Stream) Kebab() string { return kebab(string(s)) }

// Mode is how a stream's events are framed into lines.
type Mode string

// The modes that a node can write. Auto follows the directory that is being written.
const (
	Auto      Mode = "Auto"
	Line      Mode = "Line"      // one bare event a line
	Streaming Mode = "Streaming" // the block's envelope, normally one event a line, written as events happen
	ByBlock   Mode = "ByBlock"   // the block's envelope, one block a line
)

// Modes lists every mode.
func Modes() []Mode { return []Mode{Auto, Line, Streaming, ByBlock} }

// Format is the shape of a record.
type Format string

const (
	// Raw records are the event's own bytes, verbatim.
	Raw Format = "Raw"
	// Enveloped records hold the event verbatim in an object that says where it came from.
	Enveloped Format = "Enveloped"
	// Normalized records have one shape a stream, in words that do not need the node's: docs/schemas. Not every stream has one.
	Normalized Format = "Normalized"
)

// Formats lists every format.
func Formats() []Format { return []Format{Raw, Enveloped, Normalized} }

// HasNormalized says whether the stream's events have a Normalized shape. The others hold too many kinds of events for one.
func (s Stream) HasNormalized() bool {
	return s == OrderStatuses || s == Fills || s == Trades || s == RawBookDiffs
}

// StartAt is where a target that was never seen before begins.
type StartAt string

const (
	// End begins after the last newline of the newest file.
	End StartAt = "End"
	// Beginning begins at the first byte of the oldest file on disk.
	Beginning StartAt = "Beginning"
)

// Compression is how the file sink's files are packed; empty: not at all.
type Compression string

// Zstd files are read by any zstd tool.
const Zstd Compression = "zstd"

// Rotation is what else than size closes a file of the file sink.
type Rotation string

const (
	// RotateBySize closes a file by its size and its age.
	RotateBySize Rotation = "Size"
	// RotateByHour closes a file by its size, and when the records of another of the node's hour files begin. Its age says nothing.
	RotateByHour Rotation = "Hour"
)

// Bounds of the settings, and the defaults that stand for a field left out.
const (
	DefaultBufferLimit       Bytes = 32 << 20
	MinBufferLimit           Bytes = 4 << 20
	MaxBufferLimit           Bytes = 4 << 30
	DefaultParallelThreshold       = 1000
	DefaultMaxLineBytes      Bytes = 64 << 20
	MinMaxLineBytes          Bytes = 1 << 10
	MaxMaxLineBytes          Bytes = 1 << 30
	MinReadRate              Bytes = 4 << 20 // below it one long line would take longer than a hang is waited for
	MaxReadRate              Bytes = 1 << 40
	MaxWorkers                     = 256
	DefaultMaxSize           Bytes = 1 << 30
	MinMaxSize               Bytes = 64 << 10
	DefaultMaxAge                  = time.Hour
	MinMaxAge                      = time.Second
	DefaultShutdownTimeout         = 20 * time.Second
	MaxFilterValues                = 1024
	MaxFilterValueLength           = 128
)

// Config is everything that one parser is told. The zero value of a field means its default.
type Config struct {
	// Target is what this parser reads for: a node's name, or the host's. Not part of the file; see the package comment.
	Target string `json:"-"`
	// Writer names this parser among all that write to one destination, such as <cluster>/<namespace>/<name>/<target>: a sink that
	// fences lets one writer of a name in at a time. Default: the target. Not part of the file.
	Writer string `json:"-"`
	// Pod is the name of the pod that this process runs in; empty outside Kubernetes. Not part of the file.
	Pod string `json:"-"`

	// DataDir is the node's data directory, which holds node_order_statuses, node_fills, ….
	DataDir string `json:"dataDir"`
	// StateDir holds checkpoints and dead letters. Losing it loses the position: it must outlive the process.
	StateDir string `json:"stateDir"`
	// Streams to follow; at least one, each once.
	Streams []StreamConfig `json:"streams"`
	Filter  Filter         `json:"filter,omitzero"`
	// Format of records; default Enveloped.
	Format Format `json:"format,omitempty"`
	// Sink is where all streams' records go, unless Sinks are named and each stream chooses one of them.
	Sink   Sink        `json:"sink,omitzero"`
	Sinks  []NamedSink `json:"sinks,omitempty"`
	Engine Engine      `json:"engine,omitzero"`
	// Listen is the address of the report's HTTP server, host:port; empty: no server.
	Listen string `json:"listen,omitempty"`
	// Once reads to the sizes seen at start, delivers, commits and exits.
	Once bool `json:"once,omitempty"`
	// LogBatches logs one line a batch.
	LogBatches bool `json:"logBatches,omitempty"`
	// ShutdownTimeout bounds how long the process goes on after it was told to stop, whatever the sink does; default 20s. It
	// must be shorter than the time after which the process is killed.
	ShutdownTimeout Duration `json:"shutdownTimeout,omitzero"`
}

// StreamConfig is one stream to follow.
type StreamConfig struct {
	Name Stream `json:"name"`
	Mode Mode   `json:"mode,omitempty"` // default Auto
	Sink string `json:"sink,omitempty"` // the name of one of sinks, if there are any
}

// Filter says which events pass. An empty list passes all. Each stream applies the lists that it has fields for.
type Filter struct {
	Coins           []string `json:"coins,omitempty"`           // exact, or a builder's prefix as "xyz:*"
	Users           []string `json:"users,omitempty"`           // addresses, case ignored
	Statuses        []string `json:"statuses,omitempty"`        // order statuses to keep
	ExcludeStatuses []string `json:"excludeStatuses,omitempty"` // order statuses to drop
	Sides           []string `json:"sides,omitempty"`           // A (ask), B (bid)
	MinNotional     string   `json:"minNotional,omitempty"`     // price × original size, a decimal; empty: none
}

// Engine sizes the pipeline.
type Engine struct {
	BufferLimit       Bytes   `json:"bufferLimit,omitempty"`       // of the whole process; default 32Mi
	ParallelThreshold int     `json:"parallelThreshold,omitempty"` // batches of at least this many lines (or 1 MiB) use all workers; default 1000
	Workers           int     `json:"workers,omitempty"`           // default: the number of CPUs this process may use
	StartAt           StartAt `json:"startAt,omitempty"`           // default End, or Beginning with once
	MaxLineBytes      Bytes   `json:"maxLineBytes,omitempty"`      // longer lines are skipped and counted; default 64Mi
	ReadRate          Bytes   `json:"readRate,omitempty"`          // bytes a second that the whole process reads from disk at most; 0: no limit
	DeduplicateBlocks bool    `json:"deduplicateBlocks,omitempty"` // blocks that a node writes again after a restart are left out; not in line mode
	Markers           bool    `json:"markers,omitempty"`           // gaps, replays, late blocks and skipped data are told by records of stream "_marker"
}

// Bytes is a size, written as a number or with a unit: 33554432, "32Mi", "1G".
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

// Set parses a size as it stands in a flag.
func (b *Bytes) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size: write a number of bytes, or one with a unit such as 32Mi", s)
	}
	*b = Bytes(n)
	return nil
}

// String is the size as a person reads it.
func (b Bytes) String() string { return humanize.IBytes(uint64(max(b, 0))) }

// Type names the kind of value in a command's usage.
func (b *Bytes) Type() string { return "size" }

// Duration is a length of time, written as Go writes it: "1h30m".
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

// MarshalJSON writes the duration as UnmarshalJSON reads it.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// FieldError says which field is wrong and what to write instead.
type FieldError struct {
	Field  string // as in the file: "sink.file.path"
	Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Load reads a configuration file, YAML or JSON. Unknown fields are errors: a misspelt filter must not pass everything.
// The result is not yet validated, since flags may complete it.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	var c Config
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %s", path, strings.TrimPrefix(oneLine(err), "error unmarshaling JSON: while decoding JSON: "))
	}
	return c, nil
}

// WithDefaults fills what was left out. cpus is the number of CPUs this process may use.
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
	c.Sink = c.Sink.withDefaults()
	c.Sinks = slices.Clone(c.Sinks)
	for i := range c.Sinks {
		c.Sinks[i].Sink = c.Sinks[i].withDefaults()
	}
	return c
}

// Validate tells the first setting that cannot work, as a *FieldError. Call it after WithDefaults.
func (c Config) Validate() error {
	if c.DataDir == "" {
		return &FieldError{"dataDir", "is missing: name the node's data directory, such as /home/hluser/hl/data"}
	}
	if c.StateDir == "" {
		return &FieldError{"stateDir", "is missing: name a directory that outlives the process; the position is kept there"}
	}
	if err := c.validateStreams(); err != nil {
		return err
	}
	if err := c.Filter.validate(); err != nil {
		return err
	}
	if err := c.validateFormat(); err != nil {
		return err
	}
	if err := c.validateSinks(); err != nil {
		return err
	}
	if c.ShutdownTimeout.Duration < 0 {
		return &FieldError{"shutdownTimeout", "is negative: write it as \"20s\""}
	}
	return c.Engine.validate()
}

func (c Config) validateStreams() error {
	if len(c.Streams) == 0 {
		return &FieldError{"streams", "is empty: name at least one of " + list(Streams())}
	}
	seen := map[Stream]bool{}
	for i, s := range c.Streams {
		field := fmt.Sprintf("streams[%d]", i)
		if !slices.Contains(Streams(), s.Name) {
			return &FieldError{field + ".name", fmt.Sprintf("%q is unknown: write one of %s", s.Name, list(Streams()))}
		}
		if !slices.Contains(Modes(), s.Mode) {
			return &FieldError{field + ".mode", fmt.Sprintf("%q is unknown: write one of %s", s.Mode, list(Modes()))}
		}
		if c.Engine.DeduplicateBlocks && s.Mode == Line {
			return &FieldError{"engine.deduplicateBlocks", fmt.Sprintf(
				"%s has mode Line, whose lines do not name their block: leave it out, or set %s.mode to Streaming or ByBlock", s.Name, field)}
		}
		if seen[s.Name] {
			return &FieldError{field + ".name", fmt.Sprintf("%s is named twice: a stream is read once", s.Name)}
		}
		seen[s.Name] = true
	}
	return nil
}

func (c Config) validateFormat() error {
	if !slices.Contains(Formats(), c.Format) {
		return &FieldError{"format", fmt.Sprintf("%q is unknown: write one of %s", c.Format, list(Formats()))}
	}
	if c.Format != Normalized {
		return nil
	}
	for _, s := range c.Streams {
		if !s.Name.HasNormalized() {
			return &FieldError{"format", fmt.Sprintf("Normalized has no shape for %s: write Enveloped, or leave that stream out", s.Name)}
		}
	}
	return nil
}

var (
	addressPattern = regexp.MustCompile(`^0[xX][0-9a-fA-F]{40}$`)
	decimalPattern = regexp.MustCompile(`^[0-9]{1,30}(\.[0-9]{1,30})?$`)
)

func (f Filter) validate() error {
	for _, l := range []struct {
		field  string
		values []string
	}{
		{"filter.coins", f.Coins}, {"filter.users", f.Users}, {"filter.statuses", f.Statuses},
		{"filter.excludeStatuses", f.ExcludeStatuses}, {"filter.sides", f.Sides},
	} {
		if len(l.values) > MaxFilterValues {
			return &FieldError{l.field, fmt.Sprintf("has %d values: at most %d", len(l.values), MaxFilterValues)}
		}
		for i, v := range l.values {
			if v == "" || len(v) > MaxFilterValueLength {
				return &FieldError{fmt.Sprintf("%s[%d]", l.field, i), fmt.Sprintf("must have 1 to %d characters", MaxFilterValueLength)}
			}
		}
	}
	for i, v := range f.Coins {
		if star := strings.IndexByte(v, '*'); star >= 0 && (star != len(v)-1 || !strings.HasSuffix(v, ":*") || len(v) < 3) {
			return &FieldError{fmt.Sprintf("filter.coins[%d]", i), fmt.Sprintf("%q: a star stands only for all coins of a builder, as in \"xyz:*\"", v)}
		}
	}
	for i, v := range f.Users {
		if !addressPattern.MatchString(v) {
			return &FieldError{fmt.Sprintf("filter.users[%d]", i), fmt.Sprintf("%q is not an address: write 0x and 40 hexadecimal digits", v)}
		}
	}
	for i, v := range f.Sides {
		if v != "A" && v != "B" {
			return &FieldError{fmt.Sprintf("filter.sides[%d]", i), fmt.Sprintf("%q is not a side: write A (ask) or B (bid)", v)}
		}
	}
	if f.MinNotional != "" && !decimalPattern.MatchString(f.MinNotional) {
		return &FieldError{"filter.minNotional", fmt.Sprintf("%q is not a decimal: write it as \"10000\" or \"0.5\"", f.MinNotional)}
	}
	return nil
}

func (e Engine) validate() error {
	switch {
	case e.BufferLimit < MinBufferLimit || e.BufferLimit > MaxBufferLimit:
		return &FieldError{"engine.bufferLimit", fmt.Sprintf("%s is out of range: %s to %s", e.BufferLimit, MinBufferLimit, MaxBufferLimit)}
	case e.ParallelThreshold < 1:
		return &FieldError{"engine.parallelThreshold", "must be at least 1"}
	case e.Workers < 1 || e.Workers > MaxWorkers:
		return &FieldError{"engine.workers", fmt.Sprintf("%d is out of range: 0 (the number of CPUs) to %d", e.Workers, MaxWorkers)}
	case e.MaxLineBytes < MinMaxLineBytes || e.MaxLineBytes > MaxMaxLineBytes:
		return &FieldError{"engine.maxLineBytes", fmt.Sprintf("%s is out of range: %s to %s", e.MaxLineBytes, MinMaxLineBytes, MaxMaxLineBytes)}
	case e.ReadRate != 0 && (e.ReadRate < MinReadRate || e.ReadRate > MaxReadRate):
		return &FieldError{"engine.readRate", fmt.Sprintf("%s a second is out of range: %s to %s, or 0 for no limit", e.ReadRate, MinReadRate, MaxReadRate)}
	case e.StartAt != End && e.StartAt != Beginning:
		return &FieldError{"engine.startAt", fmt.Sprintf("%q is unknown: write End or Beginning", e.StartAt)}
	}
	return nil
}

// ParseStreamFlag reads a stream as it stands in a flag: "order-statuses", "fills:by-block".
func ParseStreamFlag(s string) (StreamConfig, error) {
	name, mode, hasMode := strings.Cut(s, ":")
	var out StreamConfig
	for _, v := range Streams() {
		if v.Kebab() == name {
			out.Name = v
		}
	}
	if out.Name == "" {
		return out, fmt.Errorf("%q is unknown: write one of %s", name, kebabs(Streams()))
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
		return out, fmt.Errorf("%q is unknown: write one of %s after the colon", mode, kebabs(Modes()))
	}
	return out, nil
}

// ParseSinkFlag reads a sink as it stands in a flag: "stdout", "file:DIR", "nats://host:4222/STREAM", "kafka://host:9092/TOPIC". What
// follows a question mark are settings: subject, delivery, credentials, create=true; key, delivery, compression, create=true.
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
	return Sink{}, fmt.Errorf("%q is unknown: write stdout, file:DIR, nats://HOST:PORT/STREAM or kafka://HOST:PORT/TOPIC", s)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// kebab turns "ByBlock" into "by-block".
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

func list[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

func kebabs[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = kebab(string(v))
	}
	return strings.Join(out, ", ")
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
