package controller

import (
	"fmt"
	"path"
	"strings"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

// Bounds are what the manager's flags allow any object to ask for. In a namespace that allows hostPath volumes they stand between
// "may create a HyperliquidParser" and "may read every file of the node". Comparison is by path segment: /data allows /data/hl and
// not /database.
type Bounds struct {
	// DataPaths are the directories at or below which dataPath may be.
	DataPaths []string
	// StateRoot and OutputRoot are the directories at or below which statePath and sink.file.path may be.
	StateRoot  string
	OutputRoot string
	// Images are the repositories that spec.image may name, without tag or digest; an entry allows what is below it too.
	Images []string
}

// problem is why a spec cannot be carried out.
type problem struct {
	reason  string
	message string
}

// check returns what the object asks for beyond the bounds; nil when nothing.
func (b Bounds) check(obj *v1alpha1.HyperliquidParser) *problem {
	if nodes := obj.Spec.Target.Nodes; nodes != nil {
		if !below(string(nodes.DataPath), b.DataPaths...) {
			return outside("target.nodes.dataPath", string(nodes.DataPath), "--allowed-data-paths", b.DataPaths...)
		}
		if state := podspec.StatePath(obj); !below(state, b.StateRoot) {
			return outside("target.nodes.statePath", state, "--state-root", b.StateRoot)
		}
	}
	// What is on claims is on the namespace's own disks.
	if file := obj.Spec.FileSink(); file != nil && file.ClaimName == "" && !below(string(file.Path), b.OutputRoot) {
		return outside("sink.file.path", string(file.Path), "--output-root", b.OutputRoot)
	}
	if image := obj.Spec.Image; image != "" && !below(Repository(image), b.Images...) {
		return &problem{v1alpha1.ReasonImageNotAllowed, fmt.Sprintf(
			"spec.image %s is not of an allowed repository: write one of %s, or add it to the manager's --allowed-images",
			image, strings.Join(b.Images, ", "))}
	}
	return nil
}

func outside(field, value, flag string, allowed ...string) *problem {
	return &problem{v1alpha1.ReasonPathNotAllowed, fmt.Sprintf(
		"spec.%s %s is outside what the manager allows: write a path at or below %s, or change its %s",
		field, value, strings.Join(allowed, ", "), flag)}
}

// below reports whether name is one of the roots or below one, by segment.
func below(name string, roots ...string) bool {
	for _, root := range roots {
		if root = path.Clean(root); path.Clean(name) == root || strings.HasPrefix(path.Clean(name), strings.TrimSuffix(root, "/")+"/") {
			return true
		}
	}
	return false
}

// Repository returns an image's name without its tag and digest.
func Repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	return image
}
