package kafka

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/sink"
)

var legal = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func TestTopicsOfCoinsAreLegalAndDistinct(t *testing.T) {
	text := rapid.StringOfN(rapid.OneOf(rapid.RuneFrom([]rune("aA0-_.:@/ 5f2e")), rapid.Rune()), 1, 12, 30)
	rapid.Check(t, func(t *rapid.T) {
		r := &routes{topic: "hl.{stream}.{coin}", key: "{coin}", stream: "fills", target: "n", known: map[string]*route{}}
		a := text.Draw(t, "a")
		// A coin that looks like the other's topic is most likely to collide.
		b := rapid.OneOf(text, rapid.Just(escape(a)), rapid.Just(strings.ReplaceAll(escape(a), "_", "."))).Draw(t, "b")
		x, y := r.routeFor(a), r.routeFor(b)
		if !legal.MatchString(x.topic) || x.invalid != "" {
			t.Fatalf("the topic of %q is %q, %s", a, x.topic, x.invalid)
		}
		// Kafka rejects a topic that differs from another only in a dot for an underscore.
		same := strings.ReplaceAll(x.topic, ".", "_") == strings.ReplaceAll(y.topic, ".", "_")
		if same != (a == b) {
			t.Fatalf("%q has the topic %q, and %q has %q", a, x.topic, b, y.topic)
		}
		if string(x.key) != a {
			t.Fatalf("the key of %q is %q", a, x.key)
		}
	})
}

func TestTemplatesAreFilled(t *testing.T) {
	for _, c := range []struct{ topic, key, coin, wantTopic, wantKey string }{
		{"hl.{stream}", "{coin}", "BTC", "hl.order-statuses", "BTC"},
		{"hl.{stream}", "{coin}", "", "hl.order-statuses", "order-statuses"},
		{"hl.{stream}", "all", "", "hl.order-statuses", "all"},
		{"{coin}", "{target}/{stream}/{coin}", "xyz:GOLD", "xyz_3aGOLD", "node.1/order-statuses/xyz:GOLD"},
		{"hl.{target}.{coin}", "{coin}", "@107", "hl.node_2e1._40107", "@107"},
		{"{coin}", "{coin}", "..", "_2e_2e", ".."},
		{"{coin}", "{coin}", "{stream}", "_7bstream_7d", "{stream}"},
	} {
		r := &routes{topic: c.topic, key: c.key, stream: "order-statuses", target: "node.1", known: map[string]*route{}}
		if got := r.routeFor(c.coin); got.topic != c.wantTopic || string(got.key) != c.wantKey {
			t.Errorf("%s, %s of %q: got %s, %s, want %s, %s", c.topic, c.key, c.coin, got.topic, got.key, c.wantTopic, c.wantKey)
		}
	}
}

func TestATopicThatIsTooLongIsRefused(t *testing.T) {
	p := packer{routes: routes{topic: "hl.{coin}", stream: "fills", known: map[string]*route{}}, limit: 1 << 20}
	b := sink.Batch{Data: []byte("a\nb\n"), Records: []sink.Record{{End: 2, Coin: "BTC"},
		{End: 4, Coin: strings.Repeat(":", 100)}}}
	if _, refusal := p.prepare(b, nil); refusal == nil || refusal.Index != 1 ||
		!strings.Contains(refusal.Reason, "303 characters") {
		t.Fatalf("got %v, want a refusal of record 1", refusal)
	}
}

func TestTheCacheOfRoutesIsBounded(t *testing.T) {
	r := &routes{topic: "hl", key: "{coin}", known: map[string]*route{}}
	for i := range 3 * maxRoutes {
		r.routeFor(strconv.Itoa(i))
	}
	if len(r.known) > maxRoutes {
		t.Errorf("%d routes are cached", len(r.known))
	}
}
