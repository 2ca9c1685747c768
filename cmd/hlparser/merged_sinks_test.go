package main

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// mergedNATS is a NATS server that stores the stream's position with its records, and so may be ahead of the checkpoint
// when the parser is killed.
func mergedNATS(t *testing.T) mergedSink {
	url := "nats://" + startNATS(t, server.Options{})
	return mergedSink{
		args: []string{"--sink", url + "/HL?create=true&subject=hl.{stream}&delivery=ExactlyOnce"},
		records: func(ctx context.Context) iter.Seq2[string, string] {
			return func(yield func(string, string) bool) {
				if err := readNATS(ctx, url, yield); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
}

// startNATS starts a NATS server with JetStream on a free port, and returns its address.
func startNATS(t *testing.T, opts server.Options) string {
	t.Helper()
	opts.Host, opts.Port, opts.JetStream, opts.StoreDir = "127.0.0.1", server.RANDOM_PORT, true, t.TempDir()
	opts.NoSigs, opts.NoLog = true, true
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s.Addr().String()
}

// readNATS yields the messages of the stream HL, without those that hold a position.
func readNATS(ctx context.Context, url string, yield func(string, string) bool) error {
	conn, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, "HL")
	if err != nil {
		return err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"hl.>"}})
	if err != nil {
		return err
	}
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	for left := info.NumPending; left > 0; {
		messages, err := consumer.Fetch(int(min(left, 1000)), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return err
		}
		before := left
		for m := range messages.Messages() {
			left--
			if !yield(m.Headers().Get("Hl-Position"), string(m.Data())+"\n") {
				return nil
			}
		}
		if err := messages.Error(); err != nil || left == before {
			return errors.Join(err, errors.New("the server does not deliver what it has"))
		}
	}
	return nil
}
