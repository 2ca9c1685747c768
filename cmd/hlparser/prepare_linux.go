package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// prepare gives dir to the user and group if it belongs to root and is empty, and returns what it did. It runs as root, over
// directories of a host where others may write: whoever could put a symbolic link, or a directory of root's with something in it, in
// dir's place must gain nothing. So it goes down from / without following a link, looks at what it has then opened and never at a
// path again, and gives away nothing that anybody can be using.
func prepare(dir string, user, group int) (string, error) {
	place, err := openWithoutLinks(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(place) }()
	var stat unix.Stat_t
	if err := unix.Fstat(place, &stat); err != nil {
		return "", fmt.Errorf("looking at it: %w", err)
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
		return "", fmt.Errorf("opening it: %w", err)
	}
	f := os.NewFile(uintptr(fd), dir)
	defer func() { _ = f.Close() }()
	switch _, err := f.Readdirnames(1); {
	case err == nil:
		return fmt.Sprintf("left to root, since it is not empty: if user %d cannot write there, change its owner by hand", user), nil
	case !errors.Is(err, io.EOF):
		return "", fmt.Errorf("looking into it: %w", err)
	}
	if err := f.Chown(user, group); err != nil {
		return "", fmt.Errorf("giving it to user %d: %w", user, err)
	}
	return fmt.Sprintf("given to user %d", user), nil
}

// openWithoutLinks opens a directory by its absolute path, as a place only: it needs no right to read.
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
			return -1, fmt.Errorf("%s is a symbolic link or no directory", name)
		}
		if err != nil {
			return -1, fmt.Errorf("opening %s: %w", name, err)
		}
		place = below
	}
	return place, nil
}
