package controller

import (
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// A pattern is an exact text, or one that ends in '*' and stands for all texts that begin with what is before it. There is no other
// wildcard, so that what a list allows is seen at once, and is the same in Go and in CEL.
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

// validPattern refuses what would match other texts than its author means. Lists are separated by commas and blanks around them do not
// count, in a flag as in the admission policy's ConfigMap.
func validPattern(p string) error {
	switch {
	case p == "":
		return errors.New("it is empty")
	case strings.Contains(p, ","):
		return errors.New("a comma separates patterns and cannot be part of one")
	case strings.TrimSpace(p) != p:
		return errors.New("leave out the blanks around it")
	case strings.Contains(strings.TrimSuffix(p, "*"), "*"):
		return errors.New("'*' may only be at its end")
	}
	return nil
}

// secretName reports whether an object may have the name.
func secretName(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 }
