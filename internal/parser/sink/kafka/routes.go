package kafka

import (
	"fmt"
	"strings"
)

const (
	// maxTopicLength is Kafka's limit.
	maxTopicLength = 249
	// maxRoutes bounds the route cache; there are hundreds of coins.
	maxRoutes = 4096
)

// route is the destination of a coin's records.
type route struct {
	topic   string
	key     []byte
	invalid string // if not empty, why the topic is invalid
}

// routes finds and caches a stream's routes by coin.
type routes struct {
	topic, key     string // templates
	stream, target string
	known          map[string]*route
}

// routeFor returns the route of a coin. For an event without a coin, {coin} is the stream's name.
func (r *routes) routeFor(coin string) *route {
	if to, ok := r.known[coin]; ok {
		return to
	}
	if len(r.known) >= maxRoutes {
		clear(r.known)
	}
	named := coin
	if coin == "" {
		named = r.stream
	}
	to := &route{
		topic: fill(r.topic, r.stream, named, r.target, escape),
		key:   []byte(fill(r.key, r.stream, named, r.target, verbatim)),
	}
	if len(to.topic) > maxTopicLength {
		to.invalid = fmt.Sprintf("its topic %.60s… has %d characters, and Kafka accepts %d", to.topic, len(to.topic),
			maxTopicLength)
	}
	// The coin may alias the bytes of a whole block, which the cache must not keep alive.
	r.known[strings.Clone(coin)] = to
	return to
}

// fill replaces a template's placeholders.
func fill(template, stream, coin, target string, value func(string) string) string {
	replacer := strings.NewReplacer("{stream}", value(stream), "{coin}", value(coin), "{target}", value(target))
	return replacer.Replace(template)
}

func verbatim(s string) string { return s }

// escape makes a value legal in a topic. Letters, digits and dashes stay, and any other byte becomes _xx in hex. The
// conversion is injective, even where Kafka treats a dot and an underscore alike, in the names of metrics.
func escape(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
