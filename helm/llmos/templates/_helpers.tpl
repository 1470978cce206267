{{/* Names, labels, images: what every template needs. */}}

{{- define "llmos.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The front of all names: the release's, with the chart's behind it unless it is in it already. */}}
{{- define "llmos.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "llmos.name" .) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "llmos.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* The front of names that the whole cluster shares, and what marks people's namespaces as this release's: two may be called alike. */}}
{{- define "llmos.clusterName" -}}
{{- $name := include "llmos.fullname" . -}}
{{- if eq $name .Release.Namespace -}}{{ $name }}{{- else -}}{{ printf "%s-%s" .Release.Namespace $name | trunc 53 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{/* What selects the pods of a component: (list . "hub"). Never changes, since selectors can't. */}}
{{- define "llmos.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "llmos.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of an object of a component: (list . "hub"). */}}
{{- define "llmos.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: llmos
{{ include "llmos.selector" . }}
{{- end }}

{{/* An image: (list . .Values.images.hub). */}}
{{- define "llmos.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default $root.Values.images.tag | default $root.Chart.AppVersion -}}
{{- if $root.Values.images.registry }}{{ trimSuffix "/" $root.Values.images.registry }}/{{ end }}{{ $image.repository }}:{{ $tag }}
{{- end }}

{{/* The Secret with all passwords and tokens. */}}
{{- define "llmos.secretName" -}}
{{ .Values.existingSecret | default (include "llmos.fullname" .) }}
{{- end }}

{{/* An address inside the cluster, as pods of any namespace reach it: (list . "api"). */}}
{{- define "llmos.serviceHost" -}}
{{- $root := index . 0 -}}
{{ include "llmos.fullname" $root }}-{{ index . 1 }}.{{ $root.Release.Namespace }}.svc
{{- end }}

{{- define "llmos.hubNamespace" -}}
{{- if .Values.hub.enabled -}}{{ .Release.Namespace }}{{- else -}}{{ .Values.externalHub.namespace | default .Release.Namespace }}{{- end -}}
{{- end }}

{{- define "llmos.hubApiUrl" -}}
{{- if .Values.hub.enabled -}}
http://{{ include "llmos.serviceHost" (list . "hub") }}:8081/hub/api
{{- else -}}
{{- $url := urlParse (.Values.externalHub.apiUrl | trimSuffix "/") -}}
{{- $host := splitList ":" $url.host | first -}}
{{- if not (contains "." $host) -}}
{{- $_ := set $url "host" ($url.host | replace $host (printf "%s.%s.svc" $host (include "llmos.hubNamespace" .))) -}}
{{- end -}}
{{ urlJoin $url }}
{{- end -}}
{{- end }}

{{/* Whether the Hub starts servers with LLMOS' spawner, which needs rights in the cluster; else empty. */}}
{{- define "llmos.hubSpawns" -}}
{{- if or .Values.hub.enabled (not .Values.externalHub.keepSpawner) -}}yes{{- end -}}
{{- end }}

{{/* The ServiceAccount that the Hub runs as. */}}
{{- define "llmos.hubServiceAccount" -}}
{{- if .Values.hub.enabled -}}{{ include "llmos.fullname" . }}-hub{{- else -}}{{ .Values.externalHub.serviceAccount }}{{- end -}}
{{- end }}

{{- define "llmos.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{ .Values.publicUrl | trimSuffix "/" }}
{{- else if and .Values.ingress.enabled .Values.ingress.host -}}
{{ ternary "https" "http" .Values.ingress.tls.enabled }}://{{ .Values.ingress.host }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.host -}}
{{ ternary "https" "http" .Values.httpRoute.tls }}://{{ .Values.httpRoute.host }}
{{- else if .Values.hub.enabled -}}
http://{{ include "llmos.serviceHost" (list . "proxy") }}
{{- end -}}
{{- end }}

{{/* Without /v1: a host of its own, else the path under the Hub's, else the Service. */}}
{{- define "llmos.gatewayUrl" -}}
{{- if .Values.gatewayUrl -}}
{{ .Values.gatewayUrl | trimSuffix "/" }}
{{- else if and .Values.ingress.enabled .Values.ingress.gatewayHost -}}
{{ ternary "https" "http" .Values.ingress.tls.enabled }}://{{ .Values.ingress.gatewayHost }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.gatewayHost -}}
{{ ternary "https" "http" .Values.httpRoute.tls }}://{{ .Values.httpRoute.gatewayHost }}
{{- else if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (include "llmos.publicUrl" .) -}}
{{ include "llmos.publicUrl" . }}/services/llm
{{- else -}}
http://{{ include "llmos.serviceHost" (list . "gateway") }}
{{- end -}}
{{- end }}

{{/* The PriorityClass of LLMOS' own parts, or of people's pods: (list . "system"). */}}
{{- define "llmos.priorityClass" -}}
{{- $root := index . 0 -}}
{{ include "llmos.clusterName" $root }}-{{ index . 1 }}
{{- end }}

{{/* Where models are looked for first; empty: nowhere. */}}
{{- define "llmos.mirrorUrl" -}}
{{- if .Values.users.models.mirror -}}
{{ .Values.users.models.mirror | trimSuffix "/" }}
{{- else if .Values.mirror.enabled -}}
http://{{ include "llmos.serviceHost" (list . "mirror") }}
{{- end -}}
{{- end }}
