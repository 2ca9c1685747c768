package gen

import "strconv"

// restingOrder is an order in the book. Updates and removals refer to existing orders, and their sizes are consistent.
type restingOrder struct {
	id   uint64
	user string
	coin *coin
	buy  bool
	px   int64
	sz   int64
}

// bookSize bounds the orders in the book. A diff removes one when the book is full.
const bookSize = 4096

// diff keeps the book between half full and full. New orders and removals balance, an update shrinks an order, and an
// order is removed once, so no diff repeats.
func (g *Generator) diff(dst []byte) []byte {
	if g.live == nil {
		g.live = make([]restingOrder, 0, bookSize)
	}
	r := g.rng.Uint64()
	at := 0
	if len(g.live) > 0 {
		at = int((r >> 16) % uint64(len(g.live)))
	}
	switch {
	case len(g.live) < bookSize && (len(g.live) < bookSize/2 || r&127 < 60):
		c, px, sz := g.quote()
		o := restingOrder{id: g.newID(), user: g.user(), coin: c, buy: r>>8&1 == 0, px: px, sz: sz}
		g.live = append(g.live, o)
		dst = appendDiffHead(dst, &o)
		dst = append(dst, `{"new":{"sz":"`...)
		dst = appendDecimal(dst, sz, c.szDecimals)
		return append(dst, `"}}}`...)
	case r&127 < 68 && g.live[at].sz > 1:
		o := &g.live[at]
		dst = appendDiffHead(dst, o)
		dst = append(dst, `{"update":{"origSz":"`...)
		dst = appendDecimal(dst, o.sz, o.coin.szDecimals)
		o.sz -= 1 + int64(r>>32)%(o.sz-1)
		dst = append(dst, `","newSz":"`...)
		dst = appendDecimal(dst, o.sz, o.coin.szDecimals)
		return append(dst, `"}}}`...)
	default:
		o := g.live[at]
		last := len(g.live) - 1
		g.live[at] = g.live[last]
		g.live = g.live[:last]
		dst = appendDiffHead(dst, &o)
		return append(dst, `"remove"}`...)
	}
}

func appendDiffHead(dst []byte, o *restingOrder) []byte {
	dst = append(dst, `{"user":"`...)
	dst = append(dst, o.user...)
	dst = append(dst, `","oid":`...)
	dst = strconv.AppendUint(dst, o.id, 10)
	dst = append(dst, `,"coin":"`...)
	dst = append(dst, o.coin.name...)
	dst = append(dst, `","side":"`...)
	dst = appendSide(dst, o.buy)
	dst = append(dst, `","px":"`...)
	dst = appendDecimal(dst, o.px, o.coin.pxDecimals)
	return append(dst, `","raw_book_diff":`...)
}
