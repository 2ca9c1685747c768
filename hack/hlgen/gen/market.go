package gen

import "math/rand/v2"

// coin is one market. Prices and sizes are integers in units of its smallest decimal.
type coin struct {
	name       string
	weight     int // share of the events, in 256ths
	px         int64
	pxDecimals int
	szDecimals int
	maxSz      int64
	spot       bool
}

// coins returns shares and prices as on mainnet in spring 2026, with every kind of name: perpetual, scaled, spot by
// index and by pair, builder-deployed, outcome.
func coins() []coin {
	return []coin{
		{name: "BTC", weight: 58, px: 76450, szDecimals: 5, maxSz: 200_000},
		{name: "ETH", weight: 40, px: 22614, pxDecimals: 1, szDecimals: 4, maxSz: 500_000},
		{name: "SOL", weight: 28, px: 83412, pxDecimals: 3, szDecimals: 2, maxSz: 100_000},
		{name: "HYPE", weight: 28, px: 39674, pxDecimals: 3, szDecimals: 2, maxSz: 200_000},
		{name: "@107", weight: 18, px: 39668, pxDecimals: 3, szDecimals: 2, maxSz: 60_000, spot: true},
		{name: "xyz:SP500", weight: 16, px: 71435, pxDecimals: 1, szDecimals: 3, maxSz: 5_000},
		{name: "kPEPE", weight: 12, px: 38140, pxDecimals: 7, szDecimals: 0, maxSz: 9_000_000},
		{name: "XRP", weight: 10, px: 13892, pxDecimals: 4, szDecimals: 0, maxSz: 50_000},
		{name: "DOGE", weight: 8, px: 104120, pxDecimals: 6, szDecimals: 0, maxSz: 400_000},
		{name: "xyz:GOLD", weight: 8, px: 46310, pxDecimals: 1, szDecimals: 4, maxSz: 20_000},
		{name: "FARTCOIN", weight: 8, px: 20755, pxDecimals: 5, szDecimals: 1, maxSz: 900_000},
		{name: "PENGU", weight: 6, px: 29409, pxDecimals: 6, szDecimals: 0, maxSz: 900_000},
		{name: "@151", weight: 6, px: 22608, pxDecimals: 1, szDecimals: 4, maxSz: 100_000, spot: true},
		{name: "PURR/USDC", weight: 6, px: 72145, pxDecimals: 6, szDecimals: 0, maxSz: 30_000, spot: true},
		{name: "#1890", weight: 4, px: 4271, pxDecimals: 4, szDecimals: 0, maxSz: 20_000, spot: true},
	}
}

// userCount is the number of addresses in the market. The first few dozen, the market makers, cause most events.
const userCount = 2048

type market struct {
	rng   *rand.PCG
	coins []coin
	home  []int64    // prices that the random walk returns to
	pick  [256]uint8 // maps a random byte to the index of a coin
	users [userCount]string
	nodes []string // validators, for delegations
}

func newMarket(rng *rand.PCG) *market {
	m := &market{rng: rng, coins: coins()}
	slot := 0
	for i, c := range m.coins {
		m.home = append(m.home, c.px)
		for range c.weight {
			m.pick[slot] = uint8(i)
			slot++
		}
	}
	for i := range m.users {
		m.users[i] = newAddress(rng)
	}
	for range 24 {
		m.nodes = append(m.nodes, newAddress(rng))
	}
	return m
}

func newAddress(rng *rand.PCG) string {
	const addressLen = len("0x") + 40
	return string(appendHex(nil, rng, 3)[:addressLen])
}

// quote moves one market by at most one tick, and returns its price and a size.
func (m *market) quote() (c *coin, px, sz int64) {
	r := m.rng.Uint64()
	i := m.pick[byte(r)]
	c = &m.coins[i]
	switch step := int64(r>>8&3) - 1; {
	case step == 2: // half of the moves are zero
	case c.px+step > m.home[i]+m.home[i]/8, c.px+step < m.home[i]-m.home[i]/8:
		c.px -= step
	default:
		c.px += step
	}
	// Sizes span three orders of magnitude; most are small.
	sz = 1 + int64((r>>16)%uint64(c.maxSz))>>(r>>60)
	return c, c.px, sz
}

// user returns an address. Low indexes are frequent: 12 of 16 events come from 64 market makers.
func (m *market) user() string {
	r := m.rng.Uint64()
	if r&15 < 12 {
		return m.users[r>>8&63]
	}
	return m.users[(r>>8)%userCount]
}

// chance returns true in n of 1,000 cases.
func (m *market) chance(n uint64) bool { return m.rng.Uint64()%1000 < n }
