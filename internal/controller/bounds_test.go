package controller_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	fleet "github.com/hlparser/hyperliquid-parser-operator/internal/controller"
)

// testBounds are bounds of every kind. They are tested as the manager's flags and as the admission policy's ConfigMap.
var testBounds = fleet.Bounds{
	DataPaths:   []string{"/home/hluser", "/mnt"},
	StateRoots:  []string{"/var/lib/hlparser", "/mnt/state"},
	OutputRoots: []string{"/var/lib/hlparser-out", "/out/"},
	Images: []string{"registry.example:5000/hlparser", "team.example/parsers/", "hlparser",
		"index.docker.io/acme/", "[::1]:5000/"},
	PodLabels:       []string{"team", "tier=back", "cost.example/*", "zone=eu-*"},
	PodAnnotations:  []string{"prometheus.io/scrape", "sidecar.istio.io/inject=false"},
	PriorityClasses: []string{"high", "parsers-*"},
	SELinuxTypes:    []string{"container_logreader_t"},
	Users:           []int64{500},
	Groups:          []int64{500, 992},
}

// policyData returns the data of the admission policy's ConfigMap for the bounds.
func policyData(b fleet.Bounds) map[string]string {
	ids := func(list []int64) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]") }
	return map[string]string{
		"allowed-data-paths": strings.Join(b.DataPaths, ","), "state-root": strings.Join(b.StateRoots, ","),
		"output-root": strings.Join(b.OutputRoots, ", "), "allowed-images": strings.Join(b.Images, ","),
		"allowed-pod-labels": strings.Join(b.PodLabels, ","), "allowed-pod-annotations": strings.Join(b.PodAnnotations, ","),
		"allowed-priority-classes": strings.Join(b.PriorityClasses, ","),
		"allowed-selinux-types":    strings.Join(b.SELinuxTypes, ","),
		"allowed-users":            ids(b.Users), "allowed-groups": ids(b.Groups),
	}
}

// digest is one of an image.
const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// imageReferences are values of spec.image, and whether testBounds allow them. The manager uses the library with which
// container runtimes parse images. The schema and the admission policy implement the same in CEL and are tested with
// the same table.
var imageReferences = map[string]bool{
	// An exact repository, in all its spellings.
	"registry.example:5000/hlparser":                                                 true,
	"registry.example:5000/hlparser:v1":                                              true,
	"registry.example:5000/hlparser@" + digest:                                       true,
	"registry.example:5000/hlparser:v1@" + digest:                                    true,
	"registry.example:5000/hlparser:" + long(128):                                    true,
	"registry.example:5000/hlparser:" + long(129):                                    false,
	"registry.example:5000/hlparser/miner":                                           false,
	"registry.example:5000/hlparser/miner:v1":                                        false,
	"registry.example:5000/hlparser-miner":                                           false,
	"registry.example:5000/hlparse":                                                  false,
	"registry.example:5001/hlparser":                                                 false,
	"registry.example/hlparser":                                                      false,
	"REGISTRY.example:5000/hlparser":                                                 false,
	"registry.example:5000/a/../hlparser":                                            false,
	"evil.example/registry.example:5000/hlparser":                                    false,
	"evil.example/registry.example/hlparser":                                         false,
	"registry.example:5000/hlparser@sha256:0123":                                     false,
	"registry.example:5000/hlparser@md5:" + long(32):                                 false,
	"registry.example:5000/hlparser@sha512:" + strings.Repeat("0123456789abcdef", 8): true,
	"registry.example:5000/hlparser@SHA256:" + strings.TrimPrefix(digest, "sha256:"): false,
	"registry.example:5000/hlparser@" + strings.ToUpper(digest):                      false,
	"registry.example:5000/hlparser@" + digest + "@" + digest:                        false,
	"registry.example:5000/hlparser@" + digest + ":v1":                               false,
	"registry.example:5000/hlparser:":                                                false,
	"registry.example:5000/hlparser@":                                                false,
	"registry.example:5000/hlparser:-v":                                              false,
	"registry.example:5000/hlparser:v 1":                                             false,
	"registry.example:5000/hlparser ":                                                false,
	" registry.example:5000/hlparser":                                                false,
	"registry.example:5000/hlparser\n":                                               false,
	"registry.example:5000/hlparser:v1\n":                                            false,
	"registry.example:5000/hlparser:ü":                                               false,
	"https://registry.example:5000/hlparser":                                         false,
	"user@registry.example:5000/hlparser":                                            false,
	// Below an entry that ends in '/' and names a registry.
	"team.example/parsers/a":            true,
	"team.example/parsers/a/b:v1":       true,
	"team.example/parsers/a@" + digest:  true,
	"team.example/parsers":              false,
	"team.example/parsers/":             false,
	"team.example/parsers/A":            false,
	"team.example/parsers//a":           false,
	"team.example/parsers/../a":         false,
	"team.example/parsers-too/a":        false,
	"team.example/other/a":              false,
	"team.example/parsers/" + long(234): true,
	"team.example/parsers/" + long(235): false,
	"[::1]:5000/a":                      true,
	"[::1]:5001/a":                      false,
	"[::1/a":                            false,
	"[::1]:5000x/a":                     false,
	// A short name is one of docker.io, as everywhere.
	"hlparser":                         true,
	"hlparser:v1":                      true,
	"hlparser@" + digest:               true,
	"library/hlparser":                 true,
	"docker.io/hlparser":               true,
	"docker.io/library/hlparser:v1":    true,
	"index.docker.io/hlparser":         true,
	"index.docker.io/library/hlparser": true,
	"docker.io:443/library/hlparser":   false,
	"hlparser/miner":                   false,
	"hlparser/hlparser":                false,
	"docker.io/hlparser/miner":         false,
	"docker.io/hlparser/hlparser":      false,
	"localhost/hlparser":               false,
	"localhost:5000/hlparser":          false,
	"Hlparser":                         false,
	"HLPARSER/hlparser":                false,
	"hl..parser":                       false,
	"hl___parser":                      false,
	"hlparser.":                        false,
	"-hlparser":                        false,
	// An account of docker.io.
	"acme/a":                   true,
	"docker.io/acme/a:v1":      true,
	"index.docker.io/acme/a":   true,
	"acme":                     false,
	"docker.io/acme":           false,
	"docker.io/library/acme/a": false,
	"acme2/a":                  false,
	"a__b.c/hlparser":          false,
	"a__b/hlparser":            false,
	// What is no image.
	strings.TrimPrefix(digest, "sha256:"): false,
	digest:                                false,
	"/":                                   false,
	"/hlparser":                           false,
	"hlparser/":                           false,
	":v1":                                 false,
	"@" + digest:                          false,
	".":                                   false,
	"..":                                  false,
	"$(IMAGE)":                            false,
	"*":                                   false,
	long(513):                             false,
}

func long(n int) string { return strings.Repeat("a", n) }

func TestImagesAreComparedByTheNamesThatRuntimesUse(t *testing.T) {
	for image, want := range imageReferences {
		obj := around("image")
		obj.Spec.Image = image
		reason, message := testBounds.Problem(obj)
		if allowed := reason == ""; allowed != want {
			t.Errorf("%q is allowed: %v, want %v (%s)", image, allowed, want, message)
		}
		if !want && reason != v1alpha1.ReasonImageNotAllowed {
			t.Errorf("%q: reason %q", image, reason)
		}
	}
}

// A prefix without a registry allows nothing, because other people's images are below it.
func TestAnEntryThatCannotBeMeantAllowsNothing(t *testing.T) {
	for _, entry := range []string{"", "/", "hlparser/", "acme/hlparser/", "registry.example/x:v1", "registry.example/X",
		"*", "a__b.c/", "x y"} {
		bounds := testBounds
		bounds.Images = []string{entry}
		for _, image := range []string{"hlparser/miner", "acme/hlparser/miner", "registry.example/x:v1", "registry.example/x",
			"a__b.c/x", "x"} {
			obj := around("image")
			obj.Spec.Image = image
			if reason, _ := bounds.Problem(obj); reason == "" {
				t.Errorf("entry %q allows %s", entry, image)
			}
		}
		if err := bounds.Validate(); err == nil || !strings.Contains(err.Error(), "--allowed-images") {
			t.Errorf("entry %q: %v", entry, err)
		}
	}
	if err := testBounds.Validate(); err != nil {
		t.Error(err)
	}
}

// allowedFields are values that testBounds allow, by their field.
var allowedFields = map[string]func(*v1alpha1.HyperliquidParserSpec){
	"a label with any value": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"team": "md"}
	},
	"a label with its value": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"tier": "back"}
	},
	"a label by its prefix": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"cost.example/unit": "7"}
	},
	"a value by its prefix": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"zone": "eu-1"}
	},
	"an annotation": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodAnnotations = map[string]v1alpha1.AnnotationValue{"prometheus.io/scrape": "a=b*"}
	},
	"an annotation with its value": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodAnnotations = map[string]v1alpha1.AnnotationValue{"sidecar.istio.io/inject": "false"}
	},
	"a priority class":           func(s *v1alpha1.HyperliquidParserSpec) { s.PriorityClassName = "high" },
	"a priority class by prefix": func(s *v1alpha1.HyperliquidParserSpec) { s.PriorityClassName = "parsers-low" },
	"an SELinux type and level": func(s *v1alpha1.HyperliquidParserSpec) {
		s.SELinuxOptions = &corev1.SELinuxOptions{Type: "container_logreader_t", Level: "s0:c1,c2"}
	},
	"a user of people":     func(s *v1alpha1.HyperliquidParserSpec) { s.RunAsUser = ptr.To[int64](1000) },
	"a user of the system": func(s *v1alpha1.HyperliquidParserSpec) { s.RunAsUser = ptr.To[int64](500) },
	"the last user":        func(s *v1alpha1.HyperliquidParserSpec) { s.RunAsUser = ptr.To[int64](1<<31 - 1) },
	"groups of both": func(s *v1alpha1.HyperliquidParserSpec) {
		s.RunAsGroup, s.SupplementalGroups = ptr.To[int64](992), []int64{500, 20000}
	},
	"resources": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1"),
			"ephemeral-storage": resource.MustParse("1Gi")}
	},
	"a Secret with dots": func(s *v1alpha1.HyperliquidParserSpec) {
		s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "a.b-c"}}
	},
	"another root":        func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.StatePath = "/mnt/state" },
	"a root with a slash": func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.StatePath = "/mnt/state/" },
	"output at a root with a slash": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/out"}}
	},
	"data at a root":        func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.DataPath = "/home/hluser/" },
	"data beside the state": func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.DataPath = "/mnt/state2/hl" },
	"output on a claim": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/anything", ClaimName: "records"}}
	},
	"state and output on one claim": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: s.Target.Nodes.Selector, Volume: "data",
			StateClaimName: "records"}}
		s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/archive", ClaimName: "records"}}
	},
}

// refusedFields are further values that testBounds refuse, beside those of fieldBounds.
var refusedFields = map[string]func(*v1alpha1.HyperliquidParserSpec){
	"a label whose value begins alike": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"tier": "backend"}
	},
	"a label of a prefix's own": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"cost.example": "7"}
	},
	"a value of another prefix": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"zone": "us-1"}
	},
	"a key with the value in it": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodLabels = map[string]v1alpha1.LabelValue{"tier=back": ""}
	},
	"an annotation with another value": func(s *v1alpha1.HyperliquidParserSpec) {
		s.PodAnnotations = map[string]v1alpha1.AnnotationValue{"sidecar.istio.io/inject": "true"}
	},
	"a group among others": func(s *v1alpha1.HyperliquidParserSpec) {
		s.SupplementalGroups = []int64{20000, 500, 6}
	},
	"a group that only users may be": func(s *v1alpha1.HyperliquidParserSpec) { s.RunAsUser = ptr.To[int64](992) },
	"state and output in one directory of a claim": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: s.Target.Nodes.Selector, Volume: "data",
			StateClaimName: "records"}}
		s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/hlparser/", ClaimName: "records"}}
	},
	"output inside the state of a claim": func(s *v1alpha1.HyperliquidParserSpec) {
		s.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: s.Target.Nodes.Selector, Volume: "data",
			StateClaimName: "records"}}
		s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/hlparser/default/mainnet/x", ClaimName: "records"}}
	},
}

func TestWhatTheBoundsAllow(t *testing.T) {
	for name, edit := range allowedFields {
		obj := around("paused")
		edit(&obj.Spec)
		if reason, message := testBounds.Problem(obj); reason != "" {
			t.Errorf("%s: %s: %s", name, reason, message)
		}
	}
	for name, edit := range refusedFields {
		obj := around("paused")
		edit(&obj.Spec)
		if reason, _ := testBounds.Problem(obj); reason == "" && !fleet.CollidesWithItself(obj, nil) {
			t.Errorf("%s is allowed", name)
		}
	}
	if reason, _ := (fleet.Bounds{}).Problem(around("paused")); reason == "" {
		t.Error("no bounds allow an object")
	}
}

func TestTheSamplesAndTheDemoAreWithinTheDefaults(t *testing.T) {
	defaults := fleet.Bounds{
		DataPaths:  []string{"/home/hluser", "/var/lib/hyperliquid", "/mnt", "/data"},
		StateRoots: []string{"/var/lib/hlparser"}, OutputRoots: []string{"/var/lib/hlparser-out"},
		Images: []string{fleet.Repository(parserImage)},
	}
	files, err := filepath.Glob("../../config/samples/fleet_*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d samples: %v", len(files), err)
	}
	for _, file := range append(files, "../../hack/demo/fleet.yaml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			obj := &v1alpha1.HyperliquidParser{}
			if err := yaml.Unmarshal([]byte(document), obj); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if obj.Kind != "HyperliquidParser" {
				continue
			}
			found = true
			if reason, message := defaults.Problem(obj); reason != "" {
				t.Errorf("%s: %s: %s", file, reason, message)
			}
		}
		if !found {
			t.Errorf("%s holds no HyperliquidParser", file)
		}
	}
}
