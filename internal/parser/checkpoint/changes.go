package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/position"
)

// A State may hold ten thousand files and a thousand blocks, and a commit changes only a few of them. A slot therefore
// holds the changes from a base: runs of unchanged elements of the base, and new elements.

// run is Count elements of a base, starting at index From, followed by New.
type run[T any] struct {
	From  int `json:"from"`
	Count int `json:"count"`
	New   []T `json:"new,omitempty"`
}

// list is the elements of a base, indexed by a key that identifies the element to compare with.
type list[T any, K comparable] struct {
	elements []T
	index    map[K]int
	key      func(*T) K
	equal    func(a, b *T) bool
}

func newList[T any, K comparable](elements []T, key func(*T) K, equal func(a, b *T) bool) list[T, K] {
	l := list[T, K]{elements: elements, index: make(map[K]int, len(elements)), key: key, equal: equal}
	for i := range elements {
		l.index[key(&elements[i])] = i
	}
	return l
}

// changes returns the runs that turn the list into next. Each element of the list is used at most once, in order.
func (l *list[T, K]) changes(next []T) []run[T] {
	var runs []run[T]
	cursor := 0
	for i := range next {
		at, same := l.find(&next[i], cursor)
		last := len(runs) - 1
		switch {
		case !same:
			if last < 0 {
				runs = append(runs, run[T]{})
				last = 0
			}
			runs[last].New = append(runs[last].New, next[i])
		case last >= 0 && len(runs[last].New) == 0 && runs[last].From+runs[last].Count == at:
			runs[last].Count++
		default:
			runs = append(runs, run[T]{From: at, Count: 1})
		}
		if at >= 0 {
			cursor = at + 1
		}
	}
	return runs
}

// find returns the index, not below from, of the element with the key of e, or -1, and reports whether the two are
// equal.
func (l *list[T, K]) find(e *T, from int) (at int, same bool) {
	if from < len(l.elements) && l.equal(&l.elements[from], e) {
		return from, true
	}
	key := l.key(e)
	if from < len(l.elements) && l.key(&l.elements[from]) == key {
		return from, false
	}
	if at, ok := l.index[key]; ok && at >= from {
		return at, l.equal(&l.elements[at], e)
	}
	return -1, false
}

// apply is the inverse of changes. It refuses runs that are outside base or use an element twice.
func apply[T any](base []T, runs []run[T]) ([]T, error) {
	var out []T
	end := 0
	for _, r := range runs {
		if r.From < 0 || r.Count < 0 || r.From > len(base) || r.Count > len(base)-r.From || r.Count > 0 && r.From < end {
			return nil, fmt.Errorf("%d elements from index %d are not a run of the %d in the base", r.Count, r.From, len(base))
		}
		if r.Count > 0 {
			end = r.From + r.Count
		}
		out = append(out, base[r.From:r.From+r.Count]...)
		out = append(out, r.New...)
	}
	return out, nil
}

// fileKey is the part of a file's entry that does not change while the file grows.
type fileKey struct {
	position.FileID
	inode uint64
}

func keyOfFile(f *File) fileKey { return fileKey{f.FileID, f.Inode} }

// sameFile reports whether two entries are equal.
func sameFile(a, b *File) bool {
	return a.FileID == b.FileID && a.Inode == b.Inode && a.Offset == b.Offset && a.Head == b.Head &&
		a.Marker == b.Marker && a.Size == b.Size && a.SeenAt.Equal(b.SeenAt) && a.AbsentSeconds == b.AbsentSeconds &&
		slices.Equal(a.Markers, b.Markers)
}

func keyOfText(p *json.RawMessage) string { return string(*p) }

func sameText(a, b *json.RawMessage) bool { return bytes.Equal(*a, *b) }
