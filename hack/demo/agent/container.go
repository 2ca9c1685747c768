package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// command prepares the command of a pod's container. It creates the volumes, and translates the container's paths to
// this machine's.
func (w *worker) command(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (*exec.Cmd, error) {
	if len(pod.Spec.Containers) != 1 {
		return nil, errors.New("the demo's agent supports only pods of one container")
	}
	if c.RestartPolicy != nil {
		return nil, errors.New("the demo's agent does not support sidecars")
	}
	if len(c.Command) == 0 {
		return nil, errors.New("the demo's agent does not pull images: the container must set its command")
	}
	program, ok := w.agent.program(c)
	if !ok {
		return nil, fmt.Errorf("the demo's agent has no program %q", path.Base(c.Command[0]))
	}
	mounted, err := w.volumes(ctx, pod, c)
	if err != nil {
		return nil, err
	}
	values, err := environment(pod, c, w.ip)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	for _, arg := range append(c.Command[1:len(c.Command):len(c.Command)], c.Args...) {
		cmd.Args = append(cmd.Args, mounted.rewrite(expand(arg, values)))
	}
	cmd.Env = []string{}
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+mounted.rewrite(values[e.Name]))
	}
	cmd.Dir = w.dir
	return cmd, nil
}

// program returns the local program that a container's image and command select.
func (a *Agent) program(c *corev1.Container) (program string, ok bool) {
	name := path.Base(c.Command[0])
	if program, ok = a.opts.Images[c.Image][name]; !ok {
		program, ok = a.opts.Programs[name]
	}
	return program, ok
}

// volumes creates the pod's volumes and returns the container's mounts.
func (w *worker) volumes(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (mounts, error) {
	dirs := map[string]string{}
	var list []mount
	for _, v := range pod.Spec.Volumes {
		dir := filepath.Join(w.dir, "volumes", v.Name)
		switch {
		case v.HostPath != nil:
			dir = w.agent.HostPath(w.node, v.HostPath.Path)
			if err := checkHostPath(v.HostPath, dir); err != nil {
				return nil, err
			}
		case v.EmptyDir != nil, v.ConfigMap != nil:
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, fmt.Errorf("creating volume %s: %w", v.Name, err)
			}
		default:
			return nil, fmt.Errorf("volume %s: the demo's agent supports only hostPath, configMap and emptyDir", v.Name)
		}
		dirs[v.Name] = dir
	}
	for _, m := range c.VolumeMounts {
		dir, ok := dirs[m.Name]
		if !ok {
			return nil, fmt.Errorf("no volume %s for the mount at %s", m.Name, m.MountPath)
		}
		if m.SubPath != "" {
			dir = filepath.Join(dir, filepath.FromSlash(m.SubPath))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, fmt.Errorf("creating subPath %s of volume %s: %w", m.SubPath, m.Name, err)
			}
		}
		list = append(list, mount{inContainer: m.MountPath, onDisk: dir})
	}
	list = append(list, mount{inContainer: corev1.TerminationMessagePathDefault, onDisk: w.terminationLog(c.Name)})
	mounted := newMounts(list)
	// Write the files last, because they contain mount points of the other volumes.
	for _, v := range pod.Spec.Volumes {
		if v.ConfigMap == nil {
			continue
		}
		if err := w.writeConfigMap(ctx, pod.Namespace, v.ConfigMap, dirs[v.Name], mounted); err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return mounted, nil
}

// terminationLog returns the path of a container's termination message.
func (w *worker) terminationLog(container string) string {
	return filepath.Join(w.dir, "termination-log-"+container)
}

// maxTerminationMessage is the kubelet's MaxContainerTerminationMessageLength, in bytes.
const maxTerminationMessage = 4096

// terminationMessage returns the termination message of a container that has ended, or "" if there is none.
func (w *worker) terminationMessage(container string) string {
	text, err := os.ReadFile(w.terminationLog(container))
	if err != nil {
		return ""
	}
	return string(text[:min(len(text), maxTerminationMessage)])
}

func checkHostPath(source *corev1.HostPathVolumeSource, dir string) error {
	kind := corev1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	switch kind {
	case corev1.HostPathDirectory:
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("hostPath type check failed: %s is not a directory", source.Path)
		}
		return nil
	case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("creating host path %s: %w", source.Path, err)
		}
		return nil
	default:
		return fmt.Errorf("hostPath %s: the demo's agent does not support type %s", source.Path, kind)
	}
}

func (w *worker) writeConfigMap(
	ctx context.Context, namespace string, source *corev1.ConfigMapVolumeSource, dir string, mounted mounts,
) error {
	ctx, cancel := context.WithTimeout(ctx, apiLimit)
	defer cancel()
	cm, err := w.agent.opts.Client.CoreV1().ConfigMaps(namespace).Get(ctx, source.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && source.Optional != nil && *source.Optional {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading configmap %s: %w", source.Name, err)
	}
	items := source.Items
	if len(items) == 0 {
		for key := range cm.Data {
			items = append(items, corev1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, item := range items {
		text, ok := cm.Data[item.Key]
		if !ok {
			return fmt.Errorf("configmap %s has no key %s", source.Name, item.Key)
		}
		file := filepath.Join(dir, filepath.FromSlash(item.Path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("creating the directory of key %s: %w", item.Key, err)
		}
		if err := os.WriteFile(file, []byte(mounted.rewrite(text)), 0o644); err != nil {
			return fmt.Errorf("writing key %s: %w", item.Key, err)
		}
	}
	return nil
}

// environment resolves the container's variables, including the downward API.
func environment(pod *corev1.Pod, c *corev1.Container, ip string) (map[string]string, error) {
	if len(c.EnvFrom) > 0 {
		return nil, errors.New("the demo's agent does not support envFrom")
	}
	values := map[string]string{}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			values[e.Name] = expand(e.Value, values)
		case e.ValueFrom.FieldRef != nil:
			value, err := field(pod, e.ValueFrom.FieldRef.FieldPath, ip)
			if err != nil {
				return nil, fmt.Errorf("resolving variable %s: %w", e.Name, err)
			}
			values[e.Name] = value
		case e.ValueFrom.ResourceFieldRef != nil:
			value, err := resourceField(c, e.ValueFrom.ResourceFieldRef)
			if err != nil {
				return nil, fmt.Errorf("resolving variable %s: %w", e.Name, err)
			}
			values[e.Name] = value
		default:
			return nil, fmt.Errorf("variable %s: the demo's agent supports only value, fieldRef and resourceFieldRef", e.Name)
		}
	}
	return values, nil
}

var metadataKey = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.+)'\]$`)

func field(pod *corev1.Pod, fieldPath, ip string) (string, error) {
	switch fieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs", "status.hostIP":
		return ip, nil
	}
	switch m := metadataKey.FindStringSubmatch(fieldPath); {
	case m == nil:
		return "", fmt.Errorf("the demo's agent does not support field %s", fieldPath)
	case m[1] == "labels":
		return pod.Labels[m[2]], nil
	default:
		return pod.Annotations[m[2]], nil
	}
}

func resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	quantity, ok := list[corev1.ResourceName(name)]
	if !ok {
		return "", fmt.Errorf("the container has no %s", ref.Resource)
	}
	divisor := ref.Divisor.MilliValue()
	if divisor == 0 {
		divisor = 1000
	}
	// The quotient is rounded up, as the kubelet does.
	return strconv.FormatInt((quantity.MilliValue()+divisor-1)/divisor, 10), nil
}

var reference = regexp.MustCompile(`\$\$|\$\([A-Za-z_][A-Za-z0-9_.-]*\)`)

// expand replaces $(NAME) by a variable and $$ by $. It keeps references to unknown variables.
func expand(text string, values map[string]string) string {
	return reference.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		if value, ok := values[found[2:len(found)-1]]; ok {
			return value
		}
		return found
	})
}
