package crashfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
)

// node is a directory, if names is not nil, or a file. It holds the current state, the durable state, and the changes
// between them, in order.
type node struct {
	names        map[string]*node
	durableNames map[string]*node
	changes      []change

	data    []byte
	durable []byte
	edits   []edit
}

// change is one change to a directory. A rename unsets one name and sets another in a single change.
type change struct {
	unset string
	set   string
	node  *node
}

func (c change) apply(names map[string]*node) {
	if c.unset != "" {
		delete(names, c.unset)
	}
	if c.set != "" {
		names[c.set] = c.node
	}
}

func (n *node) change(c change) {
	c.apply(n.names)
	n.changes = append(n.changes, c)
}

// edit is one change to a file: bytes written at an offset, or a truncation to length at.
type edit struct {
	truncate bool
	at       int64
	p        []byte
}

func (e edit) apply(data []byte) []byte {
	if !e.truncate {
		data = grow(data, e.at+int64(len(e.p)))
		copy(data[e.at:], e.p)
		return data
	}
	return grow(data, e.at)[:e.at]
}

// grow extends data with zeros to size, as a file system does.
func grow(data []byte, size int64) []byte {
	if missing := size - int64(len(data)); missing > 0 {
		data = append(data, make([]byte, missing)...)
	}
	return data
}

func (n *node) edit(e edit) {
	n.data = e.apply(n.data)
	n.edits = append(n.edits, e)
}

// Kill returns what another process finds after this one was killed: every step that completed and, if torn, half of
// the interrupted write. A later power loss can still lose what was not synced.
func (f *FS) Kill(torn bool) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	if t := f.torn; torn && t != nil {
		t.file.edit(edit{at: int64(len(t.file.data)), p: t.p[:len(t.p)/2]})
	}
	return boot(f.root)
}

// PowerLoss returns what is left after a power loss: what was synced, and nothing else.
func (f *FS) PowerLoss() *FS {
	return f.reboot(func(*node, map[string]*node) {}, func(n *node) []byte { return slices.Clone(n.durable) })
}

// PartialLoss returns what is left after a power loss during disk writes: what was synced, and a selection by rng of
// the rest.
func (f *FS) PartialLoss(rng *rand.Rand) *FS {
	f.mu.Lock()
	if t := f.torn; t != nil {
		t.file.edit(edit{at: int64(len(t.file.data)), p: t.p})
	}
	f.mu.Unlock()
	names := func(n *node, names map[string]*node) {
		for i := range survivors(rng, len(n.changes)) {
			n.changes[i].apply(names)
		}
	}
	data := func(n *node) []byte {
		data := slices.Clone(n.durable)
		for i := range survivors(rng, len(n.edits)) {
			e := n.edits[i]
			if e.truncate || rng.IntN(2) == 0 {
				data = e.apply(data)
				continue
			}
			from, to := rng.IntN(len(e.p)+1), rng.IntN(len(e.p)+1)
			from, to = min(from, to), max(from, to)
			data = edit{at: e.at + int64(from), p: e.p[from:to]}.apply(data)
		}
		return data
	}
	return f.reboot(names, data)
}

// survivors selects among n steps. Half of the time it keeps a prefix, as a journal does; otherwise it keeps any
// subset.
func survivors(rng *rand.Rand, n int) func(yield func(int) bool) {
	first, journal := rng.IntN(n+1), rng.IntN(2) == 0
	return func(yield func(int) bool) {
		for i := range n {
			if journal && i >= first || !journal && rng.IntN(2) == 0 {
				continue
			}
			if !yield(i) {
				return
			}
		}
	}
}

// reboot copies the tree of durable names. extraNames adds surviving names to a directory, and data returns a file's
// surviving bytes.
func (f *FS) reboot(extraNames func(*node, map[string]*node), data func(*node) []byte) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	// While a rename is half durable, one node can have two names. It stays one node.
	copies := map[*node]*node{}
	var visit func(n *node) *node
	visit = func(n *node) *node {
		if c := copies[n]; c != nil {
			return c
		}
		c := &node{}
		copies[n] = c
		if n.names == nil {
			c.data = data(n)
			c.durable = slices.Clone(c.data)
			return c
		}
		c.names = maps.Clone(n.durableNames)
		extraNames(n, c.names)
		for _, name := range slices.Sorted(maps.Keys(c.names)) { // sorted, so that a seed is reproducible
			c.names[name] = visit(c.names[name])
		}
		c.durableNames = maps.Clone(c.names)
		return c
	}
	return boot(visit(f.root))
}

// Copy returns an independent copy of the file system. Changes to either are not visible in the other. The copy has no
// held locks, no open files and no injected faults.
func (f *FS) Copy() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	copies := map[*node]*node{}
	var visit func(n *node) *node
	copyNames := func(names map[string]*node) map[string]*node {
		names = maps.Clone(names)
		for name, n := range names {
			names[name] = visit(n)
		}
		return names
	}
	visit = func(n *node) *node {
		if c := copies[n]; n == nil || c != nil {
			return c
		}
		c := &node{}
		copies[n] = c
		c.data, c.durable, c.edits = slices.Clone(n.data), slices.Clone(n.durable), slices.Clone(n.edits)
		c.names, c.durableNames, c.changes = copyNames(n.names), copyNames(n.durableNames), slices.Clone(n.changes)
		for i := range c.changes {
			c.changes[i].node = visit(c.changes[i].node)
		}
		return c
	}
	c := boot(visit(f.root))
	c.steps, c.crashAt, c.crashed = slices.Clone(f.steps), f.crashAt, f.crashed
	c.free, c.total = f.free, f.total
	if f.torn != nil {
		c.torn = &tornWrite{file: visit(f.torn.file), p: f.torn.p}
	}
	return c
}

// Image returns the content of the files, the durable part of it, and the changes between the two. From equal images,
// the same calls and crashes have the same outcome.
func (f *FS) Image() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []byte
	seen := map[*node]int{}
	var visit func(n *node)
	writeBytes := func(p []byte) { out = append(strconv.AppendInt(append(out, ' '), int64(len(p)), 10), p...) }
	writeNames := func(names map[string]*node) {
		out = append(out, '{')
		for _, name := range slices.Sorted(maps.Keys(names)) {
			writeBytes([]byte(name))
			visit(names[name])
		}
		out = append(out, '}')
	}
	visit = func(n *node) {
		if n == nil {
			out = append(out, '-')
			return
		}
		id, again := seen[n]
		if again {
			out = strconv.AppendInt(append(out, '#'), int64(id), 10)
			return
		}
		seen[n] = len(seen)
		if n.names != nil {
			writeNames(n.names)
			writeNames(n.durableNames)
			for _, c := range n.changes {
				writeBytes([]byte(c.unset))
				writeBytes([]byte(c.set))
				visit(c.node)
			}
			return
		}
		writeBytes(n.data)
		writeBytes(n.durable)
		for _, e := range n.edits {
			out = fmt.Appendf(out, " %t@%d", e.truncate, e.at)
			writeBytes(e.p)
		}
		out = append(out, ';')
	}
	visit(f.root)
	return string(out)
}
