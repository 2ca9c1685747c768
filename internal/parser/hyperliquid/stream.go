// Package hyperliquid knows what a Hyperliquid node writes: where each stream lies, how a line is split into events, which
// events a filter lets through, and how an event becomes a record. It turns bytes into bytes: whole lines in, encoded records
// out, with the position of each.
//
// It must never open a file, keep anything between two calls but scratch, build a tree of a line, turn an amount into a float,
// change a byte of what it copies, or fail because of what a line holds: malformed input is counted and handed back, and the next
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
	part     part  // what the value is to a Normalized record, or 0
	optional bool  // left out by some nodes, or for some events
	several  bool  // the event has more than one such value; any of them can satisfy the filter
	// leap, if not 0, makes this step a short cut: its text holds the most usual values of the steps that follow, as many as
	// leap says, which are passed over when it is there.
	leap int
	// inside is where the parts of the steps that are passed over stand in the text of a short cut; locate finds them.
	inside []fixed
}

// fixed is a part that stands in a step's text, between two indexes of that.
type fixed struct {
	part     part
	from, to int
}

type kind uint8

const (
	nothing    kind = iota
	stringRest      // the rest of a string whose quote is in text; no escapes
	anyValue
)

// key is a key of an object that leads to a field of the filter, or to a part of a Normalized record.
type key struct {
	name  string
	field field
	part  part
	keys  []key // of the object that is the value, or
	list  bool  // of each object of the array that is the value
}

// layout is how a stream's events are built. Facts: the node's README and real captures.
type layout struct {
	pair  bool   // the event is [user, object], else an object
	steps []step // nil: the stream has no fields for a filter, nor a fixed order worth knowing
	keys  []key  // of the object
	// record is what a Normalized record has, up to the block; nil: the stream has no such shape.
	record []member
}

//nolint:goconst // a layout reads best as what the node writes
func layoutOf(stream config.Stream) layout {
	switch stream {
	case config.OrderStatuses:
		return layout{
			steps: []step{
				{text: `{"time":"`, value: stringRest, part: timePart},
				{text: `,"user":"`, value: stringRest, field: userField, part: ownerPart},
				{text: `,"hash":null,"builder":null,"status":"`, value: stringRest, field: statusField, part: statusPart, leap: 3},
				{text: `,"hash":`, value: anyValue, optional: true},
				{text: `,"builder":`, value: anyValue, optional: true},
				{text: `,"status":"`, value: stringRest, field: statusField, part: statusPart},
				{text: `,"order":{"coin":"`, value: stringRest, field: coinField, part: coinPart},
				{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
				{text: `,"limitPx":"`, value: stringRest, field: priceField, part: pricePart},
				{text: `,"sz":"`, value: stringRest, part: remainingPart},
				{text: `,"oid":`, value: anyValue, part: idPart},
				{text: `,"timestamp":`, value: anyValue},
				{text: `,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,` +
					`"reduceOnly":false,"orderType":"Limit","origSz":"`, value: stringRest, field: sizeField, part: sizePart, leap: 8},
				{text: `,"triggerCondition":"`, value: stringRest},
				{text: `,"isTrigger":`, value: anyValue},
				{text: `,"triggerPx":"`, value: stringRest},
				{text: `,"children":`, value: anyValue},
				{text: `,"isPositionTpsl":`, value: anyValue},
				{text: `,"reduceOnly":`, value: anyValue, part: reduceOnlyPart},
				{text: `,"orderType":"`, value: stringRest, part: typePart},
				{text: `,"origSz":"`, value: stringRest, field: sizeField, part: sizePart},
				{text: `,"tif":"Alo","cloid":"`, value: stringRest, part: cloidPart, leap: 2},
				{text: `,"tif":`, value: anyValue, part: tifPart},
				{text: `,"cloid":`, value: anyValue, part: cloidPart},
				{text: `}}`},
			},
			keys: []key{
				{name: "time", part: timePart},
				{name: "user", field: userField, part: ownerPart},
				{name: "status", field: statusField, part: statusPart},
				{name: "order", keys: []key{
					{name: "coin", field: coinField, part: coinPart},
					{name: "side", field: sideField, part: sidePart},
					{name: "limitPx", field: priceField, part: pricePart},
					{name: "origSz", field: sizeField, part: sizePart},
					{name: "sz", part: remainingPart},
					{name: "oid", part: idPart},
					{name: "reduceOnly", part: reduceOnlyPart},
					{name: "orderType", part: typePart},
					{name: "tif", part: tifPart},
					{name: "cloid", part: cloidPart},
				}},
			},
			record: orderRecord,
		}
	case config.Fills:
		return layout{
			pair: true,
			steps: []step{
				{text: `["`, value: stringRest, field: userField, part: ownerPart},
				{text: `,{"coin":"`, value: stringRest, field: coinField, part: coinPart},
				{text: `,"px":"`, value: stringRest, field: priceField, part: pricePart},
				{text: `,"sz":"`, value: stringRest, field: sizeField, part: sizePart},
				{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
				{text: `,"time":`, value: anyValue, part: timePart},
				{text: `,"startPosition":"`, value: stringRest},
				{text: `,"dir":"`, value: stringRest, part: directionPart},
				{text: `,"closedPnl":"`, value: stringRest, part: closedPnlPart},
				{text: `,"hash":`, value: anyValue, part: hashPart},
				{text: `,"oid":`, value: anyValue, part: orderIDPart},
				{text: `,"crossed":`, value: anyValue, part: crossedPart},
				{text: `,"fee":"`, value: stringRest, part: feePart},
				{text: `,"tid":`, value: anyValue, part: idPart},
				{text: `,"cloid":`, value: anyValue, part: cloidPart, optional: true},
				{text: `,"feeToken":"`, value: stringRest, part: feeTokenPart},
				{text: `,"twapId":`, value: anyValue},
				{text: `,"builder":`, value: anyValue, optional: true},
				{text: `,"builderFee":`, value: anyValue, optional: true},
				{text: `,"deployerFee":`, value: anyValue, optional: true},
				{text: `,"priorityGas":`, value: anyValue, optional: true},
				{text: `,"liquidation":`, value: anyValue, part: liquidationPart, optional: true},
				{text: `}]`},
			},
			keys: []key{
				{name: "coin", field: coinField, part: coinPart},
				{name: "px", field: priceField, part: pricePart},
				{name: "sz", field: sizeField, part: sizePart},
				{name: "side", field: sideField, part: sidePart},
				{name: "time", part: timePart},
				{name: "dir", part: directionPart},
				{name: "closedPnl", part: closedPnlPart},
				{name: "hash", part: hashPart},
				{name: "oid", part: orderIDPart},
				{name: "crossed", part: crossedPart},
				{name: "fee", part: feePart},
				{name: "tid", part: idPart},
				{name: "cloid", part: cloidPart},
				{name: "feeToken", part: feeTokenPart},
				{name: "liquidation", part: liquidationPart},
			},
			record: fillRecord,
		}
	case config.Trades:
		return layout{
			steps: []step{
				{text: `{"coin":"`, value: stringRest, field: coinField, part: coinPart},
				{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
				{text: `,"time":"`, value: stringRest, part: timePart},
				{text: `,"px":"`, value: stringRest, field: priceField, part: pricePart},
				{text: `,"sz":"`, value: stringRest, field: sizeField, part: sizePart},
				{text: `,"hash":`, value: anyValue, part: hashPart},
				{text: `,"trade_dir_override":`, value: anyValue},
				{text: `,"side_info":[{"user":"`, value: stringRest, field: userField, part: buyerPart, several: true},
				{text: `,"start_pos":`, value: anyValue},
				{text: `,"oid":`, value: anyValue, part: buyerOrderIDPart},
				{text: `,"twap_id":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue, part: buyerCloidPart},
				{text: `},{"user":"`, value: stringRest, field: userField, part: sellerPart, several: true},
				{text: `,"start_pos":`, value: anyValue},
				{text: `,"oid":`, value: anyValue, part: sellerOrderIDPart},
				{text: `,"twap_id":`, value: anyValue},
				{text: `,"cloid":`, value: anyValue, part: sellerCloidPart},
				{text: `}]}`},
			},
			keys: []key{
				{name: "coin", field: coinField, part: coinPart},
				{name: "side", field: sideField, part: sidePart},
				{name: "px", field: priceField, part: pricePart},
				{name: "sz", field: sizeField, part: sizePart},
				{name: "time", part: timePart},
				{name: "hash", part: hashPart},
				{name: "side_info", list: true, keys: []key{
					{name: "user", field: userField, part: buyerPart},
					{name: "oid", part: buyerOrderIDPart},
					{name: "cloid", part: buyerCloidPart},
				}},
			},
			record: tradeRecord,
		}
	case config.RawBookDiffs:
		// No price and size: the size of a "remove" is not in the event, so a notional could not be told.
		return layout{
			steps: []step{
				{text: `{"user":"`, value: stringRest, field: userField, part: ownerPart},
				{text: `,"oid":`, value: anyValue, part: idPart},
				{text: `,"coin":"`, value: stringRest, field: coinField, part: coinPart},
				{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
				{text: `,"px":"`, value: stringRest, part: pricePart},
				{text: `,"raw_book_diff":`, value: anyValue, part: diffPart},
				{text: `}`},
			},
			keys: []key{
				{name: "user", field: userField, part: ownerPart},
				{name: "coin", field: coinField, part: coinPart},
				{name: "side", field: sideField, part: sidePart},
				{name: "oid", part: idPart},
				{name: "px", part: pricePart},
				{name: "raw_book_diff", part: diffPart},
			},
			record: diffRecord,
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
