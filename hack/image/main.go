// Command image builds the project's image, the operator and the parser in one, without a container engine:
//
//	go -C hack/image run . --tag hyperliquid-parser-operator:dev
//
// It writes into --out: an OCI layout of all platforms (oci/), a docker-archive for each platform (image-ARCH.tar) and
// a software bill of materials in CycloneDX form (sbom.cdx.json). It prints the image's digest, which is the same for
// the same commit on every machine with the same Go version. With --push it pushes all platforms under the tag, with
// the credentials that docker and podman keep.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/hlparser/hyperliquid-parser-operator/hack/image/archive"
	"github.com/hlparser/hyperliquid-parser-operator/hack/image/license"
)

const (
	source = "https://github.com/hlparser/hyperliquid-parser-operator"
	user   = "65532:65532"
)

// Files of the image, at its root.
var (
	// programs are built. The first is the entrypoint.
	programs = []string{"manager", "hlparser"}
	// texts are in the repository.
	texts = []string{"LICENSE", license.File}
)

type options struct {
	root      string // of the repository
	tag       string
	out       string
	platforms []string
	version   string
	push      bool
}

func main() {
	o := options{root: filepath.Join("..", "..")}
	flag.StringVar(&o.tag, "tag", "hyperliquid-parser-operator:dev", "name and tag of the image")
	flag.StringVar(&o.out, "out", filepath.Join("..", "..", "dist", "image"),
		"directory to write to; what is there is replaced")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "comma-separated list of platforms")
	flag.StringVar(&o.version, "version", "", "version of the programs; defaults to what git describe says")
	flag.BoolVar(&o.push, "push", false, "push the image to the registry that its tag names")
	flag.Parse()
	o.platforms = strings.Split(*platforms, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	tag, err := name.NewTag(o.tag)
	if err != nil {
		return fmt.Errorf("parsing --tag: %w", err)
	}
	commit, err := describe(ctx, o.root)
	if err != nil {
		return err
	}
	if o.version == "" {
		o.version = commit.version
	}
	bin, err := os.MkdirTemp("", "image")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(bin) }()
	meta := archive.Metadata{
		User: user, Entrypoint: []string{"/" + programs[0]}, Created: commit.time,
		Labels: map[string]string{
			"org.opencontainers.image.title":       "hyperliquid-parser-operator",
			"org.opencontainers.image.description": "Kubernetes operator and parser for the output of Hyperliquid nodes",
			"org.opencontainers.image.source":      source,
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     o.version,
			"org.opencontainers.image.revision":    commit.hash,
		},
	}
	images := map[string]v1.Image{}
	for _, platform := range o.platforms {
		dir := filepath.Join(bin, strings.ReplaceAll(platform, "/", "-"))
		if err := compile(ctx, o, commit.hash, platform, dir); err != nil {
			return err
		}
		if images[platform], err = imageOf(platform, meta, dir, o.root); err != nil {
			return err
		}
	}
	index, err := archive.Index(images)
	if err != nil {
		return err
	}
	if err := write(o, tag, index, images); err != nil {
		return err
	}
	first := filepath.Join(bin, strings.ReplaceAll(o.platforms[0], "/", "-"))
	modules, err := license.Collect(ctx, o.root, o.platforms, license.Programs())
	if err != nil {
		return err
	}
	if err := writeSBOM(filepath.Join(o.out, "sbom.cdx.json"), o.version, commit, first, modules); err != nil {
		return err
	}
	if o.push {
		login := remote.WithAuthFromKeychain(authn.DefaultKeychain)
		if err := remote.WriteIndex(tag, index, login, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("pushing %s: %w", tag, err)
		}
	}
	return report(tag, index, images)
}

// commit is what the image is built from.
type commit struct {
	hash    string
	version string
	time    time.Time
}

// describe reads the repository's commit. The time is that of SOURCE_DATE_EPOCH where it is set.
func describe(ctx context.Context, root string) (commit, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("running git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	hash, err := git("rev-parse", "HEAD")
	if err != nil {
		return commit{}, err
	}
	version, err := git("describe", "--tags", "--match=v[0-9]*", "--always", "--dirty")
	if err != nil {
		return commit{}, err
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		if seconds, err = git("log", "-1", "--format=%ct"); err != nil {
			return commit{}, err
		}
	}
	var epoch int64
	if _, err := fmt.Sscanf(seconds, "%d", &epoch); err != nil {
		return commit{}, fmt.Errorf("parsing the time %q in seconds: %w", seconds, err)
	}
	return commit{hash, version, time.Unix(epoch, 0).UTC()}, nil
}

// compile builds the programs for a platform with the Makefile's build target, which holds the flags.
func compile(ctx context.Context, o options, hash, platform, dir string) error {
	goos, goarch, ok := strings.Cut(platform, "/")
	if !ok || strings.Contains(goarch, "/") {
		return fmt.Errorf("building for %s: write OS/ARCH, such as linux/amd64", platform)
	}
	out, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("building for %s: %w", platform, err)
	}
	cmd := exec.CommandContext(ctx, "make", "--silent", "-C", o.root, "build",
		"BIN="+out, "VERSION="+o.version, "COMMIT="+hash)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building for %s: %w", platform, err)
	}
	return nil
}

// imageOf returns the image of one platform: the programs in dir, the licences of the repository, and nothing else.
func imageOf(platform string, meta archive.Metadata, dir, root string) (v1.Image, error) {
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return nil, fmt.Errorf("parsing the platform %s: %w", platform, err)
	}
	files := make([]archive.File, 0, len(programs)+len(texts))
	for _, program := range programs {
		f, err := archive.Read(filepath.Join(dir, program), "/"+program, 0o755)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	for _, text := range texts {
		f, err := archive.Read(filepath.Join(root, text), "/"+text, 0o644)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return archive.Image(*p, meta, files)
}

func write(o options, tag name.Tag, index v1.ImageIndex, images map[string]v1.Image) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("writing the image: %w", err)
	}
	oci := filepath.Join(o.out, "oci")
	if err := os.RemoveAll(oci); err != nil {
		return fmt.Errorf("replacing %s: %w", oci, err)
	}
	path, err := layout.Write(oci, empty.Index)
	if err != nil {
		return fmt.Errorf("writing %s: %w", oci, err)
	}
	annotations := map[string]string{
		"org.opencontainers.image.ref.name": tag.TagStr(), "io.containerd.image.name": tag.Name(),
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(annotations)); err != nil {
		return fmt.Errorf("writing %s: %w", oci, err)
	}
	for platform, image := range images {
		file := filepath.Join(o.out, "image-"+platform[strings.IndexByte(platform, '/')+1:]+".tar")
		if err := tarball.WriteToFile(file, tag, image); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
	}
	return nil
}

// report prints the digest and the compressed size of each platform's image.
func report(tag name.Tag, index v1.ImageIndex, images map[string]v1.Image) error {
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("computing the digest: %w", err)
	}
	fmt.Printf("%s@%s\n", tag, digest)
	var errs []error
	for platform, image := range images {
		size, err := compressed(image)
		errs = append(errs, err)
		digest, err := image.Digest()
		errs = append(errs, err)
		fmt.Printf("  %s %s %.1f MB\n", platform, digest, float64(size)/1e6)
	}
	return errors.Join(errs...)
}

func compressed(image v1.Image) (int64, error) {
	layers, err := image.Layers()
	if err != nil {
		return 0, fmt.Errorf("reading the image's layers: %w", err)
	}
	var total int64
	for _, layer := range layers {
		size, err := layer.Size()
		if err != nil {
			return 0, fmt.Errorf("compressing a layer: %w", err)
		}
		total += size
	}
	return total, nil
}
