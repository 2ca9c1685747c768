package hyperliquid

// The events of these streams hold several values of a field, in lists, and have no fixed order of keys: the general
// path alone reads them. An event passes if any of the values does.

// miscLayout describes misc events. The type of an event is the name of its variant, and that of a ledger update is
// also the type of its delta. Tokens are not coins: a transfer of USDC belongs to no market.
//
//nolint:goconst // a layout is most readable as the text that the node writes
func miscLayout() layout {
	user := []key{{name: "user", field: userField}}
	return layout{
		several: true,
		splits:  miscRows,
		keys: []key{
			{name: "inner", field: typeField, of: variantKeys, keys: []key{
				{name: "LedgerUpdate", keys: []key{
					{name: "users", field: userField, of: textItems},
					{name: "delta", keys: []key{
						{name: "type", field: typeField},
						{name: "liquidatedPositions", list: true, keys: []key{{name: "coin", field: coinField}}},
					}},
				}},
				{name: "Funding", keys: []key{
					{name: "deltas", of: rowItems, keys: []key{
						{name: "user", field: userField},
						{name: "coin", field: coinField},
					}},
				}},
				{name: "CDeposit", keys: user},
				{name: "CWithdrawal", keys: user},
				{name: "Delegation", keys: []key{
					{name: "user", field: userField},
					{name: "validator", field: userField},
				}},
				{name: "ValidatorRewards", keys: []key{
					{name: "validator_to_reward", field: userField, of: firstsOfItems},
				}},
			}},
		},
	}
}

// oracleLayout describes oracle updates. Their type is the class of the update.
func oracleLayout() layout {
	return layout{
		several: true,
		splits:  oracleRows,
		keys: []key{
			{name: "update_class", field: typeField},
			{name: "mark_px_inputs", field: coinField, of: firstsOfItems},
			{name: "spot_px_inputs", field: coinField, of: firstsOfItems},
			{name: "external_perp_px_inputs", field: coinField, of: firstsOfItems},
			{name: "oracle_pxs", keys: []key{
				{name: "coin_to_mark_px", field: coinField, of: firstsOfItems},
				{name: "coin_to_oracle_px", field: coinField, of: firstsOfItems},
				{name: "coin_to_external_perp_px", field: coinField, of: firstsOfItems},
			}},
		},
	}
}

// systemLayout describes system actions. They name assets by number, so they have no coin.
func systemLayout() layout {
	return layout{
		splits: actionRows,
		keys: []key{
			{name: "user", field: userField},
			{name: "action", keys: []key{{name: "type", field: typeField}}},
		},
	}
}

// shape is the shape of the value that a key leads to.
type shape uint8

const (
	single        shape = iota // a string, an object or, with list, objects
	textItems                  // an array of strings, all values of the field
	firstsOfItems              // an array of arrays, whose first elements are values of the field
	variantKeys                // an object whose keys are values of the field, or a string that is one
	rowItems                   // an array of objects: the coin and the user of one of them must pass together
)

// row is what is known of an object in an array of rows.
type row struct {
	coin, user []byte // nil if it has none, or if the filter does not use it
}

func (r *row) set(which field, v []byte) {
	if which == coinField {
		r.coin = v
	} else {
		r.user = v
	}
}

// readShape reads the value of a key whose shape is not single. It returns the index after it, or -1.
func (w *Worker) readShape(b []byte, i, depth int, k *key) int {
	switch c := b[i]; {
	case c == '{' && k.of == variantKeys:
		return w.readVariants(b, i, depth, k)
	case c == '[' && k.of != variantKeys:
		return w.readItems(b, i, depth, k)
	case c == '"' && k.of == variantKeys && k.field != 0:
		return w.readText(b, i, k.field)
	}
	return scanValue(b, i, depth)
}

// readText is scanString, and applies the field.
func (w *Worker) readText(b []byte, i int, which field) int {
	end, escaped := scanString(b, i+1)
	if end >= 0 {
		w.applyField(which, unquote(b[i:end], escaped))
	}
	return end
}

// readVariants is readObject, and applies the field for each key.
func (w *Worker) readVariants(b []byte, i, depth int, k *key) int {
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	var seen uint32 // one bit for each of the keys
	for more := true; more; {
		end, val, escaped := scanKey(b, i)
		if end < 0 || val >= len(b) {
			return -1
		}
		name := unquote(b[i:end], escaped)
		if k.field != 0 {
			w.applyField(k.field, name)
		}
		if n := find(k.keys, name); n < 0 || seen&(1<<n) != 0 {
			i = scanValue(b, val, depth+1)
		} else {
			seen |= 1 << n
			i = w.readValue(b, val, depth+1, &k.keys[n])
		}
		if i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, '}')
	}
	return i
}

// readItems is scanArray, and applies what each element holds.
func (w *Worker) readItems(b []byte, i, depth int, k *key) int {
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for more := true; more; {
		switch {
		case i < len(b) && b[i] == '"' && k.of == textItems:
			i = w.readText(b, i, k.field)
		case i < len(b) && b[i] == '[' && k.of == firstsOfItems:
			if first := skipSpace(b, i+1); first < len(b) && b[first] == '"' && w.readText(b, first, k.field) < 0 {
				return -1
			}
			i = scanValue(b, i, depth+1)
		case i < len(b) && b[i] == '{' && k.of == rowItems:
			w.row, w.inRow = row{}, true
			i = w.readObject(b, i, depth+1, k.keys)
			w.inRow = false
			w.applyRow()
		default:
			i = scanValue(b, i, depth+1)
		}
		if i < 0 {
			return -1
		}
		i, more = scanSeparator(b, i, ']')
	}
	return i
}

// applyRow records whether the current row passes.
func (w *Worker) applyRow() {
	if w.encoder.filter.row(w.row.coin, w.row.user) {
		w.event.matched |= coinField | userField
	} else {
		w.event.refused |= w.encoder.filter.used & (coinField | userField)
	}
}
