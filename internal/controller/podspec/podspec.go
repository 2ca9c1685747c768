// Package podspec renders what a spec asks for: the pod of a target, and the config that all pods of a revision read.
//
// It is pure, and deterministic to the byte: a revision is a hash of what it renders from. It must never read the cluster, and
// never render a value that differs between targets into the config; those go by environment.
package podspec

import (
	"cmp"
	"maps"
	"path"
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

// configVolume is the name of the volume that holds the config.
const configVolume = "config"

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

// PodName is the name of the pod of a target: the same whoever asks, so that two leaders cannot make two pods.
func PodName(object, node string) string {
	return object + "-" + hash("nodes", node)
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

// Pod returns the pod of the given node, without an owner.
func Pod(obj *v1alpha1.HyperliquidParser, r Revision, node string) *corev1.Pod {
	spec := &obj.Spec
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:        PodName(obj.Name, node),
			Namespace:   obj.Namespace,
			Labels:      podLabels(obj, r),
			Annotations: podAnnotations(spec, node),
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To(ptr.Deref(spec.TerminationGracePeriodSeconds, defaultGrace)),
			PriorityClassName:             spec.PriorityClassName,
			ImagePullSecrets:              spec.ImagePullSecrets,
			Tolerations:                   target.Tolerations(spec.Tolerations),
			Affinity:                      pinned(spec.Affinity, node),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:       ptr.To(true),
				RunAsUser:          ptr.To(ptr.Deref(spec.RunAsUser, defaultUser)),
				RunAsGroup:         ptr.To(ptr.Deref(spec.RunAsGroup, defaultUser)),
				SupplementalGroups: spec.SupplementalGroups,
				SELinuxOptions:     spec.SELinuxOptions,
				SeccompProfile:     &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{container(spec, r, node)},
			Volumes:    volumes(obj, r),
		},
	}
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

func podAnnotations(spec *v1alpha1.HyperliquidParserSpec, node string) map[string]string {
	out := map[string]string{}
	for k, v := range spec.PodAnnotations {
		out[k] = string(v)
	}
	maps.Copy(out, map[string]string{
		v1alpha1.AnnotationTarget: node,
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

func container(spec *v1alpha1.HyperliquidParserSpec, r Revision, node string) corev1.Container {
	mounts := []corev1.VolumeMount{
		// HostToContainer: a disk that is mounted at or below dataPath after the pod has started is seen.
		{Name: "data", MountPath: dataDir, ReadOnly: true, MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)},
		{Name: "state", MountPath: stateDir},
		{Name: configVolume, MountPath: configDir, ReadOnly: true},
	}
	if spec.Sink.File != nil {
		mounts = append(mounts, corev1.VolumeMount{Name: "out", MountPath: outDir})
	}
	return corev1.Container{
		Name:            growth.ContainerName,
		Image:           r.Image,
		ImagePullPolicy: spec.ImagePullPolicy,
		// The brackets are what an IPv6 address needs and an IPv4 address allows.
		Command: []string{"/hlparser", "run", "--config", configDir + "/" + configFile, "--listen", "[$(POD_IP)]:" + strconv.Itoa(ReportPort)},
		Env: []corev1.EnvVar{
			{Name: "POD_IP", ValueFrom: field("status.podIP")},
			{Name: "HLPARSER_POD", ValueFrom: field("metadata.name")},
			{Name: "HLPARSER_TARGET", Value: node},
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
		hostPath("data", string(nodes.DataPath), corev1.HostPathDirectory),
		hostPath("state", own(obj, StatePath(obj)), corev1.HostPathDirectoryOrCreate),
		{Name: configVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: r.ConfigMap},
		}}},
	}
	if file := obj.Spec.Sink.File; file != nil {
		out = append(out, hostPath("out", own(obj, string(file.Path)), corev1.HostPathDirectoryOrCreate))
	}
	return out
}

// StatePath is the object's directory for checkpoints on the host.
func StatePath(obj *v1alpha1.HyperliquidParser) string {
	return cmp.Or(string(obj.Spec.Target.Nodes.StatePath), "/var/lib/hlparser")
}

// own is the directory below root that only this object uses.
func own(obj *v1alpha1.HyperliquidParser, root string) string {
	return path.Join(root, obj.Namespace, obj.Name)
}

func hostPath(name, dir string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr.To(kind)}}}
}
