package kubectl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sampling"
)

const (
	// mostTailed bounds the records that one tail shows, and longestTail how long it lasts.
	mostTailed  = 10_000
	longestTail = 10 * time.Minute
	// busyPause is how long tail waits, plus up to as much again, while others read samples.
	busyPause = time.Second
)

// tailOptions say what tail shows.
type tailOptions struct {
	filter  sampling.Filter
	count   int
	counted bool // the count was set, so that it ends follow too
	follow  bool
	time    time.Duration
}

// check completes the options, or returns what is wrong with them.
func (o *tailOptions) check() error {
	for _, s := range config.Streams() {
		if o.filter.Stream == s.Kebab() {
			o.filter.Stream = string(s)
		}
	}
	switch {
	case o.count < 1 || o.count > mostTailed:
		return usagef("--count is %d: write 1 to %d", o.count, mostTailed)
	case o.time <= 0 || o.time > longestTail:
		return usagef("--for is %s: write a time of at most %s", o.time, longestTail)
	case o.filter.Records < 1:
		return usagef("--rate is %d: write 1 to %d", o.filter.Records, sampling.MaxRecords)
	}
	if err := o.filter.Check(); err != nil {
		return usageError{err}
	}
	if o.follow && !o.counted {
		o.count = mostTailed
	}
	return nil
}

// tailed sums up what a tail has seen.
type tailed struct {
	seconds                     int
	shown                       int
	delivered, filtered, leftBy int64
}

// tail shows samples of what a target's parser delivers, until there are enough records or the time is over.
func (r *runner) tail(ctx context.Context, name, target string, o tailOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	namespace, err := r.namespace()
	if err != nil {
		return err
	}
	m, err := r.manager(namespace)
	if err != nil {
		return err
	}
	var sum tailed
	for end := r.now().Add(o.time); sum.shown < o.count && r.now().Before(end) && ctx.Err() == nil; {
		f := o.filter
		f.Records = min(f.Records, o.count-sum.shown)
		sample, err := m.sample(ctx, namespace, name, target, f)
		if busy(err) {
			pause := busyPause + rand.N(busyPause)
			if r.now().Add(pause).After(end) || !r.wait(ctx, pause) {
				break
			}
			continue
		}
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			if sum.seconds > 0 {
				say(r.streams.ErrOut, "%s\n", sum.text(name, target, o.filter))
			}
			return err
		}
		sum.seconds++
		sum.shown += len(sample.Records)
		sum.delivered += sample.Delivered
		sum.filtered += sample.Filtered
		sum.leftBy += sample.LeftOut
		for i := range sample.Records {
			say(r.streams.Out, "%s\n", lineOf(&sample.Records[i]))
		}
	}
	say(r.streams.ErrOut, "%s\n", sum.text(name, target, o.filter))
	if sum.shown == 0 {
		return exitError(ExitUnknown)
	}
	return nil
}

// busy reports whether an error means that others read samples or reports at the moment.
func busy(err error) bool {
	refused, ok := errors.AsType[*refusal](err)
	return ok && (refused.code == http.StatusTooManyRequests ||
		refused.code == http.StatusServiceUnavailable && strings.HasPrefix(refused.text, "too many requests"))
}

// text says how many records are shown and left out.
func (t *tailed) text(name, target string, f sampling.Filter) string {
	of := cmp.Or(f.Stream, "all streams")
	switch {
	case t.seconds == 0:
		return "No sample was taken: others read samples of this parser, or the time was too short."
	case t.delivered == 0:
		return fmt.Sprintf("No record of %s was delivered in %d s: kubectl hlp why %s %s shows what waits.", of, t.seconds,
			name, target)
	}
	out := fmt.Sprintf("%d shown of %d records of %s that were delivered in %d s", t.shown, t.delivered, of, t.seconds)
	if f.Coin != "" {
		out += fmt.Sprintf("; %d of other coins than %s", t.filtered, f.Coin)
	}
	return out + fmt.Sprintf("; %d left out.", t.leftBy)
}

// lineOf returns a record as one line of JSON. A record that was cut, or is no JSON, is quoted in an object.
func lineOf(r *sampling.Record) []byte {
	if !r.Cut() && json.Valid(r.Text) && utf8.Valid(r.Text) && !bytes.ContainsAny(r.Text, "\n\r") {
		return escapeControls(r.Text)
	}
	why := "not JSON"
	if r.Cut() {
		why = "cut"
	}
	out, _ := json.Marshal(struct { // strings and a number
		Incomplete string `json:"incomplete"`
		Stream     string `json:"stream"`
		Bytes      int    `json:"bytes"`
		Beginning  string `json:"beginning"`
	}{why, r.Stream, r.Bytes, string(r.Text)})
	return escapeControls(out)
}

// escapeControls returns the same JSON without control characters, which a terminal would obey. JSON has those beyond
// ASCII in strings only, where an escape means the same.
func escapeControls(text []byte) []byte {
	control := func(c rune) bool { return c >= 0x7f && c <= 0x9f }
	if bytes.IndexFunc(text, control) < 0 {
		return text
	}
	var out bytes.Buffer
	for _, c := range string(text) {
		if control(c) {
			fmt.Fprintf(&out, `\u%04x`, c)
		} else {
			out.WriteRune(c)
		}
	}
	return out.Bytes()
}
