package gen

import (
	"cmp"
	"math/rand/v2"
	"strconv"
	"time"
)

// Options configures a Generator.
type Options struct {
	Source
	Seed uint64
	// EventsPerBlock is the mean number of events in a non-empty block. 0 means that of a busy mainnet node. Only modes
	// with blocks use it.
	EventsPerBlock int
	// FundingUsers is the number of accounts in one Funding event, about 160 bytes each. Defaults to 400. Only misc
	// events use it.
	FundingUsers int
}

// Generator generates the lines of one source. It is not safe for concurrent use.
type Generator struct {
	mode          Mode
	event         func([]byte) []byte
	perBlock      uint64 // in units: events, or trades of two fills
	unit          uint64 // events in a unit
	emptyPerMille uint64
	fundingUsers  int

	*market
	now   stamp // the time of the event or block
	local stamp // the time of the node's write

	nextID    uint64 // of orders; every event uses at least one
	block     uint64
	blockLeft uint64 // remaining events of a streaming block

	// Fills come in pairs: secondLeg is the rendered second fill of a trade, and fillHash the hash of both.
	secondLeg, fillHash []byte
	live                []restingOrder
}

// New validates the options and returns a Generator.
func New(o Options) (*Generator, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	info, _ := o.Stream.info()
	rng := rand.NewPCG(o.Seed, 0x9e3779b97f4a7c15)
	g := &Generator{
		mode:          o.Mode,
		perBlock:      uint64(info.eventsPerBlock),
		unit:          1,
		emptyPerMille: info.emptyPerMille,
		fundingUsers:  cmp.Or(o.FundingUsers, defaultFundingUsers),
		market:        newMarket(rng),
		nextID:        405_401_002_864,
		block:         978_995_377,
	}
	if o.EventsPerBlock > 0 {
		g.perBlock = uint64(o.EventsPerBlock)
	}
	if o.Stream == Fills {
		// Both sides of a trade are in the same block.
		g.unit, g.perBlock = 2, (g.perBlock+1)/2
	}
	switch o.Stream {
	case OrderStatuses:
		g.event = g.orderStatus
	case Fills:
		g.event = g.fill
	case RawBookDiffs:
		g.event = g.diff
	case Trades:
		g.event = g.trade
	case MiscEvents:
		g.event = g.misc
	case TwapStatuses:
		g.event = g.twapStatus
	}
	return g, nil
}

// AppendLine appends the next line with its newline to dst, and returns the number of its events. now is the node's
// clock and should not go backwards.
func (g *Generator) AppendLine(dst []byte, now time.Time) (line []byte, events int) {
	// A block reaches a node's disk about 150 ms after its time.
	const delay = 150 * time.Millisecond
	g.now.set(now.Add(-delay))
	switch g.mode {
	case Streaming:
		g.local.set(now)
		if g.blockLeft == 0 {
			g.block++
			for g.chance(g.emptyPerMille) {
				g.block++ // empty blocks write no line in this mode
			}
			g.blockLeft = g.eventsInBlock()
		}
		g.blockLeft--
		dst = g.appendEnvelope(dst)
		dst = g.event(dst)
		return append(dst, "]}\n"...), 1
	case ByBlock:
		g.local.set(now)
		g.block++
		dst = g.appendEnvelope(dst)
		if !g.chance(g.emptyPerMille) {
			events = int(g.eventsInBlock())
		}
		for i := range events {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = g.event(dst)
		}
		return append(dst, "]}\n"...), events
	default:
		dst = g.event(dst)
		return append(dst, '\n'), 1
	}
}

func (g *Generator) eventsInBlock() uint64 {
	return g.unit * (1 + g.rng.Uint64()%(2*g.perBlock-1))
}

func (g *Generator) appendEnvelope(dst []byte) []byte {
	dst = append(dst, `{"local_time":"`...)
	dst = g.local.appendISO(dst)
	dst = append(dst, `","block_time":"`...)
	dst = g.now.appendISO(dst)
	dst = append(dst, `","block_number":`...)
	dst = strconv.AppendUint(dst, g.block, 10)
	return append(dst, `,"events":[`...)
}

// newID returns the next order id. Ids ascend with small gaps, as on the chain.
func (g *Generator) newID() uint64 {
	g.nextID += 1 + g.rng.Uint64()&3
	return g.nextID
}

// appendHash appends a transaction's hash. The id in it makes it unique.
func (g *Generator) appendHash(dst []byte, id uint64) []byte {
	dst = append(dst, '"')
	dst = appendHex(dst, g.rng, 3)
	dst = appendHexWord(dst, id*0x9e3779b97f4a7c15) // an odd factor, so the mapping is injective
	return append(dst, '"')
}

// appendCloid appends a client order id, or null in n of 1,000 cases.
func (g *Generator) appendCloid(dst []byte, nullPerMille uint64) []byte {
	if g.chance(nullPerMille) {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = appendHex(dst, g.rng, 2)
	return append(dst, '"')
}
