// Package podspec renders a spec into a revision, which is a pod template and the parsers' config, and a revision into
// the pod of a target.
//
// It is pure, and deterministic to the byte: the name of a revision is a hash of its content. It must never read the
// cluster. It must never render a value that differs between targets into a revision: Revision.Pod adds those.
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

// ReportPort is the port, on the pod's address, of a parser's report, metrics and probes.
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

// The label that marks objects of this operator.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "hyperliquid-parser-operator"
)

// prepareName is the name of the init container.
const prepareName = "prepare"

// Defaults of the schema, for an object that was created before a field existed, or without admission.
const (
	defaultUser  = 10000 // hluser of the official Hyperliquid node image, which owns the data
	defaultGrace = 30    // seconds
)

// Probes of the parser. A kubelet emits an Unhealthy event for each failed probe, startup probes included. So the
// startup probe uses an endpoint that answers only when the parser is ready, and starts after the process has had time
// to listen. Readiness and liveness probes start after it succeeds.
const (
	probeTimeout = 2 // seconds
	// startDelay is the time in which the process begins to listen, in whole seconds. It takes a tenth of a second, or
	// longer on a busy node.
	startDelay = 2
	// startTimeout is longer than the response may take, in seconds.
	startTimeout = int32(report.StartWait/time.Second) + 1
	// startPeriod and startFailures allow half a minute to a process that does not listen, and 75 s to one that hangs.
	startPeriod, startFailures = 2, 15
	// livePeriod and liveFailures end a process that has not answered for half a minute: no garbage collection and no
	// burst takes that long.
	livePeriod, liveFailures = 5, 6
	// hungGrace is the grace period, in seconds, of a process that fails its liveness probe. It does not answer, so it
	// will not drain; what it has not committed is read again.
	hungGrace = 5
	// readyPeriod and readyFailures mark a parser unready within 6 s.
	readyPeriod, readyFailures = 2, 3
)

// PodName returns the name of a target's pod on its node. It is the same for every leader and every version, so that
// two leaders cannot create two pods. A target that moves gets a pod with another name: it does not wait for the pod on
// a node that may be lost.
func PodName(object string, t target.Target) string {
	return object + "-" + hash(t.Name, t.Node)
}

// template renders what all pods of a revision have in common. Revision.Pod adds what differs between targets.
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
			InitContainers: []corev1.Container{prepareContainer(obj, image)},
			Containers:     []corev1.Container{parserContainer(obj, image, cluster)},
			Volumes:        append(volumes(obj), sealVolumes(obj.Name)...),
		},
	}
}

func user(spec *v1alpha1.HyperliquidParserSpec) int64 { return ptr.Deref(spec.RunAsUser, defaultUser) }

// grace returns the termination grace period, in seconds.
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
		// The pod belongs to its node: an autoscaler that removes the node need not reschedule it.
		"cluster-autoscaler.kubernetes.io/daemonset-pod": "true",
		"kubectl.kubernetes.io/default-container":        v1alpha1.ContainerName,
	})
	if spec.Target.Pods != nil {
		out[annotationLevel] = levelOfTarget
	}
	return out
}

// prepareContainer gives the directories that the parser writes to its user: the kubelet creates them for root. It runs
// as root, with the one capability that this needs, and mounts only those directories.
func prepareContainer(obj *v1alpha1.HyperliquidParser, image string) corev1.Container {
	spec := &obj.Spec
	mounts := writableMounts(obj)
	dirs := make([]string, 0, len(mounts))
	for _, m := range mounts {
		dirs = append(dirs, m.MountPath)
	}
	return corev1.Container{
		Name:            prepareName,
		Image:           image,
		ImagePullPolicy: spec.ImagePullPolicy,
		Command: slices.Concat([]string{
			"/hlparser", "prepare",
			"--user", strconv.FormatInt(user(spec), 10), "--group", strconv.FormatInt(group(spec), 10),
		}, dirs),
		// Its mounts use the variable. Each target's pod has its own annotation.
		Env: append([]corev1.EnvVar{
			{Name: targetVariable, ValueFrom: fieldRef("metadata.annotations['" + v1alpha1.AnnotationTarget + "']")},
		}, prepareSealEnv()...),
		// Those of the parser: a pod requests the larger of the two, and its QoS class follows from both.
		Resources: Resources(spec.Resources),
		SecurityContext: &corev1.SecurityContext{
			RunAsNonRoot:             ptr.To(false),
			RunAsUser:                ptr.To[int64](0),
			RunAsGroup:               ptr.To[int64](0),
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities: &corev1.Capabilities{
				Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"CHOWN"},
			},
		},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts:             append(mounts, corev1.VolumeMount{Name: sealVolume, MountPath: sealDir}),
	}
}

// writableMounts returns the mounts that the parser writes to: directories below a volume's root for this object alone,
// or for this target alone where targets share the volume. The kubelet creates them, and follows no symbolic link in
// the path.
func writableMounts(obj *v1alpha1.HyperliquidParser) []corev1.VolumeMount {
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
		// All targets share a claim, and several pods may run on one node.
		if file.ClaimName != "" || obj.Spec.Target.Pods != nil {
			mount.SubPath, mount.SubPathExpr = "", perTarget(mount.SubPath)
		}
		out = append(out, mount)
	}
	return out
}

// StateDirectory returns the directory of the object's state, relative to the root of its volume. Parsers that share
// the volume each have a directory of their own below it.
func StateDirectory(obj *v1alpha1.HyperliquidParser) string {
	own := path.Join(obj.Namespace, obj.Name)
	switch pods := obj.Spec.Target.Pods; {
	case pods == nil:
		return own
	case pods.StateClaimName != "":
		return path.Join(StatePath(obj), own)
	}
	// The claim belongs to one target. A copy of it in another namespace must find the state too.
	return path.Join(StatePath(obj), obj.Name)
}

// OutputDirectory returns the directory of the object's files, like StateDirectory. It is empty without a file sink.
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

// perTarget returns a subPathExpr for a directory of each target below dir.
func perTarget(dir string) string {
	return path.Join(strings.ReplaceAll(dir, "$", "$$"), "$("+targetVariable+")")
}

// dataMount returns the mount of the Hyperliquid node's data.
func dataMount(obj *v1alpha1.HyperliquidParser) corev1.VolumeMount {
	mount := corev1.VolumeMount{Name: dataVolume, MountPath: dataDir, ReadOnly: true}
	if pods := obj.Spec.Target.Pods; pods != nil {
		mount.SubPath = string(pods.SubPath)
	} else {
		// The pod sees a disk that is mounted at or below dataPath after it has started.
		mount.MountPropagation = ptr.To(corev1.MountPropagationHostToContainer)
	}
	return mount
}

func parserContainer(obj *v1alpha1.HyperliquidParser, image, cluster string) corev1.Container {
	spec := &obj.Spec
	mounts := slices.Concat(
		[]corev1.VolumeMount{dataMount(obj), {Name: configVolume, MountPath: configDir, ReadOnly: true}},
		writableMounts(obj), secretMounts(spec), sealMounts())
	env := append([]corev1.EnvVar{
		{Name: "POD_IP", ValueFrom: fieldRef("status.podIP")},
		{Name: "HLPARSER_POD", ValueFrom: fieldRef("metadata.name")},
		{Name: "HLPARSER_NAMESPACE", ValueFrom: fieldRef("metadata.namespace")},
		{Name: "HLPARSER_POD_UID", ValueFrom: fieldRef("metadata.uid")},
		// It shows the parser whether its loopback, where forwarded ports arrive, is its own. Not a flag: an image that does
		// not know it would refuse to start.
		{Name: "HLPARSER_NODE_ADDRESS", ValueFrom: fieldRef("status.hostIP")},
	}, sealEnv()...)
	if remote(spec) {
		env = append(env, corev1.EnvVar{Name: fleetVariable, Value: path.Join(cluster, obj.Namespace, obj.Name)})
	}
	return corev1.Container{
		Name:            v1alpha1.ContainerName,
		Image:           image,
		ImagePullPolicy: spec.ImagePullPolicy,
		// An IPv6 address needs the brackets, and an IPv4 address allows them.
		Command: []string{
			"/hlparser", "run", "--config", configDir + "/" + configFile,
			"--listen", "[$(POD_IP)]:" + strconv.Itoa(ReportPort),
		},
		Env:       env,
		Ports:     []corev1.ContainerPort{{Name: "report", ContainerPort: ReportPort, Protocol: corev1.ProtocolTCP}},
		Resources: Resources(spec.Resources),
		// Liveness checks only that the process answers. The operator judges a stuck or blocked pipeline, within its budgets:
		// the kubelet must not kill parsers in the middle of an outage.
		StartupProbe:   startupProbe(),
		LivenessProbe:  livenessProbe(spec),
		ReadinessProbe: probe("/readyz", readyPeriod, readyFailures),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		TerminationMessagePolicy: terminationMessagePolicy(spec),
		VolumeMounts:             mounts,
	}
}

// terminationMessagePolicy makes the end of a crashed parser's log part of its pod's status, unless the log contains
// the stream's data.
func terminationMessagePolicy(spec *v1alpha1.HyperliquidParserSpec) corev1.TerminationMessagePolicy {
	if slices.ContainsFunc(spec.AllSinks(), func(s v1alpha1.Sink) bool { return s.Stdout != nil }) {
		return corev1.TerminationMessageReadFile
	}
	return corev1.TerminationMessageFallbackToLogsOnError
}

func fieldRef(name string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: name}}
}

func startupProbe() *corev1.Probe {
	p := probe(report.StartPath, startPeriod, startFailures)
	p.InitialDelaySeconds, p.TimeoutSeconds = startDelay, startTimeout
	return p
}

func livenessProbe(spec *v1alpha1.HyperliquidParserSpec) *corev1.Probe {
	p := probe("/healthz", livePeriod, liveFailures)
	// The API server accepts 1 and more; zero would mean the pod's.
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

// Resources returns the resources of a parser: those of the spec, or the defaults.
func Resources(set corev1.ResourceRequirements) corev1.ResourceRequirements {
	if len(set.Requests) > 0 || len(set.Limits) > 0 || len(set.Claims) > 0 {
		return *set.DeepCopy()
	}
	// No CPU limit: throttling would turn a short burst into lag. The number of workers bounds CPU usage.
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
		// Directory: a missing data directory must not be created, or the parser would wait on an empty one for ever.
		out = append(out, hostPath(dataVolume, string(nodes.DataPath), corev1.HostPathDirectory),
			hostPath(stateVolume, StatePath(obj), corev1.HostPathDirectoryOrCreate))
	} else {
		// Revision.Pod sets the claim's name. Not read-only: only the data's mount is, and the state is in the same claim.
		out = append(out, claim(dataVolume, ""))
		if name := obj.Spec.Target.Pods.StateClaimName; name != "" {
			out = append(out, claim(stateVolume, name))
		}
	}
	// The revision's name, which Revision.named sets.
	out = append(out, corev1.Volume{
		Name: configVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}},
	})
	if file := obj.Spec.FileSink(); file != nil && file.ClaimName != "" {
		out = append(out, claim(outVolume, file.ClaimName))
	} else if file != nil {
		out = append(out, hostPath(outVolume, string(file.Path), corev1.HostPathDirectoryOrCreate))
	}
	return append(out, secretVolumes(&obj.Spec)...)
}

// StatePath returns the directory for checkpoints, on the host or in the claim. Each object has its own directory below
// it.
func StatePath(obj *v1alpha1.HyperliquidParser) string {
	if pods := obj.Spec.Target.Pods; pods != nil {
		return cmp.Or(string(pods.StateSubPath), "hlparser")
	}
	return cmp.Or(string(obj.Spec.Target.Nodes.StatePath), "/var/lib/hlparser")
}

// StateLocation identifies where parsers keep their checkpoints: StatePath, or /<claim>/<path> for a claim other than
// the data's.
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
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: path.Clean(dir), Type: ptr.To(kind)},
	}}
}
