package poller

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

func TestAReportHasNothingOfTheOneBefore(t *testing.T) {
	var r, fresh report.Report
	e := Endpoint{Target: "t", PodName: "p"}
	whole := `{"parser":"hlparser","version":"v","target":"t","pod":"p","now":"2026-05-01T12:00:00Z","process":{"rssBytes":1},"streams":[
		{"name":"Fills","message":"m","linesTotal":7,"lastLineAt":"2026-05-01T12:00:00Z","sink":{"state":"Retrying","lastError":"e"}},{"name":"Trades"}]}`
	bare := `{"parser":"hlparser","target":"t","pod":"p","streams":[{}]}`
	for _, body := range []string{whole, bare} {
		fresh = report.Report{}
		if err := decode([]byte(body), e, &r); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(body), &fresh); err != nil || !reflect.DeepEqual(r, fresh) {
			t.Errorf("got  %+v\nwant %+v, %v", r, fresh, err)
		}
	}
}

// BenchmarkDecode is what a report of two streams costs once it is here.
func BenchmarkDecode(b *testing.B) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)
	stream := report.Stream{
		Name: "OrderStatuses", Mode: "Streaming", State: report.Running, BufferLines: 421, BufferBytes: 201234, BufferLimitBytes: 32 << 20,
		InFlightLines: 211, InFlightBytes: 101234, LastBatchLines: 1011, BatchesTotal: 12345, LinesTotal: 123456789, EventsTotal: 123456789,
		DeliveredTotal: 12345678, LastBlock: 987654321, UncommittedBytes: 1001234, LagSeconds: 0.0912, LargestLineBytes: 2048,
		ReadBytesTotal: 123456789012, ParsedBytesTotal: 123456789012, AckedBytesTotal: 123456789012, CommittedBytesTotal: 123456789012,
		File: "node_order_statuses_streaming/hourly/20260430/20", Position: "node_order_statuses_streaming/hourly/20260430/20:123456789",
		CommittedPosition: "node_order_statuses_streaming/hourly/20260430/20:123000000", LastLineAt: &now, LastCommitAt: &now,
		Sink: report.Sink{State: report.SinkHealthy, Since: &now, LastAckAt: &now, BusySecondsTotal: 3.2512},
	}
	body, err := json.Marshal(report.Report{
		Version: "v1", Parser: "hlparser", Target: "node-1", Pod: "mainnet-5qgrl2jesj", StartedAt: now, Now: now,
		Process: report.Process{RSSBytes: 60123456, HeapBytes: 30123456, Goroutines: 40, MemoryLimitBytes: 512 << 20, CPULimit: 2, CPUSecondsTotal: 123.4567},
		Streams: []report.Stream{stream, stream},
	})
	if err != nil {
		b.Fatal(err)
	}
	var r report.Report
	endpoint := Endpoint{Target: "node-1", PodName: "mainnet-5qgrl2jesj"}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := decode(body, endpoint, &r); err != nil {
			b.Fatal(err)
		}
	}
}
