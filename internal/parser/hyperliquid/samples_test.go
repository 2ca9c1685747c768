package hyperliquid

import (
	"fmt"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Events as nodes write them.
const (
	order = `{"time":"2026-04-30T20:46:43.304461819","user":"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702",` +
		`"hash":null,"builder":null,"status":"badAloPxRejected","order":{"coin":"BTC","side":"A","limitPx":"76466.0",` +
		`"sz":"0.01","oid":405401002864,"timestamp":1777582003304,"triggerCondition":"N/A","isTrigger":false,` +
		`"triggerPx":"0.0","children":[],"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit","origSz":"0.0686",` +
		`"tif":"Alo","cloid":"0x14904991131967010000000003807292"}}`
	triggered = `{"time":"2026-04-30T20:46:43.304461819","user":"0xc926ddba8b7617dbc65712f20cf8e1b58b8598d3",` +
		`"hash":"0xafdc3e5b170aa773b155042abd1a5701d5005640b20dc64553a4e9add60e815e",` +
		`"builder":{"b":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","f":50},"status":"triggered","order":{"coin":"ETH",` +
		`"side":"B","limitPx":"4399.3","sz":"20.0","oid":150926011357,"timestamp":1756801591002,` +
		`"triggerCondition":"Price above 4400","isTrigger":true,"triggerPx":"4400.0","children":[{"coin":"BTC","side":"A",` +
		`"limitPx":"1.0","sz":"1.0","oid":1,"timestamp":2,"triggerCondition":"N/A","isTrigger":true,"triggerPx":"0.0",` +
		`"children":[],"isPositionTpsl":true,"reduceOnly":true,"orderType":"Stop Market","origSz":"1000000.0","tif":null,` +
		`"cloid":null}],"isPositionTpsl":false,"reduceOnly":true,"orderType":"Stop Limit","origSz":"20.0","tif":null,` +
		`"cloid":null}}`
	oldOrder = `{"time":"2024-01-02T08:26:36.877","user":"0x6ac569a098a850a6a3c37547bc5d1d85cba80f33",` +
		`"status":"open","order":{"coin":"xyz:SP500","side":"B","limitPx":"0.029409","sz":"23366.0","oid":150926073770,` +
		`"timestamp":1756801596877,"triggerCondition":"N/A","isTrigger":false,"triggerPx":"0.0","children":[],` +
		`"isPositionTpsl":false,"reduceOnly":false,"orderType":"Limit","origSz":"23366.0","tif":"Gtc","cloid":null}}`
	fill = `["0xfca397d8b8de71639d9e4573d7ecc8199cbff42f",{"coin":"BTC","px":"76471.0","sz":"0.00153","side":"B",` +
		`"time":1777582006008,"startPosition":"0.03395","dir":"Open Long","closedPnl":"0.0",` +
		`"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","oid":405401019385,"crossed":true,` +
		`"fee":"0.050544","tid":457367674387223,"feeToken":"USDC","twapId":1780822}]`
	liquidation = `["0xc926ddba8b7617dbc65712f20cf8e1b58b8598d3",{"coin":"@107","px":"36.796","sz":"1500.0","side":"A",` +
		`"time":1777582006008,"startPosition":"0.03395","dir":"Close Long","closedPnl":"-1.0","hash":"0x00",` +
		`"oid":405401019385,"crossed":true,"fee":"0.050544","tid":457367674387223,` +
		`"cloid":"0x0000000000000000e0f5526d43ad490c",` +
		`"liquidation":{"liquidatedUser":"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f","markPx":"36.8","method":"market"},` +
		`"feeToken":"USDC","builder":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","twapId":null,"builderFee":"0.01",` +
		`"deployerFee":"0.0","priorityGas":1}]`
	trade = `{"coin":"@107","side":"B","time":"2025-06-24T02:56:36.172847427","px":"36.796","sz":"15.0",` +
		`"hash":"0x0f0fd1630a15ee0cfbf704261eaac1018c01021cbd299fd0aab0fc4b47dbfeb5","trade_dir_override":"Na",` +
		`"side_info":[{"user":"0xb65117c1e1006e7b2413fa90e96fcbe3fa83ed75","start_pos":"1438.73242692","oid":105686976228,` +
		`"twap_id":null,"cloid":null},{"user":"0x91853bcefbdc3447768413e6db7d6e0a81c4be56","start_pos":"1230.04231931",` +
		`"oid":105686976111,"twap_id":null,"cloid":"0x0000000000001371000031839dda1c54"}]}`
	newDiff = `{"user":"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1","oid":405401002917,"coin":"BTC","side":"B",` +
		`"px":"76450.0","raw_book_diff":{"new":{"sz":"0.5"}}}`
	updateDiff = `{"user":"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1","oid":405401002917,"coin":"kPEPE","side":"A",` +
		`"px":"0.5","raw_book_diff":{"update":{"origSz":"0.5","newSz":"0.4"}}}`
	removeDiff = `{"user":"0xee162a5a60829bd346f0c1ac3514b21fe5f4b290","oid":405400999260,"coin":"ETH","side":"B",` +
		`"px":"68823.0","raw_book_diff":"remove"}`
	misc = `{"time":"2026-07-09T19:03:32.561209966",` +
		`"hash":"0xc969ce4819514a6dcae3043f92cd6b01de00e62db454693f6d32799ad8552458",` +
		`"inner":{"CDeposit":{"user":"0x821717910ddb86892130f68465757d5f9bbb824d","amount":"10.0"}}}`
	twapFinished = `{"time":"2026-07-09T19:00:44.010972875","twap_id":2018017,"state":{"coin":"xyz:LITE",` +
		`"user":"0x7e57025c32d824dd4f1c59c5caa73b028dc0cbc7","side":"B","sz":"0.124","executedSz":"0.124",` +
		`"executedNtl":"99.4204","minutes":5,"reduceOnly":false,"randomize":false,"timestamp":1783623366714},` +
		`"status":"finished"}`
	twapFailed = `{"time":"2026-07-09T19:00:44.010972875","twap_id":2017981,"state":{"coin":"ZEC",` +
		`"user":"0x42d2476ff3083f990b48f16901ea502b40ba61ca","side":"B","sz":"3.55","executedSz":"2.29",` +
		`"executedNtl":"1132.9198","minutes":25,"reduceOnly":false,"randomize":true,"timestamp":1783622652255},` +
		`"status":{"error":"Insufficient margin to place order."}}`
)

// Events of the streams that are split into rows.
const (
	funding = `{"time":"2026-06-11T01:00:00.039772125",` +
		`"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","inner":{"Funding":{"deltas":[` +
		`{"user":"0xb11cbd5900050ac85facc0883dcc31b622f8da31","coin":"ZEC","funding_amount":"9.330246","szi":"280.0",` +
		`"funding_rate":"-0.0000810249"},{"user":"0xd89fccaf1d5aaa9b447c6d2ba0ec20cd2e5a8e1d","coin":"HYPE",` +
		`"funding_amount":"4.506878","szi":"-2744.84","funding_rate":"0.0000308526"}]}}}`
	rewards = `{"time":"2026-06-11T01:00:00.039772125","hash":"0x00","inner":{"ValidatorRewards":{"validator_to_reward":` +
		`[["0x240748680aadcfcf856036a0cb3c3afd0fc70ac3","0.28221779"],` +
		`["0x15f02807362067f79efbe526de2cfe4ee61379f7","0.22258446"]]}}}`
	auction = `{"time":"2026-06-11T01:00:00.039772125","hash":"0x00","inner":{"GossipPriorityAuctionRestart":` +
		`{"slot_id":0,"previous_winner":{"Ip":"203.0.113.7"},"end_gas":"0.39989171"}}}`
	ledger = `{"time":"2026-06-11T01:00:02.896899363","hash":"0x5a44","inner":{"LedgerUpdate":{"users":` +
		`["0x2444847e6d7bd5d42a57b167f4c3f477ba3076b4","0xddd9c7fa6a1c421afa00fd9c91f58d0594f0b1d4"],"delta":` +
		`{"type":"send","user":"0x2444847e6d7bd5d42a57b167f4c3f477ba3076b4",` +
		`"destination":"0xddd9c7fa6a1c421afa00fd9c91f58d0594f0b1d4","sourceDex":"spot","token":"USDC",` +
		`"amount":"500.008953","nonce":1781139594371,"feeToken":""}}}}`
	delegation = `{"time":"2026-06-11T01:01:29.513722441","hash":"0x7fe9","inner":{"Delegation":` +
		`{"user":"0x25d090b8de0c2151beea9f79d2d6deba24195dd0","validator":"0xb176cb79231c97d492e2bb7c1a9d5380b2075aaf",` +
		`"amount":"4.0","is_undelegate":false}}}`
	withdrawal = `{"time":"2026-06-11T01:01:29.513722441","hash":"0x7fe9","inner":{"CWithdrawal":` +
		`{"user":"0x9fbbd7bdd25ae8856941804c13136f93742ca29e","amount":"11.38254596","is_finalized":false}}}`
	oracle = `{"update_class":"Deployer","mark_px_inputs":[["flx:BTC","90608.6"],["flx:COIN","158.42"],` +
		`["flx:BTC","90608.7"]],"spot_px_inputs":[["flx:BTC","63171.0"],["flx:AAPL","158.33"]],` +
		`"external_perp_px_inputs":[],"oracle_pxs":{"coin_to_mark_px":[["flx:BTC",{"px":"90608.6",` +
		`"last_update_time":"2026-06-11T11:00:00.103069128","daily_px":"90608.6"}]],"coin_to_oracle_px":[["flx:BTC",` +
		`{"px":"63171.0","last_update_time":"1970-01-01T00:00:00","daily_px":"61521.0"}]],` +
		`"coin_to_external_perp_px":[["xyz:SP500",{"px":"1"}]]}}`
	action = `{"user":"0x95f918d062ac83502d8a548f7c5f0d1969585c1e","nonce":2153272,"evm_tx_hash":"0xb7b4","action":` +
		`{"type":"order","orders":[{"a":10107,"b":true,"p":"67.83","s":"1.8","r":false,"t":{"limit":{"tif":"Ioc"}}}],` +
		`"grouping":"na"}}`
)

const blockStart = `{"local_time":"2026-04-30T20:46:46.266580134","block_time":"2026-04-30T20:46:43.304461819",` +
	`"block_number":978995377,"events":[`

func block(events ...string) string { return blockStart + strings.Join(events, ",") + "]}" }

func lines(l ...string) []byte { return []byte(strings.Join(l, "\n") + "\n") }

// eventsOf returns events of each stream: as nodes write them, and valid ones written differently.
func eventsOf(stream config.Stream) []string {
	switch stream {
	case config.OrderStatuses:
		return []string{order, triggered, oldOrder,
			`{"order":{"origSz":"1.0","limitPx":"2.0","side":"A","coin":"BTC","children":[{"coin":"ETH"}]},"status":"open",` +
				`"user":"0xB1EDFECCF03F35D2268F5DC4013508A6EB52C702"}`,
			` { "user" : "0xB1EDFECCF03F35D2268F5DC4013508A6EB52C702" , "order" : { "coin" : "B\u0054C" ,` +
				` "s\u0069de" : "\u0042" } } `,
			strings.Replace(order, `"coin":"BTC"`, `"coin":"ETH","coin":"BTC"`, 1),
			strings.Replace(order, `"builder":null`, `"builder":{"coin":"BTC","status":"open"},"user":5`, 1),
			strings.Replace(order, `"status":"badAloPxRejected"`, `"status":"noSuchStatusYet"`, 1),
			strings.Replace(order, `"order":{`, `"order":null,"order":{`, 1),
			strings.Replace(order, `"user":`, `"User":`, 1),
			strings.Replace(order, `"children":[],`, ``, 1),
			strings.Replace(order, `"status":"badAloPxRejected"`, `"status":null`, 1),
			strings.Replace(order, `"coin":"BTC"`, `"coin":"xyzABC"`, 1),
			strings.Replace(order, `"coin":"BTC"`, `"coin":"xyz"`, 1),
			`{}`, `{"order":{}}`, `{"order":[{"coin":"BTC"}]}`,
		}
	case config.Fills:
		return []string{fill, liquidation,
			` [ "0xFCA397D8B8DE71639D9E4573D7ECC8199CBFF42F" , { "sz" : "1" , "px" : "1000" , "c\u006fin" : "BTC" } ] `,
			`["",{}]`,
			strings.Replace(fill, `"coin":"BTC"`, `"x":{"coin":"ETH"},"coin":"xyz:TSLA"`, 1),
		}
	case config.Trades:
		return []string{trade,
			strings.Replace(trade, "@107", "BTC", 1),
			strings.Replace(trade, `"side_info":[`,
				`"side_info":[null,{"user":1,"user":"0x91853bcefbdc3447768413e6db7d6e0a81c4be56"},`, 1),
			`{"side_info":{"user":"0x91853bcefbdc3447768413e6db7d6e0a81c4be56"},"px":"1","sz":"1"}`,
			`{"side_info":[],"coin":"BTC"}`,
			`{"side_info" : [ {} , {"user" : "0x91853bcefbdc3447768413e6db7d6e0a81c4be5\u0036"} ]}`,
		}
	case config.RawBookDiffs:
		return []string{newDiff, updateDiff, removeDiff,
			`{"raw_book_diff":{"new":{"sz":"0.5","insertBefore":7}},"px":"1.0","side":"A","coin":"BTC",` +
				`"user":"0xCA1D1650D13B8FA936DCA4EFDF1F487766F2ABD1"}`}
	case config.TwapStatuses:
		return []string{twapFinished, twapFailed,
			strings.NewReplacer(`"xyz:LITE"`, `"BTC"`, `"B"`, `"A"`, `"finished"`, `"open"`).Replace(twapFinished),
			`{"status" : { "x" : 1 , "err\u006fr" : "e" } , "state" : { "side" : "\u0042" , "coin" : "BTC" } }`,
			strings.Replace(twapFailed, `"status":{`, `"status":"activated","status":{`, 1),
			strings.Replace(twapFailed, `"error":`, `"error":5,"error":`, 1),
			strings.Replace(twapFailed, `"error":`, `"Error":`, 1),
			strings.Replace(twapFailed, `{"error":"Insufficient margin to place order."}`, `[{"error":"x"}]`, 1),
			strings.Replace(twapFailed, `order."}`, `order.","more":1}`, 1),
			strings.Replace(twapFailed, `"Insufficient margin to place order."`, `{"error":"x"}`, 1),
			strings.Replace(twapFinished, `"state":{`, `"state":[],"state":{`, 1),
			strings.Replace(twapFinished, `"state":{`, `"state":{"later":{},`, 1),
			`{}`, `{"state":{},"status":{}}`, `{"status":"open","state":{"coin":"BTC","user":null}}`,
		}
	}
	unknown := `{"coin":"ETH","inner":[[],{}]}`
	switch stream {
	case config.MiscEvents:
		return append(severalOf(stream), misc, funding, `{"inner":{"LedgerUpdate":{}}}`, rewards, auction, ledger, delegation,
			withdrawal, unknown,
			` { "inner" : { "Fund\u0069ng" : { "deltas" : [ {"c\u006fin" : "BTC" , "new":1} , 5 , {} ,`+
				` {"coin":"ETH","szi":7} ] , "more" : [ ] } } , "later" : {} , "hash" : null } `,
			`{"time":"t","inner":{"ValidatorRewards":{"validator_to_reward":[["a"],["a","1",2],["b","2"],"c",["d",4],[]]}}}`,
			`{"time":"t","inner":{"Funding":{"deltas":[]}}}`, `{"inner":{"Funding":[]}}`, `{"inner":{"CDeposit":5}}`,
			`{"time":5,"inner":{"CDeposit":{}}}`, `{"inner":{}}`, `{"inner":{"CDeposit":{},"CDeposit":{}}}`,
			`{"inner":{"`+strings.Repeat("x", 2000)+`":{}}}`,
			strings.Replace(funding, `"hash"`, `"new":"`+strings.Repeat("x", 2000)+`","hash"`, 1),
			strings.Replace(funding, `"hash"`, `"new":"x","hash"`, 1),
			strings.Replace(ledger, `{"type"`, `{"x":1,"type":2,"type"`, 1),
			`{}`,
		)
	case config.OracleUpdates:
		return append(severalOf(stream), oracle,
			` { "oracle_pxs" : { "coin_to_mark_px" : [ [ "\u0041" , { "px" : 1 } ] , [ "A" , 5 ] ] , "x" : 1 } , "y" : 2 ,`+
				` "mark_px_inputs" : [ [ "A" , "1" ] ] } `,
			strings.Replace(oracle, `["flx:BTC","63171.0"]`, `["flx:BTC","63171.0",1]`, 1),
			strings.Replace(oracle, `["flx:BTC","63171.0"]`, `[1,"63171.0"]`, 1),
			strings.Replace(oracle, `"Deployer"`, `{"a":1}`, 1),
			strings.Replace(oracle, "xyz:SP500", strings.Repeat("x", 200), 1),
			strings.Replace(oracle, `"Deployer"`, `"`+strings.Repeat("x", 2000)+`"`, 1),
			strings.Replace(oracle, `"external_perp_px_inputs":[]`, `"external_perp_px_inputs":null`, 1),
			strings.Replace(oracle, `"oracle_pxs":{`, `"oracle_pxs":null,"oracle_pxs":{`, 1),
			`{"mark_px_inputs":[]}`, `{}`, unknown,
		)
	}
	return append(severalOf(stream), action,
		`{"user":"0x67ac","nonce":5,"evm_tx_hash":"0xb2","action":{"type":"SystemSendAssetAction"},"x":[]}`,
		`{"action":{"type":7},"user":"u"}`, `{"action":[],"user":"u"}`, `{ "action" : { } }`, `{"nonce":-1}`, `{}`, unknown)
}

// malformedOf returns malformed events.
func malformedOf(stream config.Stream) []string {
	good := eventsOf(stream)[0]
	return []string{
		``, `null`, `5`, `"x"`, `tru`, `{]`, `{"a":1`, `{"a":1}}`, `{"a":tru}`, `{"a":1,}`, "{\"a\":\"\t\"}", `{"a":"\x"}`,
		`["a",{},1]`, `["a"]`, `[1,{}]`, `[{},"a"]`,
		good[:len(good)/2], good[:len(good)-1], good + "x", good + good, strings.Replace(good, ",", ",,", 1),
		"\x00\x00\x00", "\x00\x00" + good, good[:40] + "\x00\x00" + good, strings.Replace(good, `"0x`, `"0`+"\x01"+`x`, 1),
		"\xef\xbb\xbf" + good,
		`{"local_time":1}`, "\r", " \t ",
	}
}

// nonStrictOf returns events with text that strict readers reject. Such events are malformed unless the record is Raw,
// for which JSON is not guaranteed. Some only resemble such text. The text appears in every kind of place: a value that
// is used and one that is not, a key, a list, a value that is null in most events.
func nonStrictOf(stream config.Stream) []string {
	out := make([]string, 0, 256)
	for _, text := range []string{
		// not UTF-8
		"\xff", "a\x80", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\xaf", "1234567\xff", "12345678\xff90123456",
		`\ud800`, `\uDC00`, `\udc00\ud800`, `\ud83d\n\ude00`, `\ud83d\ud83d\ude00`, `\\\ud800`, `\ud800x`, // halves of pairs
		"é", "日本語", "\U0001f600", `\ud83d\ude00`, `\\ud800`, `\u00e9`, "\u2028", "\ufffd", `\"\ud83d\ude00`, // valid
	} {
		for _, place := range map[config.Stream][]string{
			config.OrderStatuses: {`"BTC"`, `"Limit"`, `"N/A"`, `null`, `"cloid"`, `[]`},
			config.Fills: {`"BTC"`, `"Open Long"`, `"USDC"`,
				`"0x0000000000000000000000000000000000000000000000000000000000000000"`, `"twapId"`, `1780822`},
			config.Trades:        {`"@107"`, `"Na"`, `null`, `"cloid"`},
			config.RawBookDiffs:  {`"BTC"`, `"sz"`, `"0.5"`, `"new"`},
			config.MiscEvents:    {`"10.0"`, `"CDeposit"`},
			config.OracleUpdates: {`"90608.6"`, `"63171.0"`, `"Deployer"`, `"flx:BTC"`, `"flx:COIN"`},
			config.SystemActions: {`"destination"`, `"nonce"`, `"SystemSendAssetAction"`, `null`},
			config.TwapStatuses:  {`"xyz:LITE"`, `"0.124"`, `"finished"`, `"minutes"`, `false`},
		}[stream] {
			with := `"` + text + `"`
			if place == `[]` {
				with = `[` + with + `]`
			}
			out = append(out, strings.Replace(eventsOf(stream)[0], place, with, 1))
		}
	}
	return out
}

// headersOf frames events with header values of every length and text.
func headersOf(events string) []string {
	out := make([]string, 0, 256)
	for _, value := range []string{
		strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("é", 32), strings.Repeat("é", 33),
		strings.Repeat("x", 1000),
		strings.Repeat(`\n`, 32), strings.Repeat(`\n`, 33), "\xff", `\ud800`, `\ud83d\ude00`, "é", "",
	} {
		for _, key := range []string{"local_time", "block_time", "other"} {
			times := map[string]string{"local_time": "l", "block_time": "b", "other": "o", key: value}
			common := fmt.Sprintf(`{"local_time":"%s","block_time":"%s","block_number":7,"events":[`, times["local_time"],
				times["block_time"])
			out = append(out,
				common+events+"]}", common+events+"]", common+events+`],"block_number":}`, common+events+`,]}`,
				fmt.Sprintf(`{"other":"%s","events":[%s],"block_number":7,"block_time":"%s","local_time":"%s"}`,
					times["other"], events, times["block_time"], times["local_time"]))
		}
		out = append(out, fmt.Sprintf(`{"local_time":["%s"],"block_number":7,"events":[%s]}`, value, events))
	}
	for _, number := range []string{strings.Repeat("9", 18), strings.Repeat("9", 19), strings.Repeat("9", 64),
		strings.Repeat("9", 65), strings.Repeat("9", 1000), `"` + strings.Repeat("x", 64) + `"`} {
		out = append(out, strings.Replace(blockStart, "978995377", number, 1)+events+"]}",
			`{"events":[`+events+`],"block_number":`+number+"}")
	}
	return out
}

// envelopesOf frames events differently than nodes do, or breaks the frame.
func envelopesOf(events string) []string {
	return []string{
		blockStart + events + "]}",
		blockStart + events + "]}\r",
		" " + strings.NewReplacer(":[", " : [ ", ",\"", " , \"").Replace(blockStart) + " " + events + " ] } ",
		`{"events":[` + events + `],"block_number":7,"block_time":"b","local_time":"l"}`,
		`{"block_number":0,"events":[` + events + `]}`,
		`{"block_number":1,"block_number":2,"block_time":5,"block_time":"b","local_time":"l","local_time":"m","events":[` +
			events + `],"events":[]}`,
		`{"version":{"events":[1]},"block_number":8,"block_time":null,"local_time":"\u0041","ev\u0065nts":[` + events +
			`],"x":[]}`,
		blockStart + events + `],"events":[{"second":1}],"block_number":1,"block_time":2}`,
		blockStart + events + `],"block_number":}`,
		blockStart + events + `]`,
		blockStart + events,
		blockStart + events + `,]}`,
		blockStart + events + `]}x`,
		blockStart + events + "]}" + blockStart + events + "]}",
		blockStart + events + `}`,
		strings.Replace(blockStart, "978995377", "-1", 1) + events + "]}",
		strings.Replace(blockStart, "978995377", "1e3", 1) + events + "]}",
		strings.Replace(blockStart, "978995377", "012", 1) + events + "]}",
		strings.Replace(blockStart, "978995377", "1234567890123456789", 1) + events + "]}",
		`{"local_time":"l","block_time":"b","events":[` + events + `]}`,
		`{"block_number":1,"events":{}}`, `{"block_number":1}`, `{}`, `[]`, `null`, ``, "\x00\x00", " ",
	}
}

// filters returns the filters that the tests apply to every stream.
func filters() []config.Filter {
	return []config.Filter{
		{},
		{Coins: []string{"BTC"}},
		{Coins: []string{"nosuch", "xyz:*"}},
		{Coins: []string{"BTC", "ETH", "1", "2", "3", "4", "5", "6", "7", "8", "9"}},
		{Users: []string{"0xB1edfeccf03f35d2268f5dc4013508a6eb52c702", "0xfca397d8b8de71639d9e4573d7ecc8199cbff42f",
			"0xca1d1650d13b8fa936dca4efdf1f487766f2abd1"}},
		{Users: []string{"0x91853bcefbdc3447768413e6db7d6e0a81c4be56"}},
		{Statuses: []string{"open", "noSuchStatusYet"}},
		{Statuses: []string{"error", "finished"}},
		{ExcludeStatuses: []string{"error"}},
		{ExcludeStatuses: []string{"badAloPxRejected", "triggered"}},
		{Sides: []string{"B"}},
		{MinNotional: "5245.5676"}, // of the first order: 76466.0 × 0.0686, exactly
		{MinNotional: "0"},
		{Coins: []string{"@*", "#*"}, Sides: []string{"Bid", "Ask"}},
		{Markets: []config.Market{config.Hip3, config.Spot}, ExcludeCoins: []string{"xyz:LITE", "@107", "flx:*"}},
		{Markets: []config.Market{config.Perp}, Coins: []string{"BTC", "ZEC", "HYPE", "xyz:*"}},
		{ExcludeCoins: []string{"BTC", "ETH", "ZEC"}},
		{Types: []string{"LedgerUpdate", "order", "Deployer"}},
		{Types: []string{"send", "Funding", "SystemSendAssetAction", "Fallback"}, Coins: []string{"ZEC", "flx:*", "BTC"}},
		{Users: []string{"0x0000000000000000000000000000000000000001", "0x0000000000000000000000000000000000000002"}},
		{Users: []string{"0x0000000000000000000000000000000000000001"}, Coins: []string{"HYPE"}},
		{Users: []string{"0x0000000000000000000000000000000000000002"}, ExcludeCoins: []string{"HYPE"}},
		{Coins: []string{"BTC"}, Statuses: []string{"badAloPxRejected"}, ExcludeStatuses: []string{"open"},
			Sides: []string{"A", "B"}, MinNotional: "0.001",
			Users: []string{"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702"}},
	}
}

var modes = []config.Mode{config.Line, config.Streaming, config.ByBlock}
