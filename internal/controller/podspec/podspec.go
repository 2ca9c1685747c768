// Package podspec renders what a spec asks for: a revision, which is the template of its pods and the config that they read, and from
// a revision the pod of a target.
//
// It is pure, and deterministic to the byte: a revision is named by a hash of what was rendered. It must never read the cluster, and
// never render a value that differs between targets into a revision; those are added when a pod is made.
package podspec

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
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

// What says whose a pod is.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "hyperliquid-parser-operator"
)

// prepareName is the name of the container that runs before the parser's.
const prepareName = "prepare"

// Defaults for fields that an object made before they existed, or without admission, may lack. They are the schema's.
const (
	defaultUser  = 10000 // hluser of the official Hyperliquid node image, who owns the data
	defaultGrace = 30
)

// Probes of the parser. A kubelet that counts a failed probe makes an Unhealthy event, of a startup probe too; so the
// startup probe asks where the answer waits until the parser is ready, and only once the process has had time to
// listen. Readiness and liveness begin after it.
const (
	probeTimeout = 2 // seconds
	// startDelay is the time to listen in, in seconds: kubelets count whole ones. A process takes a tenth of one,
	// unless its node is busy.
	startDelay = 2
	// startTimeout is longer than the answer may wait, in seconds.
	startTimeout = int32(report.StartWait/time.Second) + 1
	// startPeriod and startFailures give a process that does not listen half a minute, and one that hangs 75 s.
	startPeriod, startFailures = 2, 15
	// livePeriod and liveFailures end a process that has not answered for half a minute: no collection of garbage and
	// no burst takes so long.
	livePeriod, liveFailures = 5, 6
	// hungGrace is the grace of a process that liveness ends, in seconds. It does not answer, so it will not drain;
	// what it has not committed is read again.
	hungGrace = 5
	// readyPeriod and readyFailures take a parser that is not ready out within 6 s.
	readyPeriod, readyFailures = 2, 3
)

// PodName returns the name of a target's pod on its node. It is the same for every leader and every version, so that two
// leaders cannot create two pods. A target that moves gets a pod with another name: it does not wait for the pod on a node
// that may be lost.
func PodName(object string, t target.Target) string {
	return object + "-" + hash(t.Name, t.Node)
}

// template renders what all pods of a revision have in common. What differs between targets is added by Revision.Pod.
func template(obj *v1alpha1.HyperliquidParser, image, cluster string) corev1.PodTemplateSpec {
	spec := &obj.Spec
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      podLabels(obj),
			Annotations: podAnnotations(spec),
		},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			AutomountServiceAccountToken:  ptr.To(false),
			EnableServiceLinks:            ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To(grace(spec)),
			PriorityClassName:             spec.PriorityClassName,
			ImagePullSecrets:              spec.ImagePullSecrets,
			Tolerations:                   target.Tolerations(spec.Tolerations),
			Affinity:                      spec.Affinity.DeepCopy(),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:       ptr.To(true),
				RunAsUser:          ptr.To(user(spec)),
				RunAsGroup:         ptr.To(group(spec)),
				SupplementalGroups: spec.SupplementalGroups,
				SELinuxOptions:     spec.SELinuxOptions,
				SeccompProfile:     &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			InitContainers: []corev1.Container{prepare(obj, image)},
			Containers:     []corev1.Container{container(obj, image, cluster)},
			Volumes:        append(volumes(obj), sealVolumes(obj.Name)...),
		},
	}
}

func user(spec *v1alpha1.HyperliquidParserSpec) int64 { return ptr.Deref(spec.RunAsUser, defaultUser) }

// grace is how long a parser may take to end, in seconds.
func grace(spec *v1alpha1.HyperliquidParserSpec) int64 {
	return ptr.Deref(spec.TerminationGracePeriodSeconds, defaultGrace)
}

func group(spec *v1alpha1.HyperliquidParserSpec) int64 {
	return ptr.Deref(spec.RunAsGroup, defaultUser)
}

func podLabels(obj *v1alpha1.HyperliquidParser) map[string]string {
	out := map[string]string{}
	for k, v := range obj.Spec.PodLabels {
		out[k] = string(v)
	}
	maps.Copy(out, map[string]string{
		"app.kubernetes.io/name":     "hlparser",
		"app.kubernetes.io/instance": obj.Name,
		labelManagedBy:               managedBy,
		v1alpha1.LabelParser:         obj.Name,
	})
	return out
}

func podAnnotations(spec *v1alpha1.HyperliquidParserSpec) map[string]string {
	out := map[string]string{}
	for k, v := range spec.PodAnnotations {
		out[k] = string(v)
	}
	maps.Copy(out, map[string]string{
		// The pod belongs to its node: an autoscaler that removes the node need not find it another.
		"cluster-autoscaler.kubernetes.io/daemonset-pod": "true",
		"kubectl.kubernetes.io/default-container":        v1alpha1.ContainerName,
	})
	if spec.Target.Pods != nil {
		out[annotationLevel] = levelOfTarget
	}
	return out
}

// prepare gives the directories that the parser writes into to its user: the kubelet makes them root's. It runs as root, with the
// one capability that this takes, and sees nothing but those directories.
func prepare(obj *v1alpha1.HyperliquidParser, image string) corev1.Container {
	spec := &obj.Spec
	mounts := written(obj)
	dirs := make([]string, 0, len(mounts))
	for _, m := range mounts {
		dirs = append(dirs, m.MountPath)
	}
	return corev1.Container{
		Name:            prepareName,
		Image:           image,
		ImagePullPolicy: spec.ImagePullPolicy,
		Command: slices.Concat([]string{
			"/hlparser", "prepare", "--user", strconv.FormatInt(user(spec), 10), "--group", strconv.FormatInt(group(spec), 10),
		}, dirs),
		// For its mounts: the annotation is each target's own.
		Env: append([]corev1.EnvVar{{Name: targetVariable, ValueFrom: field("metadata.annotations['" + v1alpha1.AnnotationTarget + "']")}},
			prepareSealEnv()...),
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
		VolumeMounts:             append(mounts, corev1.VolumeMount{Name: sealVolume, MountPath: sealDir}),
	}
}

// written are the mounts of what the parser writes into: directories below a volume's root that only this object uses, or only this
// target where targets share it. The kubelet makes them, and follows no link that somebody may have put in their way.
func written(obj *v1alpha1.HyperliquidParser) []corev1.VolumeMount {
	state := corev1.VolumeMount{Name: stateVolume, MountPath: stateDir, SubPath: StateDirectory(obj)}
	switch pods := obj.Spec.Target.Pods; {
	case pods != nil && pods.StateClaimName != "":
		state.SubPath, state.SubPathExpr = "", perTarget(state.SubPath)
	case pods != nil:
		state.Name = dataVolume
	}
	out := []corev1.VolumeMount{state}
	if file := obj.Spec.FileSink(); file != nil {
		mount := corev1.VolumeMount{Name: outVolume, MountPath: outDir, SubPath: OutputDirectory(obj)}
		// A claim is every target's, and several pods may run on one node.
		if file.ClaimName != "" || obj.Spec.Target.Pods != nil {
			mount.SubPath, mount.SubPathExpr = "", perTarget(mount.SubPath)
		}
		out = append(out, mount)
	}
	return out
}

// StateDirectory is the directory of the object's state in its volume, relative to the volume's root. Where several parsers share the
// volume, each has a directory of its own below it.
func StateDirectory(obj *v1alpha1.HyperliquidParser) string {
	own := path.Join(obj.Namespace, obj.Name)
	switch pods := obj.Spec.Target.Pods; {
	case pods == nil:
		return own
	case pods.StateClaimName != "":
		return path.Join(StatePath(obj), own)
	}
	// The claim is one target's alone. Its copy in another namespace is to find the state too.
	return path.Join(StatePath(obj), obj.Name)
}

// OutputDirectory is that of the object's files, as StateDirectory is that of its state. It is empty without a file sink.
func OutputDirectory(obj *v1alpha1.HyperliquidParser) string {
	file, own := obj.Spec.FileSink(), path.Join(obj.Namespace, obj.Name)
	switch {
	case file == nil:
		return ""
	case file.ClaimName == "":
		return own
	}
	return strings.TrimPrefix(path.Join(string(file.Path), own), "/")
}

// perTarget is a directory of each target's own below another one, as the kubelet reads it.
func perTarget(dir string) string {
	return path.Join(strings.ReplaceAll(dir, "$", "$$"), "$("+targetVariable+")")
}

// read is the mount of the Hyperliquid node's data.
func read(obj *v1alpha1.HyperliquidParser) corev1.VolumeMount {
	mount := corev1.VolumeMount{Name: dataVolume, MountPath: dataDir, ReadOnly: true}
	if pods := obj.Spec.Target.Pods; pods != nil {
		mount.SubPath = string(pods.SubPath)
	} else {
		// A disk that is mounted at or below dataPath after the pod has started is seen.
		mount.MountPropagation = ptr.To(corev1.MountPropagationHostToContainer)
	}
	return mount
}

func container(obj *v1alpha1.HyperliquidParser, image, cluster string) corev1.Container {
	spec := &obj.Spec
	mounts := slices.Concat(
		[]corev1.VolumeMount{read(obj), {Name: configVolume, MountPath: configDir, ReadOnly: true}}, written(obj), secretMounts(spec), sealMounts())
	env := append([]corev1.EnvVar{
		{Name: "POD_IP", ValueFrom: field("status.podIP")},
		{Name: "HLPARSER_POD", ValueFrom: field("metadata.name")},
		{Name: "HLPARSER_NAMESPACE", ValueFrom: field("metadata.namespace")},
		{Name: "HLPARSER_POD_UID", ValueFrom: field("metadata.uid")},
		// By it the parser knows whether its loopback, where forwarded ports arrive, is its own. No flag: an image of
		// before would refuse it.
		{Name: "HLPARSER_NODE_ADDRESS", ValueFrom: field("status.hostIP")},
	}, sealEnv()...)
	if remote(spec) {
		env = append(env, corev1.EnvVar{Name: fleetVariable, Value: path.Join(cluster, obj.Namespace, obj.Name)})
	}
	return corev1.Container{
		Name:            v1alpha1.ContainerName,
		Image:           image,
		ImagePullPolicy: spec.ImagePullPolicy,
		// The brackets are what an IPv6 address needs and an IPv4 address allows.
		Command:   []string{"/hlparser", "run", "--config", configDir + "/" + configFile, "--listen", "[$(POD_IP)]:" + strconv.Itoa(ReportPort)},
		Env:       env,
		Ports:     []corev1.ContainerPort{{Name: "report", ContainerPort: ReportPort, Protocol: corev1.ProtocolTCP}},
		Resources: resources(spec.Resources),
		// Liveness asks only whether the process answers: a pipeline that is stuck or blocked is judged by the operator, with its
		// budgets, and must not be killed by the kubelet in the middle of an outage.
		StartupProbe:   startupProbe(),
		LivenessProbe:  livenessProbe(spec),
		ReadinessProbe: probe("/readyz", readyPeriod, readyFailures),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		TerminationMessagePolicy: lastWords(spec),
		VolumeMounts:             mounts,
	}
}

// lastWords makes the end of the log of a parser that crashed part of its pod's status, unless the log holds the stream's data.
func lastWords(spec *v1alpha1.HyperliquidParserSpec) corev1.TerminationMessagePolicy {
	if slices.ContainsFunc(spec.AllSinks(), func(s v1alpha1.Sink) bool { return s.Stdout != nil }) {
		return corev1.TerminationMessageReadFile
	}
	return corev1.TerminationMessageFallbackToLogsOnError
}

func field(name string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: name}}
}

func startupProbe() *corev1.Probe {
	p := probe(report.StartPath, startPeriod, startFailures)
	p.InitialDelaySeconds, p.TimeoutSeconds = startDelay, startTimeout
	return p
}

func livenessProbe(spec *v1alpha1.HyperliquidParserSpec) *corev1.Probe {
	p := probe("/healthz", livePeriod, liveFailures)
	// The API server takes none below 1; zero is the pod's.
	p.TerminationGracePeriodSeconds = ptr.To(max(min(hungGrace, grace(spec)), 1))
	return p
}

func probe(url string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: url, Port: intstr.FromString("report")}},
		PeriodSeconds:    period,
		TimeoutSeconds:   probeTimeout,
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

func volumes(obj *v1alpha1.HyperliquidParser) []corev1.Volume {
	var out []corev1.Volume
	if nodes := obj.Spec.Target.Nodes; nodes != nil {
		// Directory: a data directory that is not there must not be made, or the parser would wait on it for ever.
		out = append(out, hostPath(dataVolume, string(nodes.DataPath), corev1.HostPathDirectory),
			hostPath(stateVolume, StatePath(obj), corev1.HostPathDirectoryOrCreate))
	} else {
		// Its name is the target's. Not read-only: that is the mount of the data, and the state is in the same claim.
		out = append(out, claim(dataVolume, ""))
		if name := obj.Spec.Target.Pods.StateClaimName; name != "" {
			out = append(out, claim(stateVolume, name))
		}
	}
	// Its name is that of the revision.
	out = append(out, corev1.Volume{Name: configVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}})
	if file := obj.Spec.FileSink(); file != nil && file.ClaimName != "" {
		out = append(out, claim(outVolume, file.ClaimName))
	} else if file != nil {
		out = append(out, hostPath(outVolume, string(file.Path), corev1.HostPathDirectoryOrCreate))
	}
	return append(out, secretVolumes(&obj.Spec)...)
}

// StatePath is the directory for checkpoints, on the host or in the claim, below which each object has its own.
func StatePath(obj *v1alpha1.HyperliquidParser) string {
	if pods := obj.Spec.Target.Pods; pods != nil {
		return cmp.Or(string(pods.StateSubPath), "hlparser")
	}
	return cmp.Or(string(obj.Spec.Target.Nodes.StatePath), "/var/lib/hlparser")
}

// StateLocation tells apart where parsers find their checkpoints: it is StatePath, or /<claim>/<path> in a claim that is not the data's.
func StateLocation(obj *v1alpha1.HyperliquidParser) string {
	if pods := obj.Spec.Target.Pods; pods != nil && pods.StateClaimName != "" {
		return path.Join("/", pods.StateClaimName, StatePath(obj))
	}
	return path.Clean(StatePath(obj))
}

func claim(name, claimName string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName},
	}}
}

func hostPath(name, dir string, kind corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path.Clean(dir), Type: ptr.To(kind)}}}
}
