package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// ringOf returns a ring of pairs with the given ages at noon.
func ringOf(t testing.TB, ages ...time.Duration) Ring {
	t.Helper()
	r := make(Ring, 0, len(ages))
	for _, age := range ages {
		k, err := seal.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, Pair{Key: k, Created: noon.Add(-age)})
	}
	return r
}

func TestWhenKeysComeAndGo(t *testing.T) {
	for name, test := range map[string]struct {
		ages []time.Duration
		led  time.Duration
		kept []int // of the ring; a new one comes after them if fresh
		new  bool
	}{
		"there are none":                 {nil, 0, nil, true},
		"one is new":                     {[]time.Duration{0}, 0, []int{0}, false},
		"one is almost old":              {[]time.Duration{Period - time.Second}, 0, []int{0}, false},
		"one is old":                     {[]time.Duration{Period}, 0, []int{0}, true},
		"one has a successor":            {[]time.Duration{Period + day, day}, 100 * day, []int{0, 1}, false},
		"one had a successor for a week": {[]time.Duration{Period + 7*day, 7 * day}, 100 * day, []int{1}, false},
		"…, and the leader is new": {[]time.Duration{Period + 7*day, 7 * day}, 2*Settle - time.Second,
			[]int{0, 1}, false},
		"…, and the leader has published it itself": {[]time.Duration{Period + 7*day, 7 * day}, 2 * Settle, []int{1}, false},
		"the successor is old too":                  {[]time.Duration{2 * Period, Period}, 100 * day, []int{0, 1}, true},
		"leaders never last": {[]time.Duration{4 * Period, 3 * Period, 2 * Period, Period}, 0,
			[]int{1, 2, 3}, true},
		"the clock was set back a little": {[]time.Duration{-time.Minute}, 0, []int{0}, false},
		"the clock was a year ahead":      {[]time.Duration{-365 * day}, 0, []int{0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := ringOf(t, test.ages...)
			before := slices.Clone(r)
			next, changed, err := r.Next(noon, test.led, seal.NewKey)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(r, before) {
				t.Error("the ring was changed")
			}
			var want Ring
			for _, i := range test.kept {
				want = append(want, r[i])
			}
			if test.new {
				fresh := next[len(next)-1]
				if slices.Contains(r, fresh) || !fresh.Created.Equal(noon) {
					t.Errorf("the new one was made %s", fresh.Created)
				}
				want = append(want, fresh)
			}
			if !slices.Equal(next, want) || changed != !slices.Equal(next, r) {
				t.Errorf("%d keys, changed: %v", len(next), changed)
			}
		})
	}
	broken := errors.New("no entropy")
	r := ringOf(t, Period)
	next, changed, err := r.Next(noon, 0, func() (*seal.Key, error) { return nil, broken })
	if !errors.Is(err, broken) || changed || !slices.Equal(next, r) {
		t.Errorf("without a new key: %d, %v, %v", len(next), changed, err)
	}
}

func TestWhichKeyIsUsed(t *testing.T) {
	r := ringOf(t, 3*day, 2*day, day)
	const never = -1
	for name, test := range map[string]struct {
		ago  [3]time.Duration // since when each is published; never
		want int
		due  time.Duration // from noon; 0: none
	}{
		"all are settled":                    {[3]time.Duration{day, day, day}, 2, 0},
		"the newest is not published":        {[3]time.Duration{day, day, never}, 1, 0},
		"the newest was published just now":  {[3]time.Duration{day, day, 0}, 1, Settle},
		"the newest has almost settled":      {[3]time.Duration{day, day, Settle - time.Second}, 1, time.Second},
		"the newest has settled":             {[3]time.Duration{day, day, Settle}, 2, 0},
		"only the oldest has settled":        {[3]time.Duration{day, 10 * time.Minute, 0}, 0, 50 * time.Minute},
		"none has settled: the earliest":     {[3]time.Duration{0, 20 * time.Minute, 10 * time.Minute}, 1, 50 * time.Minute},
		"all are published together":         {[3]time.Duration{0, 0, 0}, 0, Settle},
		"nothing is published":               {[3]time.Duration{never, never, never}, 0, 0},
		"only the newest is, just now":       {[3]time.Duration{never, never, 0}, 2, 0},
		"published in the future":            {[3]time.Duration{day, day, -day}, 1, day + Settle},
		"the older one was published later":  {[3]time.Duration{time.Minute, day, never}, 1, 0},
		"the one in the middle is forgotten": {[3]time.Duration{day, never, 0}, 0, Settle},
	} {
		published := Published{}
		for i, ago := range test.ago {
			if ago != never {
				published[r[i].Public()] = noon.Add(-ago)
			}
		}
		key, due := r.Use(noon, published)
		want := time.Time{}
		if test.due != 0 {
			want = noon.Add(test.due)
		}
		if key != r[test.want].Key || !due.Equal(want) {
			t.Errorf("%s: key %d until %s, want %d until %s", name,
				slices.IndexFunc(r, func(p Pair) bool { return p.Key == key }), due, test.want, want)
		}
	}
	if key, due := (Ring{}).Use(noon, nil); key != nil || !due.IsZero() {
		t.Errorf("of none: %v, %s", key, due)
	}
}

func TestPublishingChangesNothingAtRest(t *testing.T) {
	r := ringOf(t, 2*day, day)
	text, published := r.Publish(noon, nil)
	again, _ := r.Publish(noon.Add(100*day), ParsePublished(text))
	if text != again {
		t.Errorf("it reads %s, then %s", text, again)
	}
	for _, p := range r {
		if strings.Contains(text, p.Private()) || !published[p.Public()].Equal(noon) {
			t.Errorf("published is %s", text)
		}
	}
	keys, _, err := seal.ParseOperators([]byte(text))
	if err != nil || len(keys) != 2 || keys[1] != r[1].Public() {
		t.Errorf("a parser reads %v, %v", keys, err)
	}
	for name, spoilt := range map[string]string{
		"nothing": "", "nonsense": "x y\nz", "without times": strings.ReplaceAll(text, noon.Format(time.RFC3339), ""),
		"in the future": strings.ReplaceAll(text, "2026", "2999"), "another's key": ringOf(t, 0)[0].Public().String() +
			" 2026-05-01T12:00:00Z\n",
	} {
		if healed, _ := r.Publish(noon, ParsePublished(spoilt)); healed != text {
			t.Errorf("%s: it becomes %s", name, healed)
		}
	}
}

func TestARingAsText(t *testing.T) {
	r := ringOf(t, 2*day, day)
	back, err := Decode(r.Encode())
	if err != nil || back.Encode() != r.Encode() || back[1].Public() != r[1].Public() ||
		!back[0].Created.Equal(r[0].Created) {
		t.Errorf("it comes back as %v, %v", back, err)
	}
	line := r[:1].Encode()
	for _, text := range []string{"", "\n", "x", line + "x", strings.Fields(line)[0], line[:len(line)-3],
		strings.Repeat(line, maxPairs+1)} {
		back, err := Decode(text)
		if err == nil {
			t.Errorf("%q is read as %d keys", text, len(back))
		} else if strings.Contains(err.Error(), r[0].Private()) {
			t.Errorf("the error says the key: %v", err)
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(format, r); strings.Contains(text, r[0].Private()) {
			t.Errorf("%s prints %s", format, text)
		}
	}
}

// fleet is a model of an operator and one object: what is published to its pods, late or not at all, and what they have
// observed.
type fleet struct {
	now   time.Time
	began time.Time // of the leader
	ring  Ring

	text   string // of the ConfigMap
	writes []written
	pods   []seen
}

// written is a text of the ConfigMap since a time.
type written struct {
	at   time.Time
	text string
}

// seen is what a pod has observed.
type seen struct {
	text  string
	delay time.Duration
}

// refresh lets kubelets update their pods to what was published the given time ago.
func (f *fleet) refresh() {
	for i := range f.pods {
		for _, w := range f.writes {
			if !f.now.Before(w.at.Add(f.pods[i].delay)) {
				f.pods[i].text = w.text
			}
		}
	}
}

// The operator never uses a key that a pod may not know, however leaders change, writes fail and kubelets lag.
func TestNoKeyIsUsedThatAPodMayNotKnow(t *testing.T) {
	const slowest = 30 * time.Minute // of kubelets
	const longest = 5 * day          // that the ConfigMap cannot be written
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{now: noon, began: noon}
		var refused time.Time // since when the ConfigMap cannot be written
		next := func() {
			ring, _, err := f.ring.Next(f.now, f.now.Sub(f.began), seal.NewKey)
			if err != nil {
				t.Fatal(err)
			}
			f.ring = ring
		}
		publish := func() {
			text, _ := f.ring.Publish(f.now, ParsePublished(f.text))
			if text != f.text && refused.IsZero() {
				f.text = text
				f.writes = append(f.writes, written{f.now, text})
			}
		}
		check := func() {
			if len(f.ring) > maxPairs {
				t.Fatalf("%d keys", len(f.ring))
			}
			key, due := f.ring.Use(f.now, ParsePublished(f.text))
			if key == nil || !due.IsZero() && !due.After(f.now) {
				t.Fatalf("no key, or another since %s", due)
			}
			for _, pod := range f.pods {
				known, _, err := seal.ParseOperators([]byte(pod.text))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(known, key.Public()) {
					t.Fatalf("at %s a key is used that a pod does not know: it knows\n%s\npublished is\n%s", f.now, pod.text, f.text)
				}
			}
		}
		// advance lets time pass in steps. In each, the kubelets and the leader do their work.
		advance := func(d, step time.Duration) {
			for end := f.now.Add(d); f.now.Before(end); {
				f.now = f.now.Add(min(step, end.Sub(f.now)))
				if !refused.IsZero() && f.now.Sub(refused) > longest {
					refused = time.Time{}
				}
				f.refresh()
				check() // before the leader hears of it
				next()
				publish()
				check()
			}
		}
		next()
		publish()
		t.Repeat(map[string]func(*rapid.T){
			"weeks pass": func(t *rapid.T) {
				advance(time.Duration(rapid.Int64Range(1, int64(60*day)).Draw(t, "for")), 5*time.Hour)
			},
			"a key is about to be old": func(*rapid.T) {
				advance(f.ring[len(f.ring)-1].Created.Add(Period-time.Second).Sub(f.now), 5*time.Hour)
				f.now = f.now.Add(time.Second)
			},
			"an hour passes": func(t *rapid.T) {
				advance(time.Duration(rapid.Int64Range(1, int64(2*time.Hour)).Draw(t, "for")), time.Minute)
			},
			"the leader changes":              func(*rapid.T) { f.began = f.now },
			"the leader makes keys, and ends": func(*rapid.T) { next(); f.began = f.now },
			"the operator is away": func(t *rapid.T) {
				f.now = f.now.Add(time.Duration(rapid.Int64Range(1, int64(200*day)).Draw(t, "for")))
				f.began, refused = f.now, time.Time{}
				f.refresh()
				next()
				publish()
			},
			"writes fail": func(*rapid.T) {
				if refused.IsZero() {
					refused = f.now
				}
			},
			"a pod starts": func(t *rapid.T) {
				if len(f.pods) < 5 {
					f.pods = append(f.pods, seen{f.text, time.Duration(rapid.Int64Range(0, int64(slowest)).Draw(t, "delay"))})
				}
			},
			"a pod ends": func(*rapid.T) {
				if len(f.pods) > 0 {
					f.pods = f.pods[1:]
				}
			},
			"": func(*rapid.T) { check() },
		})
	})
}
