package gen

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"
)

// stamp renders one moment in the formats of events. It caches the part down to the second, which changes rarely.
type stamp struct {
	second int64
	prefix []byte // "2026-04-30T20:46:46."
	nanos  uint64
	millis int64
}

func (s *stamp) set(t time.Time) {
	if sec := t.Unix(); sec != s.second || s.prefix == nil {
		s.second = sec
		s.prefix = t.UTC().AppendFormat(s.prefix[:0], "2006-01-02T15:04:05.")
	}
	s.nanos = uint64(t.Nanosecond())
	s.millis = t.UnixMilli()
}

// appendISO appends the moment with nanoseconds and without a zone.
func (s *stamp) appendISO(dst []byte) []byte {
	dst = append(dst, s.prefix...)
	return appendPadded(dst, s.nanos, 9)
}

// appendPadded appends v with exactly n digits.
func appendPadded(dst []byte, v uint64, n int) []byte {
	var digits [20]byte
	for i := n - 1; i >= 0; i-- {
		digits[i] = byte('0' + v%10)
		v /= 10
	}
	return append(dst, digits[:n]...)
}

// appendDecimal appends units × 10^-decimals as the node prints amounts: without trailing zeros, but with at least one
// digit after the point.
func appendDecimal(dst []byte, units int64, decimals int) []byte {
	if units < 0 {
		dst = append(dst, '-')
		units = -units
	}
	if decimals == 0 {
		dst = strconv.AppendInt(dst, units, 10)
		return append(dst, '.', '0')
	}
	scale := pow10[decimals]
	dst = strconv.AppendInt(dst, units/scale, 10)
	dst = append(dst, '.')
	first := len(dst)
	dst = appendPadded(dst, uint64(units%scale), decimals)
	for len(dst) > first+1 && dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

var pow10 = [...]int64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}

// appendHex appends "0x" and words × 16 random hexadecimal digits.
func appendHex(dst []byte, rng *rand.PCG, words int) []byte {
	dst = append(dst, "0x"...)
	for range words {
		dst = appendHexWord(dst, rng.Uint64())
	}
	return dst
}

func appendHexWord(dst []byte, v uint64) []byte {
	var raw [8]byte
	for i := range raw {
		raw[i] = byte(v >> (56 - 8*i))
	}
	return hex.AppendEncode(dst, raw[:])
}

func appendBool(dst []byte, b bool) []byte { return strconv.AppendBool(dst, b) }

func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
