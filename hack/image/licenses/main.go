// Command licenses writes the licences of everything that is linked into the image's programs to THIRD_PARTY_LICENSES,
// which is part of the image. It fails if a licence is not known or not allowed: a person must read it.
//
//	go -C hack/image run ./licenses
package main

import (
	"context"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "licenses: %v\n", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	modules, err := license.Collect(ctx, root, license.Platforms(), license.Programs())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, license.File), license.Format(modules), 0o644); err != nil {
		return fmt.Errorf("writing the licences: %w", err)
	}
	return nil
}
