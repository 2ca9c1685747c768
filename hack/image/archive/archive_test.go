package archive_test

import (
	"archive/tar"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/archive"
)

var (
	amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}
	meta  = archive.Metadata{
		User: "65532:65532", Entrypoint: []string{"/manager"}, Created: time.Unix(1_700_000_000, 0).UTC(),
		Labels: map[string]string{"org.opencontainers.image.version": "v1.2.3"},
	}
)

func image(t *testing.T, files ...archive.File) v1.Image {
	t.Helper()
	built, err := archive.Image(amd64, meta, files)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// TestEqualFilesGiveEqualDigests also changes what must not matter, and what must.
func TestEqualFilesGiveEqualDigests(t *testing.T) {
	a := archive.File{Path: "/manager", Mode: 0o755, Data: []byte("a")}
	b := archive.File{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: []byte("b")}
	digest := func(i v1.Image) string {
		d, err := i.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	want := digest(image(t, a, b))
	if got := digest(image(t, b, a)); got != want {
		t.Errorf("the files' order changes the digest: %s, want %s", got, want)
	}
	changed := a
	changed.Mode = 0o700
	if digest(image(t, changed, b)) == want {
		t.Error("a file's mode does not change the digest")
	}
	other, err := archive.Image(v1.Platform{OS: "linux", Architecture: "arm64"}, meta, []archive.File{a, b})
	if err != nil {
		t.Fatal(err)
	}
	index := func(images map[string]v1.Image) string {
		built, err := archive.Index(images)
		if err != nil {
			t.Fatal(err)
		}
		d, err := built.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	both := map[string]v1.Image{"linux/amd64": image(t, a, b), "linux/arm64": other}
	first := index(both)
	for range 20 { // maps are iterated in random order
		if got := index(both); got != first {
			t.Fatalf("the index has the digest %s, and %s", first, got)
		}
	}
}

func TestLayersHoldWhatWasGiven(t *testing.T) {
	files := []archive.File{
		{Path: "/manager", Mode: 0o755, Data: []byte("program")},
		{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: []byte("certificates")},
	}
	layers, err := image(t, files...).Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || !header.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s belongs to %d:%d, of %s", header.Name, header.Uid, header.Gid, header.ModTime)
		}
		got = append(got, header.Name+" "+header.FileInfo().Mode().String()+" "+string(data))
	}
	want := []string{
		"etc/ drwxr-xr-x ", "etc/ssl/ drwxr-xr-x ", "etc/ssl/certs/ drwxr-xr-x ",
		"etc/ssl/certs/ca-certificates.crt -rw-r--r-- certificates", "manager -rwxr-xr-x program",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConfigSaysWhatTheImageIs(t *testing.T) {
	config, err := image(t, archive.File{Path: "/manager", Mode: 0o755}).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != meta.User ||
		len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/manager" ||
		config.OS != "linux" || config.Architecture != "amd64" || !config.Created.Equal(meta.Created) ||
		config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("got %+v", config)
	}
}

func TestRelativePathsAreRefused(t *testing.T) {
	for _, path := range []string{"manager", "/../manager", "/a//b", ""} {
		if _, err := archive.Image(amd64, meta, []archive.File{{Path: path}}); err == nil {
			t.Errorf("%q is accepted", path)
		}
	}
}
