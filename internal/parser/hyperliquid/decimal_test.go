package hyperliquid

import (
	"strings"
	"testing"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

func TestNotionalIsExact(t *testing.T) {
	for _, c := range []struct {
		price, size, minimum string
		want                 bool
	}{
		{"76466.0", "0.0686", "5245.5676", true}, // equal to the last digit
		{"76466.0", "0.0686", "5245.56760000000000000001", false},
		{"76466.0", "0.0686", "5245.5677", false},
		{"0.1", "3", "0.3", true}, // floats would fail here
		{"0.3", "1", "0.30000000000000001", false},
		{"18446744073709551615", "18446744073709551615", "340282366920938463426481119284349108225", true},
		{"18446744073709551615", "18446744073709551615", "340282366920938463426481119284349108226", false},
		{"99999999999999999999999999.5", "2", "199999999999999999999999999", true},
		{"99999999999999999999999999.5", "2", "199999999999999999999999999.1", false},
		{"0.00000000000000000000000001", "0.00000000000000000000000001", "0", true},
		{"0.00000000000000000000000001", "1", "0.00000000000000000000000002", false},
		{"1", "1", "0.0000000000000000000000000001", true},
		{"4294967296", "4294967296", "0.5", true}, // 2 to the power of 64
		{"4294967296.0", "4294967296.0", "5", true}, {"0.5", "2", "1844674407370955161.7", false},
		{"0", "5", "0", true}, {"-0", "5", "0", true}, {"-1", "5", "0", false}, {"-1", "-5", "5", true},
		{"-1", "0.0", "0", true},
		{"007", "1", "7", true},
		{"", "1", "0", false}, {"1", "", "0", false}, {"1e3", "1", "0", false}, {".5", "1", "0", false},
		{"5.", "1", "0", false},
		{"+5", "1", "0", false}, {"1.2.3", "1", "0", false}, {"-", "1", "0", false}, {" 1", "1", "0", false},
		{"NaN", "1", "0", false},
		{strings.Repeat("9", 1000), "1", "1", true}, {"-" + strings.Repeat("9", 999) + ".9", "-1", "1", true},
	} {
		if got := reaches(t, c.price, c.size, c.minimum); got != c.want {
			t.Errorf("%s × %s ≥ %s: %v", c.price, c.size, c.minimum, got)
		}
	}
}

// TestAmountsWithTooManyDigitsAreMalformed covers every amount that minNotional uses, in every layout and mode.
func TestAmountsWithTooManyDigitsAreMalformed(t *testing.T) {
	for _, text := range []struct {
		amount string
		bad    bool
	}{
		{strings.Repeat("9", 1000), false},
		{"9." + strings.Repeat("9", 999), false},
		{"-" + strings.Repeat("9", 1000), false},
		{strings.Repeat("9", 1001), true},
		{strings.Repeat("9", 1002), true},
		{"0." + strings.Repeat("0", 1000), true},
		{"-" + strings.Repeat("9", 1001), true},
		{"-1." + strings.Repeat("9", 1000), true},
		{strings.Repeat("9", 1<<20), true},
	} {
		for stream, c := range map[config.Stream]struct {
			event   string
			amounts []string
		}{
			config.OrderStatuses: {order, []string{`"limitPx":"76466.0"`, `"origSz":"0.0686"`}},
			config.Fills:         {fill, []string{`"px":"`, `"sz":"`}},
			config.Trades:        {trade, []string{`"px":"`, `"sz":"`}},
		} {
			for _, amount := range c.amounts {
				key, _, _ := strings.Cut(amount, `:"`)
				before, rest, found := strings.Cut(c.event, key+`:"`)
				if !found {
					t.Fatalf("%s has no %s", stream, key)
				}
				_, after, _ := strings.Cut(rest, `"`)
				for _, written := range []string{text.amount, strings.Replace(text.amount, "9", `\u0039`, 1)} {
					event := before + key + `:"` + written + `"` + after
					for _, mode := range modes {
						line := event
						if mode != config.Line {
							line = block(c.event, event, c.event)
						}
						for _, format := range config.Formats() {
							s := setting{stream, mode, config.Filter{MinNotional: "1"}, format}
							out := encode(t, s, lines(line))
							bad := len(out.Bad) == 1 && out.Bad[0].Reason == ReasonAmount
							if bad != text.bad || !bad && len(out.Bad) > 0 {
								t.Errorf("%s %s %s: %s of %d bytes: %d malformed", stream, mode, format, key, len(text.amount), len(out.Bad))
							}
							if len(line) < 100_000 {
								s.check(t, lines(line), 2)
							}
							s.filter = config.Filter{}
							if out := encode(t, s, lines(line)); len(out.Bad) > 0 {
								t.Errorf("%s %s %s: %s is malformed although nothing compares it", stream, mode, format, key)
							}
						}
					}
				}
			}
		}
	}
}

func reaches(t *testing.T, price, size, minimum string) bool {
	m, ok := parseDecimal([]byte(minimum))
	if !ok {
		t.Fatalf("%q is not a decimal", minimum)
	}
	f := filter{minimum: m}
	return f.notional([]byte(price), []byte(size)) == passed
}

func FuzzNotional(f *testing.F) {
	for _, seed := range [][3]string{
		{"76466.0", "0.0686", "5245.5676"}, {"-1.50", "2", "0"}, {"18446744073709551615", "18446744073709551616",
			"340282366920938463463374607431768211455"},
		{"0.0000000000000000000000001", "10000000000000000000", "0.000001"}, {"1e3", "1", "0"},
		{"1", "1", "99999999999999999999.99999999999999999999"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, price, size, minimum string) {
		if !decimalText.MatchString(minimum) || minimum[0] == '-' || len(minimum) > 1000 {
			return
		}
		if got, want := reaches(t, price, size, minimum), referenceNotional(price, size, minimum); got != want {
			t.Errorf("%s × %s ≥ %s: %v, want %v", price, size, minimum, got, want)
		}
	})
}
