{{/* Names, labels and images, used by all templates. */}}

{{- define "llmos.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/*
A name with a maximum length: (list "name" 52). A longer name is cut, with eight hex digits of its hash at the end,
so that two names with the same beginning differ.
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

{{/* The prefix of all names: the release's name, followed by the chart's unless it contains it already. */}}
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
The prefix of cluster-scoped names, and the label that marks people's namespaces as this release's. It is unique
per release: if a part contains a dash, the parts are joined by a dot, which neither can contain.
An earlier name of the release is kept, since people's namespaces are labelled with it.
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

{{/* The selector labels of a component: (list . "hub"). They never change, since selectors are immutable. */}}
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

{{/* The host name of a Service for pods in any namespace: (list . "api"). */}}
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

{{/* "yes" if the Hub uses LLMOS' spawner, which needs rights in the cluster; otherwise empty. */}}
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

{{/* The gateway's URL without /v1: its own host, or the path under the Hub's, or the Service. */}}
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

{{/* The PriorityClass of LLMOS' own components, or of people's pods: (list . "system"); empty for none. */}}
{{- define "llmos.priorityClass" -}}
{{- $classes := (index . 0).Values.scheduling.priorityClasses -}}
{{- $existing := get $classes (printf "existing%s" (title (index . 1))) -}}
{{- if $existing -}}
{{ $existing }}
{{- else if $classes.create -}}
{{ include "llmos.clusterName" (index . 0) }}-{{ index . 1 }}
{{- end -}}
{{- end }}

{{/* The address of the models mirror, which is tried first; empty for none. */}}
{{- define "llmos.mirrorUrl" -}}
{{- if .Values.users.models.mirror -}}
{{ .Values.users.models.mirror | trimSuffix "/" }}
{{- else if .Values.mirror.enabled -}}
http://{{ include "llmos.serviceHost" (list . "mirror") }}
{{- end -}}
{{- end }}
