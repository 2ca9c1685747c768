package nats

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Headers of a message. For a message with several records they describe the first one.
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

// packer builds messages from records. It reuses its memory for each message.
type packer struct {
	target, writer, stream string
	subjects               *subjects
	perMessage             int // maximum number of records
	ids                    bool
	identity               config.RecordIdentity

	msg      nats.Msg
	file     position.FileID
	fileText string
	block    int64
	position []byte

	// Values of the headers that change.
	blockValue, indexValue, positionValue, countValue, idValue []string
}

func newPacker(o *Options, stream string, ids bool) *packer {
	p := &packer{
		target: o.Target, writer: o.Writer, stream: stream, subjects: newSubjects(o.Config.Subject, stream, o.Target),
		perMessage: o.Config.RecordsPerMessage, ids: ids, identity: o.Config.Identity,
		blockValue: []string{""}, indexValue: []string{""}, positionValue: []string{""}, countValue: []string{""},
		idValue: []string{""},
	}
	p.msg.Header = nats.Header{
		headerTarget: {o.Target}, headerStream: {stream}, headerIndex: p.indexValue, headerPosition: p.positionValue,
	}
	if p.perMessage > 1 {
		p.msg.Header[headerCount] = p.countValue
	}
	if ids {
		p.msg.Header[headerID] = p.idValue
	}
	return p
}

// end returns the end of the message that begins with record i. The message holds the records i to end-1, which share a
// subject. With a newline between them they take at most maxBytes, unless the message holds one record.
func (p *packer) end(b sink.Batch, i, maxBytes int) int {
	if p.perMessage == 1 {
		return i + 1
	}
	from := b.Records[i].End - len(b.Record(i))
	subject, coin := p.subjects.subjectFor(b.Records[i].Coin), b.Records[i].Coin
	j := i + 1
	for ; j < len(b.Records) && j-i < p.perMessage && b.Records[j].End-1-from <= maxBytes; j++ {
		if next := b.Records[j].Coin; next != coin && p.subjects.subjectFor(next) != subject {
			break
		}
	}
	return j
}

// pack returns the message of the records i to j-1. It is valid until the next call.
func (p *packer) pack(b sink.Batch, i, j int) *nats.Msg {
	r := &b.Records[i]
	from := r.End - len(b.Record(i))
	p.msg.Subject = p.subjects.subjectFor(r.Coin)
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
	p.positionValue[0] = p.positionText(r)
	if p.perMessage > 1 {
		p.countValue[0] = strconv.Itoa(j - i)
	}
	if p.ids {
		p.idValue[0] = p.id(b, i, j)
	}
	return &p.msg
}

func (p *packer) positionText(r *sink.Record) string {
	at := append(append(p.position[:0], p.fileText...), ':')
	at = append(strconv.AppendInt(at, r.Offset, 10), ':')
	p.position = strconv.AppendInt(at, int64(r.Index), 10)
	return string(p.position)
}

// id returns the message id by which the server detects duplicates. The id of several records contains the first, the
// last and the count, so a message never matches one with other records. A marker has no chain position.
func (p *packer) id(b sink.Batch, i, j int) string {
	r := &b.Records[i]
	switch {
	case p.identity == config.ByChain && r.Block > 0:
		return p.stream + "/" + p.blockValue[0] + "/" + p.indexValue[0]
	case j > i+1:
		return strings.Join([]string{p.writer, p.stream, p.positionValue[0], p.positionText(&b.Records[j-1]),
			p.countValue[0]}, "/")
	}
	return p.writer + "/" + p.stream + "/" + p.positionValue[0]
}

// overhead bounds the size of a message's headers, in bytes.
func (p *packer) overhead(file position.FileID) int {
	const (
		fixed  = 400 // the names, and values that are numbers or a batch's id
		inFile = 40  // a position without its file
	)
	at := len(file.String()) + inFile
	return fixed + len(p.target) + len(p.stream) + at + len(p.writer) + len(p.stream) + 2*at
}

// headerBytes returns the encoded size of the headers, in bytes.
func headerBytes(h nats.Header) int {
	n := len("NATS/1.0\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(": \r\n") + len(v)
		}
	}
	return n
}
