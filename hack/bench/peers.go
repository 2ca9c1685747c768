package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	// collectorBuild bounds the first build of the collector. Later builds use Go's cache.
	collectorBuild = 10 * time.Minute
	// peerLimit bounds the run of a peer.
	peerLimit = 5 * time.Minute
)

const rsyslogConfig = `
global(workDirectory="%[1]s" maxMessageSize="64k")
module(load="imfile")
main_queue(queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="2048")
template(name="line" type="string" string="%%msg%%\n")
input(type="imfile" file="%[2]s" tag="bench")
if $msg contains '"coin":"BTC"' then action(type="omfile" file="%[3]s" template="line")
`

// runRsyslog returns a function that runs a separate instance of rsyslog: own files, no socket, no system log.
func (b *bench) runRsyslog(data dataset) func(context.Context) (usage, error) {
	return func(ctx context.Context) (usage, error) {
		out, err := b.output()
		if err != nil {
			return usage{}, err
		}
		records, conf := filepath.Join(out, "records"), filepath.Join(out, "rsyslog.conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, rsyslogConfig, out, data.file(), records), 0o644); err != nil {
			return usage{}, fmt.Errorf("writing rsyslog's configuration: %w", err)
		}
		cmd := exec.CommandContext(ctx, "rsyslogd", "-n", "-f", conf, "-i", filepath.Join(out, "pid"))
		return b.untilAllIsThere(ctx, cmd, data, records, "\n")
	}
}

const collectorConfig = `
receivers:
  file_log:
    include: [%q]
    start_at: beginning
    operators:
    - type: json_parser
    - type: filter
      expr: attributes.order.coin != "BTC"
exporters:
  file:
    path: %q
    flush_interval: 100ms
service:
  telemetry:
    logs: {level: error}
    metrics: {level: none}
  pipelines:
    logs:
      receivers: [file_log]
      exporters: [file]
`

// runCollector builds the OpenTelemetry Collector. absent says why it is not available.
func (b *bench) runCollector(
	ctx context.Context, data dataset,
) (run func(context.Context) (usage, error), absent string) {
	say("building the collector (some minutes the first time)")
	ctx, cancel := context.WithTimeout(ctx, collectorBuild)
	defer cancel()
	program := filepath.Join(b.dir, "collector")
	build := exec.CommandContext(ctx, "go", "-C", "hack/bench/collector",
		"build", "-mod=mod", "-trimpath", "-o", program, ".")
	if _, err := timed(build); err != nil {
		return nil, err.Error()
	}
	return func(ctx context.Context) (usage, error) {
		out, err := b.output()
		if err != nil {
			return usage{}, err
		}
		records, conf := filepath.Join(out, "records"), filepath.Join(out, "collector.yaml")
		if err := os.WriteFile(conf, fmt.Appendf(nil, collectorConfig, data.file(), records), 0o644); err != nil {
			return usage{}, fmt.Errorf("writing the collector's configuration: %w", err)
		}
		cmd := exec.CommandContext(ctx, program, "--config", conf)
		return b.untilAllIsThere(ctx, cmd, data, records, `"body":{`)
	}, ""
}

// untilAllIsThere runs a program that does not end on its own, until its output holds as many records as the bare
// loop's. mark occurs once in each record.
func (b *bench) untilAllIsThere(ctx context.Context, cmd *exec.Cmd, data dataset, records, mark string) (usage, error) {
	reference := filepath.Join(b.dir, "reference")
	if err := bareLoop(data.file(), reference); err != nil {
		return usage{}, err
	}
	want := counter{path: reference, mark: []byte("\n")}
	if err := want.update(); err != nil {
		return usage{}, err
	}
	if err := os.Remove(reference); err != nil {
		return usage{}, fmt.Errorf("removing the reference: %w", err)
	}

	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	began := time.Now()
	p, err := start(cmd)
	if err != nil {
		return usage{}, err
	}
	got := counter{path: records, mark: []byte(mark)}
	for {
		err := p.pause(ctx, 20*time.Millisecond)
		if err == nil {
			err = got.update()
		}
		switch {
		case err != nil:
			_, stopErr := p.stop(began, time.Now())
			return usage{}, errors.Join(fmt.Errorf("waiting for records, %d of %d received: %w", got.marks, want.marks, err),
				stopErr)
		case got.marks > want.marks:
			_, stopErr := p.stop(began, time.Now())
			return usage{}, errors.Join(fmt.Errorf("received %d records, want %d", got.marks, want.marks), stopErr)
		case got.marks == want.marks:
			return p.stop(began, time.Now())
		}
	}
}

// counter counts marks in a growing file.
type counter struct {
	path  string
	mark  []byte
	marks int
	at    int64
}

func (c *counter) update() error {
	f, err := os.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("opening the output: %w", err)
	}
	defer func() { _ = f.Close() }()
	piece := make([]byte, 1<<20)
	for {
		n, err := f.ReadAt(piece, c.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the output: %w", err)
		}
		c.marks += bytes.Count(piece[:n], c.mark)
		// A mark that spans the end of this piece is found in the next one.
		step := int64(n - len(c.mark) + 1)
		if step <= 0 {
			return nil
		}
		c.at += step
		if n < len(piece) {
			return nil
		}
	}
}
