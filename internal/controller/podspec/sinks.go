package podspec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/hlparser/hyperliquid-parser-operator/api/v1alpha1"
	"github.com/hlparser/hyperliquid-parser-operator/internal/parser/config"
)

const (
	// secretsDir contains a directory for each Secret that a sink needs, named after the Secret.
	secretsDir = "/secrets"
	// fleetVariable names the parser's object; fleet and target together make a writer's name.
	fleetVariable = "HLPARSER_FLEET"
)

// Keys of the Secrets that sinks need: those of the Secret types of Kubernetes where there is one.
const (
	caKey       = "ca.crt"
	certKey     = "tls.crt"
	keyKey      = "tls.key"
	usernameKey = "username"
	passwordKey = "password"
	credsKey    = "nats.creds"
)

// SecretOf returns the Secret and the key that a parser reads at a path in its report. ok is false for another path.
func SecretOf(file string) (name, key string, ok bool) {
	rest, ok := strings.CutPrefix(file, secretsDir+"/")
	if !ok {
		return "", "", false
	}
	name, key, ok = strings.Cut(rest, "/")
	return name, key, ok
}

func secretFile(ref v1alpha1.SecretRef, key string) string {
	return path.Join(secretsDir, ref.Name, key)
}

// secrets returns the names of the Secrets that the sinks need, sorted.
func secrets(spec *v1alpha1.HyperliquidParserSpec) []string {
	var names []string
	add := func(tls *v1alpha1.TLS) {
		if tls != nil && tls.CASecretRef != nil {
			names = append(names, tls.CASecretRef.Name)
		}
		if tls != nil && tls.CertSecretRef != nil {
			names = append(names, tls.CertSecretRef.Name)
		}
	}
	for _, sink := range spec.AllSinks() {
		if n := sink.NATS; n != nil {
			add(n.TLS)
			if n.CredentialsSecretRef != nil {
				names = append(names, n.CredentialsSecretRef.Name)
			}
		}
		if k := sink.Kafka; k != nil {
			add(k.TLS)
			if k.SASL != nil {
				names = append(names, k.SASL.SecretRef.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// secretVolumes and secretMounts mount whole directories, so that rotated values arrive while the parser runs. They are
// optional: the parser reports a missing Secret by name, where a mandatory one would keep its pod from starting.
func secretVolumes(spec *v1alpha1.HyperliquidParserSpec) []corev1.Volume {
	names := secrets(spec)
	out := make([]corev1.Volume, 0, len(names))
	for i, name := range names {
		out = append(out, corev1.Volume{Name: secretVolume(i), VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: name, Optional: ptr.To(true)},
		}})
	}
	return out
}

func secretMounts(spec *v1alpha1.HyperliquidParserSpec) []corev1.VolumeMount {
	names := secrets(spec)
	out := make([]corev1.VolumeMount, 0, len(names))
	for i, name := range names {
		out = append(out, corev1.VolumeMount{
			Name: secretVolume(i), MountPath: path.Join(secretsDir, name), ReadOnly: true,
		})
	}
	return out
}

func secretVolume(i int) string { return "secret-" + strconv.Itoa(i) }

// remote reports whether a sink is a server that identifies its writers by name.
func remote(spec *v1alpha1.HyperliquidParserSpec) bool {
	return slices.ContainsFunc(spec.AllSinks(), func(s v1alpha1.Sink) bool { return s.NATS != nil || s.Kafka != nil })
}

func renderSink(s v1alpha1.Sink) config.Sink {
	switch {
	case s.Stdout != nil:
		return config.Sink{Stdout: &config.StdoutSink{}}
	case s.File != nil:
		return config.Sink{File: renderFile(s.File)}
	case s.NATS != nil:
		return config.Sink{NATS: renderNATS(s.NATS)}
	case s.Kafka != nil:
		return config.Sink{Kafka: renderKafka(s.Kafka)}
	}
	return config.Sink{}
}

func renderFile(f *v1alpha1.FileSink) *config.FileSink {
	out := &config.FileSink{
		Path: outDir, Rotate: config.Rotation(f.Rotate), Compress: config.Compression(f.Compress),
	}
	if f.MaxSize != nil {
		out.MaxSize = config.Bytes(f.MaxSize.Value())
	}
	if f.MaxAge != nil {
		out.MaxAge.Duration = f.MaxAge.Duration
	}
	if f.MaxTotalSize != nil {
		out.MaxTotalSize = config.Bytes(f.MaxTotalSize.Value())
	}
	if f.MinFreePercent != nil {
		out.MinFreePercent = new(int(*f.MinFreePercent))
	}
	return out
}

func renderNATS(n *v1alpha1.NATSSink) *config.NATSSink {
	out := &config.NATSSink{
		URL: n.URL, Stream: n.Stream, Subject: n.Subject,
		Delivery: config.Delivery(n.Delivery), Identity: config.RecordIdentity(n.Identity),
		RecordsPerMessage: int(ptr.Deref(n.RecordsPerMessage, 0)),
		TLS:               renderTLS(n.TLS),
	}
	if c := n.Create; c != nil {
		out.Create = &config.NATSCreate{Replicas: int(ptr.Deref(c.Replicas, 0))}
		if c.MaxBytes != nil {
			out.Create.MaxBytes = config.Bytes(c.MaxBytes.Value())
		}
		if c.MaxAge != nil {
			out.Create.MaxAge.Duration = c.MaxAge.Duration
		}
	}
	if ref := n.CredentialsSecretRef; ref != nil {
		key := ref.Key
		if key == "" {
			key = credsKey
		}
		out.CredentialsFile = secretFile(ref.SecretRef, key)
	}
	return out
}

func renderKafka(k *v1alpha1.KafkaSink) *config.KafkaSink {
	out := &config.KafkaSink{
		Brokers: textsOf[string](k.Brokers), Topic: k.Topic, Key: k.Key,
		Delivery: config.Delivery(k.Delivery), PositionsTopic: k.PositionsTopic,
		Compression: config.KafkaCompression(k.Compression), TLS: renderTLS(k.TLS),
	}
	if c := k.Create; c != nil {
		out.Create = &config.KafkaCreate{
			Partitions: int(ptr.Deref(c.Partitions, 0)), ReplicationFactor: int(ptr.Deref(c.ReplicationFactor, 0)),
		}
	}
	if k.MaxMessageBytes != nil {
		out.MaxMessageBytes = config.Bytes(*k.MaxMessageBytes)
	}
	if k.SASL != nil {
		out.SASL = &config.KafkaSASL{
			UsernameFile: secretFile(k.SASL.SecretRef, usernameKey),
			PasswordFile: secretFile(k.SASL.SecretRef, passwordKey),
		}
	}
	return out
}

func renderTLS(t *v1alpha1.TLS) *config.TLS {
	if t == nil {
		return nil
	}
	out := &config.TLS{ServerName: t.ServerName}
	if t.CASecretRef != nil {
		out.CAFile = secretFile(*t.CASecretRef, caKey)
	}
	if t.CertSecretRef != nil {
		out.CertFile, out.KeyFile = secretFile(*t.CertSecretRef, certKey), secretFile(*t.CertSecretRef, keyKey)
	}
	return out
}
