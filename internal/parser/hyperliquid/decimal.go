package hyperliquid

import (
	"bytes"
	"math/big"
	"math/bits"
)

// decimal is an exact amount as a node writes it: digits, optionally with a fraction, never with an exponent. Its value
// is mantissa / 10^scale. If wide, the mantissa overflows, and digits holds the value.
type decimal struct {
	mantissa uint64
	digits   []byte // with the point; refers to the parsed text
	scale    int    // number of digits after the point
	negative bool
	wide     bool
}

// maxDigits bounds the numbers that the slow path multiplies, in digits. The chain's amounts have fewer than 40.
const maxDigits = 1000

// tooLong reports whether text, if it is a decimal, has more than maxDigits digits.
func tooLong(text []byte) bool {
	n := len(text)
	if n > 0 && text[0] == '-' {
		n--
	}
	return n > maxDigits+1 || n == maxDigits+1 && bytes.IndexByte(text, '.') < 0
}

// parseDecimal parses an optional minus, digits, and an optional point with more digits; at most maxDigits digits.
func parseDecimal(text []byte) (d decimal, ok bool) {
	if len(text) > maxDigits && tooLong(text) {
		return decimal{}, false
	}
	d.digits = text
	if len(text) > 0 && text[0] == '-' {
		d.negative = true
		d.digits = text[1:]
	}
	point := -1
	for i, c := range d.digits {
		switch {
		case isDigit(c):
			hi, lo := bits.Mul64(d.mantissa, 10)
			sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
			d.wide = d.wide || hi|carry != 0
			d.mantissa = sum
		case c == '.' && point < 0 && i > 0:
			point = i
		default:
			return decimal{}, false
		}
	}
	n := len(d.digits)
	if n == 0 || point == n-1 {
		return decimal{}, false
	}
	if point >= 0 {
		d.scale = n - 1 - point
	}
	return d, true
}

// isZero reports whether all digits are 0.
func (d *decimal) isZero() bool { return d.mantissa == 0 && !d.wide }

// productAtLeast reports whether price × size ≥ minimum, exactly. The minimum is not negative.
func productAtLeast(price, size, minimum *decimal) bool {
	if price.negative != size.negative && !price.isZero() && !size.isZero() {
		return false
	}
	if !price.wide && !size.wide && !minimum.wide {
		hi, lo := bits.Mul64(price.mantissa, size.mantissa)
		// Bring both sides to the same scale, as whole numbers of up to 128 bits.
		up := price.scale + size.scale - minimum.scale
		if 0 <= up && up < len(powersOfTen) {
			minHi, minLo := bits.Mul64(minimum.mantissa, powersOfTen[up])
			return hi > minHi || hi == minHi && lo >= minLo
		}
		if -len(powersOfTen) < up && up < 0 && hi == 0 {
			hi, _ := bits.Mul64(lo, powersOfTen[-up])
			return hi > 0 || lo*powersOfTen[-up] >= minimum.mantissa
		}
	}
	left := new(big.Int).Mul(price.big(), size.big())
	right := minimum.big()
	if up := price.scale + size.scale - minimum.scale; up >= 0 {
		right.Mul(right, tenTo(up))
	} else {
		left.Mul(left, tenTo(-up))
	}
	return left.Cmp(right) >= 0
}

// big returns the mantissa without its sign.
func (d *decimal) big() *big.Int {
	if !d.wide {
		return new(big.Int).SetUint64(d.mantissa)
	}
	n, _ := new(big.Int).SetString(string(bytes.Replace(d.digits, []byte("."), nil, 1)), 10)
	return n
}

func tenTo(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// powersOfTen are the powers that fit 64 bits. Read only.
var powersOfTen = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()
