package hyperliquid

import (
	"strings"
	"testing"
)

func TestNotionalIsExact(t *testing.T) {
	for _, c := range []struct {
		price, size, minimum string
		want                 bool
	}{
		{"76466.0", "0.0686", "5245.5676", true}, // equal to the last digit
		{"76466.0", "0.0686", "5245.56760000000000000001", false},
		{"76466.0", "0.0686", "5245.5677", false},
		{"0.1", "3", "0.3", true}, // not so with floats
		{"0.3", "1", "0.30000000000000001", false},
		{"18446744073709551615", "18446744073709551615", "340282366920938463426481119284349108225", true},
		{"18446744073709551615", "18446744073709551615", "340282366920938463426481119284349108226", false},
		{"99999999999999999999999999.5", "2", "199999999999999999999999999", true},
		{"99999999999999999999999999.5", "2", "199999999999999999999999999.1", false},
		{"0.00000000000000000000000001", "0.00000000000000000000000001", "0", true},
		{"0.00000000000000000000000001", "1", "0.00000000000000000000000002", false},
		{"1", "1", "0.0000000000000000000000000001", true},
		{"4294967296", "4294967296", "0.5", true}, // 2 to the 64th
		{"4294967296.0", "4294967296.0", "5", true}, {"0.5", "2", "1844674407370955161.7", false},
		{"0", "5", "0", true}, {"-0", "5", "0", true}, {"-1", "5", "0", false}, {"-1", "-5", "5", true}, {"-1", "0.0", "0", true},
		{"007", "1", "7", true},
		{"", "1", "0", false}, {"1", "", "0", false}, {"1e3", "1", "0", false}, {".5", "1", "0", false}, {"5.", "1", "0", false},
		{"+5", "1", "0", false}, {"1.2.3", "1", "0", false}, {"-", "1", "0", false}, {" 1", "1", "0", false}, {"NaN", "1", "0", false},
		{strings.Repeat("9", 1000), "1", "1", true}, {strings.Repeat("9", 1001), "1", "1", false},
	} {
		if got := reaches(t, c.price, c.size, c.minimum); got != c.want {
			t.Errorf("%s × %s ≥ %s: %v", c.price, c.size, c.minimum, got)
		}
	}
}

func reaches(t *testing.T, price, size, minimum string) bool {
	m, ok := parseDecimal([]byte(minimum))
	if !ok {
		t.Fatalf("%q is not a decimal", minimum)
	}
	f := filter{minimum: m}
	return f.notional([]byte(price), []byte(size))
}

func FuzzNotional(f *testing.F) {
	for _, seed := range [][3]string{
		{"76466.0", "0.0686", "5245.5676"}, {"-1.50", "2", "0"}, {"18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211455"},
		{"0.0000000000000000000000001", "10000000000000000000", "0.000001"}, {"1e3", "1", "0"}, {"1", "1", "99999999999999999999.99999999999999999999"},
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
