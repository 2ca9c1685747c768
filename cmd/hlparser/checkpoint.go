package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/checkpoint"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/vfs"
)

func checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "checkpoint", Short: "See and move positions by hand"}
	cmd.AddCommand(checkpointShowCommand(), checkpointSetCommand())
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
			streams, err := checkpoint.Streams(vfs.OS, stateDir)
			if err != nil {
				return err
			}
			states := make(map[string]checkpoint.State, len(streams))
			for _, stream := range streams {
				loaded, err := checkpoint.Show(vfs.OS, stateDir, stream)
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
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "the parser's state directory")
	return cmd
}

func checkpointSetCommand() *cobra.Command {
	var stateDir, stream, position string
	cmd := &cobra.Command{
		Use:     "set",
		Short:   "Move a stream's position in one file, while no parser runs",
		Example: "  hlparser checkpoint set --state-dir state --stream fills --position node_fills_by_block/20260430/20@1a2b3c4d:6734:0",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if stateDir == "" {
				return usageError{errors.New("state-dir: is missing: name the parser's state directory")}
			}
			s, err := config.ParseStreamFlag(stream)
			if err != nil {
				return usageError{fmt.Errorf("stream: %w", err)}
			}
			to, err := checkpoint.ParsePosition(position)
			if err != nil {
				return usageError{fmt.Errorf("position: %w", err)}
			}
			if to.Index != 0 {
				return usageError{fmt.Errorf("position: %q: the index must be 0: a position is the start of a line", position)}
			}
			lock, err := checkpoint.Lock(cmd.Context(), vfs.OS, stateDir, func() {
				cmd.PrintErrln("a parser uses the state directory; waiting for it to stop")
			})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, lock.Close()) }()
			store, err := checkpoint.Open(vfs.OS, stateDir, s.Name.Kebab())
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
			return store.Save(loaded.State)
		},
	}
	f := cmd.Flags()
	f.StringVar(&stateDir, "state-dir", "", "the parser's state directory")
	f.StringVar(&stream, "stream", "", "the stream, as order-statuses")
	f.StringVar(&position, "position", "", "the next line to read: <directory>/<date>/<hour>@<generation>:<offset>:0")
	return cmd
}
