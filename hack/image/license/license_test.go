package license

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var root = filepath.Join("..", "..", "..")

// TestTheFileOfLicencesIsUpToDate fails when a module was added, removed or has another licence.
func TestTheFileOfLicencesIsUpToDate(t *testing.T) {
	modules, err := Collect(t.Context(), root, Platforms(), Programs())
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(root, File))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file, Format(modules)) {
		t.Errorf("%s is not up to date; run make licenses", File)
	}
	for _, m := range modules {
		if len(m.Licenses) == 0 || len(m.Texts) == 0 || m.Version == "" {
			t.Errorf("%s %s has the licences %q in %d files", m.Path, m.Version, m.Licenses, len(m.Texts))
		}
	}
}

// mit is the text of a licence that needs no header.
func mit(t *testing.T) string {
	t.Helper()
	modules, err := Collect(t.Context(), root, Platforms()[:1], Programs())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if slices.Equal(m.Licenses, []string{"MIT"}) {
			return m.Texts["LICENSE"]
		}
	}
	t.Fatal("no module has the licence MIT")
	return ""
}

func TestALicenceThatNobodyHasReadIsAnError(t *testing.T) {
	const gpl = "This program is free software: you can redistribute it and/or modify it under the terms of the GNU " +
		"General Public License as published by the Free Software Foundation, either version 3 of the License, or (at " +
		"your option) any later version."
	ok := mit(t)
	for name, c := range map[string]struct {
		texts map[string]string
		want  string // "": no error
	}{
		"known":              {map[string]string{"LICENSE": ok}, ""},
		"with a notice":      {map[string]string{"LICENSE": ok, "NOTICE": "Thanks to all."}, ""},
		"a notice alone":     {map[string]string{"NOTICE": "Thanks to all."}, "there is no licence"},
		"none":               {nil, "there is no licence"},
		"unknown":            {map[string]string{"LICENSE": "You may use this on Sundays."}, "LICENSE holds no licence"},
		"not allowed":        {map[string]string{"LICENSE": ok, "third/COPYING": gpl}, "third/COPYING holds GPL-3.0"},
		"an unknown one too": {map[string]string{"LICENSE": ok, "LICENSE.other": "On Sundays."}, "LICENSE.other holds no"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := identify(c.texts)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestWhatLiesBesideAPackageCounts has a module with a licence of its own in the folder of a package that is linked,
// and one in a folder of none.
func TestWhatLiesBesideAPackageCounts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ok := mit(t)
	write("main/go.mod", "module example.com/main\ngo 1.26\nrequire example.com/dep v0.0.0\n"+
		"replace example.com/dep => ../dep\n")
	write("main/main.go", "package main\nimport _ \"example.com/dep/linked\"\nfunc main() {}\n")
	write("dep/go.mod", "module example.com/dep\ngo 1.26\n")
	write("dep/LICENSE", ok)
	write("dep/linked/linked.go", "package linked\n")
	write("dep/linked/LICENSE.txt", ok+"\nA second one.\n")
	write("dep/other/other.go", "package other\n")
	write("dep/other/LICENSE", "On Sundays.")
	modules, err := Collect(t.Context(), filepath.Join(dir, "main"), Platforms()[:1], []string{"."})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range modules {
		if m.Path != Std {
			for name := range m.Texts {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	if want := []string{"LICENSE", "linked/LICENSE.txt"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
