package poller

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/health"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

func TestAForgedReportTakesLittleMemory(t *testing.T) {
	long := strings.Repeat("x", 8<<10)
	streams := make([]report.Stream, 64)
	for i := range streams {
		streams[i] = report.Stream{
			Message: long, File: long, Position: long, CommittedPosition: long,
			Blocked: &report.BlockedPath{Path: long, Error: long, Denies: long, Bits: long},
			Sink:    report.Sink{LastError: long, MissingSecret: long},
		}
	}
	var a lastAnswer
	a.keep(&health.Poll{Report: &report.Report{Version: long, Target: long, Pod: long, Streams: streams}}, time.Now())
	if len(a.report.Streams) > keptStreams {
		t.Errorf("%d streams are kept, want at most %d", len(a.report.Streams), keptStreams)
	}
	size := cap(a.report.Streams)*int(unsafe.Sizeof(report.Stream{})) + len(a.report.Version) + len(a.report.Target) +
		len(a.report.Pod)
	for i := range a.report.Streams {
		s := &a.report.Streams[i]
		size += len(s.Message) + len(s.File) + len(s.Position) + len(s.CommittedPosition) + len(s.Sink.LastError) +
			len(s.Sink.MissingSecret) + len(s.Blocked.Path) + len(s.Blocked.Error) + len(s.Blocked.Denies) +
			len(s.Blocked.Bits)
	}
	if size > 50<<10 {
		t.Errorf("%d bytes are kept", size)
	}
}

func TestKeepingAReportAllocatesNothing(t *testing.T) {
	poll := &health.Poll{Report: &report.Report{Streams: make([]report.Stream, 2)}}
	var a lastAnswer
	now := time.Now()
	a.keep(poll, now)
	if n := testing.AllocsPerRun(100, func() { a.keep(poll, now) }); n > 0 {
		t.Errorf("%v allocations for each report", n)
	}
}
