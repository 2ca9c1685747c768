package controller

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// longestImageName is the longest name of an image, without its tag and digest, that container runtimes accept.
const longestImageName = 255

// Repository returns an image's name without its tag and digest, in its short form: x for docker.io/library/x. It
// returns "" for an invalid reference.
func Repository(image string) string {
	named, err := parseImage(image)
	if err != nil {
		return ""
	}
	return reference.FamiliarName(named)
}

// parseImage parses a reference as container runtimes do.
func parseImage(image string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, fmt.Errorf("parsing the image reference: %w", err)
	}
	if len(named.Name()) > longestImageName {
		return nil, fmt.Errorf("parsing the image reference: the name has more than %d characters", longestImageName)
	}
	return named, nil
}

func (b Bounds) checkImage(obj *v1alpha1.HyperliquidParser) *problem {
	image := obj.Spec.Image
	if image == "" {
		return nil
	}
	named, err := parseImage(image)
	if err != nil {
		return &problem{Reason: v1alpha1.ReasonImageNotAllowed, Message: fmt.Sprintf(
			"spec.image %q cannot be read: %v: write one of %s", image, err, strings.Join(b.Images, ", "))}
	}
	for _, entry := range b.Images {
		if allowsImage(entry, named) {
			return nil
		}
	}
	return &problem{Reason: v1alpha1.ReasonImageNotAllowed, Message: fmt.Sprintf(
		"spec.image %s is not of an allowed repository: write one of %s, or add it to the manager's --allowed-images",
		image, strings.Join(b.Images, ", "))}
}

// allowsImage reports whether an entry of --allowed-images allows an image. The entry is the image's repository, or
// ends in '/' and is a prefix of it that begins with a registry. Both are compared by their full names: x is
// docker.io/library/x.
func allowsImage(entry string, image reference.Named) bool {
	name, err := entryName(entry)
	switch {
	case err != nil:
		return false
	case strings.HasSuffix(name, "/"):
		return strings.HasPrefix(image.Name(), name)
	}
	return image.Name() == name
}

// entryName returns the full name of an entry of --allowed-images; it ends in '/' if the entry does.
func entryName(entry string) (string, error) {
	if !strings.HasSuffix(entry, "/") {
		named, err := parseImage(entry)
		switch {
		case err != nil:
			return "", err
		case !reference.IsNameOnly(named):
			return "", errors.New("write a repository without a tag or digest")
		}
		return named.Name(), nil
	}
	registry, _, _ := strings.Cut(entry, "/")
	if registry != "localhost" && !strings.ContainsAny(registry, ".:") {
		return "", errors.New("a prefix without a registry would allow other people's images: write the registry, " +
			"such as registry.example/team/")
	}
	// Two segments, since a single one would be short for an image in library/ of docker.io.
	const below = "x/x"
	named, err := parseImage(entry + below)
	if err != nil {
		return "", err
	}
	if reference.Domain(named) == "" {
		return "", fmt.Errorf("%q is not the name of a registry", registry)
	}
	return strings.TrimSuffix(named.Name(), below), nil
}

func validImages(entries []string) error {
	for _, entry := range entries {
		if _, err := entryName(entry); err != nil {
			return fmt.Errorf("--allowed-images: %q: %w", entry, err)
		}
	}
	return nil
}
