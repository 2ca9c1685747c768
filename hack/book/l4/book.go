// Package l4 builds order books, order by order, from the merged stream of hlparser (order.by: Block).
//
// A Feed takes the records. It applies the changes of a block when the block's marker has come, and never shows a book
// that may lack an order or hold one that is gone: after anything that it cannot account for, the books are empty and
// invalid until the next whole block, and then hold the orders placed since. A Book must never use floating point for
// a price or a size, and never depend on how the node cuts a block into lines.
package l4

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strconv"
)

// Order is an order in a book.
type Order struct {
	ID   int64
	User string // address
	Size string // decimal: what is left of the order
	// Tif and Cloid are those of the order's status. Both are empty if it has none, as protocol-owned orders do.
	Tif, Cloid string

	level *level
}

// Level is the orders of one side at one price.
type Level struct {
	Price  string // decimal
	Size   string // decimal: the sum of the orders' sizes
	Orders int
}

// Side is a side of a book.
type Side int

// Sides of a book, spelled B and A by the node.
const (
	Bid Side = iota
	Ask
)

// Book is the book of one coin.
type Book struct {
	sides  [2][]*level // best price first
	orders map[int64]*list.Element
}

// level is the orders of one side at one price, in the order in which they are filled.
type level struct {
	side  Side
	price string
	value *big.Rat
	queue *list.List // of *Order
}

func newBook() *Book { return &Book{orders: map[int64]*list.Element{}} }

// Len returns the number of orders.
func (b *Book) Len() int { return len(b.orders) }

// Order returns the order with an ID, or nil.
func (b *Book) Order(id int64) *Order {
	if e := b.orders[id]; e != nil {
		return e.Value.(*Order)
	}
	return nil
}

// Queue returns the orders of a side with the best price first, and those of one price in the order in which they are
// filled.
func (b *Book) Queue(side Side) []Order {
	var all []Order
	for _, l := range b.sides[side] {
		for e := l.queue.Front(); e != nil; e = e.Next() {
			all = append(all, *e.Value.(*Order))
		}
	}
	return all
}

// Top returns the best levels of a side, depth at most. Orders that are filled and not removed yet do not count.
func (b *Book) Top(side Side, depth int) []Level {
	var top []Level
	for _, l := range b.sides[side] {
		if len(top) == depth {
			break
		}
		sum, n := new(big.Rat), 0
		for e := l.queue.Front(); e != nil; e = e.Next() {
			if size, _ := amount(e.Value.(*Order).Size); size.Sign() > 0 {
				sum.Add(sum, size)
				n++
			}
		}
		if n > 0 {
			digits, _ := sum.FloatPrec() // exact: the sizes are decimals
			top = append(top, Level{Price: l.price, Size: sum.FloatString(digits), Orders: n})
		}
	}
	return top
}

// writeTo writes all that a book is to a hash.
func (b *Book) writeTo(h hash.Hash) {
	var text []byte
	for side, levels := range b.sides {
		for _, l := range levels {
			text = fmt.Appendf(text[:0], "%d %s\n", side, l.price)
			for e := l.queue.Front(); e != nil; e = e.Next() {
				o := e.Value.(*Order)
				text = fmt.Appendf(text, "%d %s %s\n", o.ID, o.User, o.Size)
			}
			_, _ = h.Write(text) // a hash returns no error
		}
	}
}

func shortSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }

// Hash returns 16 hexadecimal digits that are equal for equal books: the same orders with the same sizes, at the same
// prices and places in the queue.
func (b *Book) Hash() string {
	h := sha256.New()
	b.writeTo(h)
	return shortSum(h)
}

// add puts a new order into the queue of its price: before another order, or at the end if before is 0. It reports
// whether that other order is known. The place of an unknown one is the front of the queue: it is older than all that
// the book holds.
func (b *Book) add(o *Order, side Side, price string, before int64) (known bool, err error) {
	value, err := amount(price)
	if err != nil {
		return false, fmt.Errorf("price of order %d: %w", o.ID, err)
	}
	if _, err := amount(o.Size); err != nil {
		return false, fmt.Errorf("size of order %d: %w", o.ID, err)
	}
	if b.orders[o.ID] != nil {
		return false, fmt.Errorf("order %d is placed for the second time", o.ID)
	}
	next := b.orders[before]
	if next != nil && (next.Value.(*Order).level.side != side || next.Value.(*Order).level.value.Cmp(value) != 0) {
		return false, fmt.Errorf("order %d is placed before order %d, which has another price", o.ID, before)
	}
	l := b.level(side, price, value)
	o.level = l
	switch {
	case before == 0:
		b.orders[o.ID] = l.queue.PushBack(o)
	case next == nil:
		b.orders[o.ID] = l.queue.PushFront(o)
	default:
		b.orders[o.ID] = l.queue.InsertBefore(o, next)
	}
	return before == 0 || next != nil, nil
}

// level returns the level of a price, which it adds if there is none.
func (b *Book) level(side Side, price string, value *big.Rat) *level {
	levels := b.sides[side]
	i, found := slices.BinarySearchFunc(levels, value, func(l *level, value *big.Rat) int {
		if side == Bid {
			return value.Cmp(l.value)
		}
		return l.value.Cmp(value)
	})
	if !found {
		l := &level{side: side, price: price, value: value, queue: list.New()}
		b.sides[side] = slices.Insert(levels, i, l)
	}
	return b.sides[side][i]
}

// resize sets an order's size. It reports whether the order is known.
func (b *Book) resize(id int64, from, to string) (known bool, err error) {
	o := b.Order(id)
	if o == nil {
		return false, nil
	}
	was, err := amount(from)
	if err != nil {
		return true, fmt.Errorf("former size of order %d: %w", id, err)
	}
	if _, err := amount(to); err != nil {
		return true, fmt.Errorf("size of order %d: %w", id, err)
	}
	if is, err := amount(o.Size); err != nil || is.Cmp(was) != 0 {
		return true, fmt.Errorf("order %d is resized from %s to %s, but has size %s", id, from, to, o.Size)
	}
	o.Size = to
	return true, nil
}

// remove removes an order, and returns it, or nil if it is unknown.
func (b *Book) remove(id int64) *Order {
	e := b.orders[id]
	if e == nil {
		return nil
	}
	delete(b.orders, id)
	o := e.Value.(*Order)
	l := o.level
	if l.queue.Remove(e); l.queue.Len() == 0 {
		levels := b.sides[l.side]
		b.sides[l.side] = slices.Delete(levels, slices.Index(levels, l), slices.Index(levels, l)+1)
	}
	return o
}

// amount parses a decimal. A fraction or an exponent is no decimal.
func amount(text string) (*big.Rat, error) {
	for _, c := range []byte(text) {
		if c != '.' && (c < '0' || c > '9') {
			return nil, fmt.Errorf("%q is not a decimal", text)
		}
	}
	value, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("%q is not a decimal", text)
	}
	return value, nil
}

// sideOf parses the node's name of a side: B and A, or Bid and Ask in line mode.
func sideOf(text string) (Side, error) {
	switch text {
	case "B", "Bid":
		return Bid, nil
	case "A", "Ask":
		return Ask, nil
	}
	return 0, fmt.Errorf("side %s is unknown", strconv.Quote(text))
}
