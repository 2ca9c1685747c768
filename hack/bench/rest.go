package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/hack/hlgen/gen"
	"github.com/hlparser/hyperliquid-parser-operator/hack/results"
)

// atRest measures an idle parser with more than a year of old hourly files.
func (b *bench) atRest(ctx context.Context) (string, error) {
	const files, settled, watched = 10_000, 8 * time.Second, 20 * time.Second
	set := dataset{dir: filepath.Join(b.dir, "rest"), source: gen.Source{Stream: gen.OrderStatuses, Mode: gen.Line}}
	g, err := gen.New(gen.Options{Source: set.source, Seed: 1})
	if err != nil {
		return "", err
	}
	var line []byte
	for i := range files {
		hour := noon.Add(time.Duration(-i) * time.Hour)
		day := filepath.Join(set.dir, filepath.FromSlash(set.source.Dir()), hour.Format("20060102"))
		path := filepath.Join(day, strconv.Itoa(hour.Hour()))
		line, _ = g.AppendLine(line[:0], hour)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, line, 0o644)); err != nil {
			return "", fmt.Errorf("writing an old hour: %w", err)
		}
	}
	out, err := b.output()
	if err != nil {
		return "", err
	}
	say("at rest, %s", settled+watched)
	cmd := exec.CommandContext(ctx, b.hlparser, append(b.arguments(out, set.flags()...), "--sink", "stdout")...)
	began := time.Now()
	p, err := start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.pause(ctx, settled); err != nil {
		return "", err
	}
	before, err := results.CPUOf(p.cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	since := time.Now()
	if err := p.pause(ctx, watched); err != nil {
		return "", err
	}
	after, err := results.CPUOf(p.cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	share := float64(after-before) / float64(time.Since(since)) * 100
	u, err := p.stop(began, time.Now())
	if err != nil {
		return "", err
	}
	t := results.Table{{"an idle directory with 10,000 old files", "of a core", peakColumn, wantedColumn, reachedColumn}}
	t.Row(fmt.Sprintf("over %s", watched), fmt.Sprintf("%.2f %%", share), u.peakText(), "< 1 %",
		results.Reached(share < 1))
	return "### At rest\n\n" + t.String(), nil
}
