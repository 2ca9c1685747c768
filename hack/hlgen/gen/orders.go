package gen

import "strconv"

// order holds the fields of a node's order object that vary.
type order struct {
	coin      *coin
	buy       bool
	px        int64
	sz, orig  int64
	id        uint64
	millis    int64
	kind      string
	tif       string // null if empty
	triggerPx int64  // no trigger if 0
	children  int
	reduce    bool
	position  bool
	noCloid   uint64 // per mille
}

// Statuses that determine other fields, too.
const (
	badAloPxRejected = "badAloPxRejected"
	opened           = "open"
	filled           = "filled"
)

// statusMix holds the share of each status per 1,000, as measured on mainnet. The remainder is spread over
// rareStatuses.
var statusMix = []struct {
	status string
	share  uint64
}{
	{badAloPxRejected, 950},
	{opened, 14},
	{"canceled", 13},
	{"perpMarginRejected", 8},
	{"iocCancelRejected", 5},
	{filled, 4},
	{"reduceOnlyRejected", 1},
	{"minTradeNtlRejected", 1},
	{"triggered", 1},
}

var rareStatuses = []string{
	"rejected", "marginCanceled", "vaultWithdrawalCanceled", "openInterestCapCanceled", "selfTradeCanceled",
	"reduceOnlyCanceled", "siblingFilledCanceled", "delistedCanceled", "liquidatedCanceled", "scheduledCancel",
	"tickRejected", "badTriggerPxRejected", "marketOrderNoLiquidityRejected",
	"positionIncreaseAtOpenInterestCapRejected", "positionFlipAtOpenInterestCapRejected",
	"tooAggressiveAtOpenInterestCapRejected", "openInterestIncreaseRejected", "insufficientSpotBalanceRejected",
	"oracleRejected", "perpMaxPositionRejected", "outcomeSettledCanceled", "internalCancel",
	"tooManyOpenOrdersRejected", "outcomeSettledRejected",
}

func (g *Generator) status() string {
	r := g.rng.Uint64() % 1000
	for i := range statusMix {
		if r < statusMix[i].share {
			return statusMix[i].status
		}
		r -= statusMix[i].share
	}
	return rareStatuses[g.rng.Uint64()%uint64(len(rareStatuses))]
}

func (g *Generator) orderStatus(dst []byte) []byte {
	status := g.status()
	o := g.newOrder(status)

	dst = append(dst, `{"time":"`...)
	dst = g.now.appendISO(dst)
	dst = append(dst, `","user":"`...)
	dst = append(dst, g.user()...)
	dst = append(dst, `","hash":`...)
	if status == opened || status == filled {
		dst = g.appendHash(dst, o.id)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"builder":`...)
	if status != badAloPxRejected && g.chance(60) {
		dst = append(dst, `{"b":"`...)
		dst = append(dst, g.nodes[g.rng.Uint64()%4]...)
		dst = append(dst, `","f":`...)
		dst = strconv.AppendUint(dst, 10+g.rng.Uint64()%5*10, 10)
		dst = append(dst, '}')
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"status":"`...)
	dst = append(dst, status...)
	dst = append(dst, `","order":`...)
	dst = g.appendOrder(dst, &o)
	return append(dst, '}')
}

// newOrder returns a random order that can have the status.
func (g *Generator) newOrder(status string) order {
	r := g.rng.Uint64()
	c, px, sz := g.quote()
	o := order{
		coin: c, buy: r&1 == 0, px: px, sz: sz, orig: sz, id: g.newID(), millis: g.now.millis,
		kind: "Limit", tif: "Alo", noCloid: 2,
	}
	switch status {
	case badAloPxRejected:
		return o
	case "iocCancelRejected", "perpMarginRejected":
		o.tif = "Ioc"
	case "marketOrderNoLiquidityRejected":
		o.tif, o.noCloid = "FrontendMarket", 900
	case "liquidatedCanceled":
		o.tif, o.kind, o.noCloid = "LiquidationMarket", "Market", 1000
	case filled:
		o.sz = 0
	case "triggered", "badTriggerPxRejected":
		g.makeTrigger(&o)
		return o
	case "canceled":
		o.sz = 1 + int64(r>>8)&(1<<40-1)%o.orig
		o.millis -= int64(r >> 20 & 0xffff) // the order has rested for up to a minute
	case opened:
		switch r >> 8 & 15 {
		case 0:
			g.makeTrigger(&o)
			return o
		case 1:
			o.children = 1 + int(r>>12&1)
		}
	}
	if status != filled && r>>16&7 == 0 {
		o.tif, o.noCloid = "Gtc", 800
	}
	o.reduce = r>>20&31 == 0
	return o
}

// makeTrigger turns an order into a stop or take-profit order.
func (g *Generator) makeTrigger(o *order) {
	kinds := [...]string{"Stop Market", "Stop Limit", "Take Profit Market", "Take Profit Limit"}
	r := g.rng.Uint64()
	o.kind, o.tif, o.noCloid, o.reduce = kinds[r&3], "", 600, r>>2&3 != 0
	o.triggerPx = o.px + o.px/50
	if o.position = r>>4&3 == 0; o.position {
		o.sz, o.orig = 0, 0 // the order covers the whole position
	}
}

func (g *Generator) appendOrder(dst []byte, o *order) []byte {
	dst = append(dst, `{"coin":"`...)
	dst = append(dst, o.coin.name...)
	dst = append(dst, `","side":"`...)
	dst = appendSide(dst, o.buy)
	dst = append(dst, `","limitPx":"`...)
	dst = appendDecimal(dst, o.px, o.coin.pxDecimals)
	dst = append(dst, `","sz":"`...)
	dst = appendDecimal(dst, o.sz, o.coin.szDecimals)
	dst = append(dst, `","oid":`...)
	dst = strconv.AppendUint(dst, o.id, 10)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, o.millis, 10)
	if o.triggerPx == 0 {
		dst = append(dst, `,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[`...)
	} else {
		dst = append(dst, `,"triggerCondition":"Price `...)
		if o.triggerPx > o.px {
			dst = append(dst, "above "...)
		} else {
			dst = append(dst, "below "...)
		}
		dst = appendDecimal(dst, o.triggerPx, o.coin.pxDecimals)
		dst = append(dst, `","isTrigger":true,"triggerPx":"`...)
		dst = appendDecimal(dst, o.triggerPx, o.coin.pxDecimals)
		dst = append(dst, `","children":[`...)
	}
	for i := range o.children {
		if i > 0 {
			dst = append(dst, ',')
		}
		child := order{
			coin: o.coin, buy: !o.buy, px: o.px, sz: o.sz, orig: o.orig, id: g.newID(), millis: o.millis,
			kind: "Take Profit Market", triggerPx: o.px + o.px/20, reduce: true, noCloid: 1000,
		}
		if i == 1 {
			child.kind, child.triggerPx = "Stop Market", o.px-o.px/20
		}
		dst = g.appendOrder(dst, &child)
	}
	dst = append(dst, `],"isPositionTpsl":`...)
	dst = appendBool(dst, o.position)
	dst = append(dst, `,"reduceOnly":`...)
	dst = appendBool(dst, o.reduce)
	dst = append(dst, `,"orderType":"`...)
	dst = append(dst, o.kind...)
	dst = append(dst, `","origSz":"`...)
	dst = appendDecimal(dst, o.orig, o.coin.szDecimals)
	dst = append(dst, `","tif":`...)
	if o.tif == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendQuoted(dst, o.tif)
	}
	dst = append(dst, `,"cloid":`...)
	dst = g.appendCloid(dst, o.noCloid)
	return append(dst, '}')
}

// appendSide appends the node's letter: B for a bid, A for an ask.
func appendSide(dst []byte, buy bool) []byte {
	if buy {
		return append(dst, 'B')
	}
	return append(dst, 'A')
}
