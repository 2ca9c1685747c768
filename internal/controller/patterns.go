package controller

import (
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// matches reports whether text matches a pattern: an exact text, or a prefix followed by '*'. There is no other
// wildcard, so a list is easy to review and has the same meaning in Go and in CEL.
func matches(pattern, text string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, prefix)
	}
	return pattern == text
}

func matchesAny(patterns []string, text string) bool {
	for _, p := range patterns {
		if matches(p, text) {
			return true
		}
	}
	return false
}

// allows reports whether one of the patterns, KEY or KEY=VALUE, allows a label or an annotation.
func allows(patterns []string, key, value string) bool {
	for _, p := range patterns {
		text := key
		if strings.Contains(p, "=") {
			text += "=" + value
		}
		if matches(p, text) {
			return true
		}
	}
	return false
}

// validPattern rejects patterns that would not match what their author means. A list is separated by commas, and blanks
// around its items are ignored, in the flags and in the admission policy's ConfigMap.
func validPattern(p string) error {
	switch {
	case p == "":
		return errors.New("it is empty")
	case strings.Contains(p, ","):
		return errors.New("a comma separates patterns and cannot be part of one")
	case strings.TrimSpace(p) != p:
		return errors.New("remove the blanks around it")
	case strings.Contains(strings.TrimSuffix(p, "*"), "*"):
		return errors.New("'*' may only be at its end")
	}
	return nil
}

// secretName reports whether name is a valid name of a Secret.
func secretName(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }
