package gen

import "strconv"

// twapStatus renders the status of a TWAP order. Most orders are activated and finish; the chain ends some with an
// error.
func (g *Generator) twapStatus(dst []byte) []byte {
	c, px, sz := g.quote()
	r := g.rng.Uint64()
	total, minutes := sz*100, int64(5+r>>16%1436)
	status, executed := `"finished"`, total
	switch kind := r >> 32 % 100; {
	case kind < 45:
		status, executed = `"activated"`, 0
	case kind < 60:
		status, executed = `"terminated"`, total/100*int64(r>>40%100)
	case kind < 65:
		status, executed = `{"error":"Insufficient margin to place order."}`, total/100*int64(r>>40%100)
	}

	dst = append(dst, `{"time":"`...)
	dst = g.now.appendISO(dst)
	dst = append(dst, `","twap_id":`...)
	dst = strconv.AppendUint(dst, g.newID(), 10)
	dst = append(dst, `,"state":{"coin":"`...)
	dst = append(dst, c.name...)
	dst = append(dst, `","user":"`...)
	dst = append(dst, g.user()...)
	dst = append(dst, `","side":"`...)
	dst = appendSide(dst, r&1 == 0)
	dst = append(dst, `","sz":"`...)
	dst = appendDecimal(dst, total, c.szDecimals)
	dst = append(dst, `","executedSz":"`...)
	dst = appendDecimal(dst, executed, c.szDecimals)
	dst = append(dst, `","executedNtl":"`...)
	// The notional has four digits after the point.
	scale := pow10[c.pxDecimals] * pow10[c.szDecimals]
	dst = appendDecimal(dst, int64(float64(px)*float64(executed)/float64(scale)*1e4), 4)
	dst = append(dst, `","minutes":`...)
	dst = strconv.AppendInt(dst, minutes, 10)
	dst = append(dst, `,"reduceOnly":`...)
	dst = appendBool(dst, r>>1&15 == 0)
	dst = append(dst, `,"randomize":`...)
	dst = appendBool(dst, r>>5&3 == 0)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, g.now.millis-minutes*60_000, 10)
	dst = append(dst, `},"status":`...)
	dst = append(dst, status...)
	return append(dst, '}')
}
