package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

const crdFile = "../../config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml"

// minimal are specs with only their required fields, which together reach every default of the schema.
var minimal = map[string]string{
	"nodes and standard output": `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}
streams: [{name: Fills}]
sink: {stdout: {}}`,
	"pods, files and a canary": `
target: {pods: {selector: {matchLabels: {app: node}}, volume: data}}
streams: [{name: Fills}, {name: Trades}]
sink: {file: {path: /out}}
rollout: {canary: {}}`,
	"NATS": `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}
streams: [{name: Fills}]
sink: {nats: {url: "nats://nats:4222", stream: HL, create: {}, credentialsSecretRef: {name: creds}}}`,
	"Kafka": `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}
streams: [{name: Fills}]
order: {by: Block}
sink: {kafka: {brokers: ["kafka:9092"], create: {}}}`,
	"several sinks": `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}
streams: [{name: Fills, sink: a}, {name: Trades, sink: b}, {name: OrderStatuses, sink: c}]
sinks:
- {name: a, file: {path: /out}}
- {name: b, nats: {url: "nats://nats:4222", stream: HL, create: {}, credentialsSecretRef: {name: creds}}}
- {name: c, kafka: {brokers: ["kafka:9092"], create: {}}}`,
	"empty groups of settings": `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}
streams: [{name: Fills}]
sink: {stdout: {}}
engine: {}
growth: {restart: {}}
rollout: {}`,
}

func TestSetDefaultsSetsThoseOfTheSchemaToo(t *testing.T) {
	schema := structural(t)
	reached := map[string]bool{}
	for name, spec := range minimal {
		t.Run(name, func(t *testing.T) {
			object := decode[map[string]any](t, "spec: "+indented(spec))
			defaulting.Default(object, schema)
			reach(object, "", reached)
			text, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			want := decode[v1alpha1.HyperliquidParser](t, string(text))
			setListDefaults(&want)
			got := decode[v1alpha1.HyperliquidParser](t, "spec: "+indented(spec))
			v1alpha1.SetDefaults(&got)
			if got, want := encode(t, got.Spec), encode(t, want.Spec); got != want {
				t.Errorf("SetDefaults yields\n%s\nthe schema, and the defaults of items, yield\n%s", got, want)
			}
		})
	}
	for path, value := range defaultsOf(schema) {
		if !reached[path] && !foreign(path) {
			t.Errorf("no minimal spec reaches %s, which defaults to %v", path, value)
		}
	}
}

// listDefaults are the defaults that the schema does not set, by the path below an item of sinks, or below spec.sink.
// Objects that an earlier schema admitted have them in their spec, so they never change.
func listDefaults() map[string]any {
	return map[string]any{
		"file.maxSize": "1Gi", "file.maxAge": "1h",
		"nats.subject": "hl.{stream}.{coin}", "nats.delivery": "Best", "nats.identity": "Position",
		"nats.recordsPerMessage": 1, "nats.create.replicas": 1, "nats.credentialsSecretRef.key": "nats.creds",
		"kafka.topic": "hl.{stream}", "kafka.key": "{coin}", "kafka.delivery": "ExactlyOnce",
		"kafka.positionsTopic": "hlparser-positions", "kafka.compression": "zstd", "kafka.maxMessageBytes": 1048576,
		"kafka.create.partitions": 1,
	}
}

// setListDefaults sets the defaults that earlier schemas set in streams, sinks and the canary.
func setListDefaults(obj *v1alpha1.HyperliquidParser) {
	if c := obj.Spec.Rollout.Canary; c != nil {
		c.Count, c.Soak = ptr.To(intstr.FromInt32(1)), &metav1.Duration{Duration: time.Hour}
	}
	if o := obj.Spec.Order; o != nil {
		o.Patience = &metav1.Duration{Duration: 5 * time.Second}
	}
	for i := range obj.Spec.Streams {
		obj.Spec.Streams[i].Mode = "Auto"
	}
	for _, sink := range obj.Spec.AllSinks() {
		if f := sink.File; f != nil {
			f.MaxSize, f.MaxAge = ptr.To(resource.MustParse("1Gi")), &metav1.Duration{Duration: time.Hour}
		}
		if n := sink.NATS; n != nil {
			n.Subject, n.Delivery, n.Identity, n.RecordsPerMessage = "hl.{stream}.{coin}", "Best", "Position", ptr.To[int32](1)
			n.Create.Replicas, n.CredentialsSecretRef.Key = ptr.To[int32](1), "nats.creds"
		}
		if k := sink.Kafka; k != nil {
			k.Topic, k.Key, k.Delivery, k.PositionsTopic = "hl.{stream}", "{coin}", "ExactlyOnce", "hlparser-positions"
			k.Compression, k.MaxMessageBytes, k.Create.Partitions = "zstd", ptr.To[int32](1048576), ptr.To[int32](1)
		}
	}
}

// Client-side apply replaces a list as a whole if an item differs from the manifest, and reports "configured" each time
// if the schema adds a field to an item.
func TestItemsOfListsHaveNoDefaults(t *testing.T) {
	for path, value := range defaultsOf(structural(t)) {
		if strings.Contains(path, "[]") && path != ".spec.imagePullSecrets[].name" { // which every item has
			t.Errorf("%s defaults to %v in the schema: set it in SetDefaults instead", path, value)
		}
	}
}

// An optional object that a manifest has as {} and that the schema fills belongs, with what fills it, to the client
// that applied it. A server-side apply of the same manifest then removes all that is in it, which leaves null. The API
// server rejects that unless the object itself has a default.
func TestOptionalObjectsThatMayBeEmptyHaveNoDefaultsInThem(t *testing.T) {
	var walk func(path string, s *structuralschema.Structural)
	walk = func(path string, s *structuralschema.Structural) {
		mayBeEmpty := s.ValueValidation == nil || len(s.ValueValidation.Required) == 0
		for name, field := range s.Properties {
			if path != "" && path != ".spec" && mayBeEmpty && s.Default.Object == nil && field.Default.Object != nil {
				t.Errorf("%s.%s has a default in the schema, and %s has none: set it in SetDefaults instead", path, name, path)
			}
			walk(path+"."+name, &field)
		}
	}
	walk("", structural(t))
}

func TestSetDefaultsKeepsWhatIsSet(t *testing.T) {
	const spec = `
target: {nodes: {selector: {matchLabels: {role: node}}, dataPath: /data, statePath: /mnt/state}}
streams: [{name: Fills, mode: ByBlock}]
format: Raw
sink: {file: {path: /out, maxSize: 2Gi, maxAge: 2h0m0s}}
engine: {bufferLimit: 64Mi, parallelThreshold: 5, workers: 3, startAt: Beginning, maxLineBytes: 1Mi}
growth:
  pollInterval: 10s
  stuckAfter: 1m0s
  retention: 1h0m0s
  action: Alert
  restart: {cooldown: 1m0s, maxPerHour: 1, maxConcurrent: 2}
  fleetWideThreshold: 50%
rollout: {maxUnavailable: 1, revisionHistoryLimit: 0, canary: {count: 10%, soak: 2h0m0s}}
terminationGracePeriodSeconds: 60
runAsUser: 2000
runAsGroup: 3000`
	obj := decode[v1alpha1.HyperliquidParser](t, "spec: "+indented(spec))
	before := encode(t, obj.Spec)
	v1alpha1.SetDefaults(&obj)
	if after := encode(t, obj.Spec); after != before {
		t.Errorf("SetDefaults changes\n%s\nto\n%s", before, after)
	}
}

// The schema's defaults, and those of items of lists, of the operator and of the parser, which the schema does not set.
func TestDescriptionsStateDefaults(t *testing.T) {
	descriptions := map[string]string{}
	describe(crd(t).Properties["spec"], "spec", func(path string, schema apiextensionsv1.JSONSchemaProps) {
		descriptions[path] = schema.Description
		if schema.Default == nil || schema.Type == "object" || foreign(path) {
			return
		}
		want := "Defaults to " + strings.Trim(string(schema.Default.Raw), `"`)
		if !strings.Contains(schema.Description+" ", want+".") && !strings.Contains(schema.Description, want+",") {
			t.Errorf("the description of %s does not state %q: %s", path, want, schema.Description)
		}
	})
	for path, value := range map[string]any{
		"spec.growth.lag":               v1alpha1.DefaultLag,
		"spec.sink.file.minFreePercent": v1alpha1.DefaultMinFreePercent,
		"spec.sink.file.rotate":         v1alpha1.DefaultRotation,
		"spec.streams[].mode":           v1alpha1.DefaultStreamMode,
		"spec.engine.readRate":          v1alpha1.DefaultReadRate,
		"spec.paused":                   false,
		"spec.order.patience":           "5s",
		"spec.engine.markers":           false,
		"spec.engine.deduplicateBlocks": false,
		"spec.image":                    "the manager's --parser-image",
		"spec.resources":                "requests of 250m CPU and 256Mi memory and a limit of 512Mi memory",
	} {
		if want := fmt.Sprintf("Defaults to %v", value); !strings.Contains(descriptions[path], want) {
			t.Errorf("the description of %s does not state %q: %s", path, want, descriptions[path])
		}
	}
	for path, value := range listDefaults() {
		for _, sink := range []string{"spec.sink.", "spec.sinks[]."} {
			want := fmt.Sprintf("Defaults to %v.", value)
			if !strings.Contains(descriptions[sink+path], want) {
				t.Errorf("the description of %s does not state %q: %s", sink+path, want, descriptions[sink+path])
			}
		}
	}
	for _, want := range []string{
		fmt.Sprintf("Defaults to %.0fs", v1alpha1.DefaultStalledAfter.Seconds()),
		fmt.Sprintf("after %.0fs by default", v1alpha1.DefaultWaitingAfter.Seconds()),
	} {
		if got := descriptions["spec.growth.sourceStalledAfter"]; !strings.Contains(got, want) {
			t.Errorf("the description of growth.sourceStalledAfter does not state %q: %s", want, got)
		}
	}
}

// A reader of kubectl explain must not have to guess what leaving a field out means.
func TestDescriptionsStateWhatUnsetMeans(t *testing.T) {
	unset := []string{
		"Defaults to", "Optional.", "If unset,", "If empty,", "must be set", "Required without",
		"the defaults of its fields apply.",
	}
	// Members of a union are explained by their parent.
	unions := []string{"spec.target", "spec.sink", "spec.sinks[]"}
	describe(crd(t).Properties["spec"], "spec", func(path string, schema apiextensionsv1.JSONSchemaProps) {
		for name, field := range schema.Properties {
			if slices.Contains(schema.Required, name) || slices.Contains(unions, path) || foreign(path) {
				continue
			}
			text := strings.Join(strings.Fields(field.Description), " ")
			if !slices.ContainsFunc(unset, func(s string) bool { return strings.Contains(text, s) }) {
				t.Errorf("the description of %s.%s does not say what happens if it is unset: %s", path, name, text)
			}
		}
	})
}

func TestTheCRDFitsClientSideApply(t *testing.T) {
	info, err := os.Stat(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 200_000 // annotations have 256 KiB in all
	if info.Size() > limit {
		t.Errorf("the CRD has %d bytes, more than %d: client-side apply stores it in an annotation", info.Size(), limit)
	}
}

// foreign reports whether a type of Kubernetes describes the fields at a path.
func foreign(path string) bool {
	types := []string{"selector", "imagePullSecrets[]", "resources", "tolerations[]", "affinity", "seLinuxOptions"}
	return slices.ContainsFunc(types, func(name string) bool { return strings.Contains(path, "."+name) })
}

// describe calls visit for a schema and the schemas of all fields below it, with their descriptions on one line.
func describe(
	schema apiextensionsv1.JSONSchemaProps, path string, visit func(string, apiextensionsv1.JSONSchemaProps),
) {
	schema.Description = strings.Join(strings.Fields(schema.Description), " ")
	visit(path, schema)
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		describe(schema.Properties[name], path+"."+name, visit)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		describe(*schema.Items.Schema, path+"[]", visit)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		describe(*schema.AdditionalProperties.Schema, path+"{}", visit)
	}
}

// crd returns the schema of the CRD's only version.
func crd(t *testing.T) *apiextensionsv1.JSONSchemaProps {
	t.Helper()
	text, err := os.ReadFile(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	found := decode[apiextensionsv1.CustomResourceDefinition](t, string(text))
	return found.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func structural(t *testing.T) *structuralschema.Structural {
	t.Helper()
	internal := &apiextensions.JSONSchemaProps{}
	err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd(t), internal, nil)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := structuralschema.NewStructural(internal)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// defaultsOf returns the defaults of a schema by their paths.
func defaultsOf(schema *structuralschema.Structural) map[string]any {
	out := map[string]any{}
	var walk func(s *structuralschema.Structural, path string)
	walk = func(s *structuralschema.Structural, path string) {
		if s.Default.Object != nil {
			out[path] = s.Default.Object
		}
		for name, field := range s.Properties {
			walk(&field, path+"."+name)
		}
		if s.Items != nil {
			walk(s.Items, path+"[]")
		}
		if s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil {
			walk(s.AdditionalProperties.Structural, path+"{}")
		}
	}
	walk(schema, "")
	return out
}

// reach adds the paths of all values in an object.
func reach(value any, path string, into map[string]bool) {
	into[path] = true
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			reach(field, path+"."+name, into)
		}
	case []any:
		for _, item := range value {
			reach(item, path+"[]", into)
		}
	}
}

func indented(spec string) string { return strings.ReplaceAll(spec, "\n", "\n  ") }

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var out T
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("decoding %T: %v", out, err)
	}
	return out
}

func encode(t *testing.T, v any) string {
	t.Helper()
	out, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
