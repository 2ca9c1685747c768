// Command kubectl-hlp is the kubectl plugin that shows and steers Hyperliquid parsers: kubectl hlp.
package main

import (
	"os"

	"github.com/hlparser/hyperliquid-parser-operator/internal/kubectl"
)

func main() { os.Exit(kubectl.Main()) }
