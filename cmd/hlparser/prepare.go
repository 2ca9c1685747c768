package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func prepareCommand() *cobra.Command {
	var user, group int
	cmd := &cobra.Command{
		Use:   "prepare DIR...",
		Short: "Give new, empty directories to the user that the parser runs as",
		Long: `Give directories to the user that the parser runs as. The operator's pods run it as root, before the parser.

Only a directory that belongs to root and holds nothing is given away, which is how a kubelet makes one. Any other stays as it is, with
a line that says so. Nothing in a directory is touched, and a path with a symbolic link in it is an error.`,
		Example: "  hlparser prepare --user 10000 --group 10000 /state /out",
		Args: func(_ *cobra.Command, dirs []string) error {
			if len(dirs) == 0 {
				return usageError{errors.New("name the directories to prepare")}
			}
			for _, dir := range dirs {
				if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
					return usageError{fmt.Errorf("%q: write an absolute path without '.', '..' and a '/' at its end", dir)}
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, dirs []string) error {
			if user < 1 || group < 1 {
				return usageError{errors.New("user, group: write the parser's user id and group id, never 0")}
			}
			for _, dir := range dirs {
				did, err := prepare(dir, user, group)
				if err != nil {
					return fmt.Errorf("prepare %s: %w", dir, err)
				}
				cmd.PrintErrf("%s: %s\n", dir, did)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&user, "user", 0, "user id that the directories are given to")
	f.IntVar(&group, "group", 0, "group id that they are given to")
	return cmd
}
