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
	// cachedSubjects bounds the subject cache. Hyperliquid has some hundreds of coins.
	cachedSubjects = 4096
	// longestToken bounds the token of a position's subject, in bytes. A longer token ends in a hash.
	longestToken = 255
)

// escape converts any text to one token of a subject. The conversion is injective. Characters that NATS forbids or
// interprets, and unprintable ones, are percent-encoded as in a URL's path: %2E. The empty text becomes "_", and "_"
// becomes "%5F".
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

// subjects holds the subjects of one stream's records.
type subjects struct {
	template string // all placeholders but {coin} are filled in
	byCoin   map[string]string
}

func newSubjects(template, stream, target string) *subjects {
	return &subjects{
		template: strings.NewReplacer("{stream}", escape(stream), "{target}", escape(target)).Replace(template),
		byCoin:   map[string]string{},
	}
}

// subjectFor returns the subject of a coin's records.
func (s *subjects) subjectFor(coin string) string {
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

// positionSubject returns the subject for the position of one writer's stream. It includes the name of the JetStream
// stream, because two JetStream streams cannot share a subject.
func positionSubject(jetStream, writer, stream string) string {
	word := escape(writer + "/" + stream)
	if len(word) > longestToken {
		sum := sha256.Sum256([]byte(word))
		word = word[:longestToken-len(sum)*2] + hex.EncodeToString(sum[:])
	}
	return "hlparser." + jetStream + "." + word
}

// streamSubjects returns the subjects of the JetStream stream, for all writers.
func streamSubjects(template, jetStream string) []string {
	words := strings.Split(template, ".")
	for i, w := range words {
		if strings.Contains(w, "{") {
			words[i] = "*"
		}
	}
	positions := []string{"hlparser", jetStream, "*"}
	// The server rejects overlapping subjects, so overlapping ones are merged into one.
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
