package gen

import "strconv"

// defaultFundingUsers keeps lines moderate. On mainnet an hourly Funding event has about 100,000 accounts, in a line of
// 20 MB.
const defaultFundingUsers = 400

func (g *Generator) misc(dst []byte) []byte {
	dst = append(dst, `{"time":"`...)
	dst = g.now.appendISO(dst)
	dst = append(dst, `","hash":`...)
	dst = g.appendHash(dst, g.newID())
	dst = append(dst, `,"inner":{`...)
	r := g.rng.Uint64()
	switch kind := r % 200; {
	case kind < 120:
		dst = append(dst, `"LedgerUpdate":{"users":["`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `"],"delta":{"type":"accountClassTransfer","usdc":"`...)
		dst = appendDecimal(dst, int64(r>>10&0xffff_ffff), 6)
		dst = append(dst, `","toPerp":`...)
		dst = appendBool(dst, r>>9&1 == 0)
		dst = append(dst, "}}"...)
	case kind < 150:
		dst = append(dst, `"CDeposit":{"user":"`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `","amount":"`...)
		dst = appendDecimal(dst, int64(r>>10&0xffff_ffff), 8)
		dst = append(dst, `"}`...)
	case kind < 170:
		dst = append(dst, `"CWithdrawal":{"user":"`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `","amount":"`...)
		dst = appendDecimal(dst, int64(r>>10&0xffff_ffff), 8)
		dst = append(dst, `","is_finalized":`...)
		dst = appendBool(dst, r>>9&1 == 0)
		dst = append(dst, '}')
	case kind < 195:
		dst = append(dst, `"Delegation":{"user":"`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `","validator":"`...)
		dst = append(dst, g.nodes[(r>>8)%uint64(len(g.nodes))]...)
		dst = append(dst, `","amount":"`...)
		dst = appendDecimal(dst, int64(r>>10&0xffff_ffff), 8)
		dst = append(dst, `","is_undelegate":`...)
		dst = appendBool(dst, r>>9&1 == 0)
		dst = append(dst, '}')
	case kind < 199:
		dst = append(dst, `"ValidatorRewards":{"validator_to_reward":[`...)
		for i, node := range g.nodes {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `["`...)
			dst = append(dst, node...)
			dst = append(dst, `","`...)
			dst = appendDecimal(dst, int64(g.rng.Uint64()&0xf_ffff), 8)
			dst = append(dst, `"]`...)
		}
		dst = append(dst, "]}"...)
	default:
		dst = g.appendFunding(dst)
	}
	return append(dst, "}}"...)
}

func (g *Generator) appendFunding(dst []byte) []byte {
	dst = append(dst, `"Funding":{"deltas":[`...)
	for i := range g.fundingUsers {
		if i > 0 {
			dst = append(dst, ',')
		}
		c, _, sz := g.quote()
		r := g.rng.Uint64()
		dst = append(dst, `{"user":"`...)
		dst = append(dst, g.user()...)
		dst = append(dst, `","coin":"`...)
		dst = append(dst, c.name...)
		dst = append(dst, `","funding_amount":"`...)
		dst = appendDecimal(dst, int64(r&0xff_ffff)-(1<<23), 6)
		dst = append(dst, `","szi":"`...)
		dst = appendDecimal(dst, sz, c.szDecimals)
		dst = append(dst, `","funding_rate":"0.0000`...)
		dst = strconv.AppendUint(dst, 100+(r>>32)%100, 10)
		dst = append(dst, `"}`...)
	}
	return append(dst, "]}"...)
}
