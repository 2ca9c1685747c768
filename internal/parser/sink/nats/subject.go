package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// cachedSubjects bounds the subjects that are kept ready; Hyperliquid has some hundreds of coins.
	cachedSubjects = 4096
	// longestToken bounds the word of a position's subject; a longer one ends in a hash.
	longestToken = 255
)

// escape makes any text one word of a subject, and two texts two words: what NATS forbids or gives a meaning, and what cannot be
// printed, is written as in a URL's path, as %2E. An empty text is "_", and so "_" itself is "%5F".
func escape(text string) string {
	switch text {
	case "":
		return "_"
	case "_":
		return "%5F"
	}
	var out strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) || strings.ContainsRune(" .*>%$", r) {
			for _, b := range []byte(text[i : i+n]) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
		} else {
			out.WriteString(text[i : i+n])
		}
		i += n
	}
	return out.String()
}

// subjects are those of one stream's records.
type subjects struct {
	template string // with {coin} alone left in it
	byCoin   map[string]string
}

func newSubjects(template, stream, target string) *subjects {
	return &subjects{
		template: strings.NewReplacer("{stream}", escape(stream), "{target}", escape(target)).Replace(template),
		byCoin:   map[string]string{},
	}
}

// of returns the subject of records about a coin.
func (s *subjects) of(coin string) string {
	if subject, ok := s.byCoin[coin]; ok {
		return subject
	}
	if len(s.byCoin) == cachedSubjects {
		clear(s.byCoin)
	}
	subject := strings.ReplaceAll(s.template, "{coin}", escape(coin))
	s.byCoin[strings.Clone(coin)] = subject
	return subject
}

// positionSubject is where the position of one writer's stream is kept. It names the JetStream stream, because two of those cannot
// share a subject.
func positionSubject(jetStream, writer, stream string) string {
	word := escape(writer + "/" + stream)
	if len(word) > longestToken {
		sum := sha256.Sum256([]byte(word))
		word = word[:longestToken-len(sum)*2] + hex.EncodeToString(sum[:])
	}
	return "hlparser." + jetStream + "." + word
}

// streamSubjects are the subjects of the JetStream stream itself, for all writers.
func streamSubjects(template, jetStream string) []string {
	words := strings.Split(template, ".")
	for i, w := range words {
		if strings.Contains(w, "{") {
			words[i] = "*"
		}
	}
	positions := []string{"hlparser", jetStream, "*"}
	// The server takes no two subjects that have a subject in common: one for both stands for them.
	if len(words) == len(positions) {
		both := make([]string, len(words))
		common := true
		for i, w := range words {
			switch p := positions[i]; {
			case w == p:
				both[i] = w
			case w == "*" || p == "*":
				both[i] = "*"
			default:
				common = false
			}
		}
		if common {
			return []string{strings.Join(both, ".")}
		}
	}
	return []string{strings.Join(words, "."), strings.Join(positions, ".")}
}
