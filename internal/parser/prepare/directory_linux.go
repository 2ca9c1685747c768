package prepare

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Directory gives dir to the user and group if it belongs to root and is empty, and returns what it did.
//
// It runs as root on directories of a host where other users may write. A user who replaces dir by a symbolic link, or
// by a non-empty directory of root's, must gain nothing. So Directory descends from / without following links, inspects
// only the opened directory and never a path, and gives away nothing that may be in use.
func Directory(dir string, user, group int) (string, error) {
	place, err := openWithoutLinks(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(place) }()
	var stat unix.Stat_t
	if err := unix.Fstat(place, &stat); err != nil {
		return "", fmt.Errorf("reading its owner: %w", err)
	}
	switch int(stat.Uid) {
	case user:
		return fmt.Sprintf("belongs to user %d", user), nil
	case 0:
	default:
		return fmt.Sprintf("left to user %d, to whom it belongs", stat.Uid), nil
	}

	fd, err := unix.Openat(place, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("opening it to read: %w", err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }()
	switch _, err := f.Readdirnames(1); {
	case err == nil:
		return fmt.Sprintf("left to root, because it is not empty: if user %d cannot write to it, change its owner", user),
			nil
	case !errors.Is(err, io.EOF):
		return "", fmt.Errorf("reading it: %w", err)
	}
	if err := f.Chown(user, group); err != nil {
		return "", fmt.Errorf("giving it to user %d: %w", user, err)
	}
	return fmt.Sprintf("given to user %d", user), nil
}

// openWithoutLinks opens a directory by its absolute path, as a location only, which requires no read permission.
func openWithoutLinks(dir string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	place, err := unix.Open("/", flags, 0)
	if err != nil {
		return -1, fmt.Errorf("opening /: %w", err)
	}
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		below, err := unix.Openat(place, name, flags, 0)
		_ = unix.Close(place)
		if errors.Is(err, unix.ENOTDIR) {
			return -1, fmt.Errorf("%s is a symbolic link or not a directory", name)
		}
		if err != nil {
			return -1, fmt.Errorf("opening %s: %w", name, err)
		}
		place = below
	}
	return place, nil
}
