package poller

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// Fetches polls as the poller does, reusing the session of the last poll.
func Fetches(b *testing.B, port string, e Endpoint) {
	number, err := strconv.Atoi(port)
	if err != nil {
		b.Fatal(err)
	}
	c := NewClient(number)
	defer c.Close()
	session, err := e.session(nil)
	if err != nil {
		b.Fatal(err)
	}
	var r report.Report
	for b.Loop() {
		if err := c.fetch(context.Background(), "ns", e, session, time.Minute, &r); err != nil {
			b.Fatal(err)
		}
	}
}
