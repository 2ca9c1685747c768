package controller

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
)

const (
	// firstFreeID is the lowest user and group id that an object may ask for without a flag. Lower ids belong to the
	// system: a group such as disk or docker gives control of a node.
	firstFreeID = 1000
	// lastID is the highest user and group id that Kubernetes accepts.
	lastID = 1<<31 - 1
)

// allowedResources are those that a parser's container may request. Any other name, such as that of a device plugin, is
// a device of the node.
var allowedResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

// Bounds limits what any object may ask for. The manager's flags set it. In a namespace that allows hostPath volumes it
// separates "may create a HyperliquidParser" from "is root on the node". The zero value allows no path. The admission
// policy in config/admission-policy implements the same rules in CEL.
type Bounds struct {
	// DataPaths are the directories at or below which dataPath may lie, by path segment: /data allows /data/hl but not
	// /database.
	DataPaths []string
	// StateRoots and OutputRoots are the directories that statePath and sink.file.path may be. They may not lie below: the
	// directory of an object is a subPath, where the kubelet follows no link, so that no object's directory equals or
	// contains another's.
	StateRoots  []string
	OutputRoots []string
	// Images are the repositories that spec.image may name; see allowsImage.
	Images []string
	// PodLabels and PodAnnotations are patterns of the form KEY or KEY=VALUE. KEY alone allows any value.
	PodLabels      []string
	PodAnnotations []string
	// PriorityClasses and SELinuxTypes are patterns of names.
	PriorityClasses []string
	SELinuxTypes    []string
	// Users and Groups are the allowed ids below 1000. They never allow 0.
	Users  []int64
	Groups []int64
}

// Validate returns an error for the first bound that is invalid, with the name of its flag.
func (b Bounds) Validate() error {
	for _, list := range []struct {
		flag  string
		paths []string
	}{{"--allowed-data-paths", b.DataPaths}, {"--state-root", b.StateRoots}, {"--output-root", b.OutputRoots}} {
		if len(list.paths) == 0 {
			return fmt.Errorf(`%s: "" is not an absolute path`, list.flag)
		}
		for _, p := range list.paths {
			switch {
			case !path.IsAbs(p):
				return fmt.Errorf("%s: %q is not an absolute path", list.flag, p)
			case path.Clean(p) != "/"+strings.Trim(p, "/"):
				return fmt.Errorf("%s: %q: write it without '.', '..' and '//'", list.flag, p)
			case list.flag != "--allowed-data-paths" && path.Clean(p) == "/":
				return fmt.Errorf("%s: write a directory below /", list.flag)
			}
		}
	}
	roots := slices.Concat(b.StateRoots, b.OutputRoots)
	for i, root := range roots {
		for _, other := range roots[i+1:] {
			if overlap(root, other) {
				return fmt.Errorf(
					"--state-root, --output-root: %s and %s overlap: one object's directory could lie in another's", root, other)
			}
		}
	}
	if err := validImages(b.Images); err != nil {
		return err
	}
	for _, list := range []struct {
		flag     string
		patterns []string
	}{
		{"--allowed-pod-labels", b.PodLabels}, {"--allowed-pod-annotations", b.PodAnnotations},
		{"--allowed-priority-classes", b.PriorityClasses}, {"--allowed-selinux-types", b.SELinuxTypes},
	} {
		for _, p := range list.patterns {
			if err := validPattern(p); err != nil {
				return fmt.Errorf("%s: %q: %w", list.flag, p, err)
			}
		}
	}
	for _, list := range []struct {
		flag string
		ids  []int64
	}{{"--allowed-users", b.Users}, {"--allowed-groups", b.Groups}} {
		for _, id := range list.ids {
			if id < 1 || id > lastID {
				return fmt.Errorf("%s: %d: write ids from 1 to %d, never root's", list.flag, id, lastID)
			}
		}
	}
	return nil
}

// check returns the problem of an object that exceeds the bounds; nil for none.
func (b Bounds) check(obj *v1alpha1.HyperliquidParser) *problem {
	for _, check := range []func(*v1alpha1.HyperliquidParser) *problem{b.checkPaths, b.checkImage, b.checkPodFields} {
		if found := check(obj); found != nil {
			return found
		}
	}
	return nil
}

func (b Bounds) checkPaths(obj *v1alpha1.HyperliquidParser) *problem {
	if nodes := obj.Spec.Target.Nodes; nodes != nil {
		data := string(nodes.DataPath)
		if !below(data, b.DataPaths...) {
			return &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
				"spec.target.nodes.dataPath %s is outside what the manager allows: write a path at or below %s, "+
					"or change its --allowed-data-paths",
				data, strings.Join(b.DataPaths, ", "))}
		}
		for _, root := range slices.Concat(b.StateRoots, b.OutputRoots) {
			if overlap(data, root) {
				return &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
					"spec.target.nodes.dataPath %s overlaps %s, where parsers write: "+
						"write the directory of the Hyperliquid node's data alone",
					data, root)}
			}
		}
		if found := outside("target.nodes.statePath", podspec.StatePath(obj), "--state-root", b.StateRoots); found != nil {
			return found
		}
	}
	// Claims are the namespace's own storage; see checkSharing.
	if file := obj.Spec.FileSink(); file != nil && file.ClaimName == "" {
		if found := outside("sink.file.path", string(file.Path), "--output-root", b.OutputRoots); found != nil {
			return found
		}
	}
	return nil
}

// outside returns the problem of a value that is not one of the roots; nil for none.
func outside(field, value, flag string, roots []string) *problem {
	for _, root := range roots {
		switch {
		case path.Clean(value) == path.Clean(root):
			return nil
		case below(value, root):
			return &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
				"spec.%s %s lies below %s, where each object has its own directory <namespace>/<name>: "+
					"write %s, or put it in place of that in the manager's %s", field, value, root, root, flag)}
		}
	}
	return &problem{Reason: v1alpha1.ReasonPathNotAllowed, Message: fmt.Sprintf(
		"spec.%s %s is outside what the manager allows: write one of %s, or add it to the manager's %s",
		field, value, strings.Join(roots, ", "), flag)}
}

// below reports whether name is one of the roots or below one, by segment.
func below(name string, roots ...string) bool {
	for _, root := range roots {
		root, name := path.Clean(root), path.Clean(name)
		if name == root || strings.HasPrefix(name, strings.TrimSuffix(root, "/")+"/") {
			return true
		}
	}
	return false
}

// overlap reports whether two directories are equal, or one lies in the other.
func overlap(a, b string) bool { return below(a, b) || below(b, a) }

func (b Bounds) checkPodFields(obj *v1alpha1.HyperliquidParser) *problem {
	spec := &obj.Spec
	if found := notAllowed("podLabels", "--allowed-pod-labels", b.PodLabels, spec.PodLabels); found != nil {
		return found
	}
	found := notAllowed("podAnnotations", "--allowed-pod-annotations", b.PodAnnotations, spec.PodAnnotations)
	if found != nil {
		return found
	}
	if class := spec.PriorityClassName; class != "" && !matchesAny(b.PriorityClasses, class) {
		return podField("spec.priorityClassName %s is not allowed: %s, or add it to the manager's --allowed-priority-classes",
			class, leaveOut(b.PriorityClasses))
	}
	if found := b.checkSELinux(spec.SELinuxOptions); found != nil {
		return found
	}
	if found := b.checkIDs(spec); found != nil {
		return found
	}
	if found := checkResources(&spec.Resources); found != nil {
		return found
	}
	for _, secret := range spec.ImagePullSecrets {
		if !secretName(secret.Name) {
			return podField("spec.imagePullSecrets: %q is not the name of a Secret: write one in this namespace", secret.Name)
		}
	}
	return nil
}

func podField(format string, args ...any) *problem {
	return &problem{Reason: v1alpha1.ReasonPodFieldNotAllowed, Message: fmt.Sprintf(format, args...)}
}

// leaveOut describes what to write instead of a value that no pattern allows.
func leaveOut(patterns []string) string {
	if len(patterns) == 0 {
		return "leave it out"
	}
	return "leave it out or write one of " + strings.Join(patterns, ", ")
}

// notAllowed returns the problem of the first label or annotation, by key, that no pattern allows; nil for none. Those
// of the operator's own group are never allowed, since plans depend on them.
func notAllowed[V ~string](field, flag string, patterns []string, values map[string]V) *problem {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		switch {
		case strings.HasPrefix(key, v1alpha1.Group+"/"):
			return podField("spec.%s: the prefix of %s is the operator's: write another prefix", field, key)
		case !allows(patterns, key, string(values[key])):
			return podField("spec.%s: %s is not allowed with this value: %s, or add its key to the manager's %s",
				field, key, leaveOut(patterns), flag)
		}
	}
	return nil
}

// checkSELinux does not bound the level, which only narrows what a process may do compared to others of its type. A
// type may be one that no policy confines. A user or a role only serves to reach such a type, so no flag allows them.
func (b Bounds) checkSELinux(options *corev1.SELinuxOptions) *problem {
	switch {
	case options == nil:
		return nil
	case options.User != "" || options.Role != "":
		return podField("spec.seLinuxOptions: user and role are the container runtime's: leave them out")
	case options.Type != "" && !matchesAny(b.SELinuxTypes, options.Type):
		return podField("spec.seLinuxOptions.type %s is not allowed: %s, or add it to the manager's --allowed-selinux-types",
			options.Type, leaveOut(b.SELinuxTypes))
	}
	return nil
}

func (b Bounds) checkIDs(spec *v1alpha1.HyperliquidParserSpec) *problem {
	if id := spec.RunAsUser; id != nil && !allowsID(b.Users, *id) {
		return systemID("runAsUser", *id, "--allowed-users")
	}
	if id := spec.RunAsGroup; id != nil && !allowsID(b.Groups, *id) {
		return systemID("runAsGroup", *id, "--allowed-groups")
	}
	for _, id := range spec.SupplementalGroups {
		if !allowsID(b.Groups, id) {
			return systemID("supplementalGroups", id, "--allowed-groups")
		}
	}
	return nil
}

func allowsID(allowed []int64, id int64) bool {
	return id >= firstFreeID && id <= lastID || id > 0 && slices.Contains(allowed, id)
}

func systemID(field string, id int64, flag string) *problem {
	if id <= 0 || id > lastID {
		return podField("spec.%s: %d is not allowed: write an id from %d to %d", field, id, firstFreeID, lastID)
	}
	return podField("spec.%s: ids below %d, such as %d, are the node's own: write another, or add it to the manager's %s",
		field, firstFreeID, id, flag)
}

// checkResources refuses devices of the node, which device plugins and DRA drivers offer as resources.
func checkResources(requirements *corev1.ResourceRequirements) *problem {
	if len(requirements.Claims) > 0 {
		return podField("spec.resources.claims: a parser needs no device: leave it out")
	}
	for _, list := range []corev1.ResourceList{requirements.Limits, requirements.Requests} {
		names := make([]corev1.ResourceName, 0, len(list))
		for name := range list {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if !slices.Contains(allowedResources, name) {
				return podField(
					"spec.resources: %s may be a device of the node: write cpu, memory and ephemeral-storage only", name)
			}
		}
	}
	return nil
}
