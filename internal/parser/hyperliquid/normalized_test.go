package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// The reference of Normalized records uses encoding/json and regexp alone, like the reference of the other formats.

// normalized returns the record of an event of the stream's shape, without its brace and the common end of all records.
func (s setting) normalized(event []byte, h refHeader) (record string, ok bool) {
	r := refRecord{ok: true}
	switch s.stream {
	case config.OrderStatuses:
		e := rawObject(event)
		o := rawObject(e["order"])
		r.add("id", whole(o["oid"]))
		r.add("coin", text(o["coin"]))
		r.add("side", refSide(o["side"]))
		r.add("price", text(o["limitPx"]))
		r.add("size", text(o["origSz"]))
		r.add("remaining", text(o["sz"]))
		r.add("owner", text(e["user"]))
		r.add("time", text(e["time"]))
		r.add("status", text(e["status"]))
		r.add("type", orNull(o["orderType"], text))
		r.add("tif", orNull(o["tif"], text))
		r.add("cloid", orNull(o["cloid"], text))
		r.add("reduceOnly", orNull(o["reduceOnly"], boolean))
		r.add("hash", orNull(e["hash"], text))
		r.add("builder", orNull(e["builder"], anything))
		r.add("timestamp", orNull(o["timestamp"], whole))
		r.add("triggerCondition", orNull(o["triggerCondition"], text))
		r.add("isTrigger", orNull(o["isTrigger"], boolean))
		r.add("triggerPrice", orNull(o["triggerPx"], text))
		r.add("children", orNull(o["children"], array))
		r.add("isPositionTpsl", orNull(o["isPositionTpsl"], boolean))
		r.add("extra", refExtra(event, knownKeys[s.stream]))
	case config.Fills:
		var pair []json.RawMessage
		_ = json.Unmarshal(event, &pair)
		o := rawObject(pair[1])
		r.add("id", whole(o["tid"]))
		r.add("orderId", whole(o["oid"]))
		r.add("coin", text(o["coin"]))
		r.add("side", refSide(o["side"]))
		r.add("price", text(o["px"]))
		r.add("size", text(o["sz"]))
		r.add("owner", text(pair[0]))
		r.add("time", refTime(o["time"]))
		r.add("direction", orNull(o["dir"], text))
		r.add("closedPnl", orNull(o["closedPnl"], text))
		r.add("fee", orNull(o["fee"], text))
		r.add("feeToken", orNull(o["feeToken"], text))
		r.add("crossed", orNull(o["crossed"], boolean))
		r.add("hash", orNull(o["hash"], text))
		r.add("cloid", orNull(o["cloid"], text))
		r.add("liquidation", orNull(o["liquidation"], object))
		r.add("startPosition", orNull(o["startPosition"], text))
		r.add("twapId", orNull(o["twapId"], whole))
		r.add("builder", orNull(o["builder"], anything))
		r.add("builderFee", orNull(o["builderFee"], text))
		r.add("deployerFee", orNull(o["deployerFee"], text))
		r.add("priorityGas", orNull(o["priorityGas"], anything))
		r.add("extra", refExtra(pair[1], knownKeys[s.stream]))
	case config.Trades:
		o := rawObject(event)
		var sides []json.RawMessage
		if json.Unmarshal(o["side_info"], &sides) != nil || len(sides) != 2 {
			return "", false
		}
		buyer, seller := rawObject(sides[0]), rawObject(sides[1])
		r.add("coin", text(o["coin"]))
		r.add("side", refSide(o["side"]))
		r.add("price", text(o["px"]))
		r.add("size", text(o["sz"]))
		r.add("time", text(o["time"]))
		r.add("hash", orNull(o["hash"], text))
		r.add("buyer", text(buyer["user"]))
		r.add("buyerOrderId", whole(buyer["oid"]))
		r.add("buyerCloid", orNull(buyer["cloid"], text))
		r.add("seller", text(seller["user"]))
		r.add("sellerOrderId", whole(seller["oid"]))
		r.add("sellerCloid", orNull(seller["cloid"], text))
		r.add("directionOverride", orNull(o["trade_dir_override"], text))
		r.add("buyerStartPosition", orNull(buyer["start_pos"], text))
		r.add("buyerTwapId", orNull(buyer["twap_id"], whole))
		r.add("sellerStartPosition", orNull(seller["start_pos"], text))
		r.add("sellerTwapId", orNull(seller["twap_id"], whole))
		r.add("extra", refExtra(event, knownKeys[s.stream]))
	case config.RawBookDiffs:
		o := rawObject(event)
		blockTime := "null"
		if s.mode != config.Line {
			blockTime = h.blockTime
		}
		r.add("id", whole(o["oid"]))
		r.add("coin", text(o["coin"]))
		r.add("side", refSide(o["side"]))
		r.add("price", text(o["px"]))
		r.add("owner", text(o["user"]))
		r.add("time", blockTime)
		diff := rawObject(o["raw_book_diff"])
		added, updated := rawObject(diff["new"]), rawObject(diff["update"])
		var word string
		_ = json.Unmarshal(o["raw_book_diff"], &word)
		switch {
		case word == "remove":
			r.add("kind", `"remove"`)
			r.add("size", "null")
			r.add("previousSize", "null")
		case added["sz"] != nil:
			r.add("kind", `"new"`)
			r.add("size", text(added["sz"]))
			r.add("previousSize", "null")
		default:
			r.add("kind", `"update"`)
			r.add("size", text(updated["newSz"]))
			r.add("previousSize", text(updated["origSz"]))
		}
		r.add("insertBefore", orNull(added["insertBefore"], whole))
		r.add("extra", refExtra(event, knownKeys[s.stream]))
	case config.TwapStatuses:
		e := rawObject(event)
		o := rawObject(e["state"])
		r.add("id", whole(e["twap_id"]))
		r.add("coin", text(o["coin"]))
		r.add("side", refSide(o["side"]))
		r.add("size", text(o["sz"]))
		r.add("executedSize", text(o["executedSz"]))
		r.add("executedNotional", text(o["executedNtl"]))
		r.add("minutes", whole(o["minutes"]))
		r.add("owner", text(o["user"]))
		r.add("time", text(e["time"]))
		r.add("startTime", refTime(o["timestamp"]))
		if failed := text(rawObject(e["status"])["error"]); failed != "" {
			r.add("status", `"error"`)
			r.add("error", failed)
		} else {
			r.add("status", text(e["status"]))
			r.add("error", "null")
		}
		r.add("reduceOnly", orNull(o["reduceOnly"], boolean))
		r.add("randomize", orNull(o["randomize"], boolean))
		r.add("extra", refExtra(event, knownKeys[s.stream]))
	}
	return strings.Join(r.members, ","), r.ok
}

// refKeys are the keys that a shape knows, and those of their values. The key "[]" leads to the two sides of a trade.
type refKeys map[string]refKeys

var knownKeys = map[config.Stream]refKeys{
	config.OrderStatuses: {"time": nil, "user": nil, "hash": nil, "builder": nil, "status": nil, "order": {
		"coin": nil, "side": nil, "limitPx": nil, "sz": nil, "oid": nil, "timestamp": nil, "triggerCondition": nil,
		"isTrigger": nil, "triggerPx": nil, "children": nil, "isPositionTpsl": nil, "reduceOnly": nil, "orderType": nil,
		"origSz": nil, "tif": nil, "cloid": nil,
	}},
	config.Fills: {"coin": nil, "px": nil, "sz": nil, "side": nil, "time": nil, "startPosition": nil, "dir": nil,
		"closedPnl": nil, "hash": nil, "oid": nil, "crossed": nil, "fee": nil, "tid": nil, "cloid": nil,
		"liquidation": nil, "feeToken": nil, "builder": nil, "twapId": nil, "builderFee": nil, "deployerFee": nil,
		"priorityGas": nil},
	config.Trades: {"coin": nil, "side": nil, "time": nil, "px": nil, "sz": nil, "hash": nil, "trade_dir_override": nil,
		"side_info": {"[]": {"user": nil, "start_pos": nil, "oid": nil, "twap_id": nil, "cloid": nil}}},
	config.RawBookDiffs: {"user": nil, "oid": nil, "coin": nil, "side": nil, "px": nil, "raw_book_diff": {
		"new": {"sz": nil, "insertBefore": nil}, "update": {"origSz": nil, "newSz": nil},
	}},
	config.TwapStatuses: {"time": nil, "twap_id": nil, "state": {
		"coin": nil, "user": nil, "side": nil, "sz": nil, "executedSz": nil, "executedNtl": nil, "minutes": nil,
		"reduceOnly": nil, "randomize": nil, "timestamp": nil,
	}, "status": {"error": nil}},
}

// refExtra returns an object of the members that are not known, or null.
func refExtra(raw []byte, known refKeys) string {
	members := refUnknown(raw, "", known)
	if len(members) == 0 {
		return "null"
	}
	return "{" + strings.Join(members, ",") + "}"
}

// refUnknown returns the members of a value that are not known, in their order.
func refUnknown(raw []byte, path string, known refKeys) []string {
	var out []string
	if sides, list := known["[]"]; list {
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for i, item := range items[:min(len(items), 2)] {
			out = append(out, refUnknown(item, []string{"buyer.", "seller."}[i], sides)...)
		}
		return out
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		before := dec.InputOffset()
		token, _ := dec.Token()
		name, key := token.(string), bytes.TrimLeft(raw[before:dec.InputOffset()], ", \t\r\n")
		var value json.RawMessage
		_ = dec.Decode(&value)
		keys, ok := known[name]
		if !ok {
			out = append(out, fmt.Sprintf(`"%s%s:%s`, path, key[1:], value))
		} else if keys != nil && !seen[name] {
			out = append(out, refUnknown(value, path+name+".", keys)...)
		}
		seen[name] = true
	}
	return out
}

// refRecord collects members. It is not ok once a member has no value.
type refRecord struct {
	members []string
	ok      bool
}

func (r *refRecord) add(name, value string) {
	r.ok = r.ok && value != ""
	r.members = append(r.members, fmt.Sprintf("%q:%s", name, value))
}

// rawObject returns the text of each value of an object; of equal keys the first counts. It is nil for anything but an
// object.
func rawObject(raw []byte) map[string]json.RawMessage {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil
	}
	members := map[string]json.RawMessage{}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			panic(fmt.Sprintf("%q: %v", raw, err))
		}
		if _, dup := members[name.(string)]; !dup {
			members[name.(string)] = value
		}
	}
	return members
}

// These return a value's text if it is of that kind, and nothing otherwise.

var wholeText = regexp.MustCompile(`^[0-9]+$`)

func whole(raw []byte) string { return string(wholeText.Find(raw)) }

func text(raw []byte) string    { return startingWith(`"`, raw) }
func boolean(raw []byte) string { return startingWith(`tf`, raw) }
func object(raw []byte) string  { return startingWith(`{`, raw) }
func array(raw []byte) string   { return startingWith(`[`, raw) }

func anything(raw []byte) string { return string(raw) }

func startingWith(any string, raw []byte) string {
	if len(raw) > 0 && strings.IndexByte(any, raw[0]) >= 0 {
		return string(raw)
	}
	return ""
}

func orNull(raw []byte, kind func([]byte) string) string {
	if raw == nil || string(raw) == "null" {
		return "null"
	}
	return kind(raw)
}

func refSide(raw []byte) string {
	var side any
	_ = json.Unmarshal(raw, &side)
	return map[any]string{"A": `"Ask"`, "Ask": `"Ask"`, "B": `"Bid"`, "Bid": `"Bid"`}[orNothing(side)]
}

// orNothing returns v if it can be the key of a map.
func orNothing(v any) any {
	if s, ok := v.(string); ok {
		return s
	}
	return nil
}

func refTime(raw []byte) string {
	ms, err := strconv.ParseInt(whole(raw), 10, 64)
	at := time.Unix(ms/1000, ms%1000*1e6).UTC()
	if err != nil || at.Year() > 9999 {
		return ""
	}
	return `"` + at.Format("2006-01-02T15:04:05") + fmt.Sprintf(`.%03d000000"`, ms%1000)
}

func replaced(event string, oldNew ...string) string {
	out := strings.NewReplacer(oldNew...).Replace(event)
	if out == event {
		panic("nothing to replace: " + event)
	}
	return out
}

func TestNormalizedRecordsAsTheyAreWritten(t *testing.T) {
	const (
		inLine  = `,"block":null,"index":null,"blockTime":null,"localTime":null,"pos":"` + testFile + `:0:0"}`
		inBlock = `,"block":978995377,"index":0,"blockTime":"2026-04-30T20:46:43.304461819",` +
			`"localTime":"2026-04-30T20:46:46.266580134","pos":"` + testFile + `:0:0"}`
		market = `{"id":405401002864,"coin":"BTC","side":"Ask","price":"76466.0","size":"0.0686","remaining":"0.01",` +
			`"owner":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702","time":"2026-04-30T20:46:43.304461819",` +
			`"status":"badAloPxRejected",` +
			`"type":"Limit","tif":"Alo","cloid":"0x14904991131967010000000003807292","reduceOnly":false,` +
			`"hash":null,"builder":null,"timestamp":1777582003304,"triggerCondition":"N/A","isTrigger":false,` +
			`"triggerPrice":"0.0","children":[],"isPositionTpsl":false,"extra":null`
		bought = `{"id":457367674387223,"orderId":405401019385,"coin":"BTC","side":"Bid","price":"76471.0",` +
			`"size":"0.00153",` +
			`"owner":"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f","time":"2026-04-30T20:46:46.008000000",` +
			`"direction":"Open Long",` +
			`"closedPnl":"0.0","fee":"0.050544","feeToken":"USDC","crossed":true,` +
			`"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","cloid":null,"liquidation":null,` +
			`"startPosition":"0.03395","twapId":1780822,"builder":null,"builderFee":null,"deployerFee":null,` +
			`"priorityGas":null,"extra":null`
		traded = `{"coin":"@107","side":"Bid","price":"36.796","size":"15.0","time":"2025-06-24T02:56:36.172847427",` +
			`"hash":"0x0f0fd1630a15ee0cfbf704261eaac1018c01021cbd299fd0aab0fc4b47dbfeb5",` +
			`"buyer":"0xb65117c1e1006e7b2413fa90e96fcbe3fa83ed75","buyerOrderId":105686976228,"buyerCloid":null,` +
			`"seller":"0x91853bcefbdc3447768413e6db7d6e0a81c4be56","sellerOrderId":105686976111,` +
			`"sellerCloid":"0x0000000000001371000031839dda1c54","directionOverride":"Na",` +
			`"buyerStartPosition":"1438.73242692","buyerTwapId":null,"sellerStartPosition":"1230.04231931",` +
			`"sellerTwapId":null,"extra":null`
		added = `{"id":405401002917,"coin":"BTC","side":"Bid","price":"76450.0",` +
			`"owner":"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1",` +
			`"time":null,"kind":"new","size":"0.5","previousSize":null,"insertBefore":null,"extra":null`
		failed = `{"id":2017981,"coin":"ZEC","side":"Bid","size":"3.55","executedSize":"2.29",` +
			`"executedNotional":"1132.9198","minutes":25,"owner":"0x42d2476ff3083f990b48f16901ea502b40ba61ca",` +
			`"time":"2026-07-09T19:00:44.010972875","startTime":"2026-07-09T18:44:12.255000000","status":"error",` +
			`"error":"Insufficient margin to place order.","reduceOnly":false,"randomize":true,"extra":null`
	)
	for name, c := range map[string]struct {
		stream config.Stream
		mode   config.Mode
		event  string
		want   string // empty: it has no record
	}{
		"an order":            {config.OrderStatuses, config.Line, order, market + inLine},
		"an order of a block": {config.OrderStatuses, config.ByBlock, order, market + inBlock},
		"an order, streaming": {config.OrderStatuses, config.Streaming, order, market + inBlock},
		"a trigger order with children, which also have coins, sides and sizes": {config.OrderStatuses, config.Line,
			triggered,
			`{"id":150926011357,"coin":"ETH","side":"Bid","price":"4399.3","size":"20.0","remaining":"20.0",` +
				`"owner":"0xc926ddba8b7617dbc65712f20cf8e1b58b8598d3",` +
				`"time":"2026-04-30T20:46:43.304461819","status":"triggered","type":"Stop Limit","tif":null,"cloid":null,` +
				`"reduceOnly":true,"hash":"0xafdc3e5b170aa773b155042abd1a5701d5005640b20dc64553a4e9add60e815e",` +
				`"builder":{"b":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","f":50},"timestamp":1756801591002,` +
				`"triggerCondition":"Price above 4400","isTrigger":true,"triggerPrice":"4400.0","children":[{"coin":"BTC",` +
				`"side":"A","limitPx":"1.0","sz":"1.0","oid":1,"timestamp":2,"triggerCondition":"N/A","isTrigger":true,` +
				`"triggerPx":"0.0","children":[],"isPositionTpsl":true,"reduceOnly":true,"orderType":"Stop Market",` +
				`"origSz":"1000000.0","tif":null,"cloid":null}],"isPositionTpsl":false,"extra":null` + inLine},
		"an order of an older file, without hash and builder, in milliseconds": {config.OrderStatuses, config.Line, oldOrder,
			`{"id":150926073770,"coin":"xyz:SP500","side":"Bid","price":"0.029409","size":"23366.0","remaining":"23366.0",` +
				`"owner":"0x6ac569a098a850a6a3c37547bc5d1d85cba80f33",` +
				`"time":"2024-01-02T08:26:36.877","status":"open","type":"Limit","tif":"Gtc","cloid":null,"reduceOnly":false,` +
				`"hash":null,"builder":null,"timestamp":1756801596877,"triggerCondition":"N/A","isTrigger":false,` +
				`"triggerPrice":"0.0","children":[],"isPositionTpsl":false,"extra":null` + inLine},
		"an order with members that are newer than the shape": {config.OrderStatuses, config.Line,
			replaced(order, `{"time"`, `{"v\u0031":[1, 2],"time"`, `"tif"`, `"queue":{"a":"b"},"tif"`),
			replaced(market, `"extra":null`, `"extra":{"v\u0031":[1, 2],"order.queue":{"a":"b"}}`) + inLine},
		"an order of an unknown status and coin": {config.OrderStatuses, config.Line,
			replaced(order, "badAloPxRejected", "noSuchStatusYet", `"BTC"`, `"new:COIN"`),
			replaced(market, "badAloPxRejected", "noSuchStatusYet", `"BTC"`, `"new:COIN"`) + inLine},
		"an order with only the required members, in any order": {config.OrderStatuses, config.Line,
			` { "order" : { "sz" : "1" , "origSz":"02.50","limitPx":"-0","oid":7,"s\u0069de":"\u0041","coin":"B\u0054C"},` +
				`"status":"","user":"u","time":"t"}`,
			`{"id":7,"coin":"B\u0054C","side":"Ask","price":"-0","size":"02.50","remaining":"1","owner":"u","time":"t",` +
				`"status":"","type":null,"tif":null,"cloid":null,"reduceOnly":null,"hash":null,"builder":null,"timestamp":null,` +
				`"triggerCondition":null,"isTrigger":null,"triggerPrice":null,"children":null,"isPositionTpsl":null,"extra":null` +
				inLine},
		"an order whose strings have escapes, which are preserved": {config.OrderStatuses, config.Line,
			replaced(order, `"BTC"`, `"\"\u00e9\/"`, `"Limit"`, `"Li\\mit"`),
			replaced(market, `"BTC"`, `"\"\u00e9\/"`, `"Limit"`, `"Li\\mit"`) + inLine},
		"an order with two coins: the first counts": {config.OrderStatuses, config.Line,
			replaced(order, `"coin":"BTC"`, `"coin":"BTC","coin":"ETH"`), market + inLine},
		"an order without a coin": {config.OrderStatuses, config.Line, replaced(order, `"coin":"BTC",`, ``),
			""},
		"an order with a third side": {config.OrderStatuses, config.Line,
			replaced(order, `"side":"A"`, `"side":"C"`), ""},
		"an order whose price is a number": {config.OrderStatuses, config.Line,
			replaced(order, `"76466.0"`, `76466.0`), ""},
		"an order whose id is a string": {config.OrderStatuses, config.Line,
			replaced(order, `"oid":405401002864`, `"oid":"405401002864"`), ""},
		"an order whose id is a fraction": {config.OrderStatuses, config.ByBlock,
			replaced(order, `"oid":405401002864`, `"oid":4.5`), ""},
		"an order whose tif is a number": {config.OrderStatuses, config.Line, replaced(order, `"Alo"`, `1`), ""},
		"an order whose reduceOnly is a string": {config.OrderStatuses, config.Line,
			replaced(order, `"reduceOnly":false`, `"reduceOnly":"no"`), ""},
		"an order without an order": {config.OrderStatuses, config.Line,
			`{"order":null,"time":"t","user":"u","status":"s"}`, ""},

		"a fill":            {config.Fills, config.Line, fill, bought + inLine},
		"a fill of a block": {config.Fills, config.ByBlock, fill, bought + inBlock},
		"a liquidation, with a builder and fees": {config.Fills, config.Streaming, liquidation,
			`{"id":457367674387223,"orderId":405401019385,"coin":"@107","side":"Ask","price":"36.796","size":"1500.0",` +
				`"owner":"0xc926ddba8b7617dbc65712f20cf8e1b58b8598d3",` +
				`"time":"2026-04-30T20:46:46.008000000","direction":"Close Long","closedPnl":"-1.0","fee":"0.050544",` +
				`"feeToken":"USDC","crossed":true,"hash":"0x00",` +
				`"cloid":"0x0000000000000000e0f5526d43ad490c",` +
				`"liquidation":{"liquidatedUser":"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f","markPx":"36.8",` +
				`"method":"market"},"startPosition":"0.03395","twapId":null,` +
				`"builder":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","builderFee":"0.01","deployerFee":"0.0",` +
				`"priorityGas":1,"extra":null` + inBlock},
		"a fill with a member that is newer than the shape": {config.Fills, config.Line,
			replaced(fill, `"twapId"`, `"tag":"x","twapId"`), replaced(bought, `"extra":null`, `"extra":{"tag":"x"}`) + inLine},
		"a fill with only the required members": {config.Fills, config.Line,
			`["u",{"tid":1,"oid":2,"time":0,"side":"A","sz":"1","px":"2","coin":"c"}]`,
			`{"id":1,"orderId":2,"coin":"c","side":"Ask","price":"2","size":"1","owner":"u",` +
				`"time":"1970-01-01T00:00:00.000000000","direction":null,"closedPnl":null,` +
				`"fee":null,"feeToken":null,"crossed":null,"hash":null,"cloid":null,"liquidation":null,"startPosition":null,` +
				`"twapId":null,"builder":null,"builderFee":null,"deployerFee":null,"priorityGas":null,"extra":null` + inLine},
		"a fill in the last millisecond of a four-digit year": {config.Fills, config.Line,
			replaced(fill, "1777582006008", "253402300799999"),
			replaced(bought, "2026-04-30T20:46:46.008", "9999-12-31T23:59:59.999") + inLine},
		"a fill a millisecond later": {config.Fills, config.Line,
			replaced(fill, "1777582006008", "253402300800000"), ""},
		"a fill before 1970": {config.Fills, config.Line, replaced(fill, "1777582006008", "-1"), ""},
		"a fill at a fraction of a millisecond": {config.Fills, config.Line,
			replaced(fill, "1777582006008", "1777582006008.5"), ""},
		"a fill whose time is a string": {config.Fills, config.Line, replaced(fill, "1777582006008", `"2026"`), ""},
		"a fill without an id": {config.Fills, config.Line, replaced(fill, `"tid":457367674387223,`, ``),
			""},
		"a fill whose liquidation is a number": {config.Fills, config.Line,
			replaced(liquidation, `"liquidation":{`, `"liquidation":1,"x":{`), ""},

		"a trade":            {config.Trades, config.Line, trade, traded + inLine},
		"a trade of a block": {config.Trades, config.ByBlock, trade, traded + inBlock},
		"a trade in another order, with escapes": {config.Trades, config.Line,
			replaced(trade, `{"coin":"@107",`, `{`, `"side_info":[`, `"c\u006fin":"@107","side_info" : [ `, `,"oid"`,
				` , "\u006fid"`, `"hash"`, `"h\u0061sh"`), traded + inLine},
		"a trade without its hash": {config.Trades, config.Line, replaced(trade,
			`"hash":"0x0f0fd1630a15ee0cfbf704261eaac1018c01021cbd299fd0aab0fc4b47dbfeb5",`, ``),
			replaced(traded, `"0x0f0fd1630a15ee0cfbf704261eaac1018c01021cbd299fd0aab0fc4b47dbfeb5"`, `null`) + inLine},
		"a trade whose sides have members that are newer than the shape": {config.Trades, config.Line,
			replaced(trade, `"start_pos"`, `"fee":"1","start_pos"`),
			replaced(traded, `"extra":null`, `"extra":{"buyer.fee":"1","seller.fee":"1"}`) + inLine},
		"a trade with one side": {config.Trades, config.Line, trade[:strings.Index(trade, `,{"user"`)] + "]}",
			""},
		"a trade with three sides": {config.Trades, config.Line, replaced(trade, `]}`, `,{}]}`), ""},
		"a trade with two sides, then three": {config.Trades, config.Line, replaced(trade, `]}`, `],"side_info":[{},{},{}]}`),
			traded + inLine},
		"a trade with a side and null": {config.Trades, config.Line, trade[:strings.Index(trade, `,{"user"`)] +
			",null]}", ""},
		"a trade whose sides are an object": {config.Trades, config.Line,
			`{"coin":"c","side":"A","time":"t","px":"1","sz":"1","side_info":{"user":"u","oid":1}}`, ""},

		"a new order in the book": {config.RawBookDiffs, config.Line, newDiff, added + inLine},
		"a new order, of a block": {config.RawBookDiffs, config.ByBlock, newDiff,
			replaced(added, `"time":null`, `"time":"2026-04-30T20:46:43.304461819"`) + inBlock},
		"a new order with the order that it precedes": {config.RawBookDiffs, config.Line,
			replaced(newDiff, `"0.5"`, `"0.5","insertBefore":405401002918`),
			replaced(added, `"insertBefore":null`, `"insertBefore":405401002918`) + inLine},
		"a new order with a member that is newer than the shape": {config.RawBookDiffs, config.Line,
			replaced(newDiff, `"0.5"`, `"0.5","depth":3`),
			replaced(added, `"extra":null`, `"extra":{"raw_book_diff.new.depth":3}`) + inLine},
		"a new order with spaces": {config.RawBookDiffs, config.Line,
			replaced(newDiff, `{"new":{"sz":"0.5"}}`, ` { "n\u0065w" : { "sz" : "0.5" } } `), added + inLine},
		"an update": {config.RawBookDiffs, config.Line, updateDiff,
			`{"id":405401002917,"coin":"kPEPE","side":"Ask","price":"0.5",` +
				`"owner":"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1","time":null,"kind":"update","size":"0.4",` +
				`"previousSize":"0.5","insertBefore":null,"extra":null` + inLine},
		"an update in another order": {config.RawBookDiffs, config.Line,
			replaced(updateDiff, `"origSz":"0.5","newSz":"0.4"`, `"newSz":"0.4" ,"x":[],"origSz":"0.5"`),
			`{"id":405401002917,"coin":"kPEPE","side":"Ask","price":"0.5",` +
				`"owner":"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1","time":null,"kind":"update","size":"0.4",` +
				`"previousSize":"0.5","insertBefore":null,"extra":{"raw_book_diff.update.x":[]}` + inLine},
		"a removal": {config.RawBookDiffs, config.Line, removeDiff,
			`{"id":405400999260,"coin":"ETH","side":"Bid","price":"68823.0",` +
				`"owner":"0xee162a5a60829bd346f0c1ac3514b21fe5f4b290","time":null,"kind":"remove","size":null,` +
				`"previousSize":null,"insertBefore":null,"extra":null` + inLine},
		"a removal with an escape": {config.RawBookDiffs, config.Line, replaced(removeDiff, `"remove"`, `"r\u0065move"`),
			`{"id":405400999260,"coin":"ETH","side":"Bid","price":"68823.0",` +
				`"owner":"0xee162a5a60829bd346f0c1ac3514b21fe5f4b290","time":null,"kind":"remove","size":null,` +
				`"previousSize":null,"insertBefore":null,"extra":null` + inLine},
		"an update that is also a new order": {config.RawBookDiffs, config.Line,
			replaced(newDiff, `{"new"`, `{"update":{"origSz":"2","newSz":"1"},"new"`), added + inLine},
		"a diff of an unknown kind": {config.RawBookDiffs, config.Line, replaced(newDiff, `"new"`, `"moved"`), ""},
		"a diff with an unknown word": {config.RawBookDiffs, config.Line,
			replaced(removeDiff, `"remove"`, `"removed"`), ""},
		"a diff that is null": {config.RawBookDiffs, config.Line, replaced(removeDiff, `"remove"`, `null`),
			""},
		"a new order whose size is a number":   {config.RawBookDiffs, config.Line, replaced(newDiff, `"0.5"`, `0.5`), ""},
		"a TWAP order that failed":             {config.TwapStatuses, config.Line, twapFailed, failed + inLine},
		"a TWAP order that failed, of a block": {config.TwapStatuses, config.Streaming, twapFailed, failed + inBlock},
		"a TWAP order that finished": {config.TwapStatuses, config.Line, replaced(twapFailed,
			`{"error":"Insufficient margin to place order."}`, `"finished"`),
			replaced(failed, `"error","error":"Insufficient margin to place order."`, `"finished","error":null`) + inLine},
		"a TWAP order with a status yet unknown": {config.TwapStatuses, config.Line, replaced(twapFailed,
			`{"error":"Insufficient margin to place order."}`, `"s\u0074opped"`),
			replaced(failed, `"error","error":"Insufficient margin to place order."`, `"s\u0074opped","error":null`) + inLine},
		"a TWAP order whose error has more members": {config.TwapStatuses, config.Line,
			replaced(twapFailed, `{"error":`, ` { "code" : 1, "error" : `),
			replaced(failed, `"extra":null`, `"extra":{"status.code":1}`) + inLine},
		"a TWAP order whose status is an object without an error": {config.TwapStatuses, config.Line,
			replaced(twapFailed, `"error"`, `"failure"`), ""},
		"a TWAP order whose error is a number": {config.TwapStatuses, config.Line,
			replaced(twapFailed, `"Insufficient margin to place order."`, `5`), ""},
		"a TWAP order without its status": {config.TwapStatuses, config.Line,
			replaced(twapFinished, `,"status":"finished"`, ``), ""},
		"a TWAP order without a state": {config.TwapStatuses, config.Line,
			`{"time":"t","twap_id":1,"state":null,"status":"finished"}`, ""},

		"an update without its previous size": {config.RawBookDiffs, config.Line, replaced(updateDiff, `"origSz":"0.5",`, ``),
			""},
	} {
		t.Run(name, func(t *testing.T) {
			line := c.event
			if c.mode != config.Line {
				line = block(c.event)
			}
			s := setting{c.stream, c.mode, config.Filter{}, config.Normalized}
			out := encode(t, s, lines(line))
			if c.want == "" {
				if len(out.Bad) != 1 || out.Bad[0].Reason != ReasonField || string(out.Bad[0].Bytes) != c.event ||
					len(out.Data)+len(out.Records) > 0 || out.Events != 0 {
					t.Errorf("want reason field; got %s", describe(out))
				}
			} else if got := string(out.Data); got != c.want+"\n" || len(out.Bad) > 0 || out.Events != 1 {
				t.Errorf("got\n%s\nwant\n%s", describe(out), c.want)
			}
			s.check(t, lines(line), 2)
		})
	}
}

func TestAnEventNextToOneWithoutARecordIsDelivered(t *testing.T) {
	s := setting{config.OrderStatuses, config.ByBlock, config.Filter{}, config.Normalized}
	out := encode(t, s, lines(block(order, replaced(order, `"coin":"BTC"`, `"coin":null`), order)))
	if len(out.Bad) != 1 || out.Bad[0].Index != 1 || out.Delivered != 2 || out.Events != 2 {
		t.Errorf("%s", describe(out))
	}
}

func TestAFilteredEventNeedsNoRecord(t *testing.T) {
	s := setting{config.OrderStatuses, config.ByBlock, config.Filter{Coins: []string{"ETH"}}, config.Normalized}
	out := encode(t, s, lines(block(replaced(order, `"76466.0"`, `5`), triggered)))
	if len(out.Bad) != 0 || out.Delivered != 1 || out.Events != 2 {
		t.Errorf("%s", describe(out))
	}
}

var memberText = regexp.MustCompile(`"(\w+)":("[^"]*"|[^,{}\[\]"]+|\{[^{}]*\}|\[\])`)

// oddValues replace other values.
var oddValues = []string{`null`, `true`, `5`, `-5`, `5.0`, `5e3`, `99999999999999999999`, `""`, `"A"`, `"Bid"`,
	`"\u0042"`, `"remove"`, `"é\n"`, `{}`, `{ "sz" : "1" }`, `[]`, `[{}]`}

// oddEventsOf returns events with one member missing, duplicated, or of another type.
func oddEventsOf(stream config.Stream) []string {
	var out []string
	for _, e := range eventsOf(stream) {
		for _, at := range memberText.FindAllStringSubmatchIndex(e, -1) {
			before, key, value, after := e[:at[0]], e[at[2]:at[3]], e[at[4]:at[5]], e[at[1]:]
			out = append(out,
				before+`"x`+key+`":`+value+after,
				before+fmt.Sprintf(`"\u%04x%s":`, key[0], key[1:])+value+after,
				before+`"`+key+`" : `+value+" "+after,
				before+`"`+key+`":5,"`+key+`":`+value+after,
				before+`"`+key+`":`+value+`,"`+key+`":"second"`+after)
			for _, v := range oddValues {
				out = append(out, before+`"`+key+`":`+v+after)
			}
		}
	}
	return out
}

func TestNormalizedRecordsOfOddEvents(t *testing.T) {
	for _, stream := range config.Streams() {
		events := sampled(oddEventsOf(stream))
		s := setting{stream, config.Line, config.Filter{}, config.Normalized}
		s.check(t, lines(events...))
		s.mode, s.filter = config.ByBlock, config.Filter{Coins: []string{"BTC"}, Sides: []string{"A"}}
		s.check(t, lines(block(events...)), 7)
	}
}

// TestNormalizedRecordsDoNotDependOnTheLayout shuffles keys and inserts spaces.
func TestNormalizedRecordsDoNotDependOnTheLayout(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var shuffled func(raw []byte) string
	shuffled = func(raw []byte) string {
		var list []json.RawMessage
		space := []string{"", " ", "\t "}[r.IntN(3)]
		if json.Unmarshal(raw, &list) == nil && list != nil {
			items := make([]string, len(list))
			for i, v := range list {
				items[i] = shuffled(v)
			}
			return "[" + space + strings.Join(items, space+","+space) + space + "]"
		}
		o := rawObject(raw)
		if o == nil {
			return string(raw)
		}
		members := make([]string, 0, len(o))
		for k, v := range o {
			members = append(members, fmt.Sprintf("%q%s:%s%s", k, space, space, shuffled(v)))
		}
		slices.Sort(members)
		r.Shuffle(len(members), func(i, k int) { members[i], members[k] = members[k], members[i] })
		return "{" + space + strings.Join(members, space+","+space) + space + "}"
	}
	for stream, events := range map[config.Stream][]string{
		config.OrderStatuses: {order, triggered, oldOrder},
		config.Fills:         {fill},
		config.Trades:        {trade},
		config.RawBookDiffs:  {newDiff, updateDiff, removeDiff},
		config.TwapStatuses:  {twapFinished, twapFailed},
	} {
		s := setting{stream, config.Line, config.Filter{}, config.Normalized}
		for _, e := range events {
			want := encode(t, s, lines(e))
			if want.Delivered != 1 {
				t.Fatalf("no record of %s", e)
			}
			for range 100 {
				other := shuffled([]byte(e))
				if got := encode(t, s, lines(other)); compact(t, got.Data) != compact(t, want.Data) {
					t.Fatalf("%s\ngot\n%s\nwant\n%s", other, describe(got), want.Data)
				}
			}
		}
	}
}

// compact returns a record with sorted keys and without spaces, as nested values keep those of the event.
func compact(t *testing.T, record []byte) string {
	t.Helper()
	b, err := json.Marshal(parseTree(record))
	if err != nil {
		t.Fatalf("%v: %s", err, record)
	}
	return string(b)
}

// TestFillsWithAnyOptionalMembersTakeTheFastPath reads fills with every combination of the members that not all fills
// have, and the other streams' events.
func TestFillsWithAnyOptionalMembersTakeTheFastPath(t *testing.T) {
	events := map[config.Stream][]string{
		config.OrderStatuses: {order, triggered, oldOrder}, config.Trades: {trade},
		config.RawBookDiffs: {newDiff, updateDiff, removeDiff},
	}
	optional := []string{`,"cloid":"0x1371"`, `,"liquidation":{"markPx":"1"}`, `,"builder":"0xb8"`, `,"builderFee":"0.01"`,
		`,"deployerFee":"0.0"`, `,"priorityGas":1`}
	for set := range 1 << len(optional) {
		with := func(i int) string {
			if set>>i&1 == 0 {
				return ""
			}
			return optional[i]
		}
		events[config.Fills] = append(events[config.Fills], strings.NewReplacer(`,"feeToken":"USDC"`,
			with(0)+with(1)+`,"feeToken":"USDC"`+with(2), `}]`, with(3)+with(4)+with(5)+`}]`).Replace(fill))
	}
	for stream, list := range events {
		w := setting{stream, config.Line, config.Filter{}, config.Normalized}.encoder(t).NewWorker()
		for _, e := range list {
			w.resetParts()
			if end, v := w.readSteps([]byte(e), 0, false); v != passed || end != len(e) {
				t.Errorf("%s: %s", stream, e)
			}
		}
	}
}

// TestShortCutsLocateTheirParts compares the parts in a shortcut's text with those of the steps that it skips.
func TestShortCutsLocateTheirParts(t *testing.T) {
	steps := layoutOf(config.OrderStatuses).steps
	locate(steps)
	got := map[part]string{}
	for _, s := range steps {
		for _, f := range s.skippedParts {
			got[f.part] = s.text[f.from:f.to]
		}
	}
	if want := map[part]string{
		hashPart: `null`, builderPart: `null`, triggerConditionPart: `"N/A"`, isTriggerPart: `false`,
		triggerPricePart: `"0.0"`, childrenPart: `[]`, isPositionTpslPart: `false`, reduceOnlyPart: `false`,
		typePart: `"Limit"`, tifPart: `"Alo"`,
	}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// schema is the subset of JSON Schema (draft 2020-12) that docs/schemas use. Any other keyword is an error.
type schema struct {
	Schema      string             `json:"$schema"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
	Type        any                `json:"type"` // a name, or a list
	Enum        []any              `json:"enum"`
	Const       any                `json:"const"`
	Pattern     string             `json:"pattern"`
	Minimum     *int64             `json:"minimum"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	AnyOf       []*schema          `json:"anyOf"`
}

func schemaOf(t testing.TB, stream config.Stream) *schema {
	t.Helper()
	return readSchema(t, stream.Kebab())
}

func readSchema(t testing.TB, name string) *schema {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "..", "..", "docs", "schemas", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // read only
	dec := json.NewDecoder(file)
	dec.DisallowUnknownFields()
	s := &schema{}
	if err := dec.Decode(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *schema) validate(record []byte) error {
	dec := json.NewDecoder(bytes.NewReader(record))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	return s.check("record", v)
}

func (s *schema) check(at string, v any) error {
	types, ok := s.Type.([]any)
	if !ok && s.Type != nil {
		types = []any{s.Type}
	}
	kind := "null"
	switch v := v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case map[string]any:
		kind = "object"
	case []any:
		kind = "array"
	case json.Number:
		kind = "number"
		if n, ok := new(big.Int).SetString(v.String(), 10); ok {
			kind = "integer"
			if s.Minimum != nil && n.Cmp(big.NewInt(*s.Minimum)) < 0 {
				return fmt.Errorf("%s: %d is less than %d", at, n, *s.Minimum)
			}
		}
	}
	if s.Type != nil && !slices.Contains(types, any(kind)) {
		return fmt.Errorf("%s: %s, want %v", at, kind, s.Type)
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return fmt.Errorf("%s: %v is not one of %v", at, v, s.Enum)
	}
	if s.Const != nil && v != s.Const {
		return fmt.Errorf("%s: %v is not %v", at, v, s.Const)
	}
	if text, ok := v.(string); ok && s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(text) {
		return fmt.Errorf("%s: %q does not match %s", at, text, s.Pattern)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	for _, name := range s.Required {
		if _, ok := object[name]; !ok {
			return fmt.Errorf("%s: %s is missing", at, name)
		}
	}
	if s.AnyOf != nil && !slices.ContainsFunc(s.AnyOf, func(a *schema) bool { return a.check(at, v) == nil }) {
		return fmt.Errorf("%s: it is none of the alternatives", at)
	}
	for name, property := range s.Properties {
		if value, ok := object[name]; ok {
			if err := property.check(at+"."+name, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasExactly reports whether the object has the required members, those of one alternative, and no other.
func (s *schema) hasExactly(object map[string]json.RawMessage) bool {
	alternatives := s.AnyOf
	if alternatives == nil {
		alternatives = []*schema{{}}
	}
	return slices.ContainsFunc(alternatives, func(a *schema) bool {
		names := slices.Concat(s.Required, a.Required)
		return len(names) == len(object) && !slices.ContainsFunc(names, func(name string) bool {
			return object[name] == nil || s.Properties[name] == nil
		})
	})
}

// blockTimed are the streams whose events have no time of their own.
var blockTimed = []config.Stream{config.RawBookDiffs, config.OracleUpdates, config.SystemActions}

func TestRecordsFollowTheirSchemas(t *testing.T) {
	for _, stream := range config.Streams() {
		s := schemaOf(t, stream)
		if s.Schema != "https://json-schema.org/draft/2020-12/schema" || s.Title == "" {
			t.Errorf("%s: %q, %q", stream, s.Schema, s.Title)
		}
		for _, mode := range modes {
			set := setting{stream, mode, config.Filter{}, config.Normalized}
			input := lines(append(eventsOf(stream), oddEventsOf(stream)...)...)
			if mode != config.Line {
				input = lines(block(append(eventsOf(stream), oddEventsOf(stream)...)...))
			}
			out := encode(t, set, input)
			seen := map[string]map[string]bool{} // the types of each property
			for line := range bytes.Lines(out.Data) {
				if err := s.validate(line); err != nil {
					t.Fatalf("%s: %v: %s", stream, err, line)
				}
				object := rawObject(line)
				if !s.hasExactly(object) {
					t.Fatalf("%s: %d members, %d properties, %d required: %s", stream, len(object), len(s.Properties), len(s.Required),
						line)
				}
				for name, value := range object {
					if seen[name] == nil {
						seen[name] = map[string]bool{}
					}
					seen[name][string(value[:1])] = true
				}
			}
			if len(seen) == 0 {
				t.Fatalf("%s: no records", stream)
			}
			// A type that no record has need not be documented. Line mode has no block; the other modes always do.
			for name, property := range s.Properties {
				types, list := property.Type.([]any)
				inBlock := name == "block" || name == "index" || name == "blockTime" || name == "localTime" ||
					name == "time" && slices.Contains(blockTimed, stream)
				if list && !inBlock && len(types) == 2 && !seen[name]["n"] {
					t.Errorf("%s: %s is never null", stream, name)
				}
				if inBlock && seen[name]["n"] != (mode == config.Line) {
					t.Errorf("%s %s: %s %v", stream, mode, name, seen[name])
				}
			}
		}
	}
}
