// Package hyperliquid knows what a Hyperliquid node writes: where each stream lies, how a line is split into events, which
// events a filter lets through, and how an event becomes a record. It turns bytes into bytes: whole lines in, encoded records
// out, with the position of each.
//
// It must never open a file, keep anything between two calls but scratch, build a tree of a line, turn an amount into a float,
// change a byte of an event, or fail because of what a line holds: malformed input is counted and handed back, and the next
// line goes on. Unknown keys, statuses and coins are none of its business and pass.
package hyperliquid

import (
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Directory is the name of the directory, below the node's data directory, in which a stream is written in a mode:
// "node_order_statuses_by_block". It is empty for a stream or mode that no node writes, config.Auto included.
//
// Source: the node's README (the --write-… flags, --batch-by-block, --stream-with-block-info) and real captures.
func Directory(stream config.Stream, mode config.Mode) string {
	var name string
	switch stream {
	case config.OrderStatuses:
		name = "node_order_statuses"
	case config.Fills:
		name = "node_fills"
	case config.Trades:
		name = "node_trades"
	case config.RawBookDiffs:
		name = "node_raw_book_diffs"
	case config.MiscEvents:
		name = "misc_events"
	case config.OracleUpdates:
		name = "hip3_oracle_updates"
	case config.SystemActions:
		name = "system_and_core_writer_actions"
	default:
		return ""
	}
	switch mode {
	case config.Line:
		return name
	case config.Streaming:
		return name + "_streaming"
	case config.ByBlock:
		return name + "_by_block"
	}
	return ""
}

// field is what a filter may ask of an event, a bit each.
type field uint8

const (
	coinField field = 1 << iota
	userField
	statusField
	sideField
	priceField // limitPx, px
	sizeField  // the original size: origSz, sz
)

// step is one stretch of an event as nodes write it: text that is always the same, then a value. An event that follows its
// stream's steps is valid JSON whose fields lie where they are expected, found by a few comparisons. One that
// does not is no worse: it takes the general way, which is half as fast.
type step struct {
	text     string
	value    kind
	field    field // what the value is to a filter, or 0
	optional bool  // left out by some nodes, or for some events
	several  bool  // the event has more than one such value; any of them can satisfy the filter
	// leap, if not 0, makes this step a short cut: its text holds the most usual values of the steps that follow, as many as
	// leap says, which are passed over when it is there.
	leap int
}

type kind uint8

const (
	nothing    kind = iota
	stringRest      // the rest of a string whose quote is in text; no escapes
	anyValue
)

// key is a key of an object that leads to a field of the filter.
type key struct {
	name  string
	field field
	keys  []key // of the object that is the value, or
	list  bool  // of each object of the array that is the value
}

// layout is how a stream's events are built. Facts: the node's README and real captures.
type layout struct {
	pair  bool   // the event is [user, object], else an object
	steps []step // nil: the stream has no fields for a filter, nor a fixed order worth knowing
	keys  []key  // of the object
}

//nolint:goconst // a layout reads best as what the node writes
func layoutOf(stream config.Stream) layout {
	switch stream {
	case config.OrderStatuses:
		return layout{
			steps: []step{
				{text: `{"time":"`, value: stringRest},
				{text: `,"user":"`, value: stringRest, field: userField},
				{text: `,"hash":null,"builder":null,"status":"`, value: stringRest, field: statusField, leap: 3},
				{text: `,"hash":`, value: anyValue, optional: true},
				{text: `,"builder":`, value: anyValue, optional: true},
				{text: `,"status":"`, value: stringRest, field: statusField},
				{text: `,"order":{"coin":"`, value: stringRest, field: coinField},
				{text: `,"side":"`, value: stringRest, field: sideField},
				{text: `,"limitPx":"`, value: stringRest, field: priceField},
				{text: `,"sz":"`, value: stringRest},
				{text: `,"oid":`, value: anyValue},
				{text: `,"timestamp":`, value: anyValue},
				{text: `,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,` +
					`"reduceOnly":false,"orderType":"Limit","origSz":"`, value: stringRest, field: sizeField, leap: 8},
				{text: `,"triggerCondition":"`, value: stringRest},
				{text: `,"isTrigger":`, value: anyValue},
				{text: `,"triggerPx":"`, value: stringRest},
				{text: `,"children":`, value: anyValue},
				{text: `,"isPositionTpsl":`, value: anyValue},
				{text: `,"reduceOnly":`, value: anyValue},
				{text: `,"orderType":"`, value: stringRest},
				{text: `,"origSz":"`, value: stringRest, field: sizeField},
				{text: `,"tif":"Alo","cloid":"`, value: stringRest, leap: 2},
				{text: `,"tif":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue},
				{text: `}}`},
			},
			keys: []key{
				{name: "user", field: userField},
				{name: "status", field: statusField},
				{name: "order", keys: []key{
					{name: "coin", field: coinField},
					{name: "side", field: sideField},
					{name: "limitPx", field: priceField},
					{name: "origSz", field: sizeField},
				}},
			},
		}
	case config.Fills:
		return layout{
			pair: true,
			steps: []step{
				{text: `["`, value: stringRest, field: userField},
				{text: `,{"coin":"`, value: stringRest, field: coinField},
				{text: `,"px":"`, value: stringRest, field: priceField},
				{text: `,"sz":"`, value: stringRest, field: sizeField},
				{text: `,"side":"`, value: stringRest, field: sideField},
				{text: `,"time":`, value: anyValue},
				{text: `,"startPosition":"`, value: stringRest},
				{text: `,"dir":"`, value: stringRest},
				{text: `,"closedPnl":"`, value: stringRest},
				{text: `,"hash":`, value: anyValue},
				{text: `,"oid":`, value: anyValue},
				{text: `,"crossed":`, value: anyValue},
				{text: `,"fee":"`, value: stringRest},
				{text: `,"tid":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue, optional: true},
				{text: `,"feeToken":"`, value: stringRest},
				{text: `,"twapId":`, value: anyValue},
				{text: `,"builder":`, value: anyValue, optional: true},
				{text: `,"builderFee":`, value: anyValue, optional: true},
				{text: `,"deployerFee":`, value: anyValue, optional: true},
				{text: `,"priorityGas":`, value: anyValue, optional: true},
				{text: `,"liquidation":`, value: anyValue, optional: true},
				{text: `}]`},
			},
			keys: []key{
				{name: "coin", field: coinField},
				{name: "px", field: priceField},
				{name: "sz", field: sizeField},
				{name: "side", field: sideField},
			},
		}
	case config.Trades:
		return layout{
			steps: []step{
				{text: `{"coin":"`, value: stringRest, field: coinField},
				{text: `,"side":"`, value: stringRest, field: sideField},
				{text: `,"time":"`, value: stringRest},
				{text: `,"px":"`, value: stringRest, field: priceField},
				{text: `,"sz":"`, value: stringRest, field: sizeField},
				{text: `,"hash":`, value: anyValue},
				{text: `,"trade_dir_override":`, value: anyValue},
				{text: `,"side_info":[{"user":"`, value: stringRest, field: userField, several: true},
				{text: `,"start_pos":`, value: anyValue},
				{text: `,"oid":`, value: anyValue},
				{text: `,"twap_id":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue},
				{text: `},{"user":"`, value: stringRest, field: userField, several: true},
				{text: `,"start_pos":`, value: anyValue},
				{text: `,"oid":`, value: anyValue},
				{text: `,"twap_id":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue},
				{text: `}]}`},
			},
			keys: []key{
				{name: "coin", field: coinField},
				{name: "side", field: sideField},
				{name: "px", field: priceField},
				{name: "sz", field: sizeField},
				{name: "side_info", list: true, keys: []key{{name: "user", field: userField}}},
			},
		}
	case config.RawBookDiffs:
		// No price and size: the size of a "remove" is not in the event, so a notional could not be told.
		return layout{
			steps: []step{
				{text: `{"user":"`, value: stringRest, field: userField},
				{text: `,"oid":`, value: anyValue},
				{text: `,"coin":"`, value: stringRest, field: coinField},
				{text: `,"side":"`, value: stringRest, field: sideField},
				{text: `,"px":"`, value: stringRest},
				{text: `,"raw_book_diff":`, value: anyValue},
				{text: `}`},
			},
			keys: []key{
				{name: "user", field: userField},
				{name: "coin", field: coinField},
				{name: "side", field: sideField},
			},
		}
	}
	return layout{}
}

// fields are those that the stream's events have.
func (l layout) fields() field {
	var all field
	for _, s := range l.steps {
		all |= s.field
	}
	return all
}
