package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

const (
	latencyRate = 25_000 // lines per second
	latencyFor  = 15 * time.Second
	// nodeDelay is the age of a block when it reaches the disk, which the generator subtracts from the given time.
	nodeDelay = 150 * time.Millisecond
)

// latency measures the time from the node's write of a line to the reader of its record, and to the checkpoint.
func (b *bench) latency(ctx context.Context) (string, error) {
	settle()
	readable, err := b.untilReadable(ctx)
	if err != nil {
		return "", err
	}
	durable, err := b.untilDurable(ctx)
	if err != nil {
		return "", err
	}
	t := results.Table{{"from the write of a line", "lines", "p50", "p99", "slowest", wantedColumn, reachedColumn}}
	p99 := percentile(readable, 99)
	t.Row("to its record, read from standard output", fmt.Sprint(len(readable)), millis(percentile(readable, 50)),
		millis(p99),
		millis(readable[len(readable)-1]), "p99 < 10 ms", results.Reached(p99 < 10*time.Millisecond))
	p99 = percentile(durable, 99)
	t.Row("to the checkpoint, file sink", fmt.Sprint(len(durable)*tickLines), millis(percentile(durable, 50)), millis(p99),
		millis(durable[len(durable)-1]), "p99 < 1 s", results.Reached(p99 < time.Second))
	return fmt.Sprintf("### Latency\n\n%d lines per second for %s, %d per write, all of them delivered as Raw, with all "+
		"processes\non the same cores.\n\n%s",
		latencyRate, latencyFor, tickLines, t.String()), nil
}

// percentile returns a percentile of sorted durations.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)-1)*percent/100]
}

const (
	tick      = time.Millisecond
	tickLines = int(latencyRate * tick / time.Second)
)

// node writes lines that carry the time of their write. It calls written with the end of the file after each write.
func node(ctx context.Context, f *os.File, written func(end int64, at time.Time)) error {
	g, err := gen.New(gen.Options{Source: gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}, Seed: 1})
	if err != nil {
		return err
	}
	var lines []byte
	total := int64(0)
	began := time.Now()
	for n := range int(latencyFor / tick) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(began.Add(time.Duration(n) * tick))):
		}
		now := time.Now()
		lines = lines[:0]
		for range tickLines {
			lines, _ = g.AppendLine(lines, now)
		}
		if _, err := f.Write(lines); err != nil {
			return fmt.Errorf("writing the node's lines: %w", err)
		}
		total += int64(len(lines))
		written(total, now)
	}
	return nil
}

// hour creates the file that the node writes to, and returns hlparser's flags to follow it.
func (b *bench) hour() (f *os.File, flags []string, err error) {
	set := dataset{dir: filepath.Join(b.dir, "live"), source: gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}}
	err = errors.Join(os.RemoveAll(set.dir), os.MkdirAll(filepath.Dir(set.file()), 0o755))
	if err == nil {
		f, err = os.OpenFile(set.file(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("creating the hour's file: %w", err)
	}
	return f, append(set.flags(), "--format", "raw"), nil
}

func (b *bench) untilReadable(ctx context.Context) ([]time.Duration, error) {
	say("latency to the record, %s", latencyFor)
	f, flags, err := b.hour()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	out, err := b.output()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, b.hlparser, b.arguments(out, append(flags, "--sink", "stdout")...)...)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("creating a pipe for the records: %w", err)
	}
	defer func() { _ = r.Close() }()
	cmd.Stdout = w
	p, err := b.ready(ctx, cmd)
	if closeErr := w.Close(); err != nil || closeErr != nil {
		return nil, errors.Join(err, closeErr)
	}

	want := int(latencyFor/tick) * tickLines
	ages := make([]time.Duration, 0, want)
	group, running := errgroup.WithContext(ctx)
	// The reader must not wait for records after the node has failed.
	defer context.AfterFunc(running, func() { _ = r.Close() })()
	group.Go(func() error { return node(running, f, func(int64, time.Time) {}) })
	group.Go(func() error {
		records := bufio.NewReaderSize(r, 1<<20)
		for len(ages) < want {
			line, err := records.ReadSlice('\n')
			if err != nil {
				return fmt.Errorf("reading record %d of %d: %w", len(ages)+1, want, err)
			}
			at, err := timeOf(line)
			if err != nil {
				return err
			}
			ages = append(ages, time.Since(at))
		}
		return nil
	})
	err = group.Wait()
	_, stopErr := p.stop(time.Now(), time.Now())
	slices.Sort(ages)
	return ages, errors.Join(err, stopErr)
}

// timeOf returns when a line was written, according to its first field.
func timeOf(line []byte) (time.Time, error) {
	const prefix, layout = `{"time":"`, "2006-01-02T15:04:05.000000000"
	if !bytes.HasPrefix(line, []byte(prefix)) || len(line) < len(prefix)+len(layout) {
		return time.Time{}, fmt.Errorf("reading a record's time: there is none in %.100s", line)
	}
	at, err := time.Parse(layout, string(line[len(prefix):len(prefix)+len(layout)]))
	if err != nil {
		return time.Time{}, fmt.Errorf("reading a record's time: %w", err)
	}
	return at.Add(nodeDelay), nil
}

// untilDurable polls the parser for how much the checkpoint on disk covers, and when it was written.
func (b *bench) untilDurable(ctx context.Context) ([]time.Duration, error) {
	say("latency to the checkpoint, %s", latencyFor)
	f, flags, err := b.hour()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	out, err := b.output()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	flags = append(flags, "--sink", "file:"+filepath.Join(out, "records"), "--min-free-percent", "0", "--listen", address)
	p, err := b.ready(ctx, exec.CommandContext(ctx, b.hlparser, b.arguments(out, flags...)...))
	if err != nil {
		return nil, err
	}

	type write struct {
		end int64
		at  time.Time
	}
	writes := make(chan write, int(latencyFor/tick))
	var group errgroup.Group
	group.Go(func() error {
		defer close(writes)
		return node(ctx, f, func(end int64, at time.Time) { writes <- write{end, at} })
	})
	var ages []time.Duration
	group.Go(func() error {
		var r report.Report
		for next := range writes {
			for len(r.Streams) == 0 || r.Streams[0].CommittedBytesTotal < next.end || r.Streams[0].LastCommitAt == nil {
				if time.Since(next.at) > 30*time.Second {
					return errors.New("no checkpoint for 30 s")
				}
				// Poll far more often than commits occur, so that each one is observed: a second commit would hide the
				// first.
				if err := p.pause(ctx, 20*time.Millisecond); err != nil {
					return err
				}
				if err := get(ctx, address, &r); err != nil {
					return err
				}
			}
			ages = append(ages, r.Streams[0].LastCommitAt.Sub(next.at))
		}
		return nil
	})
	err = group.Wait()
	_, stopErr := p.stop(time.Now(), time.Now())
	slices.Sort(ages)
	return ages, errors.Join(err, stopErr)
}

// ready starts hlparser and waits until it follows its files.
func (b *bench) ready(ctx context.Context, cmd *exec.Cmd) (*process, error) {
	p, err := start(cmd)
	if err != nil {
		return nil, err
	}
	return p, p.pause(ctx, time.Second)
}

// freeAddress returns an address for the report. It is unlikely that another process takes it before hlparser listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

func get(ctx context.Context, address string, r *report.Report) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", strings.NewReader(""))
	if err != nil {
		return fmt.Errorf("requesting the report: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("requesting the report: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	*r = report.Report{}
	if err := json.Unmarshal(body, r); err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	return nil
}
