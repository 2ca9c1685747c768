package kafka

import (
	"fmt"
	"strings"
)

const (
	// maxTopicLength is Kafka's.
	maxTopicLength = 249
	// maxRoutes bounds what is remembered of coins; there are hundreds.
	maxRoutes = 4096
)

// route is where a coin's records go.
type route struct {
	topic string
	key   []byte
	wrong string // not empty: why there is no such topic
}

// routes finds a stream's routes by coin.
type routes struct {
	topic, key     string // templates
	stream, target string
	known          map[string]*route
}

// of returns the route of a coin; empty for an event without one, which has the stream's name in its place.
func (r *routes) of(coin string) *route {
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
	to := &route{topic: fill(r.topic, r.stream, named, r.target, escape), key: []byte(fill(r.key, r.stream, named, r.target, verbatim))}
	if len(to.topic) > maxTopicLength {
		to.wrong = fmt.Sprintf("its topic %.60s… has %d characters, and Kafka takes %d", to.topic, len(to.topic), maxTopicLength)
	}
	// The coin may be a part of a whole block's bytes, which must not be kept for it.
	r.known[strings.Clone(coin)] = to
	return to
}

// fill puts values in the place of a template's placeholders.
func fill(template, stream, coin, target string, value func(string) string) string {
	return strings.NewReplacer("{stream}", value(stream), "{coin}", value(coin), "{target}", value(target)).Replace(template)
}

func verbatim(s string) string { return s }

// escape makes a value legal in a topic: letters, digits and dashes stay, any other byte is _xx in hex. No two values become the
// same, not even to Kafka's eyes, which takes a dot and an underscore for the same in the names of metrics.
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
