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

// Revision is everything that pods of one revision have in common. It is resolved once and stored, and every pod of it is made from
// what was stored: a later operator, which would render another template or has another default image, makes the same pods.
type Revision struct {
	// Hash names the revision: 10 characters.
	Hash string `json:"-"`
	// Config is the file that the parsers read.
	Config string `json:"config"`
	// Template of the pods.
	Template corev1.PodTemplateSpec `json:"template"`
}

// NewRevision renders the object's spec and names what it rendered. defaultImage stands for spec.image where that is empty; cluster
// tells this cluster's parsers from those of another that write to the same server. It fails with a *config.FieldError for a setting
// that admission let pass and the parser would refuse.
func NewRevision(obj *v1alpha1.HyperliquidParser, defaultImage, cluster string) (Revision, error) {
	rendered := render(&obj.Spec)
	// The parser defaults and checks what it reads in the same way. The count of CPUs stands for a setting that the schema defaults.
	if err := rendered.WithDefaults(1).Validate(); err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	text, err := yaml.Marshal(rendered)
	if err != nil {
		return Revision{}, fmt.Errorf("rendering the parsers' config: %w", err)
	}
	r := Revision{Config: string(text), Template: template(obj, cmp.Or(obj.Spec.Image, defaultImage), cluster)}
	return r.Sealed(obj.Name)
}

// Sealed returns the revision under the name that its content gives it: whoever stores other content under that name
// can be found out.
func (r Revision) Sealed(object string) (Revision, error) {
	data, err := r.named(object, "").Encode()
	if err != nil {
		return Revision{}, err
	}
	return r.named(object, hash("revision", string(data))), nil
}

// MaxNames is how many names a revision may get. Each is taken by something else once in 2^50 revisions, or by intent.
const MaxNames = 8

// Genuine reports whether stored data is what the revision's name stands for. It goes by the bytes, and where a backup
// tool has put them into another order, by what they mean to this version.
func (r Revision) Genuine(object string, stored []byte) (bool, error) {
	if r.ConfigName() != r.Name(object) {
		return false, nil
	}
	name, err := json.Marshal(r.Name(object))
	if err != nil {
		return false, fmt.Errorf("encoding the name of revision %s: %w", r.Hash, err)
	}
	// The name itself is in it, as that of the config, and was not when it was given.
	blank := bytes.Replace(stored, slices.Concat([]byte(`"configMap":{"name":`), name), []byte(`"configMap":{`), 1)
	if r.namedBy(string(bytes.Replace(blank, []byte(`"configMap":{,`), []byte(`"configMap":{`), 1))) {
		return true, nil
	}
	data, err := r.named(object, "").Encode()
	return err == nil && r.namedBy(string(data)), err
}

// namedBy reports whether the revision's name is one of those that go with a content.
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

// Renamed returns the revision under another name, for when something else has the first: the same for the same count.
func (r Revision) Renamed(object string, count int) Revision {
	return r.named(object, hash("revision", r.Hash, strconv.Itoa(count)))
}

// named returns the revision of that name, and without one for "".
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

// Name is that of the stored revision and of its config.
func (r Revision) Name(object string) string { return object + "-" + r.Hash }

// Image is that of its parsers.
func (r Revision) Image() string {
	for _, c := range r.Template.Spec.Containers {
		if c.Name == v1alpha1.ContainerName {
			return c.Image
		}
	}
	return ""
}

// Encode returns the revision, without its name, as it is stored.
func (r Revision) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding a revision: %w", err)
	}
	return data, nil
}

// Decode reads what Encode wrote. It fails for what no pod can be made from.
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

// ConfigMap returns the immutable object that holds the revision's config, without an owner.
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

// Holds reports whether a ConfigMap holds the revision's config, and nothing else.
func (r Revision) Holds(m *corev1.ConfigMap) bool {
	return maps.Equal(m.Data, map[string]string{configFile: r.Config}) && len(m.BinaryData) == 0
}

// ConfigName is that of the object that holds the revision's config.
func (r Revision) ConfigName() string { return configOf(r.Template.Spec.Volumes) }

// ConfigOf returns the name of the ConfigMap that a pod reads its config from; "" for a pod that is not ours.
func ConfigOf(pod *corev1.Pod) string { return configOf(pod.Spec.Volumes) }

func configOf(volumes []corev1.Volume) string {
	for _, v := range volumes {
		if v.Name == configVolume && v.ConfigMap != nil {
			return v.ConfigMap.Name
		}
	}
	return ""
}

// DataClaim returns the claim that a pod reads its data from; "" for one that reads a node's.
func DataClaim(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name == dataVolume && v.PersistentVolumeClaim != nil {
			return v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

// Pod returns the revision's pod of a target of the named object, without an owner: the template, with what differs between targets.
// restartedAt is the object's annotation of that name, or empty.
//
// A template that an older operator stored goes through here too. So what is done to a template must stay as it is, or
// a pod that dies comes back as another one than it was; what is new belongs into the template, or is done only where
// the template asks for it. So an upgrade of the operator replaces no pod, and what a new template brings reaches a
// fleet with the next change of its spec.
func (r Revision) Pod(object types.NamespacedName, t target.Target, restartedAt string) *corev1.Pod {
	template := r.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name, pod.Namespace = PodName(object.Name, t), object.Namespace
	metav1.SetMetaDataLabel(&pod.ObjectMeta, v1alpha1.LabelRevision, r.Hash)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.AnnotationTarget, t.Name)
	if restartedAt != "" {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, v1alpha1.AnnotationRestartedAt, restartedAt)
	}
	pod.Spec.Affinity = pinned(pod.Spec.Affinity, t.Node)
	takeLevel(pod, t.Level)
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

// targetVariable tells a parser its target.
const targetVariable = "HLPARSER_TARGET"

// pinned adds the node to every alternative of the required node affinity. The scheduler binds the pod: it alone knows whether
// the pod fits.
func pinned(affinity *corev1.Affinity, node string) *corev1.Affinity {
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

// Identity tells the specs of an object apart that make different revisions, by the fields that shape pods and the parser's config and
// by nothing that an operator makes of them. So a field that is added to the spec replaces pods when it is set, unless somebody
// decides here that it does not.
func Identity(obj *v1alpha1.HyperliquidParser) (string, error) {
	spec := *obj.Spec.DeepCopy()
	spec.Growth = v1alpha1.Growth{}
	spec.Rollout = v1alpha1.Rollout{}
	spec.Paused = false
	if spec.Target.Nodes != nil {
		// Which nodes are selected says nothing of their pods.
		spec.Target.Nodes.Selector.MatchLabels = nil
		spec.Target.Nodes.Selector.MatchExpressions = nil
	}
	if spec.Target.Pods != nil {
		spec.Target.Pods.Selector = metav1.LabelSelector{}
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("hashing the fields that shape pods: %w", err)
	}
	sum := sha256.Sum256(text)
	return encoding.EncodeToString(sum[:]), nil
}

func render(spec *v1alpha1.HyperliquidParserSpec) config.Config {
	c := config.Config{
		DataDir:  dataDir,
		StateDir: stateDir,
		Format:   config.Format(spec.Format),
		Filter: config.Filter{
			Coins:           stringsOf(spec.Filter.Coins),
			Users:           stringsOf(spec.Filter.Users),
			Statuses:        stringsOf(spec.Filter.Statuses),
			ExcludeStatuses: stringsOf(spec.Filter.ExcludeStatuses),
			Sides:           stringsOf(spec.Filter.Sides),
			MinNotional:     spec.Filter.MinNotional,
		},
		Engine: config.Engine{StartAt: config.StartAt(spec.Engine.StartAt), DeduplicateBlocks: spec.Engine.DeduplicateBlocks, Markers: spec.Engine.Markers},
		// Well before the kubelet kills it the parser gives a sink up that does not answer, and commits what it did acknowledge.
		ShutdownTimeout: config.Duration{Duration: time.Duration(ptr.Deref(spec.TerminationGracePeriodSeconds, defaultGrace)) * time.Second * 2 / 3},
	}
	for _, s := range spec.Streams {
		c.Streams = append(c.Streams, config.StreamConfig{Name: config.Stream(s.Name), Mode: config.Mode(s.Mode), Sink: string(s.Sink)})
	}
	c.Sink = renderSink(spec.Sink)
	for i := range spec.Sinks {
		c.Sinks = append(c.Sinks, config.NamedSink{Name: string(spec.Sinks[i].Name), Sink: renderSink(spec.Sinks[i].Sink())})
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

func stringsOf[T ~string](in []T) []string {
	if len(in) == 0 {
		return nil // an empty list is left out of the config
	}
	out := make([]string, 0, len(in))
	for _, v := range in {
		out = append(out, string(v))
	}
	return out
}

// encoding gives names that may be labels and parts of names.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// hash returns 10 characters that name the parts: 50 bits, so that even a million names seldom hold a pair that is alike.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		// The length goes first: ("ab", "c") and ("a", "bc") are not alike.
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return encoding.EncodeToString(h.Sum(nil))[:10]
}
