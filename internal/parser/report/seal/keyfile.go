package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// keyMode lets the owner read a pod's key, and the owner's group too: root creates the key, and may run again without
// the capability to read other users' files.
const keyMode fs.FileMode = 0o440

// maxKeyFile bounds the file of a pod's key, in bytes.
const maxKeyFile = 128

// ReadKey reads a pod's key pair.
func ReadKey(path string) (*Key, error) {
	text, err := readAtMost(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := ParsePrivateKey(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return nil, fmt.Errorf("reading the key in %s: %w", path, err)
	}
	return key, nil
}

// EnsureKey returns the key pair in a file. It creates the file with a new pair if the file is missing or holds no key.
// give is called with the new file before it appears under its name.
func EnsureKey(path string, give func(*os.File) error) (*Key, error) {
	if key, err := ReadKey(path); err == nil {
		return key, nil
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	// The name cannot be guessed, and O_EXCL follows no link.
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return nil, fmt.Errorf("creating the key's file: %w", err)
	}
	_, err = io.WriteString(f, key.Private()+"\n")
	// The owner is changed last: a process that has given a file away may not change it any more.
	err = errors.Join(err, f.Chmod(keyMode), f.Sync())
	if err == nil {
		err = give(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the key: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return key, nil
}

// readAtMost reads a file of at most limit bytes.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if int64(text.Len()) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text.Bytes(), nil
}

// messageName is the prefix of a line of an init container's termination message.
const messageName = "hlparser-public-key: "

// Message returns the termination message that puts a pod's public key into its status.
func Message(k PublicKey) string { return messageName + k.String() + "\n" }

// OfMessage returns the public key in a termination message, or the zero key if there is none. A container runtime may
// have put its own text before the key.
func OfMessage(message string) PublicKey {
	_, text, found := strings.Cut(message, messageName)
	if !found {
		return PublicKey{}
	}
	text, _, _ = strings.Cut(text, "\n")
	k, err := ParsePublicKey(text)
	if err != nil {
		return PublicKey{}
	}
	return k
}
