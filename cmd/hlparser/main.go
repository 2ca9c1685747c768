// Command hlparser tails the output of a Hyperliquid node, filters it and delivers it. The operator runs it in pods,
// and it also runs on its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/version"
)

const (
	exitFailure = 1 // an error at run time
	exitUsage   = 2 // a setting is invalid: one line names it
)

// usageError marks an error in the command line or the configuration.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A sink whose reader has gone detects that by the write's error, and ends in order.
	signal.Ignore(syscall.SIGPIPE)
	err := command().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "hlparser: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	var field *config.FieldError
	if errors.As(err, new(usageError)) || errors.As(err, &field) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "hlparser",
		Short:         "Tail, filter and deliver the output of a Hyperliquid node",
		Version:       version.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), checkCommand(), checkpointCommand(), prepareCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", root.Name(), root.Version)
			return err
		},
	})
	for _, c := range root.Commands() {
		c.SetFlagErrorFunc(root.FlagErrorFunc())
	}
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q is not a setting of %s: settings are flags, see --help", args[0], cmd.Name())}
	}
	return nil
}
