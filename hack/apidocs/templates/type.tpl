{{- define "doc" -}}
{{ . | replace "\n\n" "<br><br>" | replace "\n" " " | replace "<namespace>" "&lt;namespace&gt;" | replace "<name>" "&lt;name&gt;" | replace "<pod>" "&lt;pod&gt;" | replace "<claim>" "&lt;claim&gt;" | replace "<stateSubPath>" "&lt;stateSubPath&gt;" | replace "|" "\\|" | replace "*" "\\*" | trim }}
{{- end -}}

{{- define "typeName" -}}
{{- $name := markdownRenderType . -}}
{{- if contains "#duration-v1-meta" $name }}duration{{ else if contains "#intorstring-" $name }}integer or percentage
{{- else if contains "#quantity-" $name }}quantity{{ else if contains "#pullpolicy-" $name }}string
{{- else }}{{ $name }}{{ end -}}
{{- end -}}

{{- define "type" -}}
{{- $type := . -}}
{{- $duration := and (eq (len $type.Members) 1) (eq (index $type.Members 0).Name "Duration") -}}
{{- if markdownShouldRenderType $type }}

## {{ $type.Name }}

{{ template "doc" $type.Doc }}
{{- if $duration }}

Type: duration.
{{- else if and $type.IsAlias (not $type.Members) }}

Type: {{ template "typeName" $type.UnderlyingType }}.
{{- end }}
{{- if $type.References }}

Used by: {{ range $i, $ref := $type.SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $ref }}{{ end }}.
{{- end }}
{{- if and $type.Members (not $duration) }}

| field | type | description |
|---|---|---|
{{- if $type.GVK }}
| `apiVersion` | string | `{{ $type.GVK.Group }}/{{ $type.GVK.Version }}` |
| `kind` | string | `{{ $type.GVK.Kind }}` |
{{- end }}
{{- range $type.Members }}
| `{{ .Name }}` | {{ template "typeName" .Type }} | {{ template "type_members" . }} |
{{- end }}
{{- end }}
{{- if $type.EnumValues }}

| value | description |
|---|---|
{{- range $type.EnumValues }}
| `{{ .Name }}` | {{ template "doc" .Doc }} |
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
