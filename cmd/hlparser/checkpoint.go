package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/merge"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

func checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "checkpoint", Short: "Show and change positions"}
	cmd.AddCommand(checkpointShowCommand(), checkpointSetCommand(), checkpointForgetCommand())
	return cmd
}

func checkpointShowCommand() *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the checkpoints of a state directory",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if stateDir == "" {
				return usageError{errors.New("state-dir: is missing: name the parser's state directory")}
			}
			streams, err := checkpoint.Streams(vfs.PrivateOS, stateDir)
			if err != nil {
				return err
			}
			states := make(map[string]checkpoint.State, len(streams))
			for _, stream := range streams {
				loaded, err := checkpoint.Show(vfs.PrivateOS, stateDir, stream)
				if err != nil {
					return err
				}
				for _, damaged := range loaded.SetAside {
					cmd.PrintErrln("damaged: " + damaged)
				}
				states[stream] = loaded.State
			}
			out := json.NewEncoder(cmd.OutOrStdout())
			out.SetIndent("", "  ")
			return out.Encode(states)
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "state directory of the parser")
	return cmd
}

func checkpointSetCommand() *cobra.Command {
	var stateDir, stream, at string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set a stream's position in one file, while no parser runs",
		Example: "  hlparser checkpoint set --state-dir state --stream fills " +
			"--position node_fills_by_block/20260430/20@1a2b3c4d:6734:0",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if stateDir == "" {
				return usageError{errors.New("state-dir: is missing: name the parser's state directory")}
			}
			s, err := config.ParseStreamFlag(stream)
			if err != nil {
				return usageError{fmt.Errorf("stream: %w", err)}
			}
			to, err := position.Parse(at)
			if err != nil {
				return usageError{fmt.Errorf("position: %w", err)}
			}
			if to.Index != 0 {
				return usageError{fmt.Errorf("position: %q: the index must be 0: a position is the start of a line", at)}
			}
			lock, err := checkpoint.Lock(cmd.Context(), vfs.PrivateOS, stateDir, func() {
				cmd.PrintErrln("a parser uses the state directory; waiting for it to stop")
			})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, lock.Close()) }()
			store, err := checkpoint.Open(vfs.PrivateOS, stateDir, s.Name.Kebab())
			if err != nil {
				return err
			}
			loaded, err := store.Load()
			if err != nil {
				return err
			}
			if !loaded.Found {
				return fmt.Errorf("stream %s has no checkpoint in %s", s.Name.Kebab(), stateDir)
			}
			if err := loaded.State.SetOffset(to.File, to.Offset); err != nil {
				return usageError{fmt.Errorf("position: %w", err)}
			}
			if err := store.Save(loaded.State); err != nil {
				return err
			}
			return store.Fold()
		},
	}
	f := cmd.Flags()
	f.StringVar(&stateDir, "state-dir", "", "state directory of the parser")
	f.StringVar(&stream, "stream", "", "stream, such as order-statuses")
	f.StringVar(&at, "position", "", "next line to read: <directory>/<date>/<hour>@<generation>:<offset>:0")
	return cmd
}

func checkpointForgetCommand() *cobra.Command {
	var stateDir, stream string
	cmd := &cobra.Command{
		Use:   "forget",
		Short: "Start a stream whose checkpoint is lost as a new one",
		Long: `Start a stream that has no checkpoint as a new one, according to startAt, when the parser
starts next. What the node wrote since the last checkpoint may be skipped or delivered twice.
A checkpoint that is restored before that is used instead.`,
		Example: "  hlparser checkpoint forget --state-dir state --stream fills",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if stateDir == "" {
				return usageError{errors.New("state-dir: is missing: name the parser's state directory")}
			}
			name := merge.Stream
			if stream != name {
				s, err := config.ParseStreamFlag(stream)
				if err != nil {
					return usageError{fmt.Errorf("stream: %w", err)}
				}
				name = s.Name.Kebab()
			}
			if err := checkpoint.Forget(vfs.PrivateOS, stateDir, name); err != nil {
				return err
			}
			cmd.PrintErrf("stream %s starts as a new one at the next start of its parser\n", name)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&stateDir, "state-dir", "", "state directory of the parser")
	f.StringVar(&stream, "stream", "", "stream, such as order-statuses; blocks: the merged stream of --order")
	return cmd
}
