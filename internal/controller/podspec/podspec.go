// Package podspec renders what a spec asks for: the pod of a target, and the config that all pods of a revision read.
//
// It is pure, and deterministic to the byte: a revision is a hash of what it renders from. It must never read the cluster, and
// never render a value that differs between targets into the config; those go by environment.
package podspec

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/growth"
	"github.com/hlparser/hyperliquid-parser-operator/internal/controller/target"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report"
)

// ReportPort is where a parser serves its report, its metrics and its probes, on the pod's address.
const ReportPort = report.Port

// Paths inside the container.
const (
	dataDir    = "/data"
	stateDir   = "/state"
	outDir     = "/out"
	configDir  = "/etc/hlparser"
	configFile = "config.yaml"
)

// Names of volumes.
const (
	dataVolume   = "data"
	stateVolume  = "state"
	outVolume    = "out"
	configVolume = "config"
)

// Defaults for fields that an object made before they existed, or without admission, may lack. They are the schema's.
const (
	defaultUser  = 10000 // hluser of the official Hyperliquid node image, who owns the data
	defaultGrace = 30
)

// Revision is everything that pods of one revision have in common.
type Revision struct {
	// Hash names the revision: 10 characters.
	Hash string
	// Image that was resolved for it.
	Image string
	// ConfigMap is the name of the object that holds Config.
	ConfigMap string
	// Config is the file that the parsers read.
	Config string
}

// PodName is the name of the pod of a target on its node: the same whoever asks, so that two leaders cannot make two pods. A target
// that moves gets a pod of another name, and does not wait for the one on a node that may be lost.
func PodName(object string, t target.Target) string {
	return object + "-" + hash(t.Name, t.Node)
}

// ConfigMap returns the immutable object that holds the revision's config, without an owner.
func ConfigMap(obj *v1alpha1.HyperliquidParser, r Revision) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:      r.ConfigMap,
			Namespace: obj.Namespace,
			Labels:    map[string]string{v1alpha1.LabelParser: obj.Name, v1alpha1.LabelComponent: v1alpha1.ComponentConfig},
		},
		Immutable: ptr.To(true),
		Data:      map[string]string{configFile: r.Config},
	}
}

// ConfigOf returns the name of the ConfigMap that a pod reads its config from; "" for a pod that is not ours.
func ConfigOf(pod *corev1.Pod) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name == configVolume && v.ConfigMap != nil {
			return v.ConfigMap.Name
		}
	}
	return ""
}

// Pod returns the pod of the given target, without an owner.
func Pod(obj *v1alpha1.HyperliquidParser, r Revision, t target.Target) *corev1.Pod {
	spec := &obj.Spec
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        PodName(obj.Name, t),
			Namespace:   obj.Namespace,
			Labels:      podLabels(obj, r),
			Annotations: podAnnotations(spec, t),
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To(ptr.Deref(spec.TerminationGracePeriodSeconds, defaultGrace)),
			PriorityClassName:             spec.PriorityClassName,
			ImagePullSecrets:              spec.ImagePullSecrets,
			Tolerations:                   target.Tolerations(spec.Tolerations),
			Affinity:                      pinned(spec.Affinity, t.Node),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:       ptr.To(true),
				RunAsUser:          ptr.To(user(spec)),
				RunAsGroup:         ptr.To(group(spec)),
				SupplementalGroups: spec.SupplementalGroups,
				SELinuxOptions:     spec.SELinuxOptions,
				SeccompProfile:     &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			InitContainers: []corev1.Container{prepare(obj, r)},
			Containers:     []corev1.Container{container(obj, r, t)},
			Volumes:        volumes(obj, r),
		},
	}
}

func user(spec *v1alpha1.HyperliquidParserSpec) int64 { return ptr.Deref(spec.RunAsUser, defaultUser) }

func group(spec *v1alpha1.HyperliquidParserSpec) int64 {
	return ptr.Deref(spec.RunAsGroup, defaultUser)
}

func podLabels(obj *v1alpha1.HyperliquidParser, r Revision) map[string]string {
	out := map[string]string{}
	for k, v := range obj.Spec.PodLabels {
		out[k] = string(v)
	}
	maps.Copy(out, map[string]string{
		"app.kubernetes.io/name":       "hlparser",
		"app.kubernetes.io/instance":   obj.Name,
		"app.kubernetes.io/managed-by": "hyperliquid-parser-operator",
		v1alpha1.LabelParser:           obj.Name,
		v1alpha1.LabelRevision:         r.Hash,
	})
	return out
}

func podAnnotations(spec *v1alpha1.HyperliquidParserSpec, t target.Target) map[string]string {
	out := map[string]string{}
	for k, v := range spec.PodAnnotations {
		out[k] = string(v)
	}
	maps.Copy(out, map[string]string{
		v1alpha1.AnnotationTarget: t.Name,
		// The pod belongs to its node: an autoscaler that removes the node need not find it another.
		"cluster-autoscaler.kubernetes.io/daemonset-pod": "true",
		"kubectl.kubernetes.io/default-container":        growth.ContainerName,
	})
	return out
}

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

// prepare gives the directories that the parser writes into to its user: the kubelet makes them root's. It runs as root, with the
// one capability that this takes, and sees nothing but those directories.
func prepare(obj *v1alpha1.HyperliquidParser, r Revision) corev1.Container {
	spec := &obj.Spec
	mounts := written(obj)
	dirs := make([]string, 0, len(mounts))
	for _, m := range mounts {
		dirs = append(dirs, m.MountPath)
	}
	return corev1.Container{
		Name:            "prepare",
		Image:           r.Image,
		ImagePullPolicy: spec.ImagePullPolicy,
		Command: slices.Concat([]string{
			"/hlparser", "prepare", "--user", strconv.FormatInt(user(spec), 10), "--group", strconv.FormatInt(group(spec), 10),
		}, dirs),
		// The parser's own: a pod asks for the larger of the two, and its QoS class follows from both.
		Resources: resources(spec.Resources),
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot:             ptr.To(false),
			RunAsUser:                ptr.To[int64](0),
			RunAsGroup:               ptr.To[int64](0),
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"CHOWN"}},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts:             mounts,
	}
}

// written are the mounts of what the parser writes into. The kubelet makes the directory below a volume's root, which only this object
// uses, without following links that somebody may have put there.
func written(obj *v1alpha1.HyperliquidParser) []corev1.VolumeMount {
	own := path.Join(obj.Namespace, obj.Name)
	out := []corev1.VolumeMount{{Name: stateVolume, MountPath: stateDir, SubPath: own}}
	if obj.Spec.Sink.File != nil {
		out = append(out, corev1.VolumeMount{Name: outVolume, MountPath: outDir, SubPath: own})
	}
	return out
}

func container(obj *v1alpha1.HyperliquidParser, r Revision, t target.Target) corev1.Container {
	spec := &obj.Spec
	mounts := append([]corev1.VolumeMount{
		// HostToContainer: a disk that is mounted at or below dataPath after the pod has started is seen.
		{Name: dataVolume, MountPath: dataDir, ReadOnly: true, MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)},
		{Name: configVolume, MountPath: configDir, ReadOnly: true},
	}, written(obj)...)
	return corev1.Container{
		Name:            growth.ContainerName,
		Image:           r.Image,
		ImagePullPolicy: spec.ImagePullPolicy,
		// The brackets are what an IPv6 address needs and an IPv4 address allows.
		Command: []string{"/hlparser", "run", "--config", configDir + "/" + configFile, "--listen", "[$(POD_IP)]:" + strconv.Itoa(ReportPort)},
		Env: []corev1.EnvVar{
			{Name: "POD_IP", ValueFrom: field("status.podIP")},
			{Name: "HLPARSER_POD", ValueFrom: field("metadata.name")},
			{Name: "HLPARSER_TARGET", Value: t.Name},
		},
		Ports:     []corev1.ContainerPort{{Name: "report", ContainerPort: ReportPort, Protocol: corev1.ProtocolTCP}},
		Resources: resources(spec.Resources),
		// Liveness asks only whether the process answers: a pipeline that is stuck or blocked is judged by the operator, with its
		// budgets, and must not be killed by the kubelet in the middle of an outage.
		LivenessProbe:  probe("/healthz", 10, 6),
		ReadinessProbe: probe("/readyz", 2, 3),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		TerminationMessagePolicy: lastWords(spec.Sink),
		VolumeMounts:             mounts,
	}
}

// lastWords makes the end of the log of a parser that crashed part of its pod's status, unless the log holds the stream's data.
func lastWords(sink v1alpha1.Sink) corev1.TerminationMessagePolicy {
	if sink.Stdout != nil {
		return corev1.TerminationMessageReadFile
	}
	return corev1.TerminationMessageFallbackToLogsOnError
}

func field(name string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: name}}
}

func probe(url string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: url, Port: intstr.FromString("report")}},
		PeriodSeconds:    period,
		TimeoutSeconds:   2,
		FailureThreshold: failures,
	}
}

func resources(asked corev1.ResourceRequirements) corev1.ResourceRequirements {
	if len(asked.Requests) > 0 || len(asked.Limits) > 0 || len(asked.Claims) > 0 {
		return *asked.DeepCopy()
	}
	// No CPU limit: throttling would make lag out of a short burst. The number of workers bounds CPU.
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("250m"),
			corev1.ResourceMemory: resource.MustParse("256Mi"),
		},
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
	}
}

func volumes(obj *v1alpha1.HyperliquidParser, r Revision) []corev1.Volume {
	nodes := obj.Spec.Target.Nodes
	out := []corev1.Volume{
		// Directory: a data directory that is not there must not be made, or the parser would wait on it for ever.
		hostPath(dataVolume, string(nodes.DataPath), corev1.HostPathDirectory),
		hostPath(stateVolume, StatePath(obj), corev1.HostPathDirectoryOrCreate),
		{Name: configVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: r.ConfigMap},
		}}},
	}
	if file := obj.Spec.Sink.File; file != nil {
		out = append(out, hostPath(outVolume, string(file.Path), corev1.HostPathDirectoryOrCreate))
	}
	return out
}

// StatePath is the directory for checkpoints on the host, below which each object has its own.
func StatePath(obj *v1alpha1.HyperliquidParser) string {
	return cmp.Or(string(obj.Spec.Target.Nodes.StatePath), "/var/lib/hlparser")
}

func hostPath(name, dir string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path.Clean(dir), Type: ptr.To(kind)}}}
}
