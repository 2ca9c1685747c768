package growth

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// maxPath bounds, in bytes, what is shown of a path: its end says most.
const maxPath = 60

// unreadable says what a parser cannot read, why, and what to do about it; "" when there is nothing.
func unreadable(from *report.Stream) string {
	b := from.Blocked
	switch {
	case b == nil && from.State != report.Blocked:
		return ""
	case b == nil:
		return cmp.Or(from.Message, "the parser does not say what")
	}
	text := shownPath(b.Path) + ": " + cmp.Or(b.Errno, b.Error, "the parser does not say why")
	if denied := deniedTo(b); denied != "" {
		text = denied
	}
	if b.Count > 1 {
		text += fmt.Sprintf(" (and %d more)", b.Count-1)
	}
	if cure := cureOf(b); cure != "" {
		text += ": " + cure
	}
	return text
}

// shownPath is a path as a person reads it.
func shownPath(path string) string {
	switch {
	case path == "" || path == ".":
		return "the data directory"
	case len(path) > maxPath:
		return "…" + strings.ToValidUTF8(path[len(path)-maxPath:], "")
	}
	return path
}

// permission reports whether an errno says that the parser may not.
func permission(errno string) bool { return errno == "EACCES" || errno == "EPERM" }

// deniedTo says whom a path belongs to that the parser may not read; "" when it does not say.
func deniedTo(b *report.BlockedPath) string {
	if !permission(b.Errno) || b.Owner == nil || b.RunsAs == nil {
		return ""
	}
	return fmt.Sprintf("permission denied: %s is user %d's, %s; the parser runs as %d",
		shownPath(cmp.Or(b.Denies, b.Path)), *b.Owner, cmp.Or(b.Bits, "of an unknown mode"), *b.RunsAs)
}

// cureOf is what to do about it; "" when nobody knows.
func cureOf(b *report.BlockedPath) string {
	switch b.Errno {
	case "EACCES", "EPERM":
		return cureOfDenial(b)
	case "ENOENT":
		return "bring the mount or directory back"
	case "EIO":
		return "check the node's disk"
	case "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH":
		return "mount the node's volume again"
	case "EMFILE", "ENFILE":
		return "raise the node's limit of open files"
	case "ELOOP":
		return "the parser follows no such link"
	}
	return ""
}

// cureOfDenial depends on which bits of the mode refuse the parser.
func cureOfDenial(b *report.BlockedPath) string {
	mode, err := strconv.ParseUint(b.Bits, 8, 12)
	known := err == nil && b.Owner != nil && b.RunsAs != nil
	const groupReads, othersRead = 0o040, 0o004
	switch {
	case !known:
		return "set runAsUser, or supplementalGroups, to one that may read it"
	case mode&othersRead != 0 || *b.Owner == *b.RunsAs && mode&0o400 != 0:
		return "SELinux or the like refuses it: set seLinuxOptions"
	case *b.Owner == *b.RunsAs:
		return "let its owner read it"
	case *b.Owner == 0 && mode&groupReads == 0:
		return "let others than root read it"
	case mode&groupReads != 0:
		return "set runAsUser or supplementalGroups"
	}
	return "set runAsUser"
}
