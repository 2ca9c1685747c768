package hyperliquid

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

// The reference specifies the result of Encode, slowly and with encoding/json alone: json.Valid, and a walk of a
// Decoder's tokens that is case-sensitive and lets the first key win (Unmarshal ignores case and takes the last of two
// keys). It shares nothing with the package but the types of the result.

type setting struct {
	stream config.Stream
	mode   config.Mode
	filter config.Filter
	format config.Format
}

const (
	testTarget = "node \"1\"\n"
	testFile   = "dir/20260430/20@1a2b3c4d"
)

// keyed reports whether records carry their coin. Those of one format do not, so that both variants are tested.
func (s setting) keyed() bool { return s.format != config.Raw }

func (s setting) encoder(t testing.TB) *Encoder {
	t.Helper()
	e, err := NewEncoder(s.stream, s.mode, s.filter, s.format, testTarget, s.keyed())
	if err != nil {
		t.Fatal(err)
	}
	e.longLine = 0 // so that Cut cuts within the short lines of tests
	return e
}

// want is the result that the reference expects.
type want struct {
	Output
	number int // of the line's next record
	block  int64
	before int // events of the block in the lines before
	// unread are the lines in Bad that may go unnoticed, because the filter may reject a line by its first fields.
	unread map[int64]bool
}

func (s setting) reference(data []byte, offset int64) want {
	w := want{unread: map[int64]bool{}}
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		w.Lines++
		w.number = 0
		if s.mode == config.Line {
			body := bytes.Trim(line, " \t\r")
			if json.Valid(body) && s.shape(body) {
				w.event(s, offset, 0, refHeader{}, body, line)
			} else {
				reason := s.reason(body)
				w.Bad = append(w.Bad, Bad{Offset: offset, Reason: reason, Bytes: line})
				w.unread[offset] = !s.emptyFilter() && len(body) > 0 && s.looksRight(body)
			}
		} else if h, events, reason := s.envelope(line); reason == "" {
			if n := len(w.Blocks); n == 0 || w.Blocks[n-1] != h.block {
				w.Blocks = append(w.Blocks, h.block)
			}
			if w.block != h.block || s.mode != config.Streaming {
				w.block, w.before = h.block, 0
			}
			for i, e := range events {
				if json.Valid(e) && s.shape(e) {
					w.event(s, offset, i, h, e, e)
				} else {
					w.Bad = append(w.Bad, Bad{Offset: offset, Index: w.number, Event: i, Reason: s.reason(e), Bytes: e})
					w.number++
				}
			}
			w.before += len(events)
		} else {
			if len(bytes.Trim(line, " \t\r")) == 0 {
				reason = ReasonEmpty
			} else if bytes.Contains(line, []byte{0}) {
				reason = ReasonNUL
			}
			w.Bad = append(w.Bad, Bad{Offset: offset, Reason: reason, Bytes: line})
		}
		offset += int64(len(data) - len(rest))
		data = rest
	}
	return w
}

func (s setting) emptyFilter() bool {
	f := s.filter
	return len(f.Coins)+len(f.Markets)+len(f.ExcludeCoins)+len(f.Users)+len(f.Statuses)+len(f.ExcludeStatuses)+
		len(f.Sides)+len(f.Types)+len(f.MinNotional) == 0
}

// event adds a valid event. whole is what Bad contains if the event has no record.
func (w *want) event(s setting, offset int64, index int, h refHeader, event, whole []byte) {
	bad := func(reason string) {
		w.Bad = append(w.Bad, Bad{Offset: offset, Index: w.number, Event: index, Reason: reason, Bytes: whole})
		w.number++
	}
	passes, comparable := s.passes(event)
	switch {
	case !comparable:
		bad(ReasonAmount)
		return
	case !passes:
		w.Events++
		if s.splits() && refStrict(event) {
			rows, _ := s.rows(event, h)
			w.number += len(rows) - 1
		}
		w.number++
		return
	case len(s.coin(event)) > 128:
		bad(ReasonField)
		return
	case s.format != config.Raw && !refStrict(event):
		bad(ReasonUTF8)
		return
	}
	block, place, blockTime, localTime := "null", "null", "null", "null"
	if s.mode != config.Line {
		block, place = strconv.FormatInt(h.block, 10), strconv.Itoa(w.before+index)
		blockTime, localTime = h.blockTime, h.localTime
	}
	target, _ := json.Marshal(testTarget)
	enveloped := func(event, rest string) {
		w.Data = fmt.Appendf(w.Data,
			`{"target":%s,"stream":"%s","pos":"%s:%d:%d","block":%s,"index":%s,"blockTime":%s,"localTime":%s,"event":%s%s}`+"\n",
			target, s.stream, testFile, offset, w.number, block, place, blockTime, localTime, event, rest)
	}
	add := func(coin string) {
		w.Records = append(w.Records, sink.Record{
			End: len(w.Data), Offset: offset, Index: int32(w.number), Event: int32(index), Block: h.block, Coin: coin,
		})
		w.Delivered++
		w.number++
	}
	if s.splits() {
		w.Events++
		rows, several := s.rows(event, h)
		for i, row := range rows {
			switch {
			case several && !s.rowPasses(row):
				w.number++
				continue
			case s.format == config.Normalized:
				w.Data = fmt.Appendf(w.Data, `{%s,"block":%s,"index":%s,"row":%d,"blockTime":%s,"localTime":%s,"pos":"%s:%d:%d"}`+
					"\n", row.record, block, place, i, blockTime, localTime, testFile, offset, w.number)
			case several:
				enveloped("{"+row.common+"}", fmt.Sprintf(`,"row":%d,"item":%s`, i, row.item))
			default:
				enveloped(string(event), `,"row":0,"item":null`)
			}
			coin := strings.Join(row.coin, "")
			if len(coin) > 128 || !s.keyed() {
				coin = ""
			}
			add(coin)
		}
		return
	}
	switch s.format {
	case config.Raw:
		w.Data = append(append(w.Data, event...), '\n')
	case config.Normalized:
		record, ok := s.normalized(event, h)
		if !ok {
			bad(ReasonField)
			return
		}
		w.Data = fmt.Appendf(w.Data, `{%s,"block":%s,"index":%s,"blockTime":%s,"localTime":%s,"pos":"%s:%d:%d"}`+"\n",
			record, block, place, blockTime, localTime, testFile, offset, w.number)
	case config.EnvelopedRows:
		enveloped(string(event), `,"row":0,"item":null`)
	default:
		enveloped(string(event), "")
	}
	w.Events++
	add(s.coin(event))
}

func (s setting) looksRight(event []byte) bool {
	brackets := "{}"
	if s.stream == config.Fills {
		brackets = "[]"
	}
	return len(event) > 1 && string([]byte{event[0], event[len(event)-1]}) == brackets
}

func (s setting) reason(event []byte) string {
	switch {
	case len(event) == 0:
		return ReasonEmpty
	case bytes.Contains(event, []byte{0}):
		return ReasonNUL
	case !s.looksRight(event) || json.Valid(event):
		return ReasonShape
	}
	return ReasonJSON
}

// shape reports whether valid JSON is an event of the stream.
func (s setting) shape(event []byte) bool {
	tree := parseTree(event)
	if s.stream != config.Fills {
		_, ok := tree.(map[string]any)
		return ok
	}
	pair, _ := tree.([]any)
	if len(pair) != 2 {
		return false
	}
	_, isString := pair[0].(string)
	_, isObject := pair[1].(map[string]any)
	return isString && isObject
}

// parseTree parses valid JSON into a tree in which the first of two equal keys wins.
func parseTree(text []byte) any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var next func() any
	next = func() any {
		token, err := dec.Token()
		if err != nil {
			panic(fmt.Sprintf("%q: %v", text, err))
		}
		switch token {
		case json.Delim('{'):
			object := map[string]any{}
			for dec.More() {
				key := next().(string)
				v := next()
				if _, dup := object[key]; !dup {
					object[key] = v
				}
			}
			_, _ = dec.Token()
			return object
		case json.Delim('['):
			list := []any{}
			for dec.More() {
				list = append(list, next())
			}
			_, _ = dec.Token()
			return list
		}
		return token
	}
	return next()
}

// get returns the string at a path of keys, or nothing.
func get(tree any, path ...string) []string {
	for _, key := range path {
		object, _ := tree.(map[string]any)
		tree = object[key]
	}
	if s, ok := tree.(string); ok {
		return []string{s}
	}
	return nil
}

// coin returns the coin that the record of an event carries, or "".
func (s setting) coin(event []byte) string {
	tree := parseTree(event)
	var coins []string
	switch {
	case !s.keyed():
	case s.stream == config.OrderStatuses:
		coins = get(tree, "order", "coin")
	case s.stream == config.Fills:
		coins = get(tree.([]any)[1], "coin")
	case s.stream == config.Trades || s.stream == config.RawBookDiffs:
		coins = get(tree, "coin")
	case s.stream == config.TwapStatuses:
		coins = get(tree, "state", "coin")
	}
	return strings.Join(coins, "")
}

// refValues are the values of an event that filters compare, and the fields that its stream has.
type refValues struct {
	refSeveral
	statuses, sides, prices, sizes                           []string
	hasCoin, hasUser, hasStatus, hasSide, hasType, hasAmount bool
}

func valuesIn(stream config.Stream, tree any) refValues {
	v := refValues{hasCoin: true, hasUser: true, hasSide: true}
	switch stream {
	case config.OrderStatuses:
		v.users, v.statuses, v.coins, v.sides = get(tree, "user"), get(tree, "status"), get(tree, "order", "coin"),
			get(tree, "order", "side")
		v.prices, v.sizes = get(tree, "order", "limitPx"), get(tree, "order", "origSz")
		v.hasStatus, v.hasAmount = true, true
	case config.Fills:
		pair := tree.([]any)
		v.users, v.coins, v.sides = []string{pair[0].(string)}, get(pair[1], "coin"), get(pair[1], "side")
		v.prices, v.sizes, v.hasAmount = get(pair[1], "px"), get(pair[1], "sz"), true
	case config.Trades:
		v.coins, v.sides, v.prices, v.sizes = get(tree, "coin"), get(tree, "side"), get(tree, "px"), get(tree, "sz")
		infos, _ := tree.(map[string]any)["side_info"].([]any)
		for _, info := range infos {
			v.users = append(v.users, get(info, "user")...)
		}
		v.hasAmount = true
	case config.RawBookDiffs:
		v.users, v.coins, v.sides = get(tree, "user"), get(tree, "coin"), get(tree, "side")
	case config.TwapStatuses:
		v.users, v.coins, v.sides = get(tree, "state", "user"), get(tree, "state", "coin"), get(tree, "state", "side")
		v.statuses, v.hasStatus = get(tree, "status"), true
		if len(get(tree, "status", "error")) > 0 {
			v.statuses = []string{"error"}
		}
	default:
		v.refSeveral = severalIn(stream, tree)
		v.hasSide, v.hasType = false, true
		v.hasCoin, v.hasUser = stream != config.SystemActions, stream != config.OracleUpdates
	}
	return v
}

// passes is the filter's definition in the design: engine.md, "Filter". comparable reports whether the amounts that
// must be compared have at most 1,000 digits.
func (s setting) passes(event []byte) (passes, comparable bool) {
	v, f := valuesIn(s.stream, parseTree(event)), s.filter
	same := func(a, b string) bool { return a == b }
	switch {
	case !s.coinsAndUsersPass(v), v.hasSide && !s.sidePasses(v.sides):
		return false, true
	case v.hasType && len(f.Types) > 0 && !listed(f.Types, v.types, same):
		return false, true
	case v.hasStatus && len(f.Statuses) > 0 && !listed(f.Statuses, v.statuses, same):
		return false, true
	case v.hasStatus && listed(f.ExcludeStatuses, v.statuses, same):
		return false, true
	case !v.hasAmount || f.MinNotional == "":
		return true, true
	case len(v.prices) == 0 || len(v.sizes) == 0:
		return false, true
	case refDigits(v.prices[0]) > 1000 || refDigits(v.sizes[0]) > 1000:
		return false, false
	}
	return referenceNotional(v.prices[0], v.sizes[0], f.MinNotional), true
}

// coinsAndUsersPass reports whether any coin and any user passes; of rows, the coin and the user of one.
func (s setting) coinsAndUsersPass(v refValues) bool {
	f := s.filter
	wantsCoin, wantsUser := v.hasCoin && len(f.Coins)+len(f.Markets) > 0, v.hasUser && len(f.Users) > 0
	coin, user := slices.ContainsFunc(v.coins, s.coinPasses), slices.ContainsFunc(v.users, s.userPasses)
	coinDropped := slices.ContainsFunc(v.coins, func(c string) bool { return !s.coinPasses(c) })
	for _, row := range v.rows {
		if s.rowPasses(refRow{coin: row[0], user: row[1]}) {
			coin, user = true, true
		} else {
			coinDropped = true
		}
	}
	dropsCoins := v.hasCoin && (wantsCoin || len(f.ExcludeCoins) > 0)
	return (coin || !wantsCoin) && (coin || !dropsCoins || !coinDropped) && (user || !wantsUser)
}

func (s setting) sidePasses(sides []string) bool {
	short := func(list []string) []string {
		return strings.Fields(strings.NewReplacer("Ask", "A", "Bid", "B").Replace(strings.Join(list, " ")))
	}
	return len(s.filter.Sides) == 0 || len(sides) > 0 && slices.Contains([]string{"A", "B", "Ask", "Bid"}, sides[0]) &&
		listed(short(s.filter.Sides), short(sides), func(a, b string) bool { return a == b })
}

// listed reports whether one of the values equals one of the list.
func listed(list, values []string, equal func(pattern, value string) bool) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		return slices.ContainsFunc(values, func(v string) bool { return equal(pattern, v) })
	})
}

func (s setting) coinPasses(coin string) bool {
	f, one := s.filter, []string{coin}
	return (len(f.Coins) == 0 || listed(f.Coins, one, refMatches)) && !listed(f.ExcludeCoins, one, refMatches) &&
		(len(f.Markets) == 0 || slices.Contains(f.Markets, refMarket(coin)))
}

func (s setting) userPasses(user string) bool {
	return listed(s.filter.Users, []string{user}, strings.EqualFold)
}

// rowPasses reports whether one row of several passes: its coin if it has one or if coins are listed, and likewise its
// user. Oracle updates have no users.
func (s setting) rowPasses(row refRow) bool {
	f := s.filter
	if len(row.coin) == 0 && len(f.Coins)+len(f.Markets) > 0 || len(row.coin) > 0 && !s.coinPasses(row.coin[0]) {
		return false
	}
	return len(f.Users) == 0 || s.stream == config.OracleUpdates || len(row.user) > 0 && s.userPasses(row.user[0])
}

// refDigits returns the number of bytes of an amount other than its sign and its point.
func refDigits(amount string) int {
	return len(strings.Replace(strings.TrimPrefix(amount, "-"), ".", "", 1))
}

var (
	otherEscape   = regexp.MustCompile(`\\[^u]`)
	surrogatePair = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
	surrogateHalf = regexp.MustCompile(`(?i)\\ud[89a-f]`)
)

// refStrict reports whether valid JSON is valid UTF-8, with all surrogates in pairs.
func refStrict(text []byte) bool {
	escapes := surrogatePair.ReplaceAll(otherEscape.ReplaceAll(text, []byte(".")), []byte("."))
	return utf8.Valid(text) && !surrogateHalf.Match(escapes)
}

var decimalText = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)

func referenceNotional(price, size, minimum string) bool {
	if !decimalText.MatchString(price) || !decimalText.MatchString(size) || max(refDigits(price), refDigits(size)) > 1000 {
		return false
	}
	p, _ := new(big.Rat).SetString(price)
	s, _ := new(big.Rat).SetString(size)
	m, _ := new(big.Rat).SetString(minimum)
	return p.Mul(p, s).Cmp(m) >= 0
}

type refHeader struct {
	number               string
	block                int64
	blockTime, localTime string
}

// envelope is refEnvelope, and refuses what must not be repeated in each record: long values and, in records other than
// Raw, text that strict readers reject.
func (s setting) envelope(line []byte) (h refHeader, events [][]byte, reason string) {
	h, events, ok := refEnvelope(line)
	switch {
	case !ok:
		return h, nil, ReasonEnvelope
	case max(len(h.number), len(h.blockTime)-2, len(h.localTime)-2) > 64:
		return h, nil, ReasonHeader
	case s.format != config.Raw && !refStrict([]byte(h.blockTime+h.localTime)):
		return h, nil, ReasonUTF8
	}
	return h, events, ""
}

// refEnvelope splits an envelope. It finds the events by strings and brackets alone. The envelope is valid if it is
// valid JSON once each malformed event is replaced by null.
func refEnvelope(line []byte) (h refHeader, events [][]byte, ok bool) {
	h = refHeader{blockTime: "null", localTime: "null"}
	r := reader{b: line}
	var repaired []byte
	copied, values := 0, map[string][]byte{}
	r.expect("{")
	for ok := true; ok && !r.failed; ok = r.found(",") {
		r.space()
		var name string
		if json.Unmarshal(r.structure(), &name) != nil {
			return h, nil, false
		}
		r.expect(":")
		r.space()
		if _, dup := values[name]; name != "events" || dup {
			v := r.structure()
			if !dup {
				values[name] = v
			}
			continue
		}
		values[name] = nil
		r.expect("[")
		for ok := !r.found("]"); ok && !r.failed; ok = r.found(",") {
			r.space()
			from := r.i
			e := r.structure()
			events = append(events, e)
			if !json.Valid(e) {
				repaired = append(append(repaired, line[copied:from]...), "null"...)
				copied = r.i
			}
		}
		if len(events) > 0 {
			r.expect("]")
		}
	}
	repaired = append(repaired, line[copied:]...)
	if r.failed || !json.Valid(repaired) {
		return h, nil, false
	}
	if _, has := values["events"]; !has {
		return h, nil, false
	}
	h.number = string(values["block_number"])
	if !blockText.MatchString(h.number) && len(h.number) <= 64 {
		return h, nil, false
	}
	h.block, _ = strconv.ParseInt(h.number, 10, 64)
	for name, field := range map[string]*string{"block_time": &h.blockTime, "local_time": &h.localTime} {
		if v := values[name]; len(v) > 0 && v[0] == '"' {
			*field = string(v)
		}
	}
	return h, events, true
}

// reader walks over strings and brackets. It fails permanently where they do not match.
type reader struct {
	b      []byte
	i      int
	failed bool
}

func (r *reader) space() {
	for r.i < len(r.b) && strings.IndexByte(" \t\r\n", r.b[r.i]) >= 0 {
		r.i++
	}
}

func (r *reader) found(text string) bool {
	r.space()
	if !bytes.HasPrefix(r.b[r.i:], []byte(text)) {
		return false
	}
	r.i += len(text)
	return true
}

func (r *reader) expect(text string) { r.failed = !r.found(text) || r.failed }

var (
	blockText  = regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`)
	stringText = regexp.MustCompile(`(?s)^"([^"\\]|\\.)*"`)
	bareText   = regexp.MustCompile(`^[^"\[\]{}, \t\r\n]+`)
)

// structure returns the value that begins at the current position.
func (r *reader) structure() []byte {
	from := r.i
	rest := r.b[r.i:]
	switch {
	case r.failed || len(rest) == 0:
		r.failed = true
	case rest[0] == '"':
		n := len(stringText.Find(rest))
		r.i += n
		r.failed = n == 0
	case rest[0] == '{' || rest[0] == '[':
		closing := []byte{rest[0] + 2} // the opening and the closing bracket differ by two
		for r.i++; !r.failed && !bytes.HasPrefix(r.b[r.i:], closing); {
			switch {
			case r.i >= len(r.b) || r.b[r.i] == '}' || r.b[r.i] == ']':
				r.failed = true
			case strings.IndexByte(`"{[`, r.b[r.i]) >= 0:
				r.structure()
			default:
				r.i++
			}
		}
		r.i++
	default:
		n := len(bareText.Find(rest))
		r.i += n
		r.failed = n == 0
	}
	if r.failed || r.i > len(r.b) {
		r.failed = true
		r.i = min(r.i, len(r.b))
		return nil
	}
	return r.b[from:r.i]
}

// check encodes data in one span, and cut into each number of spans. For the first number it also applies a limit. It
// compares all results with the reference.
func (s setting) check(t testing.TB, data []byte, spans ...int) {
	t.Helper()
	const offset = 1000
	e := s.encoder(t)
	w := e.NewWorker()
	var once Output
	w.Encode(&once, Span{Data: data, Offset: offset}, testFile)
	got := describe(once)
	if expected := s.reference(data, offset); got != describe(expected.trim(once)) {
		t.Fatalf("%+v\n%s\ngot\n%s\nwant\n%s", s, data, got, describe(expected.Output))
	}
	if want := once.Events - once.Delivered; !s.splits() && once.Filtered != want {
		t.Fatalf("%+v\n%s\n%d of %d events are filtered, %d records", s, data, once.Filtered, once.Events, once.Delivered)
	}
	for i, n := range spans {
		cut := e.Cut(nil, data, offset, n)
		if len(cut) > n {
			t.Fatalf("%d spans; want at most %d", len(cut), n)
		}
		var each Output
		for _, span := range cut {
			span.Count = each.Count
			w.Encode(&each, span, testFile)
		}
		if inSpans := describe(each); inSpans != got {
			t.Fatalf("%+v\n%s\nin %d spans\n%s\nin one span\n%s", s, data, n, inSpans, got)
		}
		if i > 0 {
			continue
		}
		limit := 1 + len(once.Data)/n
		if inPieces := describe(encodeLimited(t, w, cut, limit)); inPieces != got {
			t.Fatalf("%+v\n%s\nin %d spans, %d bytes at a time\n%s\nin one span\n%s", s, data, n, limit, inPieces, got)
		}
	}
}

// encodeLimited joins the results of spans that are encoded into outputs with a limit.
func encodeLimited(t interface{ Fatalf(string, ...any) }, w *Worker, spans []Span, limit int) Output {
	var all Output
	out := Output{Limit: limit}
	for _, span := range spans {
		length := span.Len()
		span.Count = all.Count
		for rest := span; ; {
			out.Reset()
			rest = w.Encode(&out, rest, testFile)
			if beyond := size(out) - limit; beyond >= 0 && size(withoutLast(out)) >= limit {
				t.Fatalf("an output exceeds its limit by %d bytes after it is full", beyond)
			}
			for i, r := range out.Records {
				r.End += len(all.Data)
				out.Records[i] = r
			}
			all.Data, all.Records = append(all.Data, out.Data...), append(all.Records, out.Records...)
			for _, p := range out.Parts {
				p.Records, p.Bad, p.Hashes = p.Records+len(all.Records)-len(out.Records), p.Bad+len(all.Bad),
					p.Hashes+len(all.Hashes)
				all.Parts = append(all.Parts, p)
			}
			all.Bad, all.Hashes = append(all.Bad, out.Bad...), append(all.Hashes, out.Hashes...)
			for _, n := range out.Blocks {
				all.addBlock(n)
			}
			all.Lines, all.Events, all.Delivered = all.Lines+out.Lines, all.Events+out.Events, all.Delivered+out.Delivered
			if all.Count = out.Count; rest.Len() == 0 {
				break
			}
			if rest.Len() > length || rest.Len() == length && out.Delivered == 0 {
				t.Fatalf("the rest of %d bytes has %d bytes", length, rest.Len())
			}
			length = rest.Len()
		}
	}
	return all
}

// size returns the size of an output, in bytes, as the limit counts it.
func size(o Output) int {
	return len(o.Data) + len(o.Records)*recordSize + len(o.Bad)*badSize + len(o.Blocks)*blockSize +
		len(o.Parts)*partSize + len(o.Hashes)*hashSize
}

// withoutLast returns an output without its last item, and without the block and the part of that item's line.
func withoutLast(o Output) Output {
	record, bad := len(o.Records)-1, len(o.Bad)-1
	switch {
	case record < 0 && bad < 0:
	case bad < 0 || record >= 0 && after(o.Records[record], o.Bad[bad]):
		o.Data = o.Data[:o.start(record)]
		o.Records = o.Records[:record]
	default:
		o.Bad = o.Bad[:bad]
	}
	o.Blocks = o.Blocks[:max(len(o.Blocks)-1, 0)]
	o.Parts, o.Hashes = o.Parts[:max(len(o.Parts)-1, 0)], o.Hashes[:max(len(o.Hashes)-1, 0)]
	return o
}

func (o *Output) start(record int) int {
	if record == 0 {
		return 0
	}
	return o.Records[record-1].End
}

func after(r sink.Record, b Bad) bool {
	return r.Offset > b.Offset || r.Offset == b.Offset && int(r.Index) > b.Index
}

// trim removes from the expected result the malformed lines that got may leave unnoticed. They count as filtered.
func (w want) trim(got Output) Output {
	out := w.Output
	out.Bad = slices.DeleteFunc(slices.Clone(w.Bad), func(b Bad) bool {
		skipped := w.unread[b.Offset] && !slices.ContainsFunc(got.Bad, func(g Bad) bool { return g.Offset == b.Offset })
		if skipped {
			out.Events++
		}
		return skipped
	})
	return out
}

func describe(o Output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "lines %d, events %d, delivered %d, blocks %v, records %v\n%s", o.Lines, o.Events, o.Delivered,
		o.Blocks, o.Records, o.Data)
	for _, bad := range o.Bad {
		fmt.Fprintf(&b, "bad %d:%d %d %s %q\n", bad.Offset, bad.Index, bad.Event, bad.Reason, bad.Bytes)
	}
	return b.String()
}
