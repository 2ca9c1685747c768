package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The soak test runs the real binary next to a node, a pruner and all faults around them, for the duration in
// HLPARSER_SOAK, and until it was killed HLPARSER_SOAK_KILLS times, if set. HLPARSER_SOAK_SEED repeats the random
// choices of each participant; their interleaving depends on the machine.
const (
	soakFor   = "HLPARSER_SOAK"
	soakKills = "HLPARSER_SOAK_KILLS"
	soakSeed  = "HLPARSER_SOAK_SEED"
)

const (
	soakUser            = 65534           // the parser's user, if the test runs as root
	soakDeliveryTimeout = 4 * time.Minute // until an event must have been delivered
)

func soakNumber(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

func soakFill(event, block int) string {
	return fmt.Sprintf(`["0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",{"coin":"BTC","px":"76466.0","sz":"0.0686",`+
		`"side":"B","time":1777582003304,`+
		`"dir":"Open Long","oid":%d,"crossed":true,"fee":"0.1","tid":%d,"feeToken":"USDC"}]`, block, event)
}

func soakDiff(event, block int) string {
	return fmt.Sprintf(`{"user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702","oid":%d,"coin":"BTC","side":"B",`+
		`"px":"76466.0",`+
		`"raw_book_diff":{"new":{"sz":"%d.5"}}}`, event, block)
}

// soak is a node, its parsers, and the faults around them.
type soak struct {
	t       *testing.T
	seed    uint64
	dir     string
	root    bool // the parsers run as another user
	mount   *soakMount
	streams []*soakStream
	parsers []*soakParser

	began   time.Time
	written map[*soakStream][]int // number of events, minute by minute
}

// randomSource returns the random source of a participant.
func (k *soak) randomSource(who uint64) *rand.Rand { return rand.New(rand.NewPCG(k.seed, who)) }

// makeDir creates a directory.
func (k *soak) makeDir(name string) string {
	k.t.Helper()
	path := filepath.Join(k.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		k.t.Fatal(err)
	}
	return path
}

func newSoak(t *testing.T, seed uint64) *soak {
	t.Helper()
	k := &soak{t: t, seed: seed, root: os.Geteuid() == 0, written: map[*soakStream][]int{}}
	var err error
	if k.dir, err = os.MkdirTemp("", "hlparser-soak-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the files of the failed test are in %s", k.dir)
		} else if err := os.RemoveAll(k.dir); err != nil {
			t.Error(err)
		}
	})
	k.mount = &soakMount{link: filepath.Join(k.dir, "data"), volume: k.makeDir("volume"), empty: k.makeDir("empty")}
	if err := k.mount.point(k.mount.volume); err != nil {
		t.Fatal(err)
	}
	k.streams = []*soakStream{
		{flag: "order-statuses:line", name: "order-statuses", dir: "node_order_statuses", key: `"oid":`,
			text: func(event, _ int) string { return status(event) }},
		{flag: "fills:by-block", name: "fills", dir: "node_fills_by_block", key: `"tid":`, text: soakFill, chain: true,
			byBlock: true, strict: true},
		{flag: "raw-book-diffs:streaming", name: "raw-book-diffs", dir: "node_raw_book_diffs_streaming", key: `"oid":`,
			text: soakDiff, chain: true, strict: true},
	}
	for i, s := range k.streams {
		s.data, s.rand, s.hours, s.begun, s.markers = k.mount.volume, k.randomSource(uint64(10+i)), map[int]*soakFile{},
			map[int]bool{}, map[string]int{}
	}

	// A user other than root may not read everything, and may not execute files in the go command's directory.
	command := os.Args[0]
	if k.root {
		command = filepath.Join(k.dir, "hlparser")
		text, err := os.ReadFile(os.Args[0])
		if err := errors.Join(err, os.WriteFile(command, text, 0o755), os.Chmod(k.dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Log("only root can take permissions from the parser: faults of unreadable files are skipped")
	}
	k.parsers = []*soakParser{k.parser("line", command, k.streams[:1]),
		k.parser("chain", command, k.streams[1:], "--deduplicate-blocks", "--markers")}
	return k
}

func (k *soak) parser(name, command string, streams []*soakStream, args ...string) *soakParser {
	k.t.Helper()
	home := k.makeDir("parser-" + name)
	p := &soakParser{
		name: name, command: command, streams: streams,
		state: filepath.Join(home, "state"), out: filepath.Join(home, "out"), logs: filepath.Join(home, "logs"),
	}
	p.args = append([]string{"run", "--data-dir", k.mount.link, "--state-dir", p.state, "--sink", "file:" + p.out,
		"--format", "raw", "--start-at", "beginning",
		"--max-size", "128Ki", "--max-age", "3s", "--min-free-percent", "0", "--shutdown-timeout", "5s", "--listen",
		"127.0.0.1:0"}, args...)
	for _, s := range streams {
		p.args = append(p.args, "--stream", s.flag)
	}
	if k.root {
		p.user = &syscall.Credential{Uid: soakUser, Gid: soakUser}
		if err := os.Chown(home, soakUser, soakUser); err != nil {
			k.t.Fatal(err)
		}
	}
	return p
}

// run runs all participants until enough is done. After that nothing is out of sight, and everything that the node
// wrote is on disk.
func (k *soak) run(enough func() bool) error {
	ctx, end := context.WithCancelCause(k.t.Context())
	defer end(nil)
	together := func(in *sync.WaitGroup, do func() error) {
		in.Go(func() {
			if err := do(); err != nil {
				end(err)
			}
		})
	}
	var node, rest sync.WaitGroup
	writing, halt := context.WithCancel(ctx)
	defer halt()
	faulty, heal := context.WithCancel(ctx)
	defer heal()
	k.began = time.Now()
	aside := k.makeDir("aside")
	for i, s := range k.streams {
		together(&node, func() error { return s.write(writing) })
		together(&rest, func() error { return s.faults(faulty, k.randomSource(uint64(20+i)), aside, k.root) })
		together(&rest, func() error { return soakRepeat(faulty, time.Second, s.prune) })
	}
	together(&rest, func() error { return k.mount.faults(faulty, k.randomSource(30)) })
	for i, p := range k.parsers {
		together(&rest, func() error { return p.run(faulty, k.randomSource(uint64(40+i))) })
		if k.root {
			together(&rest, func() error { return p.outputFaults(faulty, k.randomSource(uint64(50+i))) })
		}
		together(&rest, func() error { return soakRepeat(faulty, 100*time.Millisecond, p.consume) })
		together(&rest, func() error { return soakRepeat(faulty, time.Second, p.prune) })
	}
	for minute := k.began.Add(time.Minute); ctx.Err() == nil &&
		!enough(); soakSleep(ctx, min(time.Until(minute), time.Second)) {
		if time.Now().Before(minute) {
			continue
		}
		minute = minute.Add(time.Minute)
		k.logProgress()
		if err := k.overdue(); err != nil {
			end(err)
		}
	}
	halt()
	node.Wait()
	heal()
	rest.Wait()
	return context.Cause(ctx)
}

// overdue returns an error for events that were written long ago and not delivered. It is called once per minute.
func (k *soak) overdue() error {
	for _, s := range k.streams {
		k.written[s] = append(k.written[s], s.written())
		if n := len(k.written[s]) - int(soakDeliveryTimeout/time.Minute); n > 0 {
			if err := s.missing(k.written[s][n-1]); err != nil {
				return fmt.Errorf("after %v: %w", soakDeliveryTimeout, err)
			}
		}
	}
	return nil
}

// finish lets the parsers read to the end, and checks that everything was delivered.
func (k *soak) finish() error {
	var all error
	for _, p := range k.parsers {
		all = errors.Join(all, p.finish(k.t.Context()))
	}
	for _, s := range k.streams {
		all = errors.Join(all, s.missing(s.written()))
	}
	return all
}

// logProgress logs what happened so far.
func (k *soak) logProgress() {
	var b strings.Builder
	fmt.Fprintf(&b, "after %v:", time.Since(k.began).Round(time.Second))
	for _, s := range k.streams {
		s.mu.Lock()
		fmt.Fprintf(&b, "\n  %s: %d events of %d delivered; %s", s.name, s.got, len(s.events), &s.counts)
		if len(s.markers) > 0 {
			fmt.Fprintf(&b, "; markers %v", s.markers)
		}
		s.mu.Unlock()
	}
	for _, p := range k.parsers {
		fmt.Fprintf(&b, "\n  parser %s: %s", p.name, &p.counts)
	}
	k.t.Logf("%s\n  mount: %s", &b, &k.mount.counts)
}

// TestSoak is TestNothingIsLostOrDoubledThroughKill9 for any duration, and with all faults that are beyond the parser's
// control: three streams in three modes, many hours, late lines, nodes that exit within a line and write their last
// blocks again, hours that are pruned and recreated, directories and mounts that are out of sight, and a pruner of the
// parser's own files.
func TestSoak(t *testing.T) {
	if os.Getenv(soakFor) == "" {
		t.Skipf("set %s to a duration, such as 10m, or run make soak; "+
			"TestNothingIsLostOrDoubledThroughKill9 is the short form",
			soakFor)
	}
	duration, err := time.ParseDuration(os.Getenv(soakFor))
	if err != nil {
		t.Fatal(err)
	}
	atLeast, seed := soakNumber(t, soakKills, 0), soakNumber(t, soakSeed, time.Now().Nanosecond())
	t.Logf("%s=%d", soakSeed, seed)
	k := newSoak(t, uint64(seed))
	err = k.run(func() bool {
		kills := 0
		for _, p := range k.parsers {
			kills += p.counts.count("kills")
		}
		return time.Since(k.began) >= duration && kills >= atLeast
	})
	if err == nil {
		err = k.finish()
	}
	k.logProgress()
	if err != nil {
		t.Fatalf("%s=%d: %v", soakSeed, seed, err)
	}
}
