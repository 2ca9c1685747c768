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
	coin field = 1 << iota
	user
	status
	side
	price // limitPx, px
	size  // the original size: origSz, sz
)

// step is one stretch of an event as nodes write it: text that is always the same, then a value. An event that follows its
// stream's steps is valid JSON whose fields lie where they are expected, found without looking at each byte in turn. One that
// does not is no worse: it takes the general way.
type step struct {
	text     string
	value    kind
	field    field // what the value is to a filter, or 0
	optional bool  // left out by some nodes, or for some events
	any      bool  // another value of the event can satisfy the filter too
	// leap, if not 0, makes this step a short cut: its text holds the most usual values of the steps that follow, as many as
	// leap says, which are passed over when it is there.
	leap int
}

type kind uint8

const (
	none kind = iota
	rest      // the rest of a string whose quote is in text; no escapes
	free      // any value
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

func layoutOf(stream config.Stream) layout {
	switch stream {
	case config.OrderStatuses:
		return layout{
			steps: []step{
				{text: `{"time":"`, value: rest},
				{text: `,"user":"`, value: rest, field: user},
				{text: `,"hash":null,"builder":null,"status":"`, value: rest, field: status, leap: 3},
				{text: `,"hash":`, value: free, optional: true},
				{text: `,"builder":`, value: free, optional: true},
				{text: `,"status":"`, value: rest, field: status},
				{text: `,"order":{"coin":"`, value: rest, field: coin},
				{text: `,"side":"`, value: rest, field: side},
				{text: `,"limitPx":"`, value: rest, field: price},
				{text: `,"sz":"`, value: rest},
				{text: `,"oid":`, value: free},
				{text: `,"timestamp":`, value: free},
				{text: `,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,` +
					`"reduceOnly":false,"orderType":"Limit","origSz":"`, value: rest, field: size, leap: 8},
				{text: `,"triggerCondition":"`, value: rest},
				{text: `,"isTrigger":`, value: free},
				{text: `,"triggerPx":"`, value: rest},
				{text: `,"children":`, value: free},
				{text: `,"isPositionTpsl":`, value: free},
				{text: `,"reduceOnly":`, value: free},
				{text: `,"orderType":"`, value: rest},
				{text: `,"origSz":"`, value: rest, field: size},
				{text: `,"tif":"Alo","cloid":"`, value: rest, leap: 2},
				{text: `,"tif":`, value: free},
				{text: `,"cloid":`, value: free},
				{text: `}}`},
			},
			keys: []key{
				{name: "user", field: user},
				{name: "status", field: status},
				{name: "order", keys: []key{
					{name: "coin", field: coin},
					{name: "side", field: side},
					{name: "limitPx", field: price},
					{name: "origSz", field: size},
				}},
			},
		}
	case config.Fills:
		return layout{
			pair: true,
			steps: []step{
				{text: `["`, value: rest, field: user},
				{text: `,{"coin":"`, value: rest, field: coin},
				{text: `,"px":"`, value: rest, field: price},
				{text: `,"sz":"`, value: rest, field: size},
				{text: `,"side":"`, value: rest, field: side},
				{text: `,"time":`, value: free},
				{text: `,"startPosition":"`, value: rest},
				{text: `,"dir":"`, value: rest},
				{text: `,"closedPnl":"`, value: rest},
				{text: `,"hash":`, value: free},
				{text: `,"oid":`, value: free},
				{text: `,"crossed":`, value: free},
				{text: `,"fee":"`, value: rest},
				{text: `,"tid":`, value: free},
				{text: `,"cloid":`, value: free, optional: true},
				{text: `,"feeToken":"`, value: rest},
				{text: `,"twapId":`, value: free},
				{text: `,"builder":`, value: free, optional: true},
				{text: `,"builderFee":`, value: free, optional: true},
				{text: `,"deployerFee":`, value: free, optional: true},
				{text: `,"priorityGas":`, value: free, optional: true},
				{text: `,"liquidation":`, value: free, optional: true},
				{text: `}]`},
			},
			keys: []key{
				{name: "coin", field: coin},
				{name: "px", field: price},
				{name: "sz", field: size},
				{name: "side", field: side},
			},
		}
	case config.Trades:
		return layout{
			steps: []step{
				{text: `{"coin":"`, value: rest, field: coin},
				{text: `,"side":"`, value: rest, field: side},
				{text: `,"time":"`, value: rest},
				{text: `,"px":"`, value: rest, field: price},
				{text: `,"sz":"`, value: rest, field: size},
				{text: `,"hash":`, value: free},
				{text: `,"trade_dir_override":`, value: free},
				{text: `,"side_info":[{"user":"`, value: rest, field: user, any: true},
				{text: `,"start_pos":`, value: free},
				{text: `,"oid":`, value: free},
				{text: `,"twap_id":`, value: free},
				{text: `,"cloid":`, value: free},
				{text: `},{"user":"`, value: rest, field: user, any: true},
				{text: `,"start_pos":`, value: free},
				{text: `,"oid":`, value: free},
				{text: `,"twap_id":`, value: free},
				{text: `,"cloid":`, value: free},
				{text: `}]}`},
			},
			keys: []key{
				{name: "coin", field: coin},
				{name: "side", field: side},
				{name: "px", field: price},
				{name: "sz", field: size},
				{name: "side_info", list: true, keys: []key{{name: "user", field: user}}},
			},
		}
	case config.RawBookDiffs:
		// No price and size: the size of a "remove" is not in the event, so a notional could not be told.
		return layout{
			steps: []step{
				{text: `{"user":"`, value: rest, field: user},
				{text: `,"oid":`, value: free},
				{text: `,"coin":"`, value: rest, field: coin},
				{text: `,"side":"`, value: rest, field: side},
				{text: `,"px":"`, value: rest},
				{text: `,"raw_book_diff":`, value: free},
				{text: `}`},
			},
			keys: []key{
				{name: "user", field: user},
				{name: "coin", field: coin},
				{name: "side", field: side},
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
