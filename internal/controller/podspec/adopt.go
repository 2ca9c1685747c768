package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
)

// Adopt returns the revision of a pod that was made by an operator that stored none, and of the config that the pod reads: what that
// operator rendered, as far as the pod still shows it. What the API server, the scheduler and admission added is left out, for they
// would add it again.
func Adopt(pod *corev1.Pod, config *corev1.ConfigMap) Revision {
	r := Revision{Hash: pod.Labels[v1alpha1.LabelRevision], Config: config.Data[configFile]}
	made := pod.DeepCopy()
	r.Template.Labels, r.Template.Annotations, r.Template.Spec = made.Labels, made.Annotations, made.Spec
	delete(r.Template.Labels, v1alpha1.LabelRevision)
	delete(r.Template.Annotations, v1alpha1.AnnotationTarget)

	spec := &r.Template.Spec
	spec.NodeName, spec.Priority, spec.PreemptionPolicy = "", nil, nil
	spec.ServiceAccountName, spec.DeprecatedServiceAccount = "", ""
	spec.EphemeralContainers = nil
	spec.InitContainers, spec.Containers = ourContainers(spec.InitContainers), ourContainers(spec.Containers)
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return !ourVolume(v.Name) })
	spec.Affinity = unpinned(spec.Affinity)
	return r
}

func ourContainers(containers []corev1.Container) []corev1.Container {
	out := slices.DeleteFunc(containers, func(c corev1.Container) bool { return c.Name != v1alpha1.ContainerName && c.Name != prepareName })
	for i := range out {
		c := &out[i]
		c.Env = slices.DeleteFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == targetVariable && v.ValueFrom == nil })
		c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return !ourVolume(m.Name) })
	}
	return out
}

func ourVolume(name string) bool {
	return slices.Contains([]string{dataVolume, stateVolume, outVolume, configVolume, sealVolume, operatorsVolume}, name)
}

// unpinned takes back what pinned did.
func unpinned(affinity *corev1.Affinity) *corev1.Affinity {
	if affinity == nil || affinity.NodeAffinity == nil || affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return affinity
	}
	terms := affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		terms[i].MatchFields = slices.DeleteFunc(terms[i].MatchFields, func(f corev1.NodeSelectorRequirement) bool {
			return f.Key == metav1.ObjectNameField
		})
	}
	return affinity
}
