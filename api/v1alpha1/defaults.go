package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// Defaults of the schema. The API server sets them in every object that it admits.
const (
	DefaultStatePath    = "/var/lib/hlparser"
	DefaultStateSubPath = "hlparser"
	DefaultFormat       = FormatEnveloped

	DefaultBufferLimit       int64 = 32 << 20 // bytes
	DefaultParallelThreshold int32 = 1000     // lines
	DefaultWorkers           int32 = 2
	DefaultStartAt                 = StartAtEnd
	DefaultMaxLineBytes      int64 = 64 << 20 // bytes

	DefaultPollInterval       = 5 * time.Second
	DefaultStuckAfter         = 30 * time.Second
	DefaultRetention          = 24 * time.Hour
	DefaultGrowthAction       = GrowthActionRestart
	DefaultFleetWideThreshold = "30%"

	DefaultCooldown            = 5 * time.Minute
	DefaultMaxPerHour    int32 = 3
	DefaultMaxConcurrent       = "10%"

	DefaultMaxUnavailable             = "10%"
	DefaultRevisionHistoryLimit int32 = 5
	DefaultCanaryCount          int32 = 1
	DefaultSoak                       = time.Hour

	DefaultTerminationGracePeriodSeconds int64 = 30
	// DefaultRunAsUser and DefaultRunAsGroup are those of the official Hyperliquid node image, which owns the data.
	DefaultRunAsUser  int64 = 10000
	DefaultRunAsGroup int64 = 10000
)

// Defaults of items of lists, and of the types that they share with spec.sink. The schema does not set them:
// client-side apply compares a list as a whole, and would find a difference each time. SetDefaults sets them. Objects
// that were stored before have them in their spec.
const (
	DefaultStreamMode = StreamModeAuto

	DefaultPatience = 5 * time.Second

	DefaultMaxSize int64 = 1 << 30 // bytes
	DefaultMaxAge        = time.Hour

	DefaultNATSSubject             = "hl.{stream}.{coin}"
	DefaultNATSDelivery            = DeliveryBest
	DefaultNATSIdentity            = RecordIdentityPosition
	DefaultRecordsPerMessage int32 = 1
	DefaultNATSReplicas      int32 = 1
	DefaultCredentialsKey          = "nats.creds"

	DefaultKafkaTopic             = "hl.{stream}"
	DefaultKafkaKey               = "{coin}"
	DefaultKafkaDelivery          = DeliveryExactlyOnce
	DefaultPositionsTopic         = "hlparser-positions"
	DefaultKafkaCompression       = KafkaCompressionZstd
	DefaultMaxMessageBytes  int32 = 1 << 20 // bytes
	DefaultKafkaPartitions  int32 = 1
)

// Defaults that nobody sets, because they depend on other fields or belong to the parser. An unset field stays unset.
const (
	// DefaultLag is the default of growth.lag. Three poll intervals apply instead if they are longer.
	DefaultLag = 30 * time.Second
	// DefaultStalledAfter is the default of growth.sourceStalledAfter for streams that are written with every block.
	DefaultStalledAfter = time.Minute
	// DefaultWaitingAfter is the default of growth.sourceStalledAfter for a stream that has nothing to read at all.
	DefaultWaitingAfter = 2 * time.Minute
	// DefaultMinFreePercent is the default of sink.file.minFreePercent, in percent.
	DefaultMinFreePercent int32 = 10
	// DefaultRotation is the default of sink.file.rotate.
	DefaultRotation = RotationSize
	// DefaultReadRate is the default of engine.readRate, in bytes per second: no limit.
	DefaultReadRate int64 = 0
)

// SetDefaults sets the unset fields of an object to their defaults: those that the API server sets, and those of items
// of lists, which it leaves to the operator. An unset field and its default mean the same everywhere.
func SetDefaults(obj *HyperliquidParser) {
	spec := &obj.Spec
	if spec.Target.Nodes != nil {
		setDefault(&spec.Target.Nodes.StatePath, DefaultStatePath)
	}
	if spec.Target.Pods != nil {
		setDefault(&spec.Target.Pods.StateSubPath, DefaultStateSubPath)
	}
	for i := range spec.Streams {
		setDefault(&spec.Streams[i].Mode, DefaultStreamMode)
	}
	setDefault(&spec.Format, DefaultFormat)
	setSinkDefaults(spec.Sink)
	for i := range spec.Sinks {
		setSinkDefaults(spec.Sinks[i].Sink())
	}
	if spec.Order != nil {
		setDuration(&spec.Order.Patience, DefaultPatience)
	}
	setEngineDefaults(&spec.Engine)
	setGrowthDefaults(&spec.Growth)
	setRolloutDefaults(&spec.Rollout)
	setPointer(&spec.TerminationGracePeriodSeconds, DefaultTerminationGracePeriodSeconds)
	setPointer(&spec.RunAsUser, DefaultRunAsUser)
	setPointer(&spec.RunAsGroup, DefaultRunAsGroup)
}

func setSinkDefaults(s Sink) {
	if f := s.File; f != nil {
		setSize(&f.MaxSize, DefaultMaxSize)
		setDuration(&f.MaxAge, DefaultMaxAge)
	}
	if n := s.NATS; n != nil {
		setDefault(&n.Subject, DefaultNATSSubject)
		setDefault(&n.Delivery, DefaultNATSDelivery)
		setDefault(&n.Identity, DefaultNATSIdentity)
		setPointer(&n.RecordsPerMessage, DefaultRecordsPerMessage)
		if n.Create != nil {
			setPointer(&n.Create.Replicas, DefaultNATSReplicas)
		}
		if n.CredentialsSecretRef != nil {
			setDefault(&n.CredentialsSecretRef.Key, DefaultCredentialsKey)
		}
	}
	if k := s.Kafka; k != nil {
		setDefault(&k.Topic, DefaultKafkaTopic)
		setDefault(&k.Key, DefaultKafkaKey)
		setDefault(&k.Delivery, DefaultKafkaDelivery)
		setDefault(&k.PositionsTopic, DefaultPositionsTopic)
		setDefault(&k.Compression, DefaultKafkaCompression)
		setPointer(&k.MaxMessageBytes, DefaultMaxMessageBytes)
		if k.Create != nil {
			setPointer(&k.Create.Partitions, DefaultKafkaPartitions)
		}
	}
}

func setEngineDefaults(e *Engine) {
	setSize(&e.BufferLimit, DefaultBufferLimit)
	setPointer(&e.ParallelThreshold, DefaultParallelThreshold)
	setPointer(&e.Workers, DefaultWorkers)
	setDefault(&e.StartAt, DefaultStartAt)
	setSize(&e.MaxLineBytes, DefaultMaxLineBytes)
}

func setGrowthDefaults(g *Growth) {
	setDuration(&g.PollInterval, DefaultPollInterval)
	setDuration(&g.StuckAfter, DefaultStuckAfter)
	setDuration(&g.Retention, DefaultRetention)
	setDefault(&g.Action, DefaultGrowthAction)
	setPointer(&g.FleetWideThreshold, intstr.FromString(DefaultFleetWideThreshold))
	setDuration(&g.Restart.Cooldown, DefaultCooldown)
	setPointer(&g.Restart.MaxPerHour, DefaultMaxPerHour)
	setPointer(&g.Restart.MaxConcurrent, intstr.FromString(DefaultMaxConcurrent))
}

func setRolloutDefaults(r *Rollout) {
	setPointer(&r.MaxUnavailable, intstr.FromString(DefaultMaxUnavailable))
	setPointer(&r.RevisionHistoryLimit, DefaultRevisionHistoryLimit)
	if r.Canary != nil {
		setPointer(&r.Canary.Count, intstr.FromInt32(DefaultCanaryCount))
		setDuration(&r.Canary.Soak, DefaultSoak)
	}
}

func setDefault[T comparable](field *T, value T) {
	var unset T
	if *field == unset {
		*field = value
	}
}

func setPointer[T any](field **T, value T) {
	if *field == nil {
		*field = ptr.To(value)
	}
}

func setDuration(field **metav1.Duration, value time.Duration) {
	setPointer(field, metav1.Duration{Duration: value})
}

func setSize(field **resource.Quantity, bytes int64) {
	if *field == nil {
		*field = resource.NewQuantity(bytes, resource.BinarySI)
	}
}
