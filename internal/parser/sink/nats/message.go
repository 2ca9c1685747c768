package nats

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Headers of a message. Those of a message that holds several records are the first record's.
const (
	headerTarget   = "Hl-Target"
	headerStream   = "Hl-Stream"
	headerBlock    = "Hl-Block"
	headerIndex    = "Hl-Index"
	headerPosition = "Hl-Position"
	headerCount    = "Hl-Count"

	headerID            = "Nats-Msg-Id"
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
	headerExpectedLast  = "Nats-Expected-Last-Subject-Sequence"
)

// packer makes messages of records, one after the other in the same memory.
type packer struct {
	target, writer, stream string
	subjects               *subjects
	perMessage             int // records
	ids                    bool
	identity               config.RecordIdentity

	msg      nats.Msg
	file     checkpoint.FileID
	fileText string
	block    int64
	position []byte

	// The values of the headers that change.
	blockValue, indexValue, positionValue, countValue, idValue []string
}

func newPacker(o *Options, stream string, ids bool) *packer {
	p := &packer{
		target: o.Target, writer: o.Writer, stream: stream, subjects: newSubjects(o.Config.Subject, stream, o.Target),
		perMessage: o.Config.RecordsPerMessage, ids: ids, identity: o.Config.Identity,
		blockValue: []string{""}, indexValue: []string{""}, positionValue: []string{""}, countValue: []string{""}, idValue: []string{""},
	}
	p.msg.Header = nats.Header{headerTarget: {o.Target}, headerStream: {stream}, headerIndex: p.indexValue, headerPosition: p.positionValue}
	if p.perMessage > 1 {
		p.msg.Header[headerCount] = p.countValue
	}
	if ids {
		p.msg.Header[headerID] = p.idValue
	}
	return p
}

// end returns where the message ends that begins with record i: it holds the records i to end-1, which share a subject and have at
// most so many bytes with a newline between them, unless it is one record.
func (p *packer) end(b sink.Batch, i, maxBytes int) int {
	if p.perMessage == 1 {
		return i + 1
	}
	from := b.Records[i].End - len(b.Record(i))
	subject, coin := p.subjects.of(b.Records[i].Coin), b.Records[i].Coin
	j := i + 1
	for ; j < len(b.Records) && j-i < p.perMessage && b.Records[j].End-1-from <= maxBytes; j++ {
		if next := b.Records[j].Coin; next != coin && p.subjects.of(next) != subject {
			break
		}
	}
	return j
}

// pack returns the message of the records i to j-1. It is good until the next call.
func (p *packer) pack(b sink.Batch, i, j int) *nats.Msg {
	r := &b.Records[i]
	from := r.End - len(b.Record(i))
	p.msg.Subject = p.subjects.of(r.Coin)
	p.msg.Data = b.Data[from : b.Records[j-1].End-1]
	if b.File != p.file || p.fileText == "" {
		p.file, p.fileText = b.File, b.File.String()
	}
	if r.Block == 0 {
		delete(p.msg.Header, headerBlock)
	} else {
		p.msg.Header[headerBlock] = p.blockValue
		if r.Block != p.block {
			p.block, p.blockValue[0] = r.Block, strconv.FormatInt(r.Block, 10)
		}
	}
	p.indexValue[0] = strconv.Itoa(int(r.Index))
	p.positionValue[0] = p.place(r)
	if p.perMessage > 1 {
		p.countValue[0] = strconv.Itoa(j - i)
	}
	if p.ids {
		p.idValue[0] = p.id(b, i, j)
	}
	return &p.msg
}

func (p *packer) place(r *sink.Record) string {
	at := append(append(p.position[:0], p.fileText...), ':')
	at = append(strconv.AppendInt(at, r.Offset, 10), ':')
	p.position = strconv.AppendInt(at, int64(r.Index), 10)
	return string(p.position)
}

// id is by what the server knows a message again. That of several records names the first, the last and how many there are, so that
// no message is taken for one that holds other records. A marker has no place on the chain.
func (p *packer) id(b sink.Batch, i, j int) string {
	r := &b.Records[i]
	switch {
	case p.identity == config.ByChain && r.Block > 0:
		return p.stream + "/" + p.blockValue[0] + "/" + p.indexValue[0]
	case j > i+1:
		return strings.Join([]string{p.writer, p.stream, p.positionValue[0], p.place(&b.Records[j-1]), p.countValue[0]}, "/")
	}
	return p.writer + "/" + p.stream + "/" + p.positionValue[0]
}

// overhead bounds the bytes of a message's headers.
func (p *packer) overhead(file checkpoint.FileID) int {
	const (
		fixed    = 400 // the names, and the values that are numbers or a batch's id
		position = 40  // a position without its file
	)
	at := len(file.String()) + position
	return fixed + len(p.target) + len(p.stream) + at + len(p.writer) + len(p.stream) + 2*at
}

// headerBytes is what the headers of a message take.
func headerBytes(h nats.Header) int {
	n := len("NATS/1.0\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}
