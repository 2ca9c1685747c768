package podspec

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

// Revision is everything that the pods of one revision have in common. It is rendered once and stored, and every pod is
// made from the stored content: a later version of the operator, with another template or default image, makes the same
// pods.
type Revision struct {
	// Hash is the name of the revision: 10 characters.
	Hash string `json:"-"`
	// Config is the parsers' configuration file.
	Config string `json:"config"`
	// Template is the pod template.
	Template corev1.PodTemplateSpec `json:"template"`
}

// NewRevision renders the object's spec into a revision with its name. defaultImage replaces an empty spec.image.
// cluster distinguishes the parsers of this cluster from those of another that write to the same server. An unset field
// renders as its default does. It fails with a *config.FieldError for a setting that admission accepted and the parser
// would refuse.
func NewRevision(obj *v1alpha1.HyperliquidParser, defaultImage, cluster string) (Revision, error) {
	obj = obj.DeepCopy()
	v1alpha1.SetDefaults(obj)
	rendered := render(&obj.Spec)
	// The parser applies the same defaults and checks. The number of CPUs is the default of a setting that the schema
	// defaults.
	if err := rendered.WithDefaults(1).Validate(); err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	text, err := yaml.Marshal(rendered)
	if err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	r := Revision{Config: string(text), Template: template(obj, cmp.Or(obj.Spec.Image, defaultImage), cluster)}
	return r.NamedByContent(obj.Name)
}

// NamedByContent returns the revision with the name that follows from its content, so that other content under that
// name can be detected.
func (r Revision) NamedByContent(object string) (Revision, error) {
	data, err := r.named(object, "").Encode()
	if err != nil {
		return Revision{}, err
	}
	return r.named(object, hash("revision", string(data))), nil
}

// MaxNames is the number of names that a revision may have. Each is taken by something else once in 2^50 revisions, or
// on purpose.
const MaxNames = 8

// Genuine reports whether stored data is the content that the revision's name follows from. It compares the bytes;
// where a backup tool has reordered them, it compares the decoded content.
func (r Revision) Genuine(object string, stored []byte) (bool, error) {
	if r.ConfigName() != r.Name(object) {
		return false, nil
	}
	name, err := json.Marshal(r.Name(object))
	if err != nil {
		return false, fmt.Errorf("encoding the name of revision %s: %w", r.Hash, err)
	}
	// The data contains the name, as that of the config; the hash was computed without it.
	blank := bytes.Replace(stored, slices.Concat([]byte(`"configMap":{"name":`), name), []byte(`"configMap":{`), 1)
	if r.namedBy(string(bytes.Replace(blank, []byte(`"configMap":{,`), []byte(`"configMap":{`), 1))) {
		return true, nil
	}
	data, err := r.named(object, "").Encode()
	return err == nil && r.namedBy(string(data)), err
}

// namedBy reports whether the revision's name is one of those that follow from a content.
func (r Revision) namedBy(data string) bool {
	first := hash("revision", data)
	if r.Hash == first {
		return true
	}
	for count := 1; count < MaxNames; count++ {
		if r.Hash == hash("revision", first, strconv.Itoa(count)) {
			return true
		}
	}
	return false
}

// Renamed returns the revision with another name, for when something else has its first one. Equal counts give equal
// names.
func (r Revision) Renamed(object string, count int) Revision {
	return r.named(object, hash("revision", r.Hash, strconv.Itoa(count)))
}

// named returns the revision with the given name, which may be empty.
func (r Revision) named(object, name string) Revision {
	r.Hash = name
	r.Template = *r.Template.DeepCopy()
	for i := range r.Template.Spec.Volumes {
		if v := &r.Template.Spec.Volumes[i]; v.Name == configVolume && v.ConfigMap != nil {
			v.ConfigMap.Name = ""
			if name != "" {
				v.ConfigMap.Name = r.Name(object)
			}
		}
	}
	return r
}

// Name returns the name of the stored revision and of its config.
func (r Revision) Name(object string) string { return object + "-" + r.Hash }

// Image returns the image of its parsers.
func (r Revision) Image() string {
	for _, c := range r.Template.Spec.Containers {
		if c.Name == v1alpha1.ContainerName {
			return c.Image
		}
	}
	return ""
}

// Encode returns the revision as it is stored, without its name.
func (r Revision) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a revision: %w", err)
	}
	return data, nil
}

// Decode reads what Encode wrote. It fails for data that no pod can be made from.
func Decode(name string, data []byte) (Revision, error) {
	r := Revision{Hash: name}
	if err := json.Unmarshal(data, &r); err != nil {
		return Revision{}, fmt.Errorf("decoding revision %s: %w", name, err)
	}
	if name == "" || len(r.Template.Spec.Containers) == 0 {
		return Revision{}, fmt.Errorf("decoding revision %q: it has no name or no container", name)
	}
	return r, nil
}

// ConfigMap returns the immutable ConfigMap of the revision's config, without an owner.
func (r Revision) ConfigMap(namespace, object string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:      r.ConfigName(),
			Namespace: namespace,
			Labels:    map[string]string{v1alpha1.LabelParser: object, v1alpha1.LabelComponent: v1alpha1.ComponentConfig},
		},
		Immutable: ptr.To(true),
		Data:      map[string]string{configFile: r.Config},
	}
}

// Holds reports whether a ConfigMap contains the revision's config and nothing else.
func (r Revision) Holds(m *corev1.ConfigMap) bool {
	return maps.Equal(m.Data, map[string]string{configFile: r.Config}) && len(m.BinaryData) == 0
}

// ConfigName returns the name of the ConfigMap of the revision's config.
func (r Revision) ConfigName() string { return configOf(r.Template.Spec.Volumes) }

// ConfigOf returns the name of the ConfigMap of a pod's config; "" for a pod that is not a parser.
func ConfigOf(pod *corev1.Pod) string { return configOf(pod.Spec.Volumes) }

func configOf(volumes []corev1.Volume) string {
	for _, v := range volumes {
		if v.Name == configVolume && v.ConfigMap != nil {
			return v.ConfigMap.Name
		}
	}
	return ""
}

// DataClaim returns the name of the claim of a pod's data; "" when the data is on the node.
func DataClaim(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name == dataVolume && v.PersistentVolumeClaim != nil {
			return v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

// Pod returns the revision's pod for a target of the named object, without an owner: the template, with what differs
// between targets. restartedAt is the object's annotation of that name, or empty.
//
// Templates that an earlier version stored go through here too. So this function must not change what it does to them,
// or a pod would be recreated differently. New features belong into the template, or apply only where the template asks
// for them. Then an upgrade of the operator replaces no pod, and a new template reaches a fleet with the next change of
// its spec.
func (r Revision) Pod(object types.NamespacedName, t target.Target, restartedAt string) *corev1.Pod {
	template := r.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name, pod.Namespace = PodName(object.Name, t), object.Namespace
	metav1.SetMetaDataLabel(&pod.ObjectMeta, v1alpha1.LabelRevision, r.Hash)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.AnnotationTarget, t.Name)
	if restartedAt != "" {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.AnnotationRestartedAt, restartedAt)
	}
	pod.Spec.Affinity = pinnedTo(t.Node, pod.Spec.Affinity)
	applyLevel(pod, t.Level)
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == dataVolume && v.PersistentVolumeClaim != nil {
			v.PersistentVolumeClaim.ClaimName = t.Claim
		}
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == v1alpha1.ContainerName {
			c.Env = append(c.Env, corev1.EnvVar{Name: targetVariable, Value: t.Name})
		}
	}
	return pod
}

// targetVariable is the environment variable with the parser's target.
const targetVariable = "HLPARSER_TARGET"

// pinnedTo adds the node to every term of the required node affinity. The scheduler binds the pod: only it knows
// whether the pod fits.
func pinnedTo(node string, affinity *corev1.Affinity) *corev1.Affinity {
	out := affinity.DeepCopy()
	if out == nil {
		out = &corev1.Affinity{}
	}
	if out.NodeAffinity == nil {
		out.NodeAffinity = &corev1.NodeAffinity{}
	}
	required := out.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil || len(required.NodeSelectorTerms) == 0 {
		required = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{}}}
	}
	for i := range required.NodeSelectorTerms {
		term := &required.NodeSelectorTerms[i]
		term.MatchFields = append(term.MatchFields, corev1.NodeSelectorRequirement{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		})
	}
	out.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = required
	return out
}

// Identity returns a hash of the fields of a spec that shape pods and the parser's config. It does not depend on how an
// operator renders them. A new field of the spec is part of the identity, so setting it replaces pods, unless it is
// excluded here. An unset field is its default: earlier versions of the schema stored those of streams and sinks.
func Identity(obj *v1alpha1.HyperliquidParser) (string, error) {
	obj = obj.DeepCopy()
	v1alpha1.SetDefaults(obj)
	text, err := Shape(obj)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return encoding.EncodeToString(sum[:]), nil
}

// Shape returns the JSON of the fields of the spec that shape pods, as they are written: all but the selection of
// targets, spec.growth, spec.rollout and spec.paused.
func Shape(obj *v1alpha1.HyperliquidParser) ([]byte, error) {
	spec := obj.DeepCopy().Spec
	spec.Growth = v1alpha1.Growth{}
	spec.Rollout = v1alpha1.Rollout{}
	spec.Paused = false
	if spec.Target.Nodes != nil {
		// The selection of nodes does not affect their pods.
		spec.Target.Nodes.Selector.MatchLabels = nil
		spec.Target.Nodes.Selector.MatchExpressions = nil
	}
	if spec.Target.Pods != nil {
		spec.Target.Pods.Selector = metav1.LabelSelector{}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encoding the fields that shape pods: %w", err)
	}
	return text, nil
}

func render(spec *v1alpha1.HyperliquidParserSpec) config.Config {
	c := config.Config{
		DataDir:  dataDir,
		StateDir: stateDir,
		Format:   config.Format(spec.Format),
		Filter:   renderFilter(&spec.Filter),
		Engine: config.Engine{
			StartAt:           config.StartAt(spec.Engine.StartAt),
			DeduplicateBlocks: spec.Engine.DeduplicateBlocks,
			Markers:           spec.Engine.Markers,
			StartAtBlock:      ptr.Deref(spec.Engine.StartAtBlock, 0),
		},
		// Well before the kubelet kills it, the parser abandons a sink that does not answer, and commits what was
		// acknowledged.
		ShutdownTimeout: config.Duration{Duration: time.Duration(grace(spec)) * time.Second * 2 / 3},
	}
	if spec.Order != nil {
		c.Order.By = config.OrderBy(spec.Order.By)
		if spec.Order.Patience != nil {
			c.Order.Patience.Duration = spec.Order.Patience.Duration
		}
	}
	for _, s := range spec.Streams {
		stream := config.StreamConfig{Name: config.Stream(s.Name), Mode: config.Mode(s.Mode), Sink: string(s.Sink)}
		if s.Filter != nil {
			stream.Filter = ptr.To(renderFilter(s.Filter))
		}
		c.Streams = append(c.Streams, stream)
	}
	for _, d := range spec.Metrics {
		c.Metrics = append(c.Metrics, config.MetricsDetail(d))
	}
	// The order of a set has no meaning, so it makes no other config.
	slices.Sort(c.Metrics)
	c.Sink = renderSink(spec.Sink)
	for i := range spec.Sinks {
		c.Sinks = append(c.Sinks, config.NamedSink{
			Name: string(spec.Sinks[i].Name), Sink: renderSink(spec.Sinks[i].Sink()),
		})
	}
	e := spec.Engine
	if e.BufferLimit != nil {
		c.Engine.BufferLimit = config.Bytes(e.BufferLimit.Value())
	}
	if e.ParallelThreshold != nil {
		c.Engine.ParallelThreshold = int(*e.ParallelThreshold)
	}
	if e.Workers != nil {
		c.Engine.Workers = int(*e.Workers)
	}
	if e.MaxLineBytes != nil {
		c.Engine.MaxLineBytes = config.Bytes(e.MaxLineBytes.Value())
	}
	if e.ReadRate != nil {
		c.Engine.ReadRate = config.Bytes(e.ReadRate.Value())
	}
	return c
}

func renderFilter(f *v1alpha1.Filter) config.Filter {
	return config.Filter{
		Coins:           textsOf[string](f.Coins),
		Markets:         textsOf[config.Market](f.Markets),
		ExcludeCoins:    textsOf[string](f.ExcludeCoins),
		Users:           textsOf[string](f.Users),
		Statuses:        textsOf[string](f.Statuses),
		ExcludeStatuses: textsOf[string](f.ExcludeStatuses),
		Sides:           textsOf[string](f.Sides),
		Types:           textsOf[string](f.Types),
		MinNotional:     f.MinNotional,
	}
}

// textsOf converts a list of strings. The result is nil for an empty list, which the config omits.
func textsOf[To, From ~string](in []From) []To {
	if len(in) == 0 {
		return nil
	}
	out := make([]To, 0, len(in))
	for _, v := range in {
		out = append(out, To(v))
	}
	return out
}

// encoding uses characters that are valid in labels and names.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// hash returns 10 characters, 50 bits, for the parts: a million hashes seldom contain two that are equal.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		// The length prefix distinguishes ("ab", "c") from ("a", "bc").
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return encoding.EncodeToString(h.Sum(nil))[:10]
}
