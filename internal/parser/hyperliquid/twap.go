package hyperliquid

// statusOfError is the status of a TWAP order whose status is an object with the text of an error, for the filter and
// in Normalized records. Read only.
var statusOfError = []byte("error")

// twapLayout describes the statuses of TWAP orders. The notional is unknown: the order has no price.
//
//nolint:goconst // a layout is most readable as the text that the node writes
func twapLayout() layout {
	return layout{
		steps: []step{
			{text: `{"time":"`, value: stringRest, part: timePart},
			{text: `,"twap_id":`, value: anyValue, part: idPart},
			{text: `,"state":{"coin":"`, value: stringRest, field: coinField, part: coinPart},
			{text: `,"user":"`, value: stringRest, field: userField, part: ownerPart},
			{text: `,"side":"`, value: stringRest, field: sideField, part: sidePart},
			{text: `,"sz":"`, value: stringRest, part: sizePart},
			{text: `,"executedSz":"`, value: stringRest, part: executedSizePart},
			{text: `,"executedNtl":"`, value: stringRest, part: executedNotionalPart},
			{text: `,"minutes":`, value: anyValue, part: minutesPart},
			{text: `,"reduceOnly":`, value: anyValue, part: reduceOnlyPart},
			{text: `,"randomize":`, value: anyValue, part: randomizePart},
			{text: `,"timestamp":`, value: anyValue, part: startTimePart},
			{text: `},"status":`, value: wordOrError, field: statusField, part: statusPart},
			{text: `}`},
		},
		keys: []key{
			{name: "time", part: timePart},
			{name: "twap_id", part: idPart},
			{name: "state", keys: []key{
				{name: "coin", field: coinField, part: coinPart},
				{name: "user", field: userField, part: ownerPart},
				{name: "side", field: sideField, part: sidePart},
				{name: "sz", part: sizePart},
				{name: "executedSz", part: executedSizePart},
				{name: "executedNtl", part: executedNotionalPart},
				{name: "minutes", part: minutesPart},
				{name: "reduceOnly", part: reduceOnlyPart},
				{name: "randomize", part: randomizePart},
				{name: "timestamp", part: startTimePart},
			}},
			{name: "status", field: statusField, part: statusPart, keys: []key{
				{name: "error", field: statusField, part: errorPart, means: statusOfError},
			}},
		},
		record: twapRecord,
	}
}

// twapRecord is the shape of a Normalized record, as the others are.
//
//nolint:goconst // a shape is most readable as the text that is written
var twapRecord = []member{
	{`{"id":`, idPart, numberForm},
	{`,"coin":`, coinPart, textForm},
	{`,"side":`, sidePart, sideForm},
	{`,"size":`, sizePart, textForm},
	{`,"executedSize":`, executedSizePart, textForm},
	{`,"executedNotional":`, executedNotionalPart, textForm},
	{`,"minutes":`, minutesPart, numberForm},
	{`,"owner":`, ownerPart, textForm},
	{`,"time":`, timePart, textForm},
	{`,"startTime":`, startTimePart, millisecondsForm},
	{`,"status":`, statusPart, wordOrErrorForm},
	{`,"reduceOnly":`, reduceOnlyPart, boolOrNullForm},
	{`,"randomize":`, randomizePart, boolOrNullForm},
	{`,"extra":`, 0, extraForm},
}

// readWordOrError reads the value of a step that is a string, or an object with the text of an error, and applies its
// field. It returns the index after the value. Otherwise it returns -1, and filteredEarly if it is hasty and the event
// does not pass, or malformed if the value is laid out differently. ascii means that the value is ASCII without
// escapes; it may be false for such a value too.
func (w *Worker) readWordOrError(b []byte, i int, s *step, hasty bool) (end int, ascii bool, v verdict) {
	const failed = `{"error":`
	var status []byte
	if word, to, plain := stringAfter(b, i, ""); to >= 0 {
		if s.part != 0 {
			w.places[s.part] = place{i, to}
		}
		status, end, ascii = word[1:len(word)-1], to, plain
	} else {
		text, to, plain := stringAfter(b, i, failed)
		if to < 0 || to >= len(b) || b[to] != '}' {
			return -1, false, malformed
		}
		if s.part != 0 {
			w.places[errorPart] = place{to - len(text), to}
		}
		status, end, ascii = statusOfError, to+1, plain
	}
	if s.field != 0 && !w.applyField(s.field, status) && hasty {
		return -1, false, filteredEarly
	}
	return end, ascii, passed
}

// appendWordOrError writes a status v and its error. It is ok if v is a string, or was an object with an error.
func (w *Worker) appendWordOrError(d, b, v []byte) (_ []byte, ok bool) {
	if len(v) > 0 && v[0] == '"' {
		d = append(d, v...)
		return append(d, `,"error":null`...), true
	}
	text := b[w.places[errorPart].from:w.places[errorPart].to]
	if len(text) == 0 || text[0] != '"' {
		return d, false
	}
	d = append(d, `"error","error":`...)
	return append(d, text...), true
}
