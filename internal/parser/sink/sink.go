// Package sink says what a destination of records must do, for the engine that
// drives it and for the folders beside this file that implement it.
//
// It holds the contract and nothing else: it must never buffer, retry or drop.
// Waiting, backing off and giving up are the engine's; a sink only tells which
// of them an error asks for.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
)

// Record is one record of a Batch. It ends at End, an index in Batch.Data just
// past the record's newline, and starts where the one before it ends (the first
// one at 0). Offset and Index are its position in Batch.File: the byte offset
// of the line it came from and its index in that line (0 in line mode). A marker,
// which stands before a line's events, has a negative index.
//
// Block is the number of the block that the event belongs to; 0 in line mode and
// for markers. Coin is what the event is about, as the node names it; empty for
// events that have none, for markers, and for every record of a sink that was
// configured without asking for it (config.Sink.Keyed).
type Record struct {
	End    int
	Offset int64
	Block  int64
	Coin   string
	Index  int32
}

// Batch is an ordered run of records that all come from one file. Data is
// exactly their bytes: each record ends with a newline and holds no other.
// A batch has at least one record.
//
// Data and Records are the caller's and are reused as soon as Write returns,
// whatever it returns: a sink that needs them for longer copies them.
type Batch struct {
	File    checkpoint.FileID
	Data    []byte
	Records []Record
}

// Record returns the bytes of record i, its newline included.
func (b Batch) Record(i int) []byte {
	return b.Data[b.start(i):b.Records[i].End]
}

// Position returns where record i comes from.
func (b Batch) Position(i int) checkpoint.Position {
	r := b.Records[i]
	return checkpoint.Position{File: b.File, Offset: r.Offset, Index: int(r.Index)}
}

// Slice returns the batch of the records i to j-1. It shares Data with b;
// Records are copied where their ends must change. It is how the engine goes
// around a record that was refused.
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

// Output is one destination: a directory, the process's standard output, a
// connection. The streams of a process share it, each through a Sink of its own.
type Output interface {
	// Open returns the sink of one stream (its name as in the checkpoint, such
	// as "order-statuses"). state is what that stream's last saved checkpoint
	// holds of this sink; nil when there is none, which promises that nothing
	// was ever written for this stream. Open first brings the destination back
	// to what state describes. It may be called from several goroutines, once
	// for a stream that has no open sink.
	Open(ctx context.Context, stream string, state json.RawMessage) (Sink, error)

	// Close lets go of the destination. Every Sink has been closed before.
	Close() error
}

// Sink takes one stream's records in their order. One goroutine at a time calls
// it; what Flush returns may meanwhile run on another. Write, Flush and Committed
// return soon after their context ends.
//
// The engine's side of the contract:
//
//	sink := output.Open(state of the last saved checkpoint)
//	commit                            // so that no record is ever written before a checkpoint knows the sink
//	for { Write … Write, commit }     // commit about every second, also when nothing was written, and after 128 changes of file
//	commit, commit, … with final      // only when no record will ever follow (--once); until Flush's state stays the same
//	sink.Close()
//
//	commit = f := sink.Flush; f.Sync, perhaps beside Writes; if state or position differ from what was last saved { checkpoint.Save; sink.Committed }
//
// Errors of Write, Flush, Sync and Committed are of five kinds. errors.Is and
// errors.As tell them apart:
//
//   - *Refusal (Write only): one record will never be taken. The engine writes
//     it to the dead letter and calls Write with the records around it.
//   - ErrReopen: what was written since the last saved checkpoint may be lost.
//     The engine closes the sink and starts the stream again from there.
//   - ErrFailed: trying again cannot help; the text says what a person must do.
//     The stream is Failed.
//   - ErrGone: nobody reads what this process delivers; it ends with status 1.
//   - anything else, the context's own error included: an outage. The engine
//     makes the same call again, after a pause.
type Sink interface {
	// Write delivers the whole batch; nil means that the destination has
	// acknowledged every record. After an error the caller calls Write again with
	// the same batch, or gives it up, and then makes a last commit at most before
	// Close: what was given up is not part of the state that Flush returns.
	Write(ctx context.Context, b Batch) error

	// Flush draws a line after everything that was acknowledged, and tells how to
	// commit it. With nothing new since the last Flush it does no I/O, and returns
	// the same State and, if that Flush's Sync returned nil, no Sync.
	// final says that no record will follow: the file sink ends its last part.
	Flush(ctx context.Context, final bool) (Flushed, error)

	// Committed tells that the checkpoint with the last Flush's state is on
	// disk. Calling it again after an error, or after no error, does no harm.
	Committed(ctx context.Context) error

	// Close releases what the sink holds and does not wait for the destination.
	// What was not flushed and committed is for the next Open to undo.
	Close() error
}

// Flushed is how to commit what a sink has acknowledged up to a Flush.
type Flushed struct {
	// State is what the next checkpoint must hold for Open to go on from here;
	// nil when this sink needs nothing.
	State json.RawMessage

	// Sync makes true what State says; nil when it is true already. No checkpoint
	// may hold State before Sync has returned nil. It may run beside Write, so that
	// a slow disk does not hold up delivery, but not beside the sink's other
	// methods. After an error it may be called again, or given up for another Flush.
	Sync func(ctx context.Context) error
}

// The kinds of error that are neither an outage nor a refusal; see Sink.
var (
	ErrReopen = errors.New("the stream starts again from its last checkpoint")
	ErrFailed = errors.New("the stream cannot go on")
	ErrGone   = errors.New("nobody reads the output any more")
)

// Refusal says that the destination will never take record Index (in
// Batch.Records) of the batch just given to Write, and that none of the batch
// is acknowledged.
type Refusal struct {
	Index  int
	Reason string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("record %d of the batch was refused: %s", r.Index, r.Reason)
}
