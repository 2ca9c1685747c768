package main

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mergedSink is where the merged stream is delivered, and how a test reads it.
type mergedSink struct {
	args []string
	// records yields what is delivered, in order, and where it is.
	records func(ctx context.Context) iter.Seq2[string, string]
}

func mergedFiles(t *testing.T) mergedSink {
	out := t.TempDir()
	return mergedSink{
		args: []string{"--sink", "file:" + out, "--max-size", "128Ki"},
		records: func(context.Context) iter.Seq2[string, string] {
			return func(yield func(string, string) bool) {
				names, err := filepath.Glob(filepath.Join(out, "blocks", "*")) // in the order of positions
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range names {
					content, err := os.ReadFile(name)
					if err == nil && !strings.HasSuffix(name, ".jsonl") {
						err = errors.New("it was left behind")
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					for line := range strings.Lines(string(content)) {
						if !yield(filepath.Base(name), line) {
							return
						}
					}
				}
			}
		},
	}
}
