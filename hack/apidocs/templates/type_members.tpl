{{- define "type_members" -}}
{{- $field := . -}}
{{- if eq $field.Name "metadata" -}}
Standard object metadata. The name has at most 40 characters.
{{- else -}}
{{ template "doc" $field.Doc }}{{ if index $field.Markers "required" }} **Required.**{{ end }}
{{- end -}}
{{- end -}}
