package sampling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// batch returns a batch of records.
func batch(records ...string) sink.Batch {
	var b sink.Batch
	for _, r := range records {
		b.Data = append(append(b.Data, r...), '\n')
		b.Records = append(b.Records, sink.Record{End: len(b.Data)})
	}
	return b
}

func texts(s Sample) (out []string) {
	for i := range s.Records {
		out = append(out, string(s.Records[i].Text))
	}
	return out
}

// collecting runs a collection beside the test, and returns its result.
func collecting(t *testing.T, ctx context.Context, s *Sampler, f Filter) func() (Sample, error) {
	t.Helper()
	var out Sample
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err = s.Collect(ctx, f)
	}()
	synctest.Wait()
	return func() (Sample, error) { <-done; return out, err }
}

func TestASampleHasWhatIsDeliveredInItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{}
		s.Offer("Fills", batch(`"before"`))
		result := collecting(t, t.Context(), s, Filter{})
		begin := time.Now()
		b := batch(`"a"`, `"b"`)
		s.Offer("Fills", b)
		clear(b.Data) // the caller reuses it
		s.Offer("Trades", batch(`"c"`))
		got, err := result()
		if err != nil || fmt.Sprint(texts(got)) != `["a" "b" "c"]` || got.Records[2].Stream != "Trades" {
			t.Errorf("%+v, %v", got, err)
		}
		if got.Delivered != 3 || got.Filtered != 0 || got.LeftOut != 0 || time.Since(begin) != Window {
			t.Errorf("%+v after %s", got, time.Since(begin))
		}
		s.Offer("Fills", batch(`"after"`))
		if s.open.Load() != nil || len(got.Records) != 3 {
			t.Error("a sampler is left")
		}
	})
}

func TestASampleIsBoundedAndCountsWhatItLeavesOut(t *testing.T) {
	long := `"` + strings.Repeat("x", 2*MaxRecordBytes) + `"`
	for name, test := range map[string]struct {
		filter  Filter
		offered []string
		shown   int
		cut     bool
	}{
		"by default": {Filter{}, repeated(`"a"`, 1000), DefaultRecords, false},
		"as asked":   {Filter{Records: 3}, repeated(`"a"`, 1000), 3, false},
		"at most":    {Filter{Records: MaxRecords}, repeated(`"a"`, 1000), MaxRecords, false},
		"in bytes":   {Filter{Records: MaxRecords}, repeated(long, 50), MaxBytes / MaxRecordBytes, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Sampler{}
			result := collecting(t, t.Context(), s, test.filter)
			for _, text := range test.offered {
				s.Offer("Fills", batch(text))
			}
			got, err := result()
			if err != nil || len(got.Records) != test.shown {
				t.Fatalf("%s: %d records, %v", name, len(got.Records), err)
			}
			size := 0
			for i := range got.Records {
				r := &got.Records[i]
				size += len(r.Text)
				if r.Cut() != test.cut || r.Bytes != len(test.offered[0]) || len(r.Text) > MaxRecordBytes {
					t.Errorf("%s: %d of %d bytes", name, len(r.Text), r.Bytes)
				}
			}
			n := int64(len(test.offered))
			if size > MaxBytes || got.Delivered != n || got.LeftOut != n-int64(test.shown) {
				t.Errorf("%s: %d bytes, %+v", name, size, got)
			}
		})
	}
}

func repeated(text string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = text
	}
	return out
}

func TestComparingWithAFilterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{}
		result := collecting(t, t.Context(), s, Filter{Coin: "ETH"})
		const n = 40
		for range n {
			s.Offer("Fills", batch(`{"coin":"BTC","x":"`+strings.Repeat("x", 1<<20)+`"}`))
		}
		s.Offer("Fills", batch(`{"coin":"ETH"}`))
		got, err := result()
		if err != nil || len(got.Records) != 0 || got.Filtered > 17 || got.Filtered+got.LeftOut != n+1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestTheStreamAndTheCoinSelectRecords(t *testing.T) {
	records := map[string]string{
		`["0x1",{"coin":"BTC","px":"1"}]`:                            "BTC", // Raw
		`{"order":{"coin":"BTC"}}`:                                   "BTC",
		`{"target":"n","event":{"user":"0x","coin":"xyz:TSLA"}}`:     "xyz:TSLA", // Enveloped
		`{ "coin" : "BTC" }`:                                         "BTC",
		`{"coin":"BTCB"}`:                                            "BTCB",
		`{"coin":7,"event":{"coin":"PURR/USDC"}}`:                    "PURR/USDC",
		`{"text":"{\"coin\":\"BTC\"}","coin":"ETH"}`:                 "ETH",
		`{"coins":"BTC","coin_":"BTC","x":["coin","BTC"],"y":"BTC"}`: "",
		`{}`: "",
	}
	for filter, wants := range map[string]func(coin string) bool{
		"":      func(string) bool { return true },
		"BTC":   func(coin string) bool { return coin == "BTC" },
		"ETH":   func(coin string) bool { return coin == "ETH" },
		"xyz:*": func(coin string) bool { return strings.HasPrefix(coin, "xyz:") },
		"xyz:":  func(coin string) bool { return coin == "xyz:" },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &Sampler{}
			result := collecting(t, t.Context(), s, Filter{Stream: "Fills", Coin: filter})
			want := map[string]bool{}
			for record, coin := range records {
				if !json.Valid([]byte(record)) {
					t.Errorf("%s is no JSON", record)
				}
				s.Offer("Trades", batch(record)) // another stream
				s.Offer("Fills", batch(record))
				if wants(coin) {
					want[record] = true
				}
			}
			got, err := result()
			if err != nil || len(got.Records) != len(want) || got.Delivered != int64(len(records)) ||
				got.Filtered != int64(len(records)-len(want)) {
				t.Errorf("coin %q: %+v, %v", filter, got, err)
			}
			for _, text := range texts(got) {
				if !want[text] {
					t.Errorf("coin %q: %s", filter, text)
				}
			}
		})
	}
}

func TestABadFilterIsRefused(t *testing.T) {
	for _, f := range []Filter{
		{Stream: "fills"}, {Stream: "x"}, {Records: -1}, {Records: MaxRecords + 1}, {Coin: `B"C`}, {Coin: "B C"},
		{Coin: `B\`}, {Coin: "é"}, {Coin: "\x1b"}, {Coin: strings.Repeat("x", config.MaxFilterValueLength+1)},
	} {
		if _, err := (&Sampler{}).Collect(t.Context(), f); err == nil || !strings.Contains(err.Error(), "write ") {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for _, f := range []Filter{{}, {Stream: "Fills", Coin: "@107", Records: 1}, {Coin: "PURR/USDC"}, {Coin: "xyz:*"}} {
		if err := f.Check(); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestTwoCollectAtOnceAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sampler{}
		ctx, cancel := context.WithCancel(t.Context())
		first := collecting(t, ctx, s, Filter{})
		second := collecting(t, t.Context(), s, Filter{Coin: "BTC"})
		if _, err := s.Collect(t.Context(), Filter{}); !errors.Is(err, ErrBusy) {
			t.Errorf("a third: %v", err)
		}
		begin := time.Now()
		cancel() // its client has gone
		if _, err := first(); err != nil || time.Since(begin) != 0 {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		third := collecting(t, t.Context(), s, Filter{})
		s.Offer("Fills", batch(`{"coin":"BTC"}`, `{"coin":"ETH"}`))
		if got, err := second(); err != nil || len(got.Records) != 1 || got.Filtered != 1 {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := third(); err != nil || len(got.Records) != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		if s.open.Load() != nil {
			t.Error("a sampler is left")
		}
	})
}

func TestAPipelineNeverWaitsForASample(t *testing.T) {
	s, c := &Sampler{}, newCollector(Filter{})
	if !s.add(c) {
		t.Fatal("busy")
	}
	c.mu.Lock() // another pipeline's batch is examined
	s.Offer("Fills", batch(`"a"`, `"b"`))
	c.mu.Unlock()
	s.Offer("Fills", batch(`"c"`))
	got := c.close()
	if len(got.Records) != 1 || got.Delivered != 3 || got.LeftOut != 2 {
		t.Errorf("%+v", got)
	}
	s.Offer("Fills", batch(`"d"`)) // between close and remove
	if got := c.close(); len(got.Records) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestPipelinesAndSamplersRunConcurrently(t *testing.T) {
	s, b := &Sampler{}, batch(repeated(`{"coin":"BTC"}`, 50)...)
	ctx, cancel := context.WithCancel(t.Context())
	var pipelines, samplers sync.WaitGroup
	for range 3 {
		pipelines.Go(func() {
			for ctx.Err() == nil {
				s.Offer("Fills", b)
			}
		})
	}
	for range 4 {
		samplers.Go(func() {
			for range 50 {
				short, end := context.WithTimeout(ctx, time.Millisecond)
				got, err := s.Collect(short, Filter{Coin: "BTC"})
				end()
				if err == nil && got.Delivered != int64(len(got.Records))+got.LeftOut+got.Filtered {
					t.Errorf("%d shown, %d filtered and %d left out of %d", len(got.Records), got.Filtered, got.LeftOut,
						got.Delivered)
				}
			}
		})
	}
	samplers.Wait()
	cancel()
	pipelines.Wait()
}

func TestNothingIsAllocatedWhileNobodySamples(t *testing.T) {
	s, b := &Sampler{}, batch(repeated(`{"coin":"BTC"}`, 50)...)
	if n := testing.AllocsPerRun(100, func() { s.Offer("Fills", b); (*Sampler)(nil).Offer("Fills", b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestALargeSampleFitsIntoASealedAnswer(t *testing.T) {
	c := newCollector(Filter{Records: MaxRecords})
	for range MaxRecords {
		c.offer("OrderStatuses", batch(`"`+strings.Repeat("\x01", MaxRecordBytes)+`"`))
	}
	text, err := json.Marshal(Answer{Sample: c.close()})
	const sealed = 192 << 10 // report.maxSealed
	if err != nil || len(text) > sealed/2+sealed/4 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func BenchmarkOffer(b *testing.B) {
	records := batch(repeated(`{"target":"n","event":{"user":"0x","coin":"ETH"}}`, 500)...)
	for name, filter := range map[string]*Filter{"nobody": nil, "a sampler": {Coin: "BTC"}} {
		b.Run(name, func(b *testing.B) {
			s := &Sampler{}
			if filter != nil {
				s.add(newCollector(*filter))
			}
			b.SetBytes(int64(len(records.Data)))
			for b.Loop() {
				s.Offer("Fills", records)
			}
		})
	}
}

func FuzzSamplePath(f *testing.F) {
	f.Add(SamplePath("token", Filter{Stream: "Fills", Coin: "BTC", Records: 7}))
	f.Add(Path + "/x")
	f.Fuzz(func(t *testing.T, path string) {
		token, filter, err := parseSamplePath(path)
		if err != nil || strings.Contains(token, "/") {
			return
		}
		again, same, err := parseSamplePath(SamplePath(token, filter))
		if err != nil || again != token || same != filter {
			t.Errorf("%q: %q, %+v, %v", path, again, same, err)
		}
	})
}
