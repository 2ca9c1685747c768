{{- define "gvDetails" -}}
{{- $gv := . -}}
`{{ $gv.GroupVersionString }}`. Labels, annotations, conditions and reasons are in
[labels-annotations.md](labels-annotations.md). `kubectl explain hlp.spec` shows the same descriptions. A duration is
up to three numbers with a unit each: ms, s, m or h, such as `30s` or `1h30m`. A quantity is a Kubernetes quantity, such
as `32Mi`.

{{ range $gv.SortedKinds }}- {{ $gv.TypeForKind . | markdownRenderTypeLink }}
{{- end }}
{{- range $gv.SortedTypes }}{{ template "type" . }}{{ end }}
{{- end -}}
