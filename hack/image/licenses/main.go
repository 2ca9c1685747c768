// Command licenses writes the licences of everything that is linked into the image's programs to THIRD_PARTY_LICENSES,
// which is part of the image, or those of another program to another file. It fails if a licence is not known or not
// allowed: a person must read it.
//
//	go -C hack/image run ./licenses
//	go -C hack/image run ./licenses --program ./cmd/kubectl-hlp --out /tmp/THIRD_PARTY_LICENSES
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/license"
)

// root is the repository, from hack/image.
var root = filepath.Join("..", "..")

func main() {
	program := flag.String("program", "", "package of another program, from the root of the repository")
	out := flag.String("out", filepath.Join(root, license.File), "file to write")
	flag.Parse()
	programs := license.Programs()
	if *program != "" {
		programs = []string{*program}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, programs, *out); err != nil {
		fmt.Fprintf(os.Stderr, "licenses: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, programs []string, out string) error {
	modules, err := license.Collect(ctx, root, license.Platforms(), programs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, license.Format(modules), 0o644); err != nil {
		return fmt.Errorf("writing the licences: %w", err)
	}
	return nil
}
