// Package prepare does what a parser's pod needs before the parser starts: it gives new directories of the host to the
// parser's user, and creates the key pair that seals the parser's report. It runs as root in an init container, on
// directories where other users of the host may write.
package prepare

import (
	"fmt"
	"os"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Key creates the parser's key pair in sealKey if there is none, and writes its public key to publicKey, where the
// kubelet reads it. It returns the public key. It runs again when a pod's sandbox is recreated; the pair is then the
// same, because it is in a volume of the pod.
func Key(sealKey, publicKey string, user int) (seal.PublicKey, error) {
	key, err := seal.EnsureKey(sealKey, func(f *os.File) error {
		if os.Geteuid() != 0 {
			return nil // only the current user can own the file
		}
		// The group stays root's. Without it root could not read the file when it runs again, because it lacks the
		// capability to read other users' files.
		return f.Chown(user, -1)
	})
	if err != nil {
		return seal.PublicKey{}, fmt.Errorf("preparing %s: %w", sealKey, err)
	}
	//nolint:gosec // the key is public
	if err := os.WriteFile(publicKey, []byte(seal.Message(key.Public())), 0o644); err != nil {
		return seal.PublicKey{}, fmt.Errorf("writing the public key: %w", err)
	}
	return key.Public(), nil
}
