package podspec_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/podspec"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// object returns an object with every kind of field set.
func object() *v1alpha1.HyperliquidParser {
	return &v1alpha1.HyperliquidParser{
		ObjectMeta: metav1.ObjectMeta{Name: "mainnet", Namespace: "hyperliquid", UID: "u"},
		Spec: v1alpha1.HyperliquidParserSpec{
			Target: v1alpha1.Target{Nodes: &v1alpha1.NodeTarget{
				Selector: metav1.LabelSelector{MatchLabels: map[string]string{"hyperliquid.xyz/role": "node"}},
				DataPath: "/home/hluser/hl/data", StatePath: "/var/lib/hlparser",
			}},
			Streams: []v1alpha1.Stream{{Name: "OrderStatuses", Mode: "ByBlock"}, {Name: "Fills", Mode: "Auto"}},
			Filter: v1alpha1.Filter{
				Coins: []v1alpha1.Coin{"BTC", "xyz:*"}, ExcludeStatuses: []v1alpha1.OrderStatus{"badAloPxRejected"},
				Sides: []v1alpha1.Side{"A"}, MinNotional: "10000",
			},
			Format: "Raw",
			Sink: v1alpha1.Sink{File: &v1alpha1.FileSink{
				Path: "/var/lib/hlparser-out/", MaxSize: ptr.To(resource.MustParse("1Gi")),
				MaxAge: &metav1.Duration{Duration: time.Hour},
				Rotate: "Hour", Compress: "zstd"}},
			Engine: v1alpha1.Engine{
				BufferLimit: ptr.To(resource.MustParse("32Mi")), ParallelThreshold: ptr.To[int32](1000), Workers: ptr.To[int32](2),
				StartAt: "End", MaxLineBytes: ptr.To(resource.MustParse("64Mi")), ReadRate: ptr.To(resource.MustParse("100Mi")),
			},
			PodLabels:          map[string]v1alpha1.LabelValue{"team": "md", "app.kubernetes.io/name": "mine"},
			PodAnnotations:     map[string]v1alpha1.AnnotationValue{"note": "x"},
			Tolerations:        []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}},
			ImagePullSecrets:   []corev1.LocalObjectReference{{Name: "pull"}},
			PriorityClassName:  "high",
			SupplementalGroups: []int64{20000},
		},
	}
}

func revision(t *testing.T, obj *v1alpha1.HyperliquidParser) podspec.Revision {
	t.Helper()
	r, err := podspec.NewRevision(obj, "registry.example/hlparser:v1", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// golden compares a value, as YAML, with a file.
func golden(t *testing.T, name string, value any) {
	t.Helper()
	got, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/"+name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs:\n%s", name, got)
	}
}

func TestPodAndConfigAreAsReviewed(t *testing.T) {
	obj := object()
	r := revision(t, obj)
	golden(t, "pod.yaml", pod(obj, r, on("node-1.example.com")))
	golden(t, "configmap.yaml", r.ConfigMap(obj.Namespace, obj.Name))
}

// pod returns the revision's pod of a target.
func pod(obj *v1alpha1.HyperliquidParser, r podspec.Revision, of target.Target) *corev1.Pod {
	return r.Pod(types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}, of, "")
}

// besidePods returns the object with pods as targets and a claim for output.
func besidePods() *v1alpha1.HyperliquidParser {
	obj := object()
	obj.Spec.Target = v1alpha1.Target{Pods: &v1alpha1.PodTarget{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "hl-node"}},
		Volume:   "data", SubPath: "hl/data", StateSubPath: "hlparser",
	}}
	obj.Spec.Sink.File.Path, obj.Spec.Sink.File.ClaimName = "/archive/", "records"
	return obj
}

func TestAPodBesideAPodIsAsReviewed(t *testing.T) {
	obj := besidePods()
	golden(
		t, "pod-beside-pod.yaml",
		pod(obj, revision(t, obj), target.Target{Name: "hl-node-0", Node: "node-1", Claim: "data-hl-node-0"}),
	)
}

// TestNoCommandLineNamesANodesProcess: a Hyperliquid node panics if it sees a process whose command line has "hl-node".
// Variables in a command would be expanded into it.
func TestNoCommandLineNamesANodesProcess(t *testing.T) {
	for name, obj := range map[string]*v1alpha1.HyperliquidParser{"nodes": object(), "pods": besidePods()} {
		obj.Name, obj.Namespace = "hl-node", "hl-node"
		if pods := obj.Spec.Target.Pods; pods != nil {
			pods.Volume, pods.SubPath, pods.StateSubPath = "hl-node", "hl-node/data", "hlparser/hl-node"
		} else {
			obj.Spec.Target.Nodes.DataPath = "/home/hl-node/data"
		}
		spec := pod(obj, revision(t, obj), target.Target{Name: "hl-node-0", Node: "hl-node-1", Claim: "data-hl-node-0"}).Spec
		if spec.HostPID || spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace {
			t.Errorf("%s: the pod shares its processes", name)
		}
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			words := slices.Concat(c.Command, c.Args)
			if c.Lifecycle != nil && c.Lifecycle.PreStop != nil && c.Lifecycle.PreStop.Exec != nil {
				words = append(words, c.Lifecycle.PreStop.Exec.Command...)
			}
			for _, word := range words {
				if strings.Contains(word, "hl-node") || strings.Contains(strings.ReplaceAll(word, "$(POD_IP)", ""), "$(") {
					t.Errorf("%s: container %s runs %q", name, c.Name, words)
				}
			}
		}
	}
}

// place returns where a path of a container is: the source of the volume and the path in it.
func place(pod *corev1.Pod, c *corev1.Container, path string) string {
	for _, m := range c.VolumeMounts {
		if m.MountPath != path {
			continue
		}
		below := m.SubPath
		if m.SubPathExpr != "" {
			below = expanded(pod, c, m.SubPathExpr)
		}
		for _, v := range pod.Spec.Volumes {
			switch {
			case v.Name != m.Name:
			case v.HostPath != nil:
				return "host:" + v.HostPath.Path + "/" + below
			case v.PersistentVolumeClaim != nil:
				return "claim:" + v.PersistentVolumeClaim.ClaimName + "/" + below
			}
		}
	}
	return ""
}

// expanded returns a subPathExpr as the kubelet expands it: $(NAME) is a variable, and $$ is a $.
func expanded(pod *corev1.Pod, c *corev1.Container, expression string) string {
	return regexp.MustCompile(`\$\$|\$\([A-Z_]+\)`).ReplaceAllStringFunc(expression, func(found string) string {
		for _, e := range c.Env {
			switch {
			case found != "$("+e.Name+")":
			case e.ValueFrom != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.annotations['"+v1alpha1.AnnotationTarget+"']":
				return pod.Annotations[v1alpha1.AnnotationTarget]
			default:
				return e.Value
			}
		}
		return "$"
	})
}

// Two parsers that may run at the same time never write to the same directory.
func TestWhereParsersWrite(t *testing.T) {
	beside := target.Target{Name: "hl-node-0", Node: "node-1", Claim: "data-hl-node-0"}
	tests := map[string]struct {
		obj        func(*v1alpha1.HyperliquidParser)
		target     target.Target
		state, out string
	}{
		"for a node, on the node": {nil, on("node-1"),
			"host:/var/lib/hlparser/hyperliquid/mainnet", "host:/var/lib/hlparser-out/hyperliquid/mainnet"},
		"for a node, output on a claim of all nodes": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Sink.File.Path, o.Spec.Sink.File.ClaimName = "", "records"
		}, on("node-1"), "host:/var/lib/hlparser/hyperliquid/mainnet", "claim:records/hyperliquid/mainnet/node-1"},
		"for a pod, output on the node that it may share": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Target, o.Spec.Sink.File.ClaimName = besidePods().Spec.Target, ""
		}, beside, "claim:data-hl-node-0/hlparser/mainnet", "host:/var/lib/hlparser-out/hyperliquid/mainnet/hl-node-0"},
		"for a pod, output on a directory of a claim of all pods": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec = besidePods().Spec
		}, beside,
			"claim:data-hl-node-0/hlparser/mainnet", "claim:records/archive/hyperliquid/mainnet/hl-node-0"},
		"for a pod, the state on a claim of all pods": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec = besidePods().Spec
			o.Spec.Target.Pods.StateClaimName, o.Spec.Target.Pods.StateSubPath = "state", "a/$b"
		}, beside, "claim:state/a/$b/hyperliquid/mainnet/hl-node-0", "claim:records/archive/hyperliquid/mainnet/hl-node-0"},
		"for a pod, without its defaults": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec = besidePods().Spec
			o.Spec.Target.Pods.SubPath, o.Spec.Target.Pods.StateSubPath = "", ""
		}, beside, "claim:data-hl-node-0/hlparser/mainnet", "claim:records/archive/hyperliquid/mainnet/hl-node-0"},
		"in a directory whose name looks like a variable": {func(o *v1alpha1.HyperliquidParser) {
			o.Spec.Sink.File.Path, o.Spec.Sink.File.ClaimName = "/$(HLPARSER_TARGET)", "records"
		}, on("node-1"),
			"host:/var/lib/hlparser/hyperliquid/mainnet", "claim:records/$(HLPARSER_TARGET)/hyperliquid/mainnet/node-1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			obj := object()
			if test.obj != nil {
				test.obj(obj)
			}
			pod := pod(obj, revision(t, obj), test.target)
			for _, c := range []corev1.Container{pod.Spec.InitContainers[0], pod.Spec.Containers[0]} {
				if got := place(pod, &c, "/state"); got != test.state {
					t.Errorf("%s has the state in %s, want %s", c.Name, got, test.state)
				}
				if got := place(pod, &c, "/out"); got != test.out {
					t.Errorf("%s has the output in %s, want %s", c.Name, got, test.out)
				}
			}
		})
	}
}

// Each of these has a different location. The location of an object must never change by an upgrade.
func TestStateLocations(t *testing.T) {
	for want, edit := range map[string]func(*v1alpha1.PodTarget){
		"hlparser":        func(*v1alpha1.PodTarget) {},
		"state":           func(p *v1alpha1.PodTarget) { p.StateSubPath = "state" },
		"/state/hlparser": func(p *v1alpha1.PodTarget) { p.StateClaimName = "state" },
		"/state/a/b":      func(p *v1alpha1.PodTarget) { p.StateClaimName, p.StateSubPath = "state", "a/b" },
	} {
		obj := besidePods()
		edit(obj.Spec.Target.Pods)
		if got := podspec.StateLocation(obj); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := podspec.StateLocation(object()); got != "/var/lib/hlparser" {
		t.Errorf("of nodes: got %s", got)
	}
}

// State has mode 0600. The pod sets no fsGroup, for which the kubelet would change the files: the user that wrote them
// reads them after an upgrade, wherever they are.
func TestTheStateIsReadByWhoWroteIt(t *testing.T) {
	for _, obj := range []*v1alpha1.HyperliquidParser{object(), besidePods()} {
		spec := pod(obj, revision(t, obj), target.Target{Name: "hl-node-0", Node: "node-1", Claim: "c"}).Spec
		if spec.SecurityContext.FSGroup != nil || *spec.SecurityContext.RunAsUser != 10000 ||
			spec.Containers[0].SecurityContext.RunAsUser != nil {
			t.Errorf("the parser runs as %+v", spec.SecurityContext)
		}
		if got := spec.InitContainers[0].SecurityContext.Capabilities; len(got.Add) != 1 || got.Add[0] != "CHOWN" {
			t.Errorf("prepare may %v: it must do without reading what others may not", got.Add)
		}
	}
}

func TestTheConfigIsWhatTheParserReads(t *testing.T) {
	var c config.Config
	if err := yaml.UnmarshalStrict([]byte(revision(t, object()).Config), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.WithDefaults(1).Validate(); err != nil {
		t.Error(err)
	}
	if c.Engine.BufferLimit != 32<<20 || c.Sink.File.MaxAge.Duration != time.Hour || c.Streams[0].Mode != config.ByBlock {
		t.Errorf("read as %+v", c)
	}
}

// Zero disables the floor. A spec without it renders nothing.
func TestAStartAtABlockIsRenderedWhereItIsSet(t *testing.T) {
	for block, want := range map[int64]string{0: "startAt: End", 978995377: "startAt: Block\n  startAtBlock: 978995377"} {
		obj := object()
		if block > 0 {
			obj.Spec.Engine.StartAt, obj.Spec.Engine.StartAtBlock = v1alpha1.StartAtBlock, ptr.To(block)
		}
		text := revision(t, obj).Config
		if !strings.Contains(text, want) || strings.Contains(text, "startAtBlock") != (block > 0) {
			t.Errorf("%d: %q is missing in\n%s", block, want, text)
		}
	}
	obj := object()
	obj.Spec.Streams[1].Mode = "Line"
	obj.Spec.Engine.StartAt, obj.Spec.Engine.StartAtBlock = v1alpha1.StartAtBlock, ptr.To[int64](1)
	if _, err := podspec.NewRevision(obj, "registry.example/hlparser:v1", "cluster"); err == nil {
		t.Error("a stream in line mode has no block to start at")
	}
}

func TestTheFloorOfFreeSpaceIsRenderedWhereItIsSet(t *testing.T) {
	for want, percent := range map[string]*int32{
		"": nil, "minFreePercent: 0\n": ptr.To[int32](0), "minFreePercent: 25\n": ptr.To[int32](25),
	} {
		obj := object()
		obj.Spec.Sink.File.MinFreePercent = percent
		if text := revision(t, obj).Config; !strings.Contains(text, want) ||
			strings.Contains(text, "minFreePercent") != (percent != nil) {
			t.Errorf("want %q in %s", want, text)
		}
	}
}

func TestASettingThatTheParserWouldRefuseIsRefusedHere(t *testing.T) {
	obj := object()
	obj.Spec.Filter.Users = []v1alpha1.Address{"nobody"}
	var field *config.FieldError
	if _, err := podspec.NewRevision(obj, "i", "cluster"); !errors.As(err, &field) || field.Field != "filter.users[0]" {
		t.Errorf("got %v", err)
	}
}

func TestWhatMakesARevision(t *testing.T) {
	tests := map[string]struct {
		edit func(*v1alpha1.HyperliquidParserSpec)
		new  bool // what is rendered
	}{
		"growth": {func(s *v1alpha1.HyperliquidParserSpec) { s.Growth.Action = "Alert" }, false},
		"rollout": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Rollout.MaxUnavailable = ptr.To(intstr.FromInt32(7)) }, false,
		},
		"paused": {func(s *v1alpha1.HyperliquidParserSpec) { s.Paused = true }, false},
		"the selector": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.Selector.MatchLabels["a"] = "b" }, false,
		},
		"the default image spelt out": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Image = "registry.example/hlparser:v1" }, false,
		},
		"the image": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Image = "registry.example/hlparser:v2" }, true,
		},
		"a stream":   {func(s *v1alpha1.HyperliquidParserSpec) { s.Streams = s.Streams[:1] }, true},
		"a mode":     {func(s *v1alpha1.HyperliquidParserSpec) { s.Streams[0].Mode = "Line" }, true},
		"the filter": {func(s *v1alpha1.HyperliquidParserSpec) { s.Filter.Coins = nil }, true},
		"the format": {func(s *v1alpha1.HyperliquidParserSpec) { s.Format = "Enveloped" }, true},
		"the engine": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Engine.Workers = ptr.To[int32](4) }, true,
		},
		"dataPath": {func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.DataPath = "/data" }, true},
		"statePath": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Target.Nodes.StatePath = "/var/lib/hlparser/2" }, true,
		},
		"the sink": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Sink = v1alpha1.Sink{Stdout: &v1alpha1.StdoutSink{}} }, true,
		},
		"file.path": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.Path = "/var/lib/hlparser-out/2" }, true,
		},
		"file.rotate":   {func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.Rotate = "Size" }, true},
		"file.compress": {func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.Compress = "" }, true},
		"file.maxTotalSize": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.MaxTotalSize = ptr.To(resource.MustParse("9Gi")) }, true,
		},
		"file.minFreePercent": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.MinFreePercent = ptr.To[int32](0) }, true,
		},
		"file.maxAge": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.Sink.File.MaxAge.Duration = time.Minute }, true,
		},
		"resources": {func(s *v1alpha1.HyperliquidParserSpec) {
			s.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, true},
		"a toleration": {func(s *v1alpha1.HyperliquidParserSpec) { s.Tolerations = nil }, true},
		"a pod label":  {func(s *v1alpha1.HyperliquidParserSpec) { s.PodLabels["a"] = "b" }, true},
		"the user":     {func(s *v1alpha1.HyperliquidParserSpec) { s.RunAsUser = ptr.To[int64](1000) }, true},
		"the grace": {
			func(s *v1alpha1.HyperliquidParserSpec) { s.TerminationGracePeriodSeconds = ptr.To[int64](60) }, true,
		},
	}
	before := revision(t, object())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			obj := object()
			test.edit(&obj.Spec)
			if got := revision(t, obj).Hash != before.Hash; got != test.new {
				t.Errorf("a new revision: %v, want %v", got, test.new)
			}
			// An equivalent spec has another identity, and renders the same revision.
			if got := identity(t, obj) != identity(t, object()); got != (test.new || name == "the default image spelt out") {
				t.Errorf("a new identity: %v", got)
			}
		})
	}
}

// on returns a node as a target.
func on(node string) target.Target { return target.Target{Name: node, Node: node} }
func identity(t *testing.T, obj *v1alpha1.HyperliquidParser) string {
	t.Helper()
	id, err := podspec.Identity(obj)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTheIdentityOfASpecIsNotWhatAnOperatorMakesOfIt(t *testing.T) {
	one, err := podspec.NewRevision(object(), "registry.example/hlparser:v1", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	other, err := podspec.NewRevision(object(), "registry.example/hlparser:v2", "cluster")
	if err != nil {
		t.Fatal(err)
	}
	if one.Hash == other.Hash || other.Image() != "registry.example/hlparser:v2" {
		t.Errorf("revisions %s and %s, the image %s", one.Hash, other.Hash, other.Image())
	}
	if !regexp.MustCompile(`^[0-9a-v]{52}$`).MatchString(identity(t, object())) {
		t.Errorf("identity %q", identity(t, object()))
	}
}

// Earlier schemas stored the defaults of streams and sinks, which the schema no longer sets. An object that was stored
// then and the same manifest now mean the same revision, so that neither an upgrade nor the next apply replaces a pod.
func TestAnUnsetFieldIsItsDefault(t *testing.T) {
	for name, sink := range map[string]struct{ unset, stored v1alpha1.Sink }{
		"files": {
			v1alpha1.Sink{File: &v1alpha1.FileSink{Path: "/out"}},
			v1alpha1.Sink{File: &v1alpha1.FileSink{
				Path: "/out", MaxSize: ptr.To(resource.MustParse("1Gi")), MaxAge: &metav1.Duration{Duration: time.Hour},
			}},
		},
		"NATS": {
			v1alpha1.Sink{NATS: &v1alpha1.NATSSink{URL: "nats://nats:4222", Stream: "HL", Create: &v1alpha1.NATSCreate{},
				CredentialsSecretRef: &v1alpha1.CredentialsSecretRef{SecretRef: v1alpha1.SecretRef{Name: "creds"}}}},
			v1alpha1.Sink{NATS: &v1alpha1.NATSSink{URL: "nats://nats:4222", Stream: "HL", Subject: "hl.{stream}.{coin}",
				Delivery: "Best", Identity: "Position", RecordsPerMessage: ptr.To[int32](1),
				Create: &v1alpha1.NATSCreate{Replicas: ptr.To[int32](1)},
				CredentialsSecretRef: &v1alpha1.CredentialsSecretRef{
					SecretRef: v1alpha1.SecretRef{Name: "creds"}, Key: "nats.creds"}}},
		},
		"Kafka": {
			v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{
				Brokers: []v1alpha1.Broker{"kafka:9092"}, Create: &v1alpha1.KafkaCreate{}}},
			v1alpha1.Sink{Kafka: &v1alpha1.KafkaSink{Brokers: []v1alpha1.Broker{"kafka:9092"}, Topic: "hl.{stream}",
				Key: "{coin}", Delivery: "ExactlyOnce", PositionsTopic: "hlparser-positions", Compression: "zstd",
				MaxMessageBytes: ptr.To[int32](1048576), Create: &v1alpha1.KafkaCreate{Partitions: ptr.To[int32](1)}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var ids, hashes [2]string
			for i, sink := range []v1alpha1.Sink{sink.unset, sink.stored} {
				for _, named := range []bool{false, true} {
					obj := object()
					obj.Spec.Streams = []v1alpha1.Stream{{Name: "Fills"}}
					if i == 1 {
						obj.Spec.Streams[0].Mode = "Auto"
					}
					obj.Spec.Sink = sink
					if named {
						obj.Spec.Streams[0].Sink, obj.Spec.Sink = "a", v1alpha1.Sink{}
						obj.Spec.Sinks = []v1alpha1.NamedSink{{Name: "a", File: sink.File, NATS: sink.NATS, Kafka: sink.Kafka}}
					}
					before := obj.DeepCopy()
					id, err := podspec.Identity(obj)
					if err != nil {
						t.Fatal(err)
					}
					ids[i] += id
					hashes[i] += revision(t, obj).Hash
					if !reflect.DeepEqual(obj, before) {
						t.Error("the object has changed")
					}
				}
			}
			if ids[0] != ids[1] {
				t.Errorf("the identities are %s and %s", ids[0], ids[1])
			}
			if hashes[0] != hashes[1] {
				t.Errorf("the revisions are %s and %s", hashes[0], hashes[1])
			}
		})
	}
}

// A fleet that asks for no more metrics keeps its revision under an operator that knows them: the spec's identity and
// the config say nothing of them. The order of a set means nothing.
func TestMoreMetricsAreAnotherRevisionInAnyOrder(t *testing.T) {
	with := func(metrics ...v1alpha1.MetricsDetail) *v1alpha1.HyperliquidParser {
		obj := object()
		obj.Spec.Metrics = metrics
		return obj
	}
	none := revision(t, object())
	if shape, err := podspec.Shape(object()); err != nil || strings.Contains(string(shape), "metrics") ||
		strings.Contains(none.Config, "metrics") {
		t.Errorf("unset, they are in the identity, %s, %v, or in the config:\n%s", shape, err, none.Config)
	}
	if empty := with(); revision(t, empty).Hash != none.Hash || identity(t, empty) != identity(t, object()) {
		t.Error("an empty list is another revision")
	}
	some := revision(t, with("CreatedSamples", "All"))
	var c config.Config
	if err := yaml.UnmarshalStrict([]byte(some.Config), &c); err != nil {
		t.Fatal(err)
	}
	if want := []config.MetricsDetail{config.AllMetrics, config.CreatedSamples}; !slices.Equal(c.Metrics, want) {
		t.Errorf("the config has the metrics %v, want %v", c.Metrics, want)
	}
	if some.Hash == none.Hash || identity(t, with("All", "CreatedSamples")) == identity(t, object()) {
		t.Error("more metrics make no other revision")
	}
	if again := revision(t, with("All", "CreatedSamples")); again.Hash != some.Hash {
		t.Errorf("the same in another order is revision %s, and was %s", again.Hash, some.Hash)
	}
}

// The parser knows every value that admission accepts, and the other way round.
func TestTheParserKnowsTheMetricsOfTheAPI(t *testing.T) {
	of := map[v1alpha1.MetricsDetail]config.MetricsDetail{
		v1alpha1.MetricsAll: config.AllMetrics, v1alpha1.MetricsClassicBuckets: config.ClassicBuckets,
		v1alpha1.MetricsCreatedSamples: config.CreatedSamples,
	}
	for ours, theirs := range of {
		if string(ours) != string(theirs) {
			t.Errorf("%s is %s in the config", ours, theirs)
		}
	}
	if len(of) != len(config.MetricsDetails()) {
		t.Errorf("the API has %d of %v", len(of), config.MetricsDetails())
	}
}

func TestAStoredRevisionMakesTheSamePodToTheByte(t *testing.T) {
	obj := object()
	before := revision(t, obj)
	data, err := before.Encode()
	if err != nil {
		t.Fatal(err)
	}
	after, err := podspec.Decode(before.Hash, data)
	if err != nil {
		t.Fatal(err)
	}
	want, got := jsonOf(t, pod(obj, before, on("node-1"))), jsonOf(t, pod(obj, after, on("node-1")))
	if got != want {
		t.Errorf("the pod differs:\n got %s\nwant %s", got, want)
	}
	if after.Config != before.Config || after.ConfigName() != before.ConfigName() ||
		after.ConfigName() != before.Name("mainnet") {
		t.Errorf("the config of %s is %s, was %s", after.Hash, after.ConfigName(), before.ConfigName())
	}
}

func TestWhatNoPodCanBeMadeFromIsRefused(t *testing.T) {
	for name, data := range map[string]string{"nothing": "", "no JSON": "{", "no container": `{"config": "a"}`} {
		if _, err := podspec.Decode("r", []byte(data)); err == nil {
			t.Errorf("%s was decoded", name)
		}
	}
	data, err := revision(t, object()).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := podspec.Decode("", data); err == nil {
		t.Error("a revision without a name was decoded")
	}
}

// The files of testdata/stored are a revision as it is stored, and the pod made from it. They must never be
// regenerated: they stand for the pods that exist, which an upgrade of the operator must not replace.
func TestAStoredRevisionMakesThePodThatItAlwaysMade(t *testing.T) {
	data, err := os.ReadFile("testdata/stored/revision.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/stored/pod.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := podspec.Decode("o7m2c3v6q1", data)
	if err != nil {
		t.Fatal(err)
	}
	made := r.Pod(
		types.NamespacedName{Namespace: "hyperliquid", Name: "mainnet"}, on("node-1.example.com"), "2026-05-01T12:00:00Z",
	)
	if got := jsonOf(t, made); got != strings.TrimSpace(string(want)) {
		t.Errorf("the pod differs:\n got %s\nwant %s", got, want)
	}
}

func jsonOf(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestASecondNameForARevision(t *testing.T) {
	first := revision(t, object())
	second, third := first.Renamed("mainnet", 1), first.Renamed("mainnet", 2)
	if second.Hash == first.Hash || second.Hash == third.Hash || second.Hash != first.Renamed("mainnet", 1).Hash {
		t.Errorf("names %s, %s, %s", first.Hash, second.Hash, third.Hash)
	}
	if second.ConfigName() != "mainnet-"+second.Hash || first.ConfigName() != "mainnet-"+first.Hash {
		t.Errorf("configs %s, %s", first.ConfigName(), second.ConfigName())
	}
}

func TestTheSelectorOfPodsMakesNoRevision(t *testing.T) {
	identity := func(obj *v1alpha1.HyperliquidParser) string {
		id, err := podspec.Identity(obj)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before, other := identity(besidePods()), besidePods()
	other.Spec.Target.Pods.Selector.MatchLabels["a"] = "b"
	if identity(other) != before {
		t.Error("a new selector makes a new revision")
	}
	other.Spec.Target.Pods.SubPath = "elsewhere"
	if identity(other) == before {
		t.Error("a new subPath makes no new revision")
	}
}

func TestNames(t *testing.T) {
	a := podspec.PodName("mainnet", on("node-1"))
	if !regexp.MustCompile(`^mainnet-[0-9a-v]{10}$`).MatchString(a) {
		t.Errorf("pod name %q", a)
	}
	if got := podspec.PodName("mainnet", on("node-1.example.com")); got != "mainnet-2morqtri76" {
		t.Errorf("pod name %q: a fleet's pods would all be replaced at once by an operator that names them otherwise", got)
	}
	if podspec.PodName("mainnet", on("node-1")) != a || podspec.PodName("mainnet", on("node-2")) == a ||
		podspec.PodName("mainnet", target.Target{Name: "node-1", Node: "node-2"}) == a {
		t.Error("a pod's name must follow from its target and node, and from those alone")
	}
}

// A container's own security context takes precedence over its pod's.
func TestOnlyThePreparationIsRootAndItCanDoNothingButChown(t *testing.T) {
	obj := object()
	obj.Spec.RunAsUser, obj.Spec.RunAsGroup = ptr.To[int64](1234), ptr.To[int64](5678)
	pod := pod(obj, revision(t, obj), on("n"))
	if sc := pod.Spec.SecurityContext; !*sc.RunAsNonRoot || *sc.RunAsUser != 1234 ||
		sc.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's context is %+v", sc)
	}
	if len(pod.Spec.InitContainers) != 1 || len(pod.Spec.Containers) != 1 {
		t.Fatalf("%d init containers and %d containers", len(pod.Spec.InitContainers), len(pod.Spec.Containers))
	}
	prepare, parser := pod.Spec.InitContainers[0], pod.Spec.Containers[0]
	for _, c := range []corev1.Container{prepare, parser} {
		sc := c.SecurityContext
		if *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || sc.SeccompProfile != nil || sc.Privileged != nil ||
			!slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s may do too much: %+v", c.Name, sc)
		}
	}
	if sc := parser.SecurityContext; sc.RunAsUser != nil || sc.RunAsNonRoot != nil || len(sc.Capabilities.Add) > 0 {
		t.Errorf("the parser's context overrides its pod's: %+v", sc)
	}
	if sc := prepare.SecurityContext; *sc.RunAsUser != 0 || *sc.RunAsNonRoot ||
		!slices.Equal(sc.Capabilities.Add, []corev1.Capability{"CHOWN"}) {
		t.Errorf("the preparation's context is %+v", sc)
	}
	want := []string{"/hlparser", "prepare", "--user", "1234", "--group", "5678", "/state", "/out"}
	if !slices.Equal(prepare.Command, want) || len(prepare.VolumeMounts) != 3 { // the third is for its key
		t.Errorf("it runs %q with mounts %+v", prepare.Command, prepare.VolumeMounts)
	}
	if !reflect.DeepEqual(prepare.Resources, parser.Resources) {
		t.Error("other resources than the parser's would change the pod's QoS class, or what it asks for")
	}
}

func TestARequiredAffinityOfTheObjectStaysInEachAlternative(t *testing.T) {
	obj := object()
	term := func(zone string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}}}
	}
	obj.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{term("a"), term("b")},
		}}}
	before := obj.DeepCopy()
	terms := pod(
		obj, revision(t, obj), on("n"),
	).Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 2 {
		t.Fatalf("got %d terms", len(terms))
	}
	for _, term := range terms {
		if len(term.MatchExpressions) != 1 || len(term.MatchFields) != 1 || term.MatchFields[0].Values[0] != "n" {
			t.Errorf("got %+v", term)
		}
	}
	required := func(o *v1alpha1.HyperliquidParser) *corev1.NodeSelector {
		return o.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if len(required(before).NodeSelectorTerms[0].MatchFields) != 0 ||
		len(required(obj).NodeSelectorTerms[0].MatchFields) != 0 {
		t.Error("the object itself was changed")
	}
}

func TestTheOperatorsLabelsWin(t *testing.T) {
	obj := object()
	obj.Spec.PodLabels[v1alpha1.LabelParser] = "other" // admission refuses it
	pod := pod(obj, revision(t, obj), on("n"))
	if pod.Labels[v1alpha1.LabelParser] != "mainnet" || pod.Labels["app.kubernetes.io/name"] != "hlparser" ||
		pod.Labels["team"] != "md" {
		t.Errorf("got %v", pod.Labels)
	}
	if pod.Spec.NodeName != "" {
		t.Error("the scheduler binds pods")
	}
}

// toServers returns the object with a sink for each of its streams, and every Secret that a sink may use.
func toServers() *v1alpha1.HyperliquidParser {
	obj := object()
	obj.Spec.Sink = v1alpha1.Sink{}
	obj.Spec.Streams[0].Sink, obj.Spec.Streams[1].Sink = "live", "log"
	obj.Spec.Sinks = []v1alpha1.NamedSink{
		{Name: "live", NATS: &v1alpha1.NATSSink{
			URL: "tls://nats:4222", Stream: "HYPERLIQUID", Subject: "hl.{stream}.{coin}", Delivery: "Best", Identity: "Chain",
			RecordsPerMessage: ptr.To[int32](1),
			Create: &v1alpha1.NATSCreate{
				Replicas: ptr.To[int32](3), MaxBytes: ptr.To(resource.MustParse("100Gi")),
				MaxAge: &metav1.Duration{Duration: time.Hour},
			},
			CredentialsSecretRef: &v1alpha1.CredentialsSecretRef{SecretRef: v1alpha1.SecretRef{Name: "nats"}},
			TLS: &v1alpha1.TLS{
				CASecretRef: &v1alpha1.SecretRef{Name: "ca"}, CertSecretRef: &v1alpha1.SecretRef{Name: "client"},
				ServerName: "nats",
			},
		}},
		{Name: "log", Kafka: &v1alpha1.KafkaSink{
			Brokers: []v1alpha1.Broker{"kafka:9092"}, Topic: "hl.{stream}", Key: "{coin}", Delivery: "ExactlyOnce",
			PositionsTopic: "positions",
			Create:         &v1alpha1.KafkaCreate{Partitions: ptr.To[int32](12), ReplicationFactor: ptr.To[int32](3)},
			Compression:    "lz4", MaxMessageBytes: ptr.To[int32](8 << 20),
			TLS:  &v1alpha1.TLS{CASecretRef: &v1alpha1.SecretRef{Name: "ca"}},
			SASL: &v1alpha1.KafkaSASL{SecretRef: v1alpha1.SecretRef{Name: "login"}},
		}},
	}
	return obj
}

func TestSinksOnServersAreAsReviewed(t *testing.T) {
	obj := toServers()
	r := revision(t, obj)
	golden(t, "pod-to-servers.yaml", pod(obj, r, on("node-1.example.com")))
	golden(t, "configmap-to-servers.yaml", r.ConfigMap(obj.Namespace, obj.Name))
}

func TestEverySecretFileIsMountedAndToldBackByItsSecret(t *testing.T) {
	obj := toServers()
	r := revision(t, obj)
	var c config.Config
	if err := yaml.Unmarshal([]byte(r.Config), &c); err != nil {
		t.Fatal(err)
	}
	nats, kafka := c.Sinks[0].NATS, c.Sinks[1].Kafka
	for file, want := range map[string]string{
		nats.CredentialsFile: "nats nats.creds", nats.TLS.CAFile: "ca ca.crt", nats.TLS.CertFile: "client tls.crt",
		nats.TLS.KeyFile: "client tls.key",
		kafka.TLS.CAFile: "ca ca.crt", kafka.SASL.UsernameFile: "login username", kafka.SASL.PasswordFile: "login password",
	} {
		name, key, ok := podspec.SecretOf(file)
		if !ok || name+" "+key != want {
			t.Errorf("%s is in Secret %s, key %s (%v), want %s", file, name, key, ok, want)
		}
		p := pod(obj, r, on("n"))
		mount := slices.IndexFunc(p.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
			return strings.HasPrefix(file, m.MountPath+"/") && m.SubPath == "" && m.ReadOnly
		})
		if mount < 0 {
			t.Errorf("%s is in no mount", file)
			continue
		}
		volume := p.Spec.Containers[0].VolumeMounts[mount].Name
		if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == volume && v.Secret != nil && v.Secret.SecretName == name && *v.Secret.Optional
		}) {
			t.Errorf("%s is in volume %s, which is not the optional Secret %s", file, volume, name)
		}
		for _, init := range p.Spec.InitContainers {
			if slices.ContainsFunc(init.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume }) {
				t.Errorf("container %s, which is root, sees Secret %s", init.Name, name)
			}
		}
	}
	if _, _, ok := podspec.SecretOf("/etc/passwd"); ok {
		t.Error("a file elsewhere is taken for a Secret's")
	}
}

// How a kubelet handles the probes: which of them may fail, and when it kills the parser.
func TestProbes(t *testing.T) {
	obj := object()
	c := pod(obj, revision(t, obj), on("n")).Spec.Containers[0]
	start, live, ready := c.StartupProbe, c.LivenessProbe, c.ReadinessProbe
	if start == nil || live == nil || ready == nil {
		t.Fatal("a probe is missing")
	}
	// A kubelet emits an Unhealthy event for each failed probe. Readiness and liveness probes begin after the startup
	// probe has succeeded.
	if start.HTTPGet.Path != report.StartPath || start.InitialDelaySeconds < 1 {
		t.Errorf("a start fails probes: %+v", start)
	}
	if timeout := time.Duration(start.TimeoutSeconds) * time.Second; timeout <= report.StartWait {
		t.Errorf("the answer may wait for %s, and the kubelet waits for %s", report.StartWait, timeout)
	}
	if start.PeriodSeconds*start.FailureThreshold < 30 {
		t.Errorf("a process that is slow to start is killed after %d s", start.PeriodSeconds*start.FailureThreshold)
	}
	if start.TerminationGracePeriodSeconds != nil || start.SuccessThreshold > 1 || start.PeriodSeconds > 2 {
		t.Errorf("%+v", start)
	}
	// A hang lasts until the last liveness failure, plus the grace period.
	hang := (live.FailureThreshold-1)*live.PeriodSeconds + live.TimeoutSeconds + live.PeriodSeconds +
		int32(*live.TerminationGracePeriodSeconds)
	if hang > 40 || live.FailureThreshold*live.PeriodSeconds < 30 {
		t.Errorf("a process that hangs is there for %d s", hang)
	}
	if live.HTTPGet.Path != "/healthz" || ready.HTTPGet.Path != "/readyz" {
		t.Errorf("liveness asks %s, readiness %s", live.HTTPGet.Path, ready.HTTPGet.Path)
	}
}

// The grace period of a process that hangs is never longer than that of the pod, and never 0.
func TestTheGraceOfAProcessThatHangs(t *testing.T) {
	for asked, want := range map[int64]int64{1: 1, 4: 4, 5: 5, 30: 5, 3600: 5, 0: 1} {
		obj := object()
		obj.Spec.TerminationGracePeriodSeconds = &asked
		spec := pod(obj, revision(t, obj), on("n")).Spec
		if got := *spec.Containers[0].LivenessProbe.TerminationGracePeriodSeconds; got != want ||
			*spec.TerminationGracePeriodSeconds != asked {
			t.Errorf("asked for %d: %d, and %d for the pod", asked, got, *spec.TerminationGracePeriodSeconds)
		}
	}
}

// A parser beside a pod shares its claim, which container runtimes relabel with the level of each pod that mounts it.
func TestTheSELinuxLevelIsTheTargets(t *testing.T) {
	asked := func(options *corev1.SELinuxOptions) *v1alpha1.HyperliquidParser {
		obj := besidePods()
		obj.Spec.SELinuxOptions = options
		return obj
	}
	beside := func(level string) target.Target {
		return target.Target{Name: "hl-node-0", Node: "node-1", Claim: "data-hl-node-0", Level: level}
	}
	nodes := object()
	for name, test := range map[string]struct {
		obj    *v1alpha1.HyperliquidParser
		target target.Target
		want   *corev1.SELinuxOptions
	}{
		"the target has one":  {asked(nil), beside("s0:c1,c2"), &corev1.SELinuxOptions{Level: "s0:c1,c2"}},
		"the target has none": {asked(nil), beside(""), nil},
		"the object has one too": {
			asked(&corev1.SELinuxOptions{Level: "s0:c7,c8"}), beside("s0:c1,c2"), &corev1.SELinuxOptions{Level: "s0:c7,c8"},
		},
		"the object has one alone": {
			asked(&corev1.SELinuxOptions{Level: "s0:c7,c8"}), beside(""), &corev1.SELinuxOptions{Level: "s0:c7,c8"},
		},
		"the object has a type": {
			asked(&corev1.SELinuxOptions{Type: "t"}), beside("s0:c1,c2"), &corev1.SELinuxOptions{Type: "t", Level: "s0:c1,c2"},
		},
		"on a node, whose directories it shares": {nodes, on("node-1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.obj.DeepCopy()
			r := revision(t, test.obj)
			made := pod(test.obj, r, test.target).Spec
			if got := made.SecurityContext.SELinuxOptions; !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			for _, c := range append(made.InitContainers, made.Containers...) {
				if c.SecurityContext.SELinuxOptions != nil {
					t.Errorf("%s has options of its own", c.Name)
				}
			}
			if !reflect.DeepEqual(test.obj, before) {
				t.Error("the object itself was changed")
			}
			if again := pod(test.obj, r, beside("")).Spec.SecurityContext.SELinuxOptions; again != nil &&
				again.Level != ptr.Deref(before.Spec.SELinuxOptions, corev1.SELinuxOptions{}).Level {
				t.Errorf("another target has level %s", again.Level)
			}
		})
	}
	// A stored revision without the annotation makes its pods without a level.
	obj := asked(nil)
	old := revision(t, obj)
	for key := range old.Template.Annotations {
		if strings.HasPrefix(key, v1alpha1.Group+"/") {
			delete(old.Template.Annotations, key)
		}
	}
	if got := pod(obj, old, beside("s0:c1,c2")).Spec.SecurityContext.SELinuxOptions; got != nil {
		t.Errorf("a pod of such a revision has %+v", got)
	}
}
