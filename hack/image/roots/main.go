// Command roots writes the CA certificates that the image trusts, those of Mozilla's program without constraints, to a
// file in PEM form.
//
//	go run ./roots FILE
package main

import (
	"fmt"
	"os"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/archive"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: roots FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], archive.Roots(), 0o644); err != nil {
		fmt.Fprintf(os.Stderr, "roots: %v\n", err)
		os.Exit(1)
	}
}
