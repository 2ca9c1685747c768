package agent

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// mount maps a path of the container to its path on disk.
type mount struct {
	inContainer string
	onDisk      string
}

// mounts are a container's mounts, the deepest first, so that the first match is the right one.
type mounts []mount

func newMounts(list []mount) mounts {
	list = slices.Clone(list)
	for i := range list {
		list[i].inContainer = path.Clean(list[i].inContainer)
	}
	slices.SortStableFunc(list, func(a, b mount) int { return cmp.Compare(len(b.inContainer), len(a.inContainer)) })
	return list
}

// rewrite replaces every absolute path at or below a mount point in a text, such as an argument or a configuration
// file, by its path on disk. A process without a mount namespace needs that to find its files. A path is replaced only
// where it begins, so "nats://host/data" is unchanged, and only by whole elements, so a mount of /data does not affect
// /database.
func (m mounts) rewrite(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		n := strings.IndexFunc(text, inPath)
		if n < 0 {
			break
		}
		out.WriteString(text[:n])
		text = text[n:]
		end := strings.IndexFunc(text, func(r rune) bool { return !inPath(r) })
		if end < 0 {
			end = len(text)
		}
		out.WriteString(m.place(text[:end]))
		text = text[end:]
	}
	out.WriteString(text)
	return out.String()
}

// place returns a path's path on disk, or the word itself.
func (m mounts) place(word string) string {
	for _, mount := range m {
		rest, found := strings.CutPrefix(word, mount.inContainer)
		if found && (rest == "" || rest[0] == '/') {
			return mount.onDisk + rest
		}
	}
	return word
}

func inPath(r rune) bool {
	return strings.ContainsRune("/.-_", r) || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
