package gen

import "strconv"

// fill renders both sides of one trade, the taker's and the maker's, and returns them in consecutive calls.
func (g *Generator) fill(dst []byte) []byte {
	if len(g.secondLeg) > 0 {
		dst = append(dst, g.secondLeg...)
		g.secondLeg = g.secondLeg[:0]
		return dst
	}
	c, px, sz := g.quote()
	r := g.rng.Uint64()
	takerBuys, liquidation, twap := r&1 == 0, r>>1&255 == 0, r>>9&31 == 0
	tradeID := g.newID()<<12 | r>>52 // about 15 digits, like the chain's
	leg := fillLeg{coin: c, px: px, sz: sz, tradeID: tradeID, twap: twap, liquidation: liquidation}
	if twap {
		// A TWAP's slices belong to no transaction.
		g.fillHash = append(g.fillHash[:0], `"0x0000000000000000000000000000000000000000000000000000000000000000"`...)
	} else {
		g.fillHash = g.appendHash(g.fillHash[:0], g.newID())
	}

	taker, maker := leg, leg
	taker.buy, taker.crossed = takerBuys, true
	maker.buy = !takerBuys
	g.secondLeg = g.appendFill(g.secondLeg, &maker)
	return g.appendFill(dst, &taker)
}

type fillLeg struct {
	coin        *coin
	px, sz      int64
	buy         bool
	crossed     bool
	tradeID     uint64
	twap        bool
	liquidation bool
}

func (g *Generator) appendFill(dst []byte, f *fillLeg) []byte {
	r := g.rng.Uint64()
	id := g.newID()
	c := f.coin
	user := g.user()
	start := int64((r>>8)%uint64(4*c.maxSz)) - 2*c.maxSz
	opens := f.buy == (start >= 0)

	dst = append(dst, `["`...)
	dst = append(dst, user...)
	dst = append(dst, `",{"coin":"`...)
	dst = append(dst, c.name...)
	dst = append(dst, `","px":"`...)
	dst = appendDecimal(dst, f.px, c.pxDecimals)
	dst = append(dst, `","sz":"`...)
	dst = appendDecimal(dst, f.sz, c.szDecimals)
	dst = append(dst, `","side":"`...)
	dst = appendSide(dst, f.buy)
	dst = append(dst, `","time":`...)
	dst = strconv.AppendInt(dst, g.now.millis, 10)
	dst = append(dst, `,"startPosition":"`...)
	dst = appendDecimal(dst, start, c.szDecimals)
	dst = append(dst, `","dir":"`...)
	dst = append(dst, direction(c, f, opens, start)...)
	dst = append(dst, `","closedPnl":"`...)
	if opens {
		dst = append(dst, "0.0"...)
	} else {
		dst = appendDecimal(dst, int64(r>>20&0xffff_ffff)-(1<<31), 6)
	}
	dst = append(dst, `","hash":`...)
	dst = append(dst, g.fillHash...)
	dst = append(dst, `,"oid":`...)
	dst = strconv.AppendUint(dst, id, 10)
	dst = append(dst, `,"crossed":`...)
	dst = appendBool(dst, f.crossed)
	dst = append(dst, `,"fee":"`...)
	fee := int64(r >> 30 & 0xf_ffff)
	if !f.crossed {
		fee = -fee / 8 // makers get a rebate
	}
	dst = appendDecimal(dst, fee, 6)
	dst = append(dst, `","tid":`...)
	dst = strconv.AppendUint(dst, f.tradeID, 10)
	if r&3 != 0 {
		dst = append(dst, `,"cloid":`...)
		dst = g.appendCloid(dst, 0)
	}
	dst = append(dst, `,"feeToken":"`...)
	if c.spot && f.buy && c.name[0] == '@' {
		dst = append(dst, "HYPE"...)
	} else {
		dst = append(dst, "USDC"...)
	}
	dst = append(dst, `","twapId":`...)
	if f.twap && f.crossed {
		dst = strconv.AppendUint(dst, 1_780_000+(r>>40&0xfff), 10)
	} else {
		dst = append(dst, "null"...)
	}
	if f.crossed && r>>2&15 == 0 {
		dst = append(dst, `,"builder":"`...)
		dst = append(dst, g.nodes[r>>6&3]...)
		dst = append(dst, `","builderFee":"`...)
		dst = appendDecimal(dst, fee/2, 6)
		dst = append(dst, '"')
	}
	if c.name == "xyz:SP500" && fee > 0 {
		dst = append(dst, `,"deployerFee":"`...)
		dst = appendDecimal(dst, fee/2, 6)
		dst = append(dst, '"')
	}
	if f.liquidation {
		dst = append(dst, `,"liquidation":{"liquidatedUser":"`...)
		dst = append(dst, user...)
		dst = append(dst, `","markPx":"`...)
		dst = appendDecimal(dst, f.px+1, c.pxDecimals)
		dst = append(dst, `","method":"market"}`...)
	}
	return append(dst, "}]"...)
}

func direction(c *coin, f *fillLeg, opens bool, start int64) string {
	switch {
	case c.spot && f.buy:
		return "Buy"
	case c.spot:
		return "Sell"
	case opens && f.buy:
		return "Open Long"
	case opens:
		return "Open Short"
	case start > 0 && f.sz > start:
		return "Long > Short"
	case start < 0 && f.sz > -start:
		return "Short > Long"
	case f.buy:
		return "Close Short"
	default:
		return "Close Long"
	}
}

func (g *Generator) trade(dst []byte) []byte {
	c, px, sz := g.quote()
	r := g.rng.Uint64()
	dst = append(dst, `{"coin":"`...)
	dst = append(dst, c.name...)
	dst = append(dst, `","side":"`...)
	dst = appendSide(dst, r&1 == 0)
	dst = append(dst, `","time":"`...)
	dst = g.now.appendISO(dst)
	dst = append(dst, `","px":"`...)
	dst = appendDecimal(dst, px, c.pxDecimals)
	dst = append(dst, `","sz":"`...)
	dst = appendDecimal(dst, sz, c.szDecimals)
	dst = append(dst, `","hash":`...)
	dst = g.appendHash(dst, g.newID())
	dst = append(dst, `,"trade_dir_override":"Na","side_info":[`...)
	for i := range 2 { // the buyer, then the seller
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"user":"`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `","start_pos":"`...)
		dst = appendDecimal(dst, int64(g.rng.Uint64()%uint64(4*c.maxSz))-2*c.maxSz, c.szDecimals)
		dst = append(dst, `","oid":`...)
		dst = strconv.AppendUint(dst, g.newID(), 10)
		dst = append(dst, `,"twap_id":`...)
		if i == 0 && r>>8&31 == 0 {
			dst = strconv.AppendUint(dst, 1_780_000+(r>>40&0xfff), 10)
		} else {
			dst = append(dst, "null"...)
		}
		dst = append(dst, `,"cloid":`...)
		dst = g.appendCloid(dst, 300)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}
