//go:build !linux

package prepare

import "errors"

// Directory is supported on Linux only.
func Directory(string, int, int) (string, error) {
	return "", errors.New("preparing directories safely is supported on Linux only")
}
