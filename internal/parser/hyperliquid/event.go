package hyperliquid

// verdict is the result of reading an event.
type verdict uint8

const (
	malformed verdict = iota
	passed
	filtered
	filteredEarly // filtered by its first fields; the rest was not read
	incomparable  // well-formed, but an amount that the filter must compare has more than maxDigits digits
)

// event is what is known, so far, of the current event.
type event struct {
	matched     field // the fields that the filter uses with a value that it allows
	refused     field // the fields with a value that it does not allow; another value of the field may be allowed
	price, size []byte
	coin        []byte // not empty only if the field is used
	plain       bool   // known to be ASCII without escapes
}

// applyField records a field's value and reports whether the event may still pass.
func (w *Worker) applyField(which field, v []byte) bool {
	switch which {
	case priceField:
		w.event.price = v
	case sizeField:
		w.event.size = v
	default:
		if w.inRow {
			w.row.set(which, v)
			return true
		}
		if which == coinField {
			w.event.coin = v
		}
		if !w.encoder.filter.allows(which, v) {
			w.event.refused |= which
			return false
		}
	}
	w.event.matched |= which
	return true
}

// decide returns the verdict on an event whose fields have all been applied.
func (w *Worker) decide() verdict {
	if w.encoder.filter.used == 0 {
		return passed
	}
	if (w.encoder.filter.wanted|w.event.refused)&^w.event.matched != 0 {
		return filtered
	}
	if w.encoder.filter.wanted&sizeField != 0 {
		return w.encoder.filter.notional(w.event.price, w.event.size)
	}
	return passed
}

// read reads the event that begins at b[i] and returns the index after it. The event is valid JSON of the stream's
// shape, or malformed. If hasty, it may also be filteredEarly, without an end.
func (w *Worker) read(b []byte, i int, hasty bool) (end int, v verdict) {
	w.event = event{}
	w.resetParts()
	if w.encoder.steps != nil {
		// Fields that readSteps applied before it gave up are applied again by readAny.
		if end, v = w.readSteps(b, i, hasty); v != malformed {
			return end, v
		}
	}
	return w.readAny(b, i)
}

// readSteps reads an event that is laid out as nodes write it. Here, malformed means only that it has another layout.
func (w *Worker) readSteps(b []byte, i int, hasty bool) (end int, v verdict) {
	steps := w.encoder.steps
	plain := true
	for k := 0; k < len(steps); k++ {
		s := &steps[k]
		if len(b)-i < len(s.text) || string(b[i:i+len(s.text)]) != s.text {
			if s.optional || s.skips > 0 {
				continue
			}
			return -1, malformed
		}
		if s.skippedParts != nil {
			w.setSkippedParts(s, i)
		}
		i += len(s.text)
		switch s.value {
		case stringRest:
			to, ascii := indexSpecial(b, i)
			if to >= len(b) || b[to] != '"' {
				return -1, malformed
			}
			plain = plain && ascii
			if s.field != 0 && !w.applyField(s.field, b[i:to]) && hasty && !s.several {
				return -1, filteredEarly
			}
			if s.part != 0 {
				w.places[s.part] = place{i - 1, to + 1} // with the quotes; the step's text ends with the opening one
			}
			i = to + 1
		case anyValue:
			// The value is at this depth at most: within two containers of the event.
			from := i
			if i < len(b) && b[i] == '"' { // most values that are not short are hashes
				to, ascii := indexSpecial(b, i+1)
				if to < len(b) && b[to] == '"' {
					i, plain = to+1, plain && ascii
					if s.part != 0 {
						w.places[s.part] = place{from, i}
					}
					break
				}
			}
			if i = scanValue(b, i, 2); i < 0 {
				return -1, malformed
			}
			if s.part != 0 {
				w.places[s.part] = place{from, i}
			}
			if holdsText(b[from]) {
				plain = plain && isPlain(b[from:i])
			}
		case wordOrError:
			var ascii bool
			if i, ascii, v = w.readWordOrError(b, i, s, hasty); i < 0 {
				return -1, v
			}
			plain = plain && ascii
		}
		k += s.skips
	}
	w.event.plain = plain
	return i, w.decide()
}

// holdsText reports whether a value with that first byte may hold text.
func holdsText(first byte) bool { return first == '"' || first == '[' || first == '{' }

// readAny reads an event of any layout.
func (w *Worker) readAny(b []byte, i int) (end int, v verdict) {
	if w.encoder.pair {
		end = w.readPair(b, i)
	} else if i < len(b) && b[i] == '{' {
		end = w.readObject(b, i, 0, w.encoder.keys)
	} else {
		end = -1
	}
	if end < 0 {
		return -1, malformed
	}
	return end, w.decide()
}

// readPair reads [user, {…}].
func (w *Worker) readPair(b []byte, i int) int {
	if i >= len(b) || b[i] != '[' {
		return -1
	}
	from := skipSpace(b, i+1)
	if from >= len(b) || b[from] != '"' {
		return -1
	}
	to, escaped := scanString(b, from+1)
	if to < 0 {
		return -1
	}
	if w.encoder.filter.used&userField != 0 {
		w.applyField(userField, unquote(b[from:to], escaped))
	}
	w.places[ownerPart] = place{from, to}
	i, more := scanSeparator(b, to, ']')
	if !more || i >= len(b) || b[i] != '{' {
		return -1
	}
	if i = w.readObject(b, i, 1, w.encoder.keys); i < 0 {
		return -1
	}
	if i, more = scanSeparator(b, i, ']'); more {
		return -1
	}
	return i
}

// readObject is scanObject, and applies the fields that keys lead to. Of duplicate keys the first counts. Keys lead
// only a few levels down, so scanObject enforces the depth limit.
func (w *Worker) readObject(b []byte, i, depth int, keys []key) int {
	if len(keys) == 0 {
		return scanObject(b, i, depth)
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	var seen uint32 // one bit for each of keys
	for more := true; more; {
		end, val, escaped := scanKey(b, i)
		if end < 0 || val >= len(b) {
			return -1
		}
		if k := find(keys, unquote(b[i:end], escaped)); k < 0 || seen&(1<<k) != 0 {
			w.unknown = w.unknown || k < 0
			i = scanValue(b, val, depth+1)
		} else {
			seen |= 1 << k
			i = w.readValue(b, val, depth+1, &keys[k])
		}
		if i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, '}')
	}
	return i
}

// readValue is scanValue for the value that k leads to.
func (w *Worker) readValue(b []byte, i, depth int, k *key) (end int) {
	switch c := b[i]; {
	case k.of != single:
		end = w.readShape(b, i, depth, k)
	case c == '"' && k.field != 0:
		var escaped bool
		if end, escaped = scanString(b, i+1); end >= 0 {
			value := unquote(b[i:end], escaped)
			if k.means != nil {
				value = k.means
			}
			w.applyField(k.field, value)
		}
	case c == '{' && k.keys != nil && !k.list:
		return w.readObject(b, i, depth, k.keys)
	case c == '[' && k.list:
		return w.readList(b, i, depth, k.keys)
	default:
		end = scanValue(b, i, depth)
	}
	if k.part != 0 {
		w.setPart(k.part, place{i, end})
	}
	return end
}

// readList is scanArray, and applies the fields that keys lead to in each object of the array.
func (w *Worker) readList(b []byte, i, depth int, keys []key) int {
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	w.item = 0
	for more := true; more; w.item++ {
		if i < len(b) && b[i] == '{' {
			i = w.readObject(b, i, depth+1, keys)
		} else {
			i = scanValue(b, i, depth+1)
		}
		if i < 0 {
			break
		}
		i, more = scanSeparator(b, i, ']')
	}
	w.tooManySides = w.item > 2
	w.item = 0
	return i
}

// find returns the index of the key with that name, or -1.
func find(keys []key, name []byte) int {
	for i := range keys {
		if string(name) == keys[i].name {
			return i
		}
	}
	return -1
}

// unquote returns the content of a string that is given with its quotes.
func unquote(quoted []byte, escaped bool) []byte {
	if escaped {
		return unescape(quoted)
	}
	return quoted[1 : len(quoted)-1]
}
