// Package sink defines the contract between the engine and the destinations of records. The folders beside this file
// implement it.
//
// It holds the contract and the backoff between attempts, and nothing else. It must never buffer, retry or drop. The
// engine waits, backs off and gives up; a sink only classifies its errors.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// Record is one record of a Batch. It ends at End, an index in Batch.Data just past the record's newline, and starts at
// the end of the record before it (the first one at 0). Offset and Index are its position in Batch.File: the byte
// offset of the line that it came from, and its index among the records of that line. A marker precedes a line's events
// and has a negative index.
//
// Event is the index of the record's event in the line. It is less than Index if events before it, or it itself, have
// several records.
//
// Block is the number of the event's block; 0 in line mode and for markers. Coin is the coin of the event, as the node
// names it. It is empty for events without a coin, for markers, and for every record of a sink that is configured
// without it (config.Sink.Keyed).
type Record struct {
	End    int
	Offset int64
	Block  int64
	Coin   string
	Index  int32
	Event  int32
}

// Batch is an ordered run of records from one file. Data holds exactly their bytes: each record ends with a newline and
// contains no other. A batch has at least one record.
//
// The caller owns Data and Records and reuses them as soon as Write returns, with or without an error. A sink that
// needs them for longer copies them.
type Batch struct {
	File    position.FileID
	Data    []byte
	Records []Record
}

// Record returns the bytes of record i, including its newline.
func (b Batch) Record(i int) []byte {
	return b.Data[b.start(i):b.Records[i].End]
}

// Position returns the position of record i.
func (b Batch) Position(i int) position.Position {
	r := b.Records[i]
	return position.Position{File: b.File, Offset: r.Offset, Index: int(r.Index)}
}

// Slice returns the batch of the records i to j-1. It shares Data with b. Records are copied where their ends change.
// The engine uses it to skip a refused record.
func (b Batch) Slice(i, j int) Batch {
	from := b.start(i)
	records := b.Records[i:j:j]
	if from > 0 {
		records = append([]Record(nil), records...)
		for k := range records {
			records[k].End -= from
		}
	}
	return Batch{File: b.File, Data: b.Data[from:b.start(j)], Records: records}
}

func (b Batch) start(i int) int {
	if i == 0 {
		return 0
	}
	return b.Records[i-1].End
}

// Output is one destination: a directory, the standard output of the process, or a connection. The streams of a process
// share it. Each has its own Sink.
type Output interface {
	// Open returns the sink of one stream. stream is its name in the checkpoint, such as "order-statuses". state is
	// this sink's part of the stream's last saved checkpoint. A nil state promises that nothing was ever written for
	// this stream. Open first restores the destination to what state describes. It may be called from several
	// goroutines, once for each stream that has no open sink. An error that matches vfs.ErrLocked reports that another
	// process uses the destination. Open does not wait for it: the engine does, and does not count it as an outage.
	Open(ctx context.Context, stream string, state json.RawMessage) (Sink, error)

	// Close releases the destination. The caller has closed every Sink before.
	Close() error
}

// Keeper is an Output that owns files, which a pruner of old files may delete. Keep refreshes their modification times.
// It is called every few minutes, concurrently with all other methods.
type Keeper interface {
	Keep() error
}

// Keep calls the output's Keep method if it has one.
func Keep(o Output) error {
	if k, ok := o.(Keeper); ok {
		return k.Keep()
	}
	return nil
}

// Rememberer is a Sink whose destination stores a position. Remembers reports whether the destination held records of
// this stream when Open was called without a state. Then the state was lost, or another kind of sink delivered the
// stream in between.
type Rememberer interface {
	Remembers() bool
}

// Remembers reports whether the sink is a Rememberer and its Remembers method returns true.
func Remembers(s Sink) bool {
	r, ok := s.(Rememberer)
	return ok && r.Remembers()
}

// Sink delivers one stream's records in order. One goroutine at a time calls its methods. The Sync function that Flush
// returns may run concurrently on another goroutine. Write, Flush and Committed return soon after their context ends.
//
// The engine's side of the contract:
//
//	sink := output.Open(state of the last saved checkpoint)
//	commit                            // a checkpoint with the sink's state precedes the first record
//	for { Write … Write, commit }     // commit about every second, also without writes, and after 128 changes of file
//	commit, commit, … with final      // only if no record will ever follow (--once); until Flush's state is stable
//	sink.Close()
//
//	commit = f := sink.Flush; f.Sync, perhaps beside Writes;
//	         if state or position differ from what was last saved { checkpoint.Save; sink.Committed }
//
// Errors of Write, Flush, Sync and Committed are of five kinds. Use errors.Is and errors.As to distinguish them:
//
//   - *Refusal (Write only): the destination will never accept one record. The engine writes it to the dead letter and
//     calls Write with the other records.
//   - ErrReopen: records written since the last saved checkpoint may be lost. The engine closes the sink and restarts
//     the stream from that checkpoint.
//   - ErrFailed: a retry cannot help; the text says what the operator must do. The stream is Failed. ErrFailed lists
//     the causes.
//   - ErrGone: the reader of this process's output has gone; the process exits with status 1.
//   - any other error, including the context's own: an outage. The engine retries the same call after a pause.
type Sink interface {
	// Write delivers the whole batch. A nil error means that the destination has acknowledged every record. After an
	// error, the caller either calls Write again with the same batch or abandons the batch. After it abandons a batch
	// it makes at most one last commit before Close; the abandoned batch is not part of the state that Flush returns.
	Write(ctx context.Context, b Batch) error

	// Flush marks everything acknowledged so far for the next commit, and returns how to commit it. If nothing was
	// acknowledged since the last Flush, it does no I/O and returns the same State. It then returns no Sync if the Sync
	// of that Flush returned nil. final reports whether no record will follow: the file sink then closes its last part.
	Flush(ctx context.Context, final bool) (Flushed, error)

	// Committed reports to the sink that the checkpoint with the state of the last Flush is on disk. It is idempotent,
	// and may be called again after an error.
	Committed(ctx context.Context) error

	// Delivered returns the number of records that this sink has delivered, according to acknowledgements: records of
	// successful Writes, and acknowledged records of failed ones. A record that Write skipped because the destination
	// already had it does not count. If consumers see only one of two deliveries, one counts: a record that an earlier
	// sink of this Output wrote, and that its end or Open rolled back, is subtracted. Therefore the first results may
	// be negative.
	Delivered() int64

	// Close releases the sink's resources and does not wait for the destination. The next Open rolls back what was not
	// flushed and committed.
	Close() error
}

// Flushed describes how to commit what a sink had acknowledged by the time of a Flush.
type Flushed struct {
	// State is what the next checkpoint must hold for Open to continue from here. Nil means that this sink needs no
	// state.
	State json.RawMessage

	// Sync makes State durable at the destination. Nil means that it already is. No checkpoint may hold State before
	// Sync has returned nil. Sync may run concurrently with Write, so that a slow disk does not block delivery, but not
	// with the sink's other methods. After an error, call Sync again or abandon it for another Flush.
	Sync func(ctx context.Context) error
}

// Kinds of error that are neither an outage nor a refusal. See Sink.
var (
	ErrReopen = errors.New("the stream restarts from its last checkpoint")

	// ErrFailed reports a fault that only an operator can repair:
	//
	//  - the sink's part of the checkpoint cannot be read, or the stream has no sink;
	//  - the destination contradicts the checkpoint, and continuing would lose, repeat or overwrite records: a file that
	//    the checkpoint continues is missing, shorter or longer; output that the checkpoint does not know; a closed file
	//    with the same name; an unreadable position; with exactly once, a checkpoint older than the position;
	//  - another parser writes under the same name;
	//  - exactly once is required, and the JetStream stream does not support it;
	//  - standard output ends in the middle of a record that nothing will complete;
	//  - the settings do not yield a client or an encoder.
	//
	// Every other fault, such as permissions, full and read-only disks, missing topics and streams, or refused logins,
	// is an outage, at start and later. It is retried, and ends when its cause does.
	ErrFailed = errors.New("the stream cannot continue")

	ErrGone = errors.New("the reader of the output has gone")
)

// Refusal reports that the destination will never accept record Index (in Batch.Records) of the batch that was passed
// to Write. No record of that batch is acknowledged.
type Refusal struct {
	Index  int
	Reason string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("record %d of the batch was refused: %s", r.Index, r.Reason)
}
