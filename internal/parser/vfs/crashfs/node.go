package crashfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// node is a directory (names is not nil) or a file. Each holds what is seen
// now, what is durable, and the changes in between, in their order.
type node struct {
	names        map[string]*node
	durableNames map[string]*node
	changes      []change

	data    []byte
	durable []byte
	edits   []edit
}

// change is one step in a directory: a rename is both, in one.
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

// edit is one step in a file: bytes at an offset, or its length cut to at.
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

// grow fills with zeros up to size, as a file system does.
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

// Kill returns what another process finds after this one was killed: every step
// that was done, and of the write in which it was killed half if torn. What was
// not synced can still be lost, by a later crash of the machine.
func (f *FS) Kill(torn bool) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	if t := f.torn; torn && t != nil {
		t.file.edit(edit{at: int64(len(t.file.data)), p: t.p[:len(t.p)/2]})
	}
	return boot(f.root)
}

// PowerLoss returns what is left after the machine lost its power: what was
// synced, and nothing else.
func (f *FS) PowerLoss() *FS {
	return f.reboot(func(*node, map[string]*node) {}, func(n *node) []byte { return slices.Clone(n.durable) })
}

// PartialLoss returns what is left after the machine lost its power while the
// disk was at work: what was synced, and of the rest whatever rng picks.
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

// survivors picks among n steps: half the time the first few, as a journal
// keeps them, else any.
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

// reboot copies the tree of durable names, with more of them and with each
// file's bytes as the two functions say.
func (f *FS) reboot(more func(*node, map[string]*node), data func(*node) []byte) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crashed = true
	// A node can be found under two names while a rename is half durable; it
	// stays one node.
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
		more(n, c.names)
		for _, name := range slices.Sorted(maps.Keys(c.names)) { // in order, for the sake of a seed
			c.names[name] = visit(c.names[name])
		}
		c.durableNames = maps.Clone(c.names)
		return c
	}
	return boot(visit(f.root))
}
