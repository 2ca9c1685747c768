{{/* Name of the application, as labels have it. */}}
{{- define "hlp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of the names of resources. */}}
{{- define "hlp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else if contains (include "hlp.name" .) .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hlp.name" .) | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels of all resources. */}}
{{- define "hlp.labels" -}}
app.kubernetes.io/name: hyperliquid-parser-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select the manager's pods. They are those of --operator-pods. */}}
{{- define "hlp.selectorLabels" -}}
control-plane: controller-manager
app.kubernetes.io/name: hyperliquid-parser-operator
{{- end }}

{{- define "hlp.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-controller-manager" (include "hlp.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required if serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "hlp.priorityClassName" -}}
{{- if .Values.manager.priorityClass.create }}
{{- default (printf "%s-manager" (include "hlp.fullname" .)) .Values.manager.priorityClass.name }}
{{- else }}
{{- .Values.manager.priorityClass.name }}
{{- end }}
{{- end }}

{{/* Reference of an image. Takes a dict of image and root. */}}
{{- define "hlp.reference" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{- define "hlp.managerImage" -}}
{{- include "hlp.reference" (dict "image" .Values.manager.image "root" .) }}
{{- end }}

{{- define "hlp.parserImage" -}}
{{- if .Values.parser.image.repository }}
{{- include "hlp.reference" (dict "image" .Values.parser.image "root" .) }}
{{- else }}
{{- include "hlp.managerImage" . }}
{{- end }}
{{- end }}

{{/* The spec of a monitor, without what asks for native histograms if they are not wanted. Takes a dict of monitor and
root. */}}
{{- define "hlp.histograms" -}}
{{- $spec := .monitor.spec }}
{{- if not .root.Values.prometheus.nativeHistograms }}
{{- $spec = omit $spec "scrapeProtocols" "scrapeNativeHistograms" "scrapeClassicHistograms" }}
{{- end }}
{{- toYaml (dict "spec" $spec) }}
{{- end }}

{{/* Name of the Service of the manager's metrics. */}}
{{- define "hlp.metricsService" -}}
{{ include "hlp.fullname" . | trunc 28 | trimSuffix "-" }}-controller-manager-metrics-service
{{- end }}

{{/* The manager's flags that differ from its defaults. */}}
{{- define "hlp.args" -}}
- --leader-elect
- --health-probe-bind-address=:8081
{{- if .Values.metrics.enable }}
- --metrics-bind-address=:{{ .Values.metrics.port }}
{{- if not .Values.metrics.secure }}
- --metrics-secure=false
{{- end }}
{{- end }}
- --parser-image=$(PARSER_IMAGE)
{{- if and .Values.metrics.enable .Values.metrics.certificateSecret }}
{{- if not .Values.metrics.secure }}{{ fail "metrics.certificateSecret needs metrics.secure" }}{{ end }}
- --metrics-cert-path=/metrics-certificate
{{- end }}
{{- with .Values.namespaces }}
- --namespaces={{ join "," . }}
{{- end }}
{{- with .Values.clusterName }}
- --cluster-name={{ . }}
{{- end }}
{{- if not .Values.networkPolicy.parsers }}
- --network-policies=false
{{- end }}
{{- $scrape := join "," .Values.networkPolicy.scrapeFromNamespaces }}
{{- if ne $scrape "metrics=enabled" }}
- --scrape-from-namespaces={{ $scrape }}
{{- end }}
{{- $defaults := dict "allowedDataPaths" "/home/hluser,/var/lib/hyperliquid,/mnt,/data" "stateRoots" "/var/lib/hlparser" "outputRoots" "/var/lib/hlparser-out" }}
{{- range $flag, $key := (include "hlp.boundsFlags" . | fromYaml) }}
{{- $value := include "hlp.list" (index $.Values.bounds $key) }}
{{- if ne $value (default "" (index $defaults $key)) }}
- --{{ $flag }}={{ $value }}
{{- end }}
{{- end }}
{{- range .Values.manager.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* Flags and keys of the admission policy's ConfigMap, with the bounds that they take. */}}
{{- define "hlp.boundsFlags" -}}
allowed-data-paths: allowedDataPaths
allowed-groups: allowedGroups
allowed-images: allowedImages
allowed-pod-annotations: allowedPodAnnotations
allowed-pod-labels: allowedPodLabels
allowed-priority-classes: allowedPriorityClasses
allowed-selinux-types: allowedSELinuxTypes
allowed-users: allowedUsers
output-root: outputRoots
state-root: stateRoots
{{- end }}

{{/* A list as a flag takes it. Numbers of values are floats, which a printf of integers writes as ids. */}}
{{- define "hlp.list" -}}
{{- $out := list }}
{{- range . }}
{{- if kindIs "string" . }}{{ $out = append $out . }}{{ else }}{{ $out = append $out (printf "%d" (int64 .)) }}{{ end }}
{{- end }}
{{- join "," $out }}
{{- end }}
