{{/* The plurals of the custom resources, read from their definitions, so that a new kind needs no change here. */}}
{{- define "llmos.plurals" -}}
{{- $plurals := list -}}
{{- range $path, $content := .Files.Glob "crds/*.yaml" -}}
{{- range splitList "\n---" (toString $content) -}}
{{- $definition := fromYaml . -}}
{{- if eq (get $definition "kind") "CustomResourceDefinition" -}}
{{- $plurals = append $plurals $definition.spec.names.plural -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $plurals | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* The plurals with a subresource: (list . "status"). */}}
{{- define "llmos.subresources" -}}
{{- $subresources := list -}}
{{- $word := index . 1 -}}
{{- range include "llmos.plurals" (index . 0) | fromJsonArray -}}
{{- $subresources = append $subresources (printf "%s/%s" . $word) -}}
{{- end -}}
{{- $subresources | toJson -}}
{{- end }}

{{/* A ClusterRoleBinding to the component's own ClusterRole: (list . "api"). */}}
{{- define "llmos.clusterRoleBinding" -}}
{{- $root := index . 0 -}}
{{- $account := printf "%s-%s" (include "llmos.fullname" $root) (index . 1) -}}
{{- $namespace := $root.Release.Namespace -}}
{{- if eq (index . 1) "hub" -}}
{{- $account = include "llmos.hubServiceAccount" $root -}}
{{- $namespace = include "llmos.hubNamespace" $root -}}
{{- end -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "llmos.clusterName" $root }}-{{ index . 1 }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
  {{- if and (eq (index . 1) "hub") (not $root.Values.hub.enabled) }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "llmos.clusterName" $root }}-{{ index . 1 }}
{{- if and (eq (index . 1) "hub") (not (include "llmos.hubSpawns" $root)) }}
subjects: []
{{- else }}
subjects:
  - kind: ServiceAccount
    name: {{ $account }}
    namespace: {{ $namespace }}
{{- end }}
{{- end }}
