package podspec

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/report/seal"
)

// Volumes and files of sealed reports: see package seal. The pod's key pair is in memory for as long as the pod is on
// its node. The operator's public keys are in a ConfigMap, which the kubelet keeps up to date.
const (
	sealVolume      = "seal"
	sealDir         = "/seal"
	sealKey         = sealDir + "/key"
	operatorsVolume = "operator-keys"
	operatorsDir    = "/etc/hlparser-operator"
	// OperatorsFile is the key of the ConfigMap of the operator's public keys.
	OperatorsFile = "keys"
	// terminationLog is the file of a container's termination message: the API server's default.
	terminationLog = corev1.TerminationMessagePathDefault
)

// OperatorKeysName returns the name of the ConfigMap with the operator's public keys for the parsers of an object.
func OperatorKeysName(object string) string { return object + "-operator-keys" }

func sealVolumes(object string) []corev1.Volume {
	return []corev1.Volume{
		{Name: sealVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("1Mi")),
		}}},
		// Optional: a parser delivers whether or not the operator can request its report.
		{Name: operatorsVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: OperatorKeysName(object)}, Optional: ptr.To(true),
		}}},
	}
}

func sealMounts() []corev1.VolumeMount {
	return []corev1.VolumeMount{
		{Name: sealVolume, MountPath: sealDir, ReadOnly: true},
		{Name: operatorsVolume, MountPath: operatorsDir, ReadOnly: true},
	}
}

// sealEnv is for the parser. An image that does not support sealed reports ignores variables, and would refuse flags.
func sealEnv() []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: "HLPARSER_SEAL_KEY", Value: sealKey},
		{Name: "HLPARSER_OPERATOR_KEYS", Value: operatorsDir + "/" + OperatorsFile},
	}
}

func prepareSealEnv() []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: "HLPARSER_SEAL_KEY", Value: sealKey},
		{Name: "HLPARSER_PUBLIC_KEY", Value: terminationLog},
	}
}

// Sealed reports whether a pod's parser seals its reports, which follows from the revision that the pod was made from.
func Sealed(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == operatorsVolume && v.ConfigMap != nil
	})
}

// Started returns when the container of a pod's parser started, from its kubelet; zero while it does not run.
func Started(pod *corev1.Pod) time.Time {
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == v1alpha1.ContainerName && c.State.Running != nil {
			return c.State.Running.StartedAt.Time
		}
	}
	return time.Time{}
}

// PublicKey returns the public key of a pod's parser, which its init container writes to the pod's status; zero for
// none.
func PublicKey(pod *corev1.Pod) seal.PublicKey {
	for _, c := range pod.Status.InitContainerStatuses {
		// A container that runs again keeps the message of its last termination.
		for _, ended := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			if c.Name == prepareName && ended != nil && ended.ExitCode == 0 {
				if k := seal.OfMessage(ended.Message); k != (seal.PublicKey{}) {
					return k
				}
			}
		}
	}
	return seal.PublicKey{}
}
