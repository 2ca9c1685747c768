package hyperliquid

// verdict is what becomes of an event.
type verdict uint8

const (
	malformed verdict = iota
	passed
	filtered
	early // filtered by its first fields; the rest was not read
)

// event is what is known, so far, of the event that is being read.
type event struct {
	met         field // the wanted fields that were found to be listed
	excluded    bool
	price, size []byte
	coin        []byte // not empty only if the field is used
}

// take notes a field's value and says whether the event may still pass by it.
func (w *Worker) take(which field, v []byte) bool {
	switch which {
	case priceField:
		w.event.price = v
	case sizeField:
		w.event.size = v
	default:
		if which == coinField {
			w.event.coin = v
		}
		if !w.encoder.filter.allows(which, v) {
			w.event.excluded = w.event.excluded || which == statusField
			return false
		}
	}
	w.event.met |= which
	return true
}

// decide tells whether the event, whose fields have all been taken, passes the filter.
func (w *Worker) decide() verdict {
	if w.encoder.filter.used == 0 {
		return passed
	}
	if w.event.excluded || w.event.met&w.encoder.filter.wanted != w.encoder.filter.wanted {
		return filtered
	}
	if w.encoder.filter.wanted&sizeField != 0 && !w.encoder.filter.notional(w.event.price, w.event.size) {
		return filtered
	}
	return passed
}

// read reads the event that begins at b[i] and returns the index after it. The event is valid JSON of the stream's shape, or
// malformed, or, only if hasty, early and its end is not told.
func (w *Worker) read(b []byte, i int, hasty bool) (end int, v verdict) {
	w.event = event{}
	w.forget()
	if w.encoder.steps != nil {
		// What follow has taken when it gives up, explore takes once more.
		if end, v = w.follow(b, i, hasty); v != malformed {
			return end, v
		}
	}
	return w.explore(b, i)
}

// follow reads an event that is laid out as nodes do it. Malformed means only that it is not.
func (w *Worker) follow(b []byte, i int, hasty bool) (end int, v verdict) {
	steps := w.encoder.steps
	for k := 0; k < len(steps); k++ {
		s := &steps[k]
		if len(b)-i < len(s.text) || string(b[i:i+len(s.text)]) != s.text {
			if s.optional || s.leap > 0 {
				continue
			}
			return -1, malformed
		}
		if s.inside != nil {
			w.putInside(s, i)
		}
		i += len(s.text)
		switch s.value {
		case stringRest:
			to := indexSpecial(b, i)
			if to >= len(b) || b[to] != '"' {
				return -1, malformed
			}
			if s.field != 0 && !w.take(s.field, b[i:to]) && hasty && !s.several {
				return -1, early
			}
			if s.part != 0 {
				w.places[s.part] = place{i - 1, to + 1} // with the quotes, of which the text ends with the first
			}
			i = to + 1
		case anyValue:
			// The depth is at most this: two containers of the event's own.
			from := i
			if i = scanValue(b, i, 2); i < 0 {
				return -1, malformed
			}
			if s.part != 0 {
				w.places[s.part] = place{from, i}
			}
		}
		k += s.leap
	}
	return i, w.decide()
}

// explore reads an event of any layout.
func (w *Worker) explore(b []byte, i int) (end int, v verdict) {
	if w.encoder.pair {
		end = w.exploreFill(b, i)
	} else if i < len(b) && b[i] == '{' {
		end = w.exploreObject(b, i, 0, w.encoder.keys)
	} else {
		end = -1
	}
	if end < 0 {
		return -1, malformed
	}
	return end, w.decide()
}

// exploreFill reads [user, {…}].
func (w *Worker) exploreFill(b []byte, i int) int {
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
		w.take(userField, unquote(b[from:to], escaped))
	}
	w.places[ownerPart] = place{from, to}
	i, more := scanSeparator(b, to, ']')
	if !more || i >= len(b) || b[i] != '{' {
		return -1
	}
	if i = w.exploreObject(b, i, 1, w.encoder.keys); i < 0 {
		return -1
	}
	if i, more = scanSeparator(b, i, ']'); more {
		return -1
	}
	return i
}

// exploreObject is scanObject, and takes the fields that keys lead to. Of keys that occur twice the first counts. Keys lead
// only a few levels down, so the limit of depth is scanObject's to hold.
func (w *Worker) exploreObject(b []byte, i, depth int, keys []key) int {
	if len(keys) == 0 {
		return scanObject(b, i, depth)
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	var seen uint32 // a bit for each of keys
	for more := true; more; {
		end, val, escaped := scanKey(b, i)
		if end < 0 || val >= len(b) {
			return -1
		}
		if k := find(keys, unquote(b[i:end], escaped)); k < 0 || seen&(1<<k) != 0 {
			i = scanValue(b, val, depth+1)
		} else {
			seen |= 1 << k
			i = w.exploreValue(b, val, depth+1, &keys[k])
		}
		if i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, '}')
	}
	return i
}

// exploreValue is scanValue, for what k leads to.
func (w *Worker) exploreValue(b []byte, i, depth int, k *key) (end int) {
	switch c := b[i]; {
	case c == '"' && k.field != 0:
		var escaped bool
		if end, escaped = scanString(b, i+1); end >= 0 {
			w.take(k.field, unquote(b[i:end], escaped))
		}
	case c == '{' && k.keys != nil && !k.list:
		return w.exploreObject(b, i, depth, k.keys)
	case c == '[' && k.list:
		return w.exploreList(b, i, depth, k.keys)
	default:
		end = scanValue(b, i, depth)
	}
	if k.part != 0 {
		w.put(k.part, place{i, end})
	}
	return end
}

// exploreList is scanArray, and takes the fields that keys lead to from each object in it.
func (w *Worker) exploreList(b []byte, i, depth int, keys []key) int {
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	w.item = 0
	for more := true; more; w.item++ {
		if i < len(b) && b[i] == '{' {
			i = w.exploreObject(b, i, depth+1, keys)
		} else {
			i = scanValue(b, i, depth+1)
		}
		if i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, ']')
	}
	w.surplus = w.item > 2
	w.item = 0
	return i
}

// find returns the index of the key of that name, or -1.
func find(keys []key, name []byte) int {
	for i := range keys {
		if string(name) == keys[i].name {
			return i
		}
	}
	return -1
}

// unquote is what a string given with its quotes says.
func unquote(quoted []byte, escaped bool) []byte {
	if escaped {
		return unescape(quoted)
	}
	return quoted[1 : len(quoted)-1]
}
