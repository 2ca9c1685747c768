package kafka

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// Headers of each record.
const (
	HeaderTarget   = "hl-target"   // the target of the parser
	HeaderStream   = "hl-stream"   // the stream's name, such as "order-statuses"
	HeaderBlock    = "hl-block"    // the event's block; absent in line mode
	HeaderIndex    = "hl-index"    // the record's index in its line
	HeaderPosition = "hl-position" // file, offset and index; consumers deduplicate by it
)

const (
	headersPerRecord = 5
	headerNames      = len(HeaderTarget) + len(HeaderStream) + len(HeaderBlock) + len(HeaderIndex) + len(HeaderPosition)
	// batchOverhead is the size of a batch of one record without the record. recordOverhead and decimals bound the
	// variable-length numbers of a record and the decimal ones in its headers: a block, an index, and an offset and an
	// index.
	batchOverhead  = 61
	recordOverhead = 4*binary.MaxVarintLen32 + headersPerRecord*2*binary.MaxVarintLen16
	decimals       = 20 + 11 + 1 + 20 + 1 + 11
)

// packer converts a stream's records to Kafka records. It owns the memory of its results and reuses it for the next
// chunk.
type packer struct {
	routes routes
	limit  int64 // maximum size of a message, in bytes

	to      []*route // by record of the prepared batch
	file    []byte   // the prepared batch's file, as text
	data    []byte   // values of records
	text    []byte   // values of headers
	headers []kgo.RecordHeader
	out     []kgo.Record
}

// prepare finds the routes of the batch's records. It returns their topics that are not in known, or a refusal of the
// first record that cannot be sent.
func (p *packer) prepare(b sink.Batch, known map[string]kadm.TopicID) (unknown []string, refusal *sink.Refusal) {
	p.to = slices.Grow(p.to[:0], len(b.Records))[:len(b.Records)]
	p.file = append(p.file[:0], b.File.String()...)
	overhead := batchOverhead + recordOverhead + headerNames + decimals +
		len(p.routes.target) + len(p.routes.stream) + len(p.file)
	var to *route
	var coin string
	start := 0
	for i := range b.Records {
		r := &b.Records[i]
		if to == nil || r.Coin != coin {
			coin = r.Coin
			to = p.routes.routeFor(coin)
			if to.invalid != "" {
				return nil, &sink.Refusal{Index: i, Reason: to.invalid}
			}
			if _, ok := known[to.topic]; !ok && !slices.Contains(unknown, to.topic) {
				unknown = append(unknown, to.topic)
			}
		}
		p.to[i] = to
		if size := int64(overhead + len(to.key) + r.End - start); size > p.limit {
			return nil, &sink.Refusal{
				Index: i, Reason: fmt.Sprintf("as a message it has %d bytes, and maxMessageBytes is %d", size, p.limit),
			}
		}
		start = r.End
	}
	return unknown, nil
}

// records converts the records i to j-1 of the prepared batch.
func (p *packer) records(b sink.Batch, i, j int) []kgo.Record {
	start := 0
	if i > 0 {
		start = b.Records[i-1].End
	}
	p.data = append(p.data[:0], b.Data[start:b.Records[j-1].End]...)
	p.text = p.text[:0]
	p.headers = slices.Grow(p.headers[:0], (j-i)*headersPerRecord)
	p.out = slices.Grow(p.out[:0], j-i)[:j-i]
	target, stream := []byte(p.routes.target), []byte(p.routes.stream)
	now := time.Now()
	var block []byte
	var blockNumber int64
	data := p.data
	for k := i; k < j; k++ {
		r := &b.Records[k]
		n := r.End - start
		value := data[: n-1 : n-1] // Kafka frames records, so the newline is dropped
		data, start = data[n:], r.End
		first := len(p.headers)
		p.headers = append(p.headers,
			kgo.RecordHeader{Key: HeaderTarget, Value: target}, kgo.RecordHeader{Key: HeaderStream, Value: stream})
		if r.Block != 0 {
			if r.Block != blockNumber {
				block, blockNumber = p.number(r.Block), r.Block
			}
			p.headers = append(p.headers, kgo.RecordHeader{Key: HeaderBlock, Value: block})
		}
		from := len(p.text)
		p.text = append(p.text, p.file...)
		p.text = append(p.text, ':')
		p.text = strconv.AppendInt(p.text, r.Offset, 10)
		p.text = append(p.text, ':')
		at := len(p.text)
		p.text = strconv.AppendInt(p.text, int64(r.Index), 10)
		end := len(p.text)
		p.headers = append(p.headers,
			kgo.RecordHeader{Key: HeaderIndex, Value: p.text[at:end:end]},
			kgo.RecordHeader{Key: HeaderPosition, Value: p.text[from:end:end]})
		last := len(p.headers)
		p.out[k-i] = kgo.Record{
			Topic: p.to[k].topic, Key: p.to[k].key, Value: value, Headers: p.headers[first:last:last], Timestamp: now,
		}
	}
	return p.out
}

func (p *packer) number(n int64) []byte {
	from := len(p.text)
	p.text = strconv.AppendInt(p.text, n, 10)
	end := len(p.text)
	return p.text[from:end:end]
}
