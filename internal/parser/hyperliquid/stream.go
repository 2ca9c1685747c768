// Package hyperliquid knows the output of a Hyperliquid node: the directory of each stream, how a line is split into
// events, which events pass a filter, and how an event becomes a record. It converts bytes to bytes: whole lines in,
// encoded records out, each with its position.
//
// The package must never open a file, keep state other than scratch between two calls, build a tree of a line, convert
// an amount to a float, or change a byte of what it copies. It must never fail because of a line's content: malformed
// input is counted and returned, and the next line is processed. Unknown keys, statuses and coins pass.
package hyperliquid

import (
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Directory returns the name of the directory, below the node's data directory, to which a stream is written in a mode,
// such as "node_order_statuses_by_block". It is empty for a stream or mode that no node writes, including config.Auto.
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
	case config.TwapStatuses:
		name = "node_twap_statuses"
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

// field is a set of event fields that a filter may use, one bit each.
type field uint8

const (
	coinField field = 1 << iota
	userField
	statusField
	sideField
	priceField // limitPx, px
	sizeField  // the original size: origSz, sz
	typeField  // the kind of a misc event, a system action or an oracle update
)

// step is one section of an event as nodes write it: constant text, followed by a value. An event that follows its
// stream's steps is valid JSON whose fields are in the expected places, and a few comparisons find them. Any other
// event takes the general path, which is half as fast.
type step struct {
	text     string
	value    kind
	field    field // the filter field of the value, or 0
	part     part  // the part of a Normalized record, or 0
	optional bool  // missing in the output of some nodes, or in some events
	several  bool  // the event has more than one such value; any of them can satisfy the filter
	// skips, if not 0, makes this step a shortcut: its text holds the most frequent values of the following steps, and
	// that many steps are skipped when the text matches.
	skips int
	// skippedParts are the positions of the skipped steps' parts in the text of a shortcut; locate computes them.
	skippedParts []fixedPart
}

// fixedPart is a part at a fixed position in a step's text.
type fixedPart struct {
	part     part
	from, to int
}

type kind uint8

const (
	noValue    kind = iota
	stringRest      // the rest of a string whose quote is in text; no escapes
	anyValue
	wordOrError // a string without escapes, or an object with the text of an error: {"error":"…"}
)

// key is a key of an object that leads to a filter field, or to a part of a Normalized record.
type key struct {
	name  string
	field field
	part  part
	keys  []key // of the object that is the value
	list  bool  // keys are those of each object in the array that is the value
	of    shape // of the value
	// means, if not empty, is the value of the field if the key's value is a string, whatever its text.
	means []byte
}

// layout describes the events of a stream. Source: the node's README and real captures.
type layout struct {
	pair  bool   // the event is [user, object]; otherwise an object
	steps []step // nil: the stream has no filter fields, or no fixed order of keys
	keys  []key  // of the object
	// several means that an event may have several coins: only the records of its rows carry one.
	several bool
	// record lists the members of a Normalized record, up to the block. Nil if the stream's events are split into rows.
	record []member
	splits splitting
}

//nolint:goconst // a layout is most readable as the text that the node writes
func layoutOf(stream config.Stream) layout {
	switch stream {
	case config.OrderStatuses:
		return layout{
			steps: []step{
				{text: `{"time":"`, value: stringRest, part: timePart},
				{text: `,"user":"`, value: stringRest, field: userField, part: ownerPart},
				{text: `,"hash":null,"builder":null,"status":"`, value: stringRest, field: statusField, part: statusPart, skips: 3},
				{text: `,"hash":`, value: anyValue, part: hashPart, optional: true},
				{text: `,"builder":`, value: anyValue, part: builderPart, optional: true},
				{text: `,"status":"`, value: stringRest, field: statusField, part: statusPart},
				{text: `,"order":{"coin":"`, value: stringRest, field: coinField, part: coinPart},
				{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
				{text: `,"limitPx":"`, value: stringRest, field: priceField, part: pricePart},
				{text: `,"sz":"`, value: stringRest, part: remainingPart},
				{text: `,"oid":`, value: anyValue, part: idPart},
				{text: `,"timestamp":`, value: anyValue, part: timestampPart},
				{text: `,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],"isPositionTpsl":false,` +
					`"reduceOnly":false,"orderType":"Limit","origSz":"`, value: stringRest, field: sizeField, part: sizePart,
					skips: 8},
				{text: `,"triggerCondition":"`, value: stringRest, part: triggerConditionPart},
				{text: `,"isTrigger":`, value: anyValue, part: isTriggerPart},
				{text: `,"triggerPx":"`, value: stringRest, part: triggerPricePart},
				{text: `,"children":`, value: anyValue, part: childrenPart},
				{text: `,"isPositionTpsl":`, value: anyValue, part: isPositionTpslPart},
				{text: `,"reduceOnly":`, value: anyValue, part: reduceOnlyPart},
				{text: `,"orderType":"`, value: stringRest, part: typePart},
				{text: `,"origSz":"`, value: stringRest, field: sizeField, part: sizePart},
				{text: `,"tif":"Alo","cloid":"`, value: stringRest, part: cloidPart, skips: 2},
				{text: `,"tif":`, value: anyValue, part: tifPart},
				{text: `,"cloid":`, value: anyValue, part: cloidPart},
				{text: `}}`},
			},
			keys: []key{
				{name: "time", part: timePart},
				{name: "user", field: userField, part: ownerPart},
				{name: "hash", part: hashPart},
				{name: "builder", part: builderPart},
				{name: "status", field: statusField, part: statusPart},
				{name: "order", keys: []key{
					{name: "coin", field: coinField, part: coinPart},
					{name: "side", field: sideField, part: sidePart},
					{name: "limitPx", field: priceField, part: pricePart},
					{name: "origSz", field: sizeField, part: sizePart},
					{name: "sz", part: remainingPart},
					{name: "oid", part: idPart},
					{name: "timestamp", part: timestampPart},
					{name: "triggerCondition", part: triggerConditionPart},
					{name: "isTrigger", part: isTriggerPart},
					{name: "triggerPx", part: triggerPricePart},
					{name: "children", part: childrenPart},
					{name: "isPositionTpsl", part: isPositionTpslPart},
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
				{text: `,"startPosition":"`, value: stringRest, part: startPositionPart},
				{text: `,"dir":"`, value: stringRest, part: directionPart},
				{text: `,"closedPnl":"`, value: stringRest, part: closedPnlPart},
				{text: `,"hash":`, value: anyValue, part: hashPart},
				{text: `,"oid":`, value: anyValue, part: orderIDPart},
				{text: `,"crossed":`, value: anyValue, part: crossedPart},
				{text: `,"fee":"`, value: stringRest, part: feePart},
				{text: `,"tid":`, value: anyValue, part: idPart},
				{text: `,"cloid":`, value: anyValue, part: cloidPart, optional: true},
				{text: `,"liquidation":`, value: anyValue, part: liquidationPart, optional: true},
				{text: `,"feeToken":"`, value: stringRest, part: feeTokenPart},
				{text: `,"builder":`, value: anyValue, part: builderPart, optional: true},
				{text: `,"twapId":`, value: anyValue, part: twapIDPart},
				{text: `,"builderFee":`, value: anyValue, part: builderFeePart, optional: true},
				{text: `,"deployerFee":`, value: anyValue, part: deployerFeePart, optional: true},
				{text: `,"priorityGas":`, value: anyValue, part: priorityGasPart, optional: true},
				{text: `}]`},
			},
			keys: []key{
				{name: "coin", field: coinField, part: coinPart},
				{name: "px", field: priceField, part: pricePart},
				{name: "sz", field: sizeField, part: sizePart},
				{name: "side", field: sideField, part: sidePart},
				{name: "time", part: timePart},
				{name: "startPosition", part: startPositionPart},
				{name: "dir", part: directionPart},
				{name: "closedPnl", part: closedPnlPart},
				{name: "hash", part: hashPart},
				{name: "oid", part: orderIDPart},
				{name: "crossed", part: crossedPart},
				{name: "fee", part: feePart},
				{name: "tid", part: idPart},
				{name: "cloid", part: cloidPart},
				{name: "liquidation", part: liquidationPart},
				{name: "feeToken", part: feeTokenPart},
				{name: "builder", part: builderPart},
				{name: "twapId", part: twapIDPart},
				{name: "builderFee", part: builderFeePart},
				{name: "deployerFee", part: deployerFeePart},
				{name: "priorityGas", part: priorityGasPart},
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
				{text: `,"trade_dir_override":`, value: anyValue, part: directionOverridePart},
				{text: `,"side_info":[{"user":"`, value: stringRest, field: userField, part: buyerPart, several: true},
				{text: `,"start_pos":`, value: anyValue, part: buyerStartPositionPart},
				{text: `,"oid":`, value: anyValue, part: buyerOrderIDPart},
				{text: `,"twap_id":`, value: anyValue, part: buyerTwapIDPart},
				{text: `,"cloid":`, value: anyValue, part: buyerCloidPart},
				{text: `},{"user":"`, value: stringRest, field: userField, part: sellerPart, several: true},
				{text: `,"start_pos":`, value: anyValue, part: sellerStartPositionPart},
				{text: `,"oid":`, value: anyValue, part: sellerOrderIDPart},
				{text: `,"twap_id":`, value: anyValue, part: sellerTwapIDPart},
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
				{name: "trade_dir_override", part: directionOverridePart},
				{name: "side_info", list: true, keys: []key{
					{name: "user", field: userField, part: buyerPart},
					{name: "start_pos", part: buyerStartPositionPart},
					{name: "oid", part: buyerOrderIDPart},
					{name: "twap_id", part: buyerTwapIDPart},
					{name: "cloid", part: buyerCloidPart},
				}},
			},
			record: tradeRecord,
		}
	case config.RawBookDiffs:
		// No price and size: the event of a "remove" does not have the size, so the notional is unknown.
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
	case config.TwapStatuses:
		return twapLayout()
	case config.MiscEvents:
		return miscLayout()
	case config.OracleUpdates:
		return oracleLayout()
	case config.SystemActions:
		return systemLayout()
	}
	return layout{}
}

// fields returns the fields that the stream's events have.
func (l layout) fields() field {
	var all field
	for _, s := range l.steps {
		all |= s.field
	}
	return all | fieldsOf(l.keys)
}

func fieldsOf(keys []key) field {
	var all field
	for _, k := range keys {
		all |= k.field | fieldsOf(k.keys)
	}
	return all
}
