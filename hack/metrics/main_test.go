package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestThePageIsGeneratedFromTheCode(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the code: run make generate", page)
	}
}

// What a metric is must be plain to somebody who reads an alert.
func TestEachMetricHasASentence(t *testing.T) {
	parser, err := parserMetrics("?metrics=all")
	if err != nil {
		t.Fatal(err)
	}
	operator, err := operatorMetrics()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(parser, operator...) {
		if strings.HasPrefix(m.name, "hlparser_") && (!strings.HasSuffix(m.help, ".") || strings.ContainsAny(m.help, "|\n")) {
			t.Errorf("%s: %q", m.name, m.help)
		}
	}
}
