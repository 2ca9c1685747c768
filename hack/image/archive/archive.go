// Package archive builds container images out of files, without a container engine and without a base image. Equal
// files and metadata give an image of the same digest on every machine. It must never read the clock, the user's name
// or a file's time.
package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file of a layer.
type File struct {
	Path string // absolute, inside the image
	Mode int64  // such as 0o755
	Data []byte
}

// Read returns a file of this machine as the one at dest inside the image.
func Read(source, dest string, mode int64) (File, error) {
	data, err := os.ReadFile(source)
	if err != nil {
		return File{}, fmt.Errorf("reading %s for the image: %w", source, err)
	}
	return File{Path: dest, Mode: mode, Data: data}, nil
}

// Metadata is what an image says of itself.
type Metadata struct {
	User       string // "uid:gid"; empty means root
	Entrypoint []string
	Labels     map[string]string
	// Created is the image's creation time. It must not be the time of the build, which differs each time.
	Created time.Time
}

// Image returns the image of one layer for one platform.
func Image(platform v1.Platform, meta Metadata, files []File) (v1.Image, error) {
	layer, err := layerOf(files)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: meta.Created}, CreatedBy: "COPY " + strings.Join(paths(files), " ")},
	})
	if err != nil {
		return nil, fmt.Errorf("appending a layer: %w", err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("configuring the image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: meta.Created}
	config.Config.User = meta.User
	config.Config.Entrypoint = meta.Entrypoint
	config.Config.Labels = maps.Clone(meta.Labels)
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		return nil, fmt.Errorf("configuring the image: %w", err)
	}
	return image, nil
}

// Index returns one image for several platforms.
func Index(images map[string]v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range slices.Sorted(maps.Keys(images)) {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, fmt.Errorf("parsing the platform %s: %w", name, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: images[name], Descriptor: v1.Descriptor{Platform: platform},
		})
	}
	return index, nil
}

// layerOf returns a compressed layer. Directories above the files belong to root and may be read by everyone.
func layerOf(files []File) (v1.Layer, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("adding %s: write an absolute path", f.Path)
		}
		for _, dir := range parents(f.Path) {
			if made[dir] {
				continue
			}
			made[dir] = true
			header := &tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
			if err := w.WriteHeader(header); err != nil {
				return nil, fmt.Errorf("adding %s: %w", dir, err)
			}
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: f.Path[1:], Mode: f.Mode, Size: int64(len(f.Data)), ModTime: time.Unix(0, 0),
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("adding %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("adding %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("writing a layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestCompression),
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("compressing a layer: %w", err)
	}
	return layer, nil
}

// parents returns the directories above a path, the topmost first.
func parents(file string) []string {
	var out []string
	for dir := path.Dir(file); dir != "/"; dir = path.Dir(dir) {
		out = append(out, dir)
	}
	slices.Reverse(out)
	return out
}

func paths(files []File) []string {
	out := make([]string, 0, len(files))
	for _, f := range files {
		out = append(out, f.Path)
	}
	slices.Sort(out)
	return out
}
