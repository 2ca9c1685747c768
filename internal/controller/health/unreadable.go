package health

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// maxPath bounds, in bytes, how much of a path a message shows. Its end is the most telling part.
const maxPath = 60

// unreadable returns what a parser cannot read, why, and what to do about it; "" when it can read everything.
func unreadable(from *report.Stream) string {
	b := from.Blocked
	switch {
	case b == nil && from.State != report.Blocked:
		return ""
	case b == nil:
		return cmp.Or(from.Message, "the parser does not report which")
	}
	text := shownPath(b.Path) + ": " + cmp.Or(b.Errno, b.Error, "the parser does not report why")
	if denied := deniedTo(b); denied != "" {
		text = denied
	}
	if b.Count > 1 {
		text += fmt.Sprintf(" (and %d more)", b.Count-1)
	}
	if fix := fixFor(b); fix != "" {
		text += ": " + fix
	}
	return text
}

// shownPath returns a path as messages show it.
func shownPath(path string) string {
	switch {
	case path == "" || path == ".":
		return "the data directory"
	case len(path) > maxPath:
		return "…" + strings.ToValidUTF8(path[len(path)-maxPath:], "")
	}
	return path
}

// permission reports whether an errno is a denial.
func permission(errno string) bool { return errno == "EACCES" || errno == "EPERM" }

// deniedTo returns who owns a path that the parser may not read; "" when the report does not say.
func deniedTo(b *report.BlockedPath) string {
	if !permission(b.Errno) || b.Owner == nil || b.RunsAs == nil {
		return ""
	}
	return fmt.Sprintf("permission denied: %s (owner %d, mode %s); the parser runs as user %d",
		shownPath(cmp.Or(b.Denies, b.Path)), *b.Owner, cmp.Or(b.Bits, "unknown"), *b.RunsAs)
}

// fixFor returns what to do about it; "" when that is not known.
func fixFor(b *report.BlockedPath) string {
	switch b.Errno {
	case "EACCES", "EPERM":
		return fixForDenial(b)
	case "ENOENT":
		return "restore the mount or directory"
	case "EIO":
		return "check the node's disk"
	case "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH":
		return "remount the node's volume"
	case "EMFILE", "ENFILE":
		return "raise the node's open file limit"
	case "ELOOP":
		return "the parser does not follow such a link"
	}
	return ""
}

// fixForDenial depends on which bits of the mode refuse the parser.
func fixForDenial(b *report.BlockedPath) string {
	mode, err := strconv.ParseUint(b.Bits, 8, 12)
	known := err == nil && b.Owner != nil && b.RunsAs != nil
	const groupReads, othersRead = 0o040, 0o004
	switch {
	case !known:
		return "set runAsUser or supplementalGroups to one that may read it"
	case mode&othersRead != 0 || *b.Owner == *b.RunsAs && mode&0o400 != 0:
		return "SELinux or similar denies it: set seLinuxOptions"
	case *b.Owner == *b.RunsAs:
		return "make it readable for its owner"
	case *b.Owner == 0 && mode&groupReads == 0:
		return "make it readable for users other than root"
	case mode&groupReads != 0:
		return "set runAsUser or supplementalGroups"
	}
	return "set runAsUser"
}
