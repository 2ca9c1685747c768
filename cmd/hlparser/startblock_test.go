package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

// The real binary is killed after it has searched for its first block and before its first commit, while the node
// writes on. It then starts at the same block, and delivers everything from there once.
func TestAStartAtABlockThroughKill9BeforeTheFirstCommit(t *testing.T) {
	for _, first := range []int{57, 120} { // on disk, and not written yet
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			dir := t.TempDir()
			state, out := filepath.Join(dir, "state"), filepath.Join(dir, "out")
			written := 0
			write := func(blocks int) {
				t.Helper()
				for range blocks {
					written++
					appendTo(t, filepath.Join(dir, "data/node_order_statuses_by_block/hourly/20260430", fmt.Sprint(written/40)),
						fmt.Sprintf(`{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",`+
							`"block_number":%d,"events":[%s]}`+"\n", written, status(written)))
				}
			}
			args := []string{"run", "--data-dir", filepath.Join(dir, "data"), "--state-dir", state, "--stream",
				"order-statuses", "--start-at", fmt.Sprintf("block:%d", first), "--sink", "file:" + out, "--format", "raw"}
			committed := func() bool {
				loaded, err := checkpoint.Show(vfs.OS, state, "order-statuses")
				return err == nil && loaded.Found
			}
			write(100)
			before := 0
			for range 5 {
				cmd := hlparser(t.Context(), args...)
				logs, err := cmd.StderrPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				searched := false
				for lines := bufio.NewScanner(logs); !searched && lines.Scan(); {
					searched = strings.Contains(lines.Text(), "startAtBlock")
				}
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				if !searched {
					t.Fatal("the parser ended before it searched for its block")
				}
				write(2)
				if committed() {
					break
				}
				before++
			}
			if before == 0 {
				t.Log("the parser was never killed before its first commit: the machine is too fast")
			}
			write(40)
			if text, err := hlparser(t.Context(), append(args, "--once")...).CombinedOutput(); err != nil {
				t.Fatalf("the last run: %v\n%s", err, text)
			}
			var want strings.Builder
			for block := first; block <= written; block++ {
				want.WriteString(status(block) + "\n")
			}
			names, err := filepath.Glob(filepath.Join(out, "order-statuses", "*"))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				got.Write(text)
			}
			if got.String() != want.String() {
				t.Errorf("after %d kills: %d records from %.250q; want %d from block %d", before,
					strings.Count(got.String(), "\n"), got.String(), written-first+1, first)
			}
		})
	}
}
