package engine

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	// behindAfter is the lag from which a stream is logged as behind, at most once per behindLogEvery.
	behindAfter    = 30 * time.Second
	behindLogEvery = time.Minute
	// lagCheckEvery is how often the lag is checked.
	lagCheckEvery = time.Second
	// sinkWaitShown is how long a request to the sink is outstanding before the log names it as the cause.
	sinkWaitShown = time.Second
)

// logProgress logs the start as soon as the start position is known, and then, while the stream is behind, one line per
// minute at most. Any goroutine of the attempt may call it at any time.
func (a *attempt) logProgress() {
	now := a.engine.now()
	check := false
	a.stats.set(func(s *stats) {
		if check = due(s.lagCheckedAt, now, lagCheckEvery); check {
			s.lagCheckedAt = now
		}
	})
	if !check {
		return
	}
	r := a.report()
	if r.LagSeconds == nil {
		return
	}
	far := *r.LagSeconds >= behindAfter.Seconds()
	first, again := false, false
	a.stats.set(func(s *stats) {
		first, s.startLogged = !s.startLogged, true
		if again = !first && far && due(s.behindLoggedAt, now, behindLogEvery); again || first {
			s.behindLoggedAt = now
		}
	})
	switch {
	case first:
		a.log.Info("the stream begins", "version", a.engine.version, "mode", r.Mode, "directory", a.directoryNames(),
			"sink", describe(a.engine.cfg.SinkOf(a.stream)), "position", resumePosition(a.tail.Files()),
			"behindBytes", *r.UncommittedBytes, "behindSeconds", int64(*r.LagSeconds), "behindEstimated", r.LagEstimated)
	case again:
		a.log.Info("the stream is behind", "behindBytes", *r.UncommittedBytes,
			"behind", humanize.IBytes(uint64(max(*r.UncommittedBytes, 0))),
			"behindSeconds", int64(*r.LagSeconds), "behindEstimated", r.LagEstimated, "waitsFor", waitsFor(&r))
	}
}

// resumePosition returns the position of the oldest line in the backlog, or of the next line if there is no backlog.
func resumePosition(files []checkpoint.File) string {
	if len(files) == 0 {
		return "the first line that is written"
	}
	next := &files[len(files)-1]
	for i := range files {
		if f := &files[i]; f.Offset < f.Size {
			next = f
			break
		}
	}
	return position.Position{File: next.FileID, Offset: next.Offset}.String()
}

// waitsFor describes what a stream that is behind waits for.
func waitsFor(r *report.Stream) string {
	asked := time.Duration(r.Sink.OutstandingSeconds * float64(time.Second))
	switch {
	case r.State == report.Failed:
		return "an operator: " + r.Message
	case r.Blocked != nil:
		return cannotRead(r.Blocked)
	case r.Message != "":
		return r.Message
	case r.Sink.State == report.SinkRetrying:
		return "the sink: " + r.Sink.LastError
	case asked >= sinkWaitShown:
		return fmt.Sprintf("the sink: a request has been outstanding for %s", asked.Round(time.Second))
	}
	return "nothing: the stream is catching up"
}

// describe names a sink without the credentials that its URL may hold.
func describe(s config.Sink) string {
	switch {
	case s.File != nil:
		return "file:" + s.File.Path
	case s.NATS != nil:
		servers := strings.Split(s.NATS.URL, ",")
		for i, server := range servers {
			u, err := url.Parse(strings.TrimSpace(server))
			if err != nil {
				servers[i] = "nats:"
				continue
			}
			servers[i] = u.Scheme + "://" + u.Host
		}
		return strings.Join(servers, ",") + "/" + s.NATS.Stream
	case s.Kafka != nil:
		return "kafka://" + strings.Join(s.Kafka.Brokers, ",") + "/" + s.Kafka.Topic
	}
	return "stdout"
}
