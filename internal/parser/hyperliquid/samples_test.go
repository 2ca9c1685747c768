package hyperliquid

import (
	"fmt"
	"slices"
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
		`"cloid":"0x0000000000000000e0f5526d43ad490c","feeToken":"USDC","twapId":null,` +
		`"builder":"0xb84168cf3be63c6b8dad05ff5d755e97432ff80b","builderFee":"0.01","deployerFee":"0.0","priorityGas":1,` +
		`"liquidation":{"liquidatedUser":"0xfca397d8b8de71639d9e4573d7ecc8199cbff42f","markPx":"36.8","method":"market"}}]`
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
	}
	return []string{misc, `{"coin":"ETH","inner":[[],{}]}`}
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
			config.OracleUpdates: {`"10.0"`},
			config.SystemActions: {`"amount"`},
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
		{ExcludeStatuses: []string{"badAloPxRejected", "triggered"}},
		{Sides: []string{"B"}},
		{MinNotional: "5245.5676"}, // of the first order: 76466.0 × 0.0686, exactly
		{MinNotional: "0"},
		{Coins: []string{"BTC"}, Statuses: []string{"badAloPxRejected"}, ExcludeStatuses: []string{"open"},
			Sides: []string{"A", "B"}, MinNotional: "0.001",
			Users: []string{"0xb1edfeccf03f35d2268f5dc4013508a6eb52c702"}},
	}
}

// formatsOf returns the formats that the stream has records in.
func formatsOf(stream config.Stream) []config.Format {
	return slices.DeleteFunc(config.Formats(), func(f config.Format) bool {
		return f == config.Normalized &&
			!stream.HasNormalized()
	})
}

var modes = []config.Mode{config.Line, config.Streaming, config.ByBlock}
