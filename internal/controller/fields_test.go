package controller_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
)

// Where the value of a field of the spec shows.
const (
	inPod    = "pod"    // in the pod's metadata or spec
	inConfig = "config" // in the file that the parser reads, and nowhere in the pod
	nowhere  = ""       // in neither
)

// bound describes what limits the values of a field.
type bound struct {
	shows string
	// flag is the manager's flag, or the rule of Bounds without a flag, that refuses other values. The admission policy
	// refuses them, too.
	flag string
	// refused sets values that the flag refuses on an object that is otherwise valid.
	refused []func(*v1alpha1.HyperliquidParserSpec)
	// schema: the schema refuses hostile values of the field's type.
	schema bool
	// value stands for a text or a number that says nothing, which the parser's own rules would refuse; also is what must
	// change with it.
	value string
	also  func(*v1alpha1.HyperliquidParserSpec)
	// free is why any value is harmless, for a field that neither a flag nor the schema limits.
	free string
}

// fieldBounds holds the bound of each field of the spec, down to the fields of Kubernetes' own types. A field that is
// missing here fails TestEveryFieldOfTheSpecHasABound. Before you add it, decide what an editor of a namespace could do
// with it on a node.
func fieldBounds() map[string]bound {
	const (
		likePods = "an editor may set it on a pod of their own; the API server validates it, and the namespace's quota " +
			"and policies hold for it"
		nodes  = "it chooses among nodes by their labels, and opens nothing on them"
		choice = "a choice of two"
		itself = "it is compared and counted by the operator alone"
	)
	all := map[string]bound{}
	add := func(b bound, fields string) {
		for field := range strings.FieldsSeq(fields) {
			all[field] = b
		}
	}
	type spec = v1alpha1.HyperliquidParserSpec

	// Fields of the pods.
	add(bound{shows: inPod, flag: "--allowed-data-paths", schema: true, refused: []func(*spec){
		func(s *spec) { s.Target.Nodes.DataPath = "/etc" },
		func(s *spec) { s.Target.Nodes.DataPath = "/home/hluser2" },
		func(s *spec) { s.Target.Nodes.DataPath = "/mnt/state/other/mainnet" },
		func(s *spec) { s.Target.Nodes.DataPath = "/mnt" },
	}}, "target.nodes.dataPath")
	add(bound{shows: inPod, flag: "--state-root", schema: true, refused: []func(*spec){
		func(s *spec) { s.Target.Nodes.StatePath = "/var/lib/kubelet" },
		func(s *spec) { s.Target.Nodes.StatePath = "/var/lib" },
		func(s *spec) { s.Target.Nodes.StatePath = "/var/lib/hlparser/other/mainnet/link" },
		func(s *spec) { s.Target.Nodes.StatePath = "/var/lib/hlparser-out" },
	}}, "target.nodes.statePath")
	add(bound{shows: inPod, flag: "--output-root", schema: true, refused: []func(*spec){
		func(s *spec) { s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/etc/cron.d"}} },
		func(s *spec) {
			s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/var/lib/hlparser-out/other/mainnet"}}
		},
		func(s *spec) { s.Sink = v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/var/lib/hlparser"}} },
	}}, "sink.file.path")
	add(bound{shows: inPod, flag: "--output-root", schema: true, refused: []func(*spec){func(s *spec) {
		s.Sink, s.Streams = v1alpha1.Sink{}, []v1alpha1.Stream{{Name: "Fills", Sink: "a"}}
		s.Sinks = []v1alpha1.NamedSink{{Name: "a", File: &v1alpha1.FileSink{Path: "/etc/cron.d"}}}
	}}}, "sinks.file.path")
	add(bound{shows: inPod, flag: "--allowed-images", schema: true, refused: []func(*spec){
		func(s *spec) { s.Image = "evil.example/miner" },
	}}, "image")
	add(bound{shows: inPod, flag: "--allowed-pod-labels", schema: true, refused: []func(*spec){
		func(s *spec) { s.PodLabels = map[string]v1alpha1.LabelValue{"sidecar.istio.io/inject": "true"} },
		func(s *spec) { s.PodLabels = map[string]v1alpha1.LabelValue{"team": "md", "role": "db"} },
		func(s *spec) { s.PodLabels = map[string]v1alpha1.LabelValue{"teams": "md"} },
		func(s *spec) { s.PodLabels = map[string]v1alpha1.LabelValue{"tier": "front"} },
	}}, "podLabels")
	add(bound{shows: inPod, flag: "--allowed-pod-annotations", schema: true, refused: []func(*spec){
		func(s *spec) {
			s.PodAnnotations = map[string]v1alpha1.AnnotationValue{
				"container.apparmor.security.beta.kubernetes.io/hlparser": "unconfined"}
		},
		func(s *spec) {
			s.PodAnnotations = map[string]v1alpha1.AnnotationValue{"sidecar.istio.io/proxyImage": "evil.example/root"}
		},
		func(s *spec) {
			s.PodAnnotations = map[string]v1alpha1.AnnotationValue{"k8s.v1.cni.cncf.io/networks": "kube-system/a"}
		},
	}}, "podAnnotations")
	add(bound{shows: inPod, flag: "--allowed-priority-classes", schema: true, refused: []func(*spec){
		func(s *spec) { s.PriorityClassName = "system-node-critical" },
		func(s *spec) { s.PriorityClassName = "high2" },
	}}, "priorityClassName")
	add(bound{shows: inPod, flag: "--allowed-selinux-types", refused: []func(*spec){
		func(s *spec) { s.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} },
	}}, "seLinuxOptions.type")
	add(bound{shows: inPod, flag: "no value", refused: []func(*spec){
		func(s *spec) { s.SELinuxOptions = &corev1.SELinuxOptions{User: "system_u"} },
	}}, "seLinuxOptions.user")
	add(bound{shows: inPod, flag: "no value", refused: []func(*spec){
		func(s *spec) { s.SELinuxOptions = &corev1.SELinuxOptions{Role: "system_r"} },
	}}, "seLinuxOptions.role")
	add(bound{shows: inPod, free: "a level narrows what processes of one type may do beside each other"},
		"seLinuxOptions.level")
	add(bound{shows: inPod, flag: "--allowed-users", schema: true, refused: []func(*spec){
		func(s *spec) { s.RunAsUser = ptr.To[int64](999) },
		func(s *spec) { s.RunAsUser = ptr.To[int64](0) },
		func(s *spec) { s.RunAsUser = ptr.To[int64](1 << 31) },
	}}, "runAsUser")
	add(bound{shows: inPod, flag: "--allowed-groups", schema: true, refused: []func(*spec){
		func(s *spec) { s.RunAsGroup = ptr.To[int64](6) },
		func(s *spec) { s.RunAsGroup = ptr.To[int64](0) },
	}}, "runAsGroup")
	add(bound{shows: inPod, flag: "--allowed-groups", schema: true, refused: []func(*spec){
		func(s *spec) { s.SupplementalGroups = []int64{20000, 998} },
		func(s *spec) { s.SupplementalGroups = []int64{0} },
		func(s *spec) { s.SupplementalGroups = []int64{1 << 31} },
	}}, "supplementalGroups")
	add(bound{shows: inPod, flag: "cpu, memory and ephemeral-storage", refused: []func(*spec){
		func(s *spec) {
			s.Resources.Limits = corev1.ResourceList{"smarter-devices/kmsg": resource.MustParse("1")}
		},
	}}, "resources.limits")
	add(bound{shows: inPod, flag: "cpu, memory and ephemeral-storage", refused: []func(*spec){
		func(s *spec) { s.Resources.Requests = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")} },
	}}, "resources.requests")
	claims := bound{shows: inPod, flag: "no value", refused: []func(*spec){
		func(s *spec) { s.Resources.Claims = []corev1.ResourceClaim{{Name: "gpu", Request: "a"}} },
	}}
	add(claims, "resources.claims.name resources.claims.request")
	add(bound{shows: inPod, flag: "a Secret's name", refused: []func(*spec){
		func(s *spec) {
			s.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "../../kube-system/secrets/a"}}
		},
	}}, "imagePullSecrets.name")
	add(bound{shows: inPod, schema: true}, `
		imagePullPolicy terminationGracePeriodSeconds
		target.pods.subPath target.pods.stateSubPath target.pods.stateClaimName
		sink.file.claimName sinks.file.claimName
		sink.nats.credentialsSecretRef.name sink.nats.tls.caSecretRef.name sink.nats.tls.certSecretRef.name
		sink.kafka.sasl.secretRef.name sink.kafka.tls.caSecretRef.name sink.kafka.tls.certSecretRef.name
		sinks.nats.credentialsSecretRef.name sinks.nats.tls.caSecretRef.name sinks.nats.tls.certSecretRef.name
		sinks.kafka.sasl.secretRef.name sinks.kafka.tls.caSecretRef.name sinks.kafka.tls.certSecretRef.name`)
	add(bound{shows: inPod, free: choice}, "sink.stdout sinks.stdout")
	add(bound{shows: inPod, free: likePods}, `
		tolerations.key tolerations.operator tolerations.value tolerations.effect tolerations.tolerationSeconds
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.key
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.operator
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions.values
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchFields.key
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchFields.operator
		affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchFields.values
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.weight
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchExpressions.key
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchExpressions.operator
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchExpressions.values
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchFields.key
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchFields.operator
		affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.preference.matchFields.values`)
	for _, kind := range []string{"affinity.podAffinity.", "affinity.podAntiAffinity."} {
		add(bound{shows: inPod, free: likePods}, kind+"preferredDuringSchedulingIgnoredDuringExecution.weight")
		for _, term := range []string{"requiredDuringSchedulingIgnoredDuringExecution.",
			"preferredDuringSchedulingIgnoredDuringExecution.podAffinityTerm."} {
			for field := range strings.FieldsSeq(`labelSelector.matchLabels
				labelSelector.matchExpressions.key labelSelector.matchExpressions.operator
				labelSelector.matchExpressions.values namespaceSelector.matchLabels namespaceSelector.matchExpressions.key
				namespaceSelector.matchExpressions.operator namespaceSelector.matchExpressions.values
				namespaces topologyKey matchLabelKeys mismatchLabelKeys`) {
				add(bound{shows: inPod, free: likePods}, kind+term+field)
			}
		}
	}

	// Fields of the parser's config. The parser validates them, and none of them names a file.
	add(bound{shows: inConfig, schema: true}, `
		streams.name streams.mode streams.sink format metrics order.by order.patience
		engine.bufferLimit engine.parallelThreshold engine.workers engine.startAt engine.startAtBlock engine.maxLineBytes
		engine.readRate
		sinks.name`)
	for _, filter := range []string{"filter.", "streams.filter."} {
		for field := range strings.FieldsSeq(`coins markets excludeCoins users statuses excludeStatuses sides types
			minNotional`) {
			add(bound{shows: inConfig, schema: true}, filter+field)
		}
	}
	add(bound{shows: inConfig, free: choice}, "engine.deduplicateBlocks engine.markers")
	for _, sink := range []string{"sink.", "sinks."} {
		for field := range strings.FieldsSeq(`file.maxSize file.maxAge file.maxTotalSize file.minFreePercent file.rotate
			file.compress
			nats.url nats.stream nats.subject nats.create.replicas nats.create.maxBytes nats.create.maxAge nats.delivery
			nats.identity
			nats.recordsPerMessage nats.credentialsSecretRef.key nats.tls.serverName
			kafka.brokers kafka.topic kafka.key kafka.delivery kafka.positionsTopic kafka.create.partitions
			kafka.create.replicationFactor
			kafka.compression kafka.maxMessageBytes kafka.tls.serverName`) {
			add(bound{shows: inConfig, schema: true}, sink+field)
		}
	}

	// Fields that only the operator uses.
	add(bound{free: nodes}, `target.nodes.selector.matchLabels target.nodes.selector.matchExpressions.key
		target.nodes.selector.matchExpressions.operator target.nodes.selector.matchExpressions.values
		target.pods.selector.matchLabels target.pods.selector.matchExpressions.key
		target.pods.selector.matchExpressions.operator
		target.pods.selector.matchExpressions.values`)
	add(bound{schema: true}, `target.pods.volume
		growth.pollInterval growth.lag growth.stuckAfter growth.sourceStalledAfter growth.retention growth.action
		growth.fleetWideThreshold
		growth.restart.cooldown growth.restart.maxPerHour growth.restart.maxConcurrent
		rollout.maxUnavailable rollout.canary.count rollout.canary.soak rollout.revisionHistoryLimit`)
	add(bound{free: itself}, "paused")

	const marker = "m4rker"
	address := "0x" + strings.Repeat("1", 40)
	toMarker := func(s *spec) {
		for i := range s.Streams {
			s.Streams[i].Sink = marker
		}
	}
	for field, b := range all {
		b.value = cmp.Or(map[string]string{
			"streams.name": "Trades", "streams.mode": "ByBlock", "format": "Raw", "metrics": "ClassicBuckets",
			"order.by": "Block", "order.patience": "7", "filter.users": address, "filter.sides": "A",
			"filter.minNotional": "7", "filter.markets": "Perp", "streams.filter.users": address, "streams.filter.sides": "Bid",
			"streams.filter.minNotional": "7", "streams.filter.markets": "Outcome", "engine.bufferLimit": "7777777",
			"engine.workers": "7", "engine.startAt": "Beginning", "engine.startAtBlock": "7", "engine.readRate": "7777777",
			"file.maxTotalSize": "7777777777", "file.minFreePercent": "7", "file.rotate": "Hour", "file.compress": "zstd",
			"nats.url": "nats://" + marker + ":4222", "nats.create.replicas": "3", "nats.delivery": "AtLeastOnce",
			"nats.identity":          "Chain",
			"nats.recordsPerMessage": "7", "kafka.delivery": "AtLeastOnce", "kafka.create.partitions": "7",
			"kafka.create.replicationFactor": "3",
			"kafka.compression":              "lz4",
		}[strings.TrimPrefix(strings.TrimPrefix(field, "sinks."), "sink.")], marker)
		switch field {
		case "sinks.name":
			b.also = toMarker
		case "engine.startAtBlock":
			b.also = func(s *spec) { s.Engine.StartAt = v1alpha1.StartAtBlock }
		case "order.patience":
			b.also = func(s *spec) { s.Order.By = v1alpha1.OrderByBlock }
		case "streams.sink":
			b.also = func(s *spec) {
				toMarker(s)
				s.Sinks, s.Sink = []v1alpha1.NamedSink{{Name: marker, Stdout: s.Sink.Stdout}}, v1alpha1.Sink{}
			}
		}
		all[field] = b
	}
	return all
}

// leaf is a field of the spec without nested fields.
type leaf struct {
	path string
	kind reflect.Type
	// set sets the field on a spec, with the fields on the way to it.
	set func(*v1alpha1.HyperliquidParserSpec, reflect.Value)
}

// leaves returns all fields of the spec, down to those of Kubernetes' own types. Items of lists have their list's name.
func leaves() []leaf {
	var out []leaf
	root := reflect.TypeFor[v1alpha1.HyperliquidParserSpec]()
	walk(root, "", nil, func(path string, kind reflect.Type, index []int) {
		out = append(out, leaf{path, kind, func(s *v1alpha1.HyperliquidParserSpec, value reflect.Value) {
			setField(reflect.ValueOf(s).Elem(), index, value)
		}})
	})
	return out
}

// decodeThemselves are types with a JSON decoding of their own.
var decodeThemselves = []reflect.Type{
	reflect.TypeFor[resource.Quantity](), reflect.TypeFor[metav1.Duration](), reflect.TypeFor[v1alpha1.StallTime](),
	reflect.TypeFor[intstr.IntOrString](), reflect.TypeFor[metav1.Time](),
}

func walk(t reflect.Type, path string, index []int, visit func(string, reflect.Type, []int)) {
	switch {
	case slices.Contains(decodeThemselves, t):
		visit(path, t, index)
	case t.Kind() == reflect.Pointer:
		walk(t.Elem(), path, index, visit)
	case t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.Struct && !slices.Contains(decodeThemselves, t.Elem())):
		walk(t.Elem(), path, index, visit)
	case t.Kind() != reflect.Struct || t.NumField() == 0:
		visit(path, t, index)
	default:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			below := strings.Trim(path+"."+name, ".")
			walk(f.Type, below, append(slices.Clone(index), i), visit)
		}
	}
}

// setField sets the field at an index. It creates missing pointers and list items on the way.
func setField(v reflect.Value, index []int, value reflect.Value) {
	for {
		switch {
		case v.Kind() == reflect.Pointer && !slices.Contains(decodeThemselves, v.Type()):
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		case v.Kind() == reflect.Slice && len(index) > 0:
			if v.Len() == 0 {
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			}
			v = v.Index(0)
		case len(index) > 0:
			v, index = v.Field(index[0]), index[1:]
		default:
			v.Set(value)
			return
		}
	}
}

// valueOf is a value of a type, made of a text and a number.
func valueOf(t reflect.Type, text string, number int64) reflect.Value {
	v := reflect.New(t).Elem()
	switch {
	case t == reflect.TypeFor[resource.Quantity]():
		return reflect.ValueOf(*resource.NewQuantity(number, resource.BinarySI))
	case t == reflect.TypeFor[metav1.Duration]():
		return reflect.ValueOf(metav1.Duration{Duration: time.Duration(number) * time.Second})
	case t == reflect.TypeFor[v1alpha1.StallTime]():
		return reflect.ValueOf(v1alpha1.StallTime{Duration: metav1.Duration{Duration: time.Duration(number) * time.Second}})
	case t == reflect.TypeFor[intstr.IntOrString]():
		return reflect.ValueOf(intstr.FromString(text))
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(number)
	case reflect.Slice:
		v = reflect.Append(v, valueOf(t.Elem(), text, number))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		key := reflect.New(t.Key()).Elem()
		key.SetString(text)
		v.SetMapIndex(key, valueOf(t.Elem(), text, number))
	case reflect.Struct:
	default:
		panic(fmt.Sprintf("no value of %s", t))
	}
	return v
}

// around returns a valid object with the fields around a field.
func around(path string) *v1alpha1.HyperliquidParser {
	obj := (&farm{namespace: "default", label: "fields"}).object()
	obj.Spec.Target.Nodes.StatePath = "/var/lib/hlparser"
	if strings.HasPrefix(path, "target.pods.") {
		obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{Selector: obj.Spec.Target.Nodes.Selector, Volume: "data",
			SubPath: "hl"}}
	}
	sink := v1alpha1.Sink{}
	switch kind := strings.TrimPrefix(strings.TrimPrefix(path, "sinks."), "sink."); {
	case kind == path:
		return obj
	case strings.HasPrefix(kind, "file"):
		sink.File = &v1alpha1.FileSink{Path: "/var/lib/hlparser-out"}
	case strings.HasPrefix(kind, "nats"):
		sink.NATS = &v1alpha1.NATSSink{URL: "nats://nats:4222", Stream: "HL", Subject: "hl"}
		if strings.HasSuffix(kind, ".key") {
			sink.NATS.CredentialsSecretRef = &v1alpha1.CredentialsSecretRef{SecretRef: v1alpha1.SecretRef{Name: "creds"}}
		}
		if strings.HasSuffix(kind, ".identity") { // Chain needs blocks
			for i := range obj.Spec.Streams {
				obj.Spec.Streams[i].Mode = "ByBlock"
			}
		}
	case strings.HasPrefix(kind, "kafka"):
		sink.Kafka = &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"kafka:9092"}, Topic: "hl", Key: "k", PositionsTopic: "p"}
	default:
		sink.File = &v1alpha1.FileSink{Path: "/var/lib/hlparser-out"}
		if strings.HasPrefix(kind, "name") {
			sink.File, sink.Stdout = nil, &v1alpha1.StdoutSink{}
		}
	}
	if strings.HasPrefix(path, "sinks.") {
		for i := range obj.Spec.Streams {
			obj.Spec.Streams[i].Sink = "a"
		}
		obj.Spec.Sink = v1alpha1.Sink{}
		obj.Spec.Sinks = []v1alpha1.NamedSink{{Name: "a", Stdout: sink.Stdout, File: sink.File, NATS: sink.NATS,
			Kafka: sink.Kafka}}
	} else {
		obj.Spec.Sink = sink
	}
	return obj
}

// rendered returns the pod of an object's spec, without names that contain its hash, and its config.
func rendered(obj *v1alpha1.HyperliquidParser) (pod, config string, err error) {
	revision, err := podspec.NewRevision(obj, parserImage, "cluster")
	if err != nil {
		return "", "", err
	}
	of := target.Target{Name: "target", Node: "node", Claim: "claim"}
	made := revision.Pod(types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}, of, "")
	text, err := json.Marshal(made)
	return strings.ReplaceAll(string(text), revision.Hash, "HASH"), revision.Config, err
}

func TestEveryFieldOfTheSpecHasABound(t *testing.T) {
	bounds, seen := fieldBounds(), map[string]bool{}
	for _, field := range leaves() {
		b, ok := bounds[field.path]
		seen[field.path] = true
		switch {
		case !ok:
			t.Errorf("spec.%s has no bound: say in fieldBounds what an editor could do with it, and what holds that back",
				field.path)
			continue
		case b.flag == "" && !b.schema && b.free == "":
			t.Errorf("spec.%s: nothing is said of its bound", field.path)
		case b.flag != "" && len(b.refused) == 0:
			t.Errorf("spec.%s: no value shows that %s bounds it", field.path, b.flag)
		}
		before := around(field.path)
		after := before.DeepCopy()
		number, err := strconv.ParseInt(b.value, 10, 64)
		if err != nil {
			number = 424242
		}
		field.set(&after.Spec, valueOf(field.kind, b.value, number))
		if b.also != nil {
			b.also(&after.Spec)
		}
		if strings.HasSuffix(field.path, ".stdout") {
			after = around(strings.TrimSuffix(field.path, "stdout") + "name") // in place of files
		}
		podBefore, configBefore, err := rendered(before)
		if err != nil {
			t.Fatalf("spec.%s: the object without it: %v", field.path, err)
		}
		podAfter, configAfter, err := rendered(after)
		if err != nil {
			t.Errorf("spec.%s: say in value what the parser takes: %v", field.path, err)
			continue
		}
		shows := nowhere
		switch {
		case podBefore != podAfter:
			shows = inPod
		case configBefore != configAfter:
			shows = inConfig
		}
		if shows != b.shows {
			t.Errorf("spec.%s shows in %q, said is %q", field.path, shows, b.shows)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(bounds)) {
		if !seen[path] {
			t.Errorf("there is no field spec.%s", path)
		}
	}
}

func TestWhatIsBeyondAFlagIsRefused(t *testing.T) {
	for path, b := range fieldBounds() {
		good := around(path)
		if reason, message := testBounds.Problem(good); reason != "" {
			t.Errorf("spec.%s: the object without it: %s: %s", path, reason, message)
		}
		for i, edit := range b.refused {
			obj := (&farm{namespace: "default", label: "fields"}).object()
			edit(&obj.Spec)
			reason, message := testBounds.Problem(obj)
			if !strings.HasSuffix(reason, "NotAllowed") {
				t.Errorf("spec.%s: value %d is allowed: %s %s", path, i, reason, message)
			}
			if strings.HasPrefix(b.flag, "--") && !strings.Contains(message, "write ") &&
				!strings.Contains(message, "leave it out") {
				t.Errorf("spec.%s: value %d: %q does not say what to write", path, i, message)
			}
		}
	}
}

// secretFields are the fields of the spec, below sink and of the spec itself, that name a Secret.
func secretFields() (out []string) {
	for _, field := range leaves() {
		lower := strings.ToLower(field.path)
		if strings.HasSuffix(lower, "secretref.name") && strings.HasPrefix(lower, "sink.") ||
			strings.HasSuffix(lower, "secrets.name") {
			out = append(out, field.path)
		}
	}
	return out
}

var _ = Describe("the schema", func() {
	It("refuses hostile values of every field that it bounds", func(ctx SpecContext) {
		bounds := fieldBounds()
		for _, field := range leaves() {
			b := bounds[field.path]
			Expect(k8s.Create(ctx, around(field.path), client.DryRunAll)).To(Succeed(), "spec.%s: the object without it",
				field.path)
			var texts []string
			if b.schema {
				texts = append(texts, strings.Repeat("$(HOME)/../", 500))
			}
			// In a config it is a text like any other.
			if b.schema && b.shows == inPod && b.flag == "" {
				texts = append(texts, "../$(HOME)\n\x00")
			}
			for _, text := range texts {
				obj := around(field.path)
				field.set(&obj.Spec, valueOf(field.kind, text, -1))
				err := k8s.Create(ctx, obj, client.DryRunAll)
				Expect(err).To(MatchError(ContainSubstring("spec.")), "spec.%s: %.40q", field.path, text)
			}
		}
	})
})
