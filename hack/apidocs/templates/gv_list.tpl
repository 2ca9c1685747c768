{{- define "gvList" -}}
<!-- Generated from api/v1alpha1 by make api-docs. Do not edit. -->

# API reference

{{ range . }}{{ template "gvDetails" . }}{{ end }}
{{- end -}}
