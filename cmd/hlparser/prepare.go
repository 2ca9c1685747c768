package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/prepare"
)

// lastID is the highest user and group ID that Kubernetes accepts.
const lastID = 1<<31 - 1

func prepareCommand() *cobra.Command {
	var user, group int64
	var sealKey, publicKey string
	cmd := &cobra.Command{
		Use:   "prepare DIR...",
		Short: "Give new, empty directories to the user that the parser runs as",
		Long: `Give directories to the user that the parser runs as.
The operator's pods run this command as root, before the parser.

Only an empty directory that belongs to root is given away; a kubelet creates such directories.
Any other directory is left unchanged, and one line reports that. The contents of directories are
never changed. A path with a symbolic link is an error.

With --seal-key, the command creates the key pair that seals the parser's report, unless the file
holds one, and writes its public key to --public-key. The kubelet copies the public key into the
pod's status.`,
		Example: "  hlparser prepare --user 10000 --group 10000 /state /out",
		Args: func(_ *cobra.Command, dirs []string) error {
			if len(dirs) == 0 && sealKey == "" {
				return usageError{errors.New("name the directories to prepare")}
			}
			for _, dir := range dirs {
				if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir {
					return usageError{fmt.Errorf("%q: write an absolute path without '.', '..' and a trailing '/'", dir)}
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, dirs []string) error {
			// The kernel's IDs have 32 bits: 2^32 would be root, and 2^32-1 would leave the owner unchanged.
			if user < 1 || user > lastID || group < 1 || group > lastID {
				return usageError{fmt.Errorf("user, group: write the parser's user ID and group ID, from 1 to %d", lastID)}
			}
			for _, dir := range dirs {
				did, err := prepare.Directory(dir, int(user), int(group))
				if err != nil {
					return fmt.Errorf("preparing %s: %w", dir, err)
				}
				cmd.PrintErrf("%s: %s\n", dir, did)
			}
			if sealKey == "" {
				return nil
			}
			key, err := prepare.Key(sealKey, publicKey, int(user))
			if err != nil {
				return err
			}
			cmd.PrintErrf("%s: the key pair of %s\n", sealKey, key)
			return nil
		},
	}
	f := cmd.Flags()
	f.Int64Var(&user, "user", 0, "ID of the user that becomes the owner, 1 or more")
	f.Int64Var(&group, "group", 0, "ID of the group that becomes the owner, 1 or more")
	f.StringVar(&sealKey, "seal-key", os.Getenv(sealKeyVariable),
		"file of the parser's key pair (default $"+sealKeyVariable+")")
	f.StringVar(&publicKey, "public-key", cmp.Or(os.Getenv(publicKeyVariable), "/dev/termination-log"),
		"file that the public key is written to (default $"+publicKeyVariable+", else /dev/termination-log)")
	return cmd
}
