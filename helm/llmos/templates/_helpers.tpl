{{/* Names, labels, images: what every template needs. */}}

{{- define "llmos.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
A name of at most so many characters: (list "name" 52). One that is too long is cut and gets eight hex digits of its
hash, so that two that begin alike stay apart.
*/}}
{{- define "llmos.bounded" -}}
{{- $name := index . 0 -}}
{{- $length := int (index . 1) -}}
{{- if gt (len $name) $length -}}
{{ $name | trunc (int (sub $length 9)) | trimAll "-." }}-{{ $name | sha256sum | trunc 8 }}
{{- else -}}
{{ $name }}
{{- end -}}
{{- end }}

{{/* The front of all names: the release's, with the chart's behind it unless it is in it already. */}}
{{- define "llmos.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "llmos.name" .) .Release.Name -}}
{{ $release | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" $release (include "llmos.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/*
The front of names that the whole cluster shares, and what marks people's namespaces as this release's. No two
releases have the same: where a part has a dash in it, a dot stands between the two, which neither can contain.
What a release was called before is kept, since people's namespaces are labelled with it.
*/}}
{{- define "llmos.clusterName" -}}
{{- if not (hasKey .Release "llmosClusterName") -}}
{{- $users := lookup "v1" "ConfigMap" .Release.Namespace (printf "%s-users" (include "llmos.fullname" .)) -}}
{{- $before := get (get ($users | default dict) "data" | default dict) "namespaces.json" | default "{}" | fromJson -}}
{{- $_ := set .Release "llmosClusterName" (.Values.instance | default $before.instance | default (include "llmos.clusterName.made" .)) -}}
{{- end -}}
{{- .Release.llmosClusterName -}}
{{- end }}

{{- define "llmos.clusterName.made" -}}
{{- $name := include "llmos.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
{{- if contains "-" (print $name $namespace) -}}
{{ include "llmos.bounded" (list (printf "%s.%s" $namespace $name) 53) }}
{{- else if eq $name $namespace -}}
{{ $name }}
{{- else -}}
{{ include "llmos.bounded" (list (printf "%s-%s" $namespace $name) 53) }}
{{- end -}}
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
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") | trunc 63 | trimAll "-_." }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
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
{{- with $image.digest }}@{{ . }}{{ end }}
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

{{/* The PriorityClass of LLMOS' own parts, or of people's pods: (list . "system"). Empty: none. */}}
{{- define "llmos.priorityClass" -}}
{{- $classes := (index . 0).Values.scheduling.priorityClasses -}}
{{- $existing := get $classes (printf "existing%s" (title (index . 1))) -}}
{{- if $existing -}}
{{ $existing }}
{{- else if $classes.create -}}
{{ include "llmos.clusterName" (index . 0) }}-{{ index . 1 }}
{{- end -}}
{{- end }}

{{/* Where models are looked for first; empty: nowhere. */}}
{{- define "llmos.mirrorUrl" -}}
{{- if .Values.users.models.mirror -}}
{{ .Values.users.models.mirror | trimSuffix "/" }}
{{- else if .Values.mirror.enabled -}}
http://{{ include "llmos.serviceHost" (list . "mirror") }}
{{- end -}}
{{- end }}
