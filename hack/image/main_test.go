package main

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"archive/tar"
	"io"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/archive"
	"github.com/hlparser/hyperliquid-parser-operator/hack/image/license"
)

// built returns an image of small files in the programs' place.
func built(t *testing.T) v1.Image {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), []byte(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	meta := archive.Metadata{User: user, Entrypoint: []string{"/" + programs[0]}}
	image, err := imageOf("linux/amd64", meta, dir, filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestTheDockerfileGivesAnEqualImage compares what the two copy, the user and the entrypoint. Both get the files from
// the same builds: the Makefile's.
func TestTheDockerfileGivesAnEqualImage(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join("..", "..", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^COPY (.*) (\S+)$`).FindAllSubmatch(dockerfile, -1) {
		for source := range bytes.FieldsSeq(m[1]) {
			to := string(m[2])
			if to[len(to)-1] == '/' {
				to += filepath.Base(string(source))
			}
			want = append(want, to)
		}
	}
	image := built(t)
	var got []string
	content := mutate.Extract(image)
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			got = append(got, "/"+header.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the image has %q, the Dockerfile copies %q", got, want)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"FROM scratch", "USER " + config.Config.User, `ENTRYPOINT ["` + config.Config.Entrypoint[0] + `"]`,
	} {
		if !bytes.Contains(dockerfile, []byte("\n"+line+"\n")) {
			t.Errorf("the Dockerfile lacks %s", line)
		}
	}
}

func TestTheBillOfMaterialsListsModules(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, p), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "sbom.json")
	from := commit{hash: "0123abcd", time: time.Unix(1_700_000_000, 0).UTC()}
	modules := modulesOf(t, self)
	if err := writeSBOM(path, "v1.2.3", from, dir, modules); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(first), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range *bom.Components {
		if c.Version == "" || c.PackageURL == "" || names[c.Name] || c.Licenses == nil ||
			len(*c.Licenses) != 1 || (*c.Licenses)[0].Expression != "Apache-2.0 AND MIT" {
			t.Errorf("%+v", c)
		}
		names[c.Name] = true
	}
	if !names["std"] || !names["github.com/google/go-containerregistry"] {
		t.Errorf("got %v", names)
	}
	if err := writeSBOM(path, "v1.2.3", from, dir, modules); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(path); err != nil || !bytes.Equal(first, second) {
		t.Errorf("a second one differs: %v", err)
	}
	err = writeSBOM(path, "v1.2.3", from, dir, modules[1:])
	if err == nil || !strings.Contains(err.Error(), modules[0].Path) {
		t.Errorf("a module without a licence: %v", err)
	}
}

// modulesOf returns what a program is built from, with licences.
func modulesOf(t *testing.T, program string) []license.Module {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	licenses := []string{"Apache-2.0", "MIT"}
	out := make([]license.Module, 0, len(info.Deps)+1)
	out = append(out, license.Module{Path: license.Std, Licenses: licenses})
	for _, m := range info.Deps {
		out = append(out, license.Module{Path: m.Path, Licenses: licenses})
	}
	return out
}
