// Command kafka runs a real Apache Kafka on this machine until it is interrupted:
//
//	go run ./hack/kafka
//
// It prints only the addresses of the brokers on standard output, once they serve transactions. It needs Java 17 or
// later, and the first time Maven.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/hack/kafka/broker"
)

// exitMissing is the exit code if Java or Maven is missing.
const exitMissing = 2

func main() {
	var opts broker.Options
	flag.IntVar(&opts.Brokers, "brokers", 1, "number of brokers: 1 or 3")
	flag.StringVar(&opts.Host, "host", "127.0.0.1", "name or address that the brokers listen on and advertise")
	flag.IntVar(&opts.Port, "port", 9092, "first broker's port; the others have the next ones; 0: free ones")
	flag.StringVar(&opts.Dir, "dir", "", "directory of data and logs, kept; defaults to a temporary one, removed in the end")
	flag.BoolVar(&opts.Secure, "secure", false, "TLS, and SCRAM-SHA-512 as the user "+broker.Admin+
		" with the password "+broker.AdminPassword)
	flag.IntVar(&opts.HeapMiB, "heap", 256, "each broker's heap in MiB")
	prepare := flag.Bool("prepare", false, fmt.Sprintf("only download Kafka; exit code %d: Java or Maven is missing",
		exitMissing))
	flag.Parse()
	opts.Say = say

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *prepare {
		err = broker.Prepare(ctx, say)
	} else {
		err = run(ctx, opts)
	}
	if err == nil {
		return
	}
	say("%v", err)
	if errors.Is(err, broker.ErrMissing) {
		os.Exit(exitMissing)
	}
	os.Exit(1)
}

// run runs the brokers until ctx ends or one of them does.
func run(ctx context.Context, opts broker.Options) (err error) {
	if opts.Dir == "" {
		if opts.Dir, err = os.MkdirTemp("", "kafka-"); err != nil {
			return fmt.Errorf("creating the directory of data: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(opts.Dir)) }()
	} else if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return fmt.Errorf("creating the directory of data: %w", err)
	}
	say("starting Kafka %s; data and logs are in %s", broker.Version(), opts.Dir)
	cluster, err := broker.Start(ctx, opts)
	if err != nil {
		return err
	}
	defer cluster.Close()
	addresses := strings.Join(cluster.Addresses(), ",")
	fmt.Println(addresses)
	if opts.Secure {
		cert, key := cluster.ClientCertificate()
		say("authority: %s; a client's certificate, which is optional: %s and %s", cluster.CAFile(), cert, key)
	} else {
		say("deliver to it with --sink 'kafka://%s/hl.{stream}?create=true'", addresses)
	}
	ended := make(chan int, opts.Brokers)
	for i := range opts.Brokers {
		go func() {
			<-cluster.Done(i)
			ended <- i
		}()
	}
	select {
	case <-ctx.Done():
		say("stopping")
		return nil
	case i := <-ended:
		return fmt.Errorf("broker %d has ended on its own: see %s", i+1, cluster.LogFile(i))
	}
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "kafka: "+format+"\n", args...)
}
