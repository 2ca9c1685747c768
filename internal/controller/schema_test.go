package controller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// place is the path of a value in an object: the names of fields from spec or status on, "[]" for an item of a list,
// "{}" for a value of a map.
type place struct {
	path   []string
	schema map[string]any
	of     reflect.Type
}

func (p place) String() string { return strings.Join(p.path, ".") }

// places returns the places at and below one, including those with nested places. It returns one of several with the
// same schema and type in the same type.
func (p place) places() []place {
	seen := map[string]bool{}
	var all func(p place, in reflect.Type) []place
	all = func(p place, in reflect.Type) []place {
		schema, err := json.Marshal(p.schema)
		Expect(err).NotTo(HaveOccurred())
		if key := fmt.Sprint(in, last(p.path), p.of, string(schema)); seen[key] {
			return nil
		} else {
			seen[key] = true
		}
		out := []place{p}
		fields, _ := p.schema["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			out = append(out, all(p.below(name, fields[name]), p.of)...)
		}
		for _, mark := range []string{"[]", "{}"} {
			if s := schemaBelow(p.schema, mark); s != nil {
				out = append(out, all(p.below(mark, s), p.of)...)
			}
		}
		return out
	}
	return all(p, nil)
}

// unions are the replacements in a valid spec for places where exactly one must be set. The first matching prefix
// applies.
var unions = []struct{ prefix, spec string }{
	{"spec.target.pods", "target: {pods: {selector: {matchLabels: {a: b}}, volume: data}}"},
	{"spec.sink.file", "sink: {file: {path: /var/lib/hlparser-out}}"},
	{"spec.sink.nats", "sink: {nats: {url: 'nats://nats:4222', stream: HL}}"},
	{"spec.sink.kafka", "sink: {kafka: {brokers: ['kafka:9092']}}"},
	{"spec.sinks.[].file", "{sink: null, sinks: [{name: a, file: {path: /var/lib/hlparser-out}}], " +
		"streams: [{name: Fills, sink: a}]}"},
	{"spec.sinks.[].nats", "{sink: null, sinks: [{name: a, nats: {url: 'nats://nats:4222', stream: HL}}], " +
		"streams: [{name: Fills, sink: a}]}"},
	{"spec.sinks.[].kafka", "{sink: null, sinks: [{name: a, kafka: {brokers: ['kafka:9092']}}], " +
		"streams: [{name: Fills, sink: a}]}"},
	{"spec.sinks", "{sink: null, sinks: [{name: a, stdout: {}}], streams: [{name: Fills, sink: a}]}"},
	{"spec.streams.[].sink", "{sink: null, sinks: [{name: a, stdout: {}}], streams: [{name: Fills, sink: a}]}"},
	{"spec.sink.stdout", ""},
	{"spec.engine.startAtBlock", "engine: {startAt: Block}"},
	{"spec.filter.types", "streams: [{name: MiscEvents}]"},
	{"spec.filter", "streams: [{name: OrderStatuses}]"},
}

// examples are valid values, by the ends of the names of their places, for places with rules that a generated value
// would violate.
var examples = map[string]string{
	"target":                       `{nodes: {selector: {matchLabels: {role: node}}, dataPath: /data}}`,
	"sink":                         `{stdout: {}}`,
	"sinks.[]":                     `{name: a, stdout: {}}`,
	"sinks":                        `[{name: a, stdout: {}}]`,
	"streams.[].sink":              `a`,
	"nodes":                        `{selector: {matchLabels: {role: node}}, dataPath: /data}`,
	"pods":                         `{selector: {matchLabels: {role: node}}, volume: data}`,
	"nodes.selector":               `{matchLabels: {role: node}}`,
	"pods.selector":                `{matchLabels: {role: node}}`,
	"dataPath":                     `/data`,
	"stateSubPath":                 `hlparser`,
	"file":                         `{path: /out}`,
	"file.path":                    `/out`,
	"file.maxSize":                 `1Gi`,
	"file.maxAge":                  `1h`,
	"nats":                         `{url: "nats://nats:4222", stream: HL}`,
	"nats.url":                     `nats://nats:4222`,
	"nats.create.maxAge":           `72h`,
	"nats.create.maxBytes":         `1Gi`,
	"maxTotalSize":                 `10Gi`,
	"kafka":                        `{brokers: ["kafka:9092"]}`,
	"kafka.delivery":               `AtLeastOnce`,
	"brokers":                      `["kafka:9092"]`,
	"brokers.[]":                   `kafka:9092`,
	"users.[]":                     `"0x0123456789012345678901234567890123456789"`,
	"minNotional":                  `"10"`,
	"spec.order":                   `{by: Block}`,
	"order.patience":               `5s`,
	"canary.count":                 `10%`,
	"canary.soak":                  `1h`,
	"growth.lag":                   `1m`,
	"growth.sourceStalledAfter":    `{Fills: 1m}`,
	"growth.sourceStalledAfter.{}": `1m`,
	"readRate":                     `100Mi`,
	"resources.limits.{}":          `1Gi`,
	"resources.requests.{}":        `1Gi`,
	"conditions.[].status":         `"True"`,
	"conditions.[].reason":         `Ready`,
	"statusTargets":                `[]`,
}

// example returns a valid value of a place.
func (p place) example() any {
	for n := range p.path {
		if text, ok := examples[strings.Join(p.path[n:], ".")]; ok &&
			(p.path[0] == "spec" || n > 0 && strings.HasPrefix(strings.Join(p.path[n:], "."), "conditions")) {
			var out any
			Expect(yaml.Unmarshal([]byte(text), &out)).To(Succeed())
			return out
		}
	}
	if value, ok := p.schema["default"]; ok && p.schema["type"] != "object" {
		return value
	}
	if enum, ok := p.schema["enum"].([]any); ok {
		return enum[0]
	}
	switch p.schema["type"] {
	case "integer":
		least, _ := p.schema["minimum"].(float64)
		return max(int64(least), 1)
	case "boolean":
		return true
	case "array":
		item := p.below("[]", p.schema["items"])
		return []any{item.example()}
	case "object":
		out := map[string]any{}
		required, _ := p.schema["required"].([]any)
		fields, _ := p.schema["properties"].(map[string]any)
		for _, name := range required {
			out[name.(string)] = p.below(name.(string), fields[name.(string)]).example()
		}
		if values, ok := p.schema["additionalProperties"]; ok {
			out["a"] = p.below("{}", values).example()
		}
		return out
	}
	if p.schema["format"] == "date-time" {
		return "2026-11-30T12:00:00Z"
	}
	return "a"
}

func (p place) below(name string, schema any) place {
	return place{append(slices.Clone(p.path), name), schema.(map[string]any), typeOf(p.of, name)}
}

// raw stands for a value while an object is made, and is replaced by its JSON afterwards: not every JSON is a Go value.
const raw = "\x01raw\x01"

// with returns a valid object, as JSON, with the value at the place, which is below the root. The version is the
// current one.
func (p place) with(root place, version string, value json.RawMessage) []byte {
	spec := map[string]any{}
	Expect(yaml.Unmarshal([]byte(good), &spec)).To(Succeed())
	for _, u := range unions {
		if strings.HasPrefix(p.String()+".", u.prefix+".") {
			over := map[string]any{}
			Expect(yaml.Unmarshal([]byte(u.spec), &over)).To(Succeed())
			maps.Copy(spec, over)
			maps.DeleteFunc(spec, func(_ string, v any) bool { return v == nil })
			break
		}
	}
	object := map[string]any{"spec": spec}
	object[p.path[0]] = put(object[p.path[0]], root, p.path[1:])
	object["apiVersion"], object["kind"] = v1alpha1.GroupVersion.String(), "HyperliquidParser"
	object["metadata"] = map[string]any{"namespace": "default", "name": "sweep", "resourceVersion": version}
	data, err := json.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	mark, err := json.Marshal(raw)
	Expect(err).NotTo(HaveOccurred())
	Expect(bytes.Count(data, mark)).To(Equal(1), "%s: %s", p, data)
	return bytes.Replace(data, mark, value, 1)
}

// put sets raw at a path below a place that has a value, or none, and returns what the value is then.
func put(value any, at place, path []string) any {
	if len(path) == 0 {
		return raw
	}
	next := at.below(path[0], schemaBelow(at.schema, path[0]))
	switch path[0] {
	case "[]":
		list, _ := value.([]any)
		if len(list) == 0 {
			list = []any{next.example()}
		}
		list = slices.Clone(list)
		list[0] = put(list[0], next, path[1:])
		return list
	case "{}":
		key := "a"
		if slices.Contains(at.path, "sourceStalledAfter") {
			key = "Fills"
		}
		return map[string]any{key: put(nil, next, path[1:])}
	}
	object, _ := value.(map[string]any)
	if object == nil {
		object, _ = at.example().(map[string]any)
	}
	object = maps.Clone(object)
	object[path[0]] = put(object[path[0]], next, path[1:])
	return object
}

func schemaBelow(schema map[string]any, name string) any {
	switch name {
	case "[]":
		return schema["items"] // nil where there are none
	case "{}":
		return schema["additionalProperties"]
	}
	return schema["properties"].(map[string]any)[name]
}

// Values, as JSON, that a type of Go or Kubernetes cannot hold, or does not preserve.
var (
	wrongKinds = []string{`null`, `true`, `5`, `1.5`, `"a"`, `[]`, `{}`, `[null]`, `{"a":null}`, `[{}]`}
	numbers    = []string{
		`-1`, `0`, `1`, `-0`, `1.5`, `1e3`, `1e300`, `1e400`, `-1e300`, `0.1e1`, `2147483647`, `2147483648`, `-2147483649`,
		`3000000000`, `4294967297`,
		`9007199254740993`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775809`, `18446744073709551617`,
		`"1"`, `"3000000000"`, `""`,
	}
	hostileTexts = []string{"", " ", "\x00", "é", strings.Repeat("9", 1000), "NaN", "0x10", "1_000", "-1", "0", "00", "+1",
		"1.5", "9999999999999999999"}
	shares = []string{"10%", "101%", "2147483648%", "-10%", "010%", "1e1%", "%", "10 %"}
	sizes  = []string{
		"1.", ".1", ".", "1e1000000Ei", "1e99999999999999999999", "1e2147483648", "1e-2147483649", "1.5e1.5", "1e.5",
		"1e1000", "1e99", "1Ki1", "Ki", "1 Ki",
		"9999999999Ei", "-1Gi", "1n", "1u", "1E", "1e3", "0.0000000001", "1Gi", "100M",
	}
	durations = []string{
		"1h", "1d", "+1h", "-1h", "1h1h1h", "1h1h1h1h", "1e1h", ".5h", "1.h", "99999h", "99999999999h", "2562048h", "0s",
		"1µs", "1h ", "5m", "1m30s", "1ns", "1.0001s",
	}
	times = []string{
		"2026-11-30T12:00:00Z", "99999-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
		"2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z",
		"2026-01-01T23:59:60Z", "2026-01-01t00:00:00z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00.123456789Z",
		"2026-01-01T00:00:00.1234567890Z",
		"2026-01-01T00:00:00+25:00", "2026-01-01T00:00:00+0000", "2026-01-01T00:00:00,5Z", "2026-1-1T00:00:00Z",
		"2026-01-01 00:00:00Z", "2026-01-01T00:00:00-23:59",
	}
)

// hostile returns values for a place of the type. For a type with its own decoding it returns all values that could
// break any such type.
func hostile(of reflect.Type) []json.RawMessage {
	all := slices.Clone(wrongKinds)
	quote := func(texts ...[]string) {
		for _, text := range slices.Concat(texts...) {
			data, err := json.Marshal(text)
			Expect(err).NotTo(HaveOccurred())
			all = append(all, string(data))
		}
	}
	switch kind := of.Kind(); {
	case reflect.PointerTo(of).Implements(reflect.TypeFor[json.Unmarshaler]()):
		all = append(all, numbers...)
		quote(hostileTexts, shares, sizes, durations, times)
	case kind >= reflect.Int && kind <= reflect.Float64:
		all = append(all, numbers...)
	case kind == reflect.String:
		quote(hostileTexts[:4])
	}
	out := make([]json.RawMessage, len(all))
	for i, text := range all {
		out[i] = json.RawMessage(text)
	}
	return out
}

// typeOf returns the type at a path.
func typeOf(of reflect.Type, name string) reflect.Type {
	GinkgoHelper()
	if name == "[]" || name == "{}" {
		of = of.Elem()
	} else {
		found := false
		for _, f := range reflect.VisibleFields(of) {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name {
				of, found = f.Type, true
				break
			}
		}
		Expect(found).To(BeTrue(), "%s has no field %s", of, name)
	}
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	return of
}

// crdSchema returns the schema of the CRD's spec or status.
func crdSchema(name string) map[string]any {
	GinkgoHelper()
	crd := map[string]any{}
	readYAML("../../config/crd/bases/fleet.hlparser.dev_hyperliquidparsers.yaml", &crd)
	version := crd["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	root := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	return root["properties"].(map[string]any)[name].(map[string]any)
}

// decodes returns the error of decoding an object that the API server accepted into the Go types.
func decodes(admitted []byte) error {
	strict, scheme := &v1alpha1.HyperliquidParser{}, &v1alpha1.HyperliquidParser{}
	if err := json.Unmarshal(admitted, strict); err != nil {
		return err
	}
	if _, _, err := clientCodecs.UniversalDeserializer().Decode(admitted, nil, scheme); err != nil {
		return fmt.Errorf("by the scheme: %w", err)
	}
	again, err := json.Marshal(strict)
	if err != nil {
		return fmt.Errorf("encoding it again: %w", err)
	}
	var before, after map[string]any
	for data, into := range map[*[]byte]*map[string]any{&admitted: &before, &again: &after} {
		decoder := json.NewDecoder(bytes.NewReader(*data))
		decoder.UseNumber()
		if err := decoder.Decode(into); err != nil {
			return err
		}
	}
	for _, part := range []string{"spec", "status"} {
		if err := same(part, before[part], after[part]); err != nil {
			return fmt.Errorf("encoded again it means something else: %w", err)
		}
	}
	return nil
}

// same returns how two JSON values differ in meaning. A missing value equals an empty one.
func same(path string, a, b any) error {
	if empty(a) && empty(b) {
		return nil
	}
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		for key := range maps.All(x) {
			if err := same(path+"."+key, x[key], y[key]); err != nil {
				return err
			}
		}
		for key := range maps.All(y) {
			if _, ok := x[key]; !ok && !empty(y[key]) {
				return fmt.Errorf("%s.%s is new: %v", path, key, y[key])
			}
		}
		return nil
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			break
		}
		for i := range x {
			if err := same(fmt.Sprintf("%s[%d]", path, i), x[i], y[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if sameScalar(fmt.Sprint(a), fmt.Sprint(b)) {
		return nil
	}
	return fmt.Errorf("%s was %.80v, is %.80v", path, a, b)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case json.Number:
		n, err := v.Float64()
		return err == nil && n == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, below := range v {
			if !empty(below) {
				return false
			}
		}
		return true
	}
	return false
}

func sameScalar(a, b string) bool {
	if a == b {
		return true
	}
	if x, ok := new(big.Float).SetString(a); ok {
		if y, ok := new(big.Float).SetString(b); ok {
			return x.Cmp(y) == 0
		}
	}
	if x, err := time.ParseDuration(a); err == nil {
		y, err := time.ParseDuration(b)
		return err == nil && x == y
	}
	if x, err := time.Parse(time.RFC3339, a); err == nil {
		y, err := time.Parse(time.RFC3339, b)
		return err == nil && x.Truncate(time.Second).Equal(y) // a status has no fractions
	}
	x, err := resource.ParseQuantity(a)
	y, err2 := resource.ParseQuantity(b)
	return err == nil && err2 == nil && x.Cmp(y) == 0
}

var _ = Describe("the schema", func() {
	const path = "/apis/fleet.hlparser.dev/v1alpha1/namespaces/default/hyperliquidparsers"

	// sweep tries all values at all places of the spec or the status, dry run, and returns how many were let in.
	sweep := func(ctx context.Context, part, version string, request func() *rest.Request) int {
		GinkgoHelper()
		root := place{[]string{part}, crdSchema(part), typeOf(reflect.TypeFor[v1alpha1.HyperliquidParser](), part)}
		var admitted, tried atomic.Int64
		var failed atomic.Int64
		problem := func(format string, args ...any) {
			if failed.Add(1) < 50 {
				GinkgoWriter.Printf(format+"\n", args...)
			}
		}
		ask := func(p place, value json.RawMessage) ([]byte, error) {
			tried.Add(1)
			return request().Param("dryRun", metav1.DryRunAll).Param("fieldValidation", metav1.FieldValidationIgnore).Body(
				p.with(root, version, value)).SetHeader("Content-Type", "application/json").Do(ctx).Raw()
		}
		var group errgroup.Group
		group.SetLimit(8)
		for _, p := range root.places()[1:] {
			group.Go(func() error {
				defer GinkgoRecover()
				data, err := json.Marshal(p.example())
				Expect(err).NotTo(HaveOccurred())
				if answer, err := ask(p, data); err != nil {
					problem("%s takes no good value: %s: %s %v: teach the test one", p, data, answer, err)
				} else if !bytes.Contains(answer, []byte(strconv.Quote(last(p.path)))) && last(p.path) != "[]" &&
					last(p.path) != "{}" {
					problem("%s does not get to the API server", p)
				}
				for _, value := range hostile(p.of) {
					answer, err := ask(p, value)
					if err != nil {
						continue
					}
					admitted.Add(1)
					if err := decodes(answer); err != nil {
						problem("%s: %.100s is let in: %v", p, value, err)
					}
				}
				return nil
			})
		}
		Expect(group.Wait()).To(Succeed())
		GinkgoWriter.Printf("%s: %d requests, %d let in\n", part, tried.Load(), admitted.Load())
		Expect(failed.Load()).To(BeZero(), "see above")
		return int(admitted.Load())
	}

	It("admits nothing that the Go types cannot hold, in a spec", func(ctx SpecContext) {
		api := kubernetes.NewForConfigOrDie(adminREST).RESTClient()
		Expect(sweep(ctx, "spec", "", func() *rest.Request { return api.Post().AbsPath(path) })).To(BeNumerically(">", 400))
	})

	It("admits nothing that the Go types cannot hold, in a status", func(ctx SpecContext) {
		api := kubernetes.NewForConfigOrDie(adminREST).RESTClient()
		obj := &v1alpha1.HyperliquidParser{}
		Expect(yaml.Unmarshal([]byte("spec: "+strings.ReplaceAll(good, "\n", "\n  ")), obj)).To(Succeed())
		obj.Namespace, obj.Name = "default", "sweep"
		Expect(k8s.Create(ctx, obj)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(k8s.Delete(ctx, obj)).To(Succeed()) })
		Expect(sweep(ctx, "status", obj.ResourceVersion,
			func() *rest.Request { return api.Put().AbsPath(path, "sweep", "status") })).To(BeNumerically(">", 100))
	})
})

func last(path []string) string { return path[len(path)-1] }
