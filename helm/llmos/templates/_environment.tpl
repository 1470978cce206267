{{/* The processes' environment variables, which llmos_hub/settings.py reads. */}}

{{- define "llmos.env.secret" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "llmos.secretName" $root }}
      key: {{ index . 2 }}
{{- end }}

{{/*
A component's own variables: (list . .Values.api.extraEnv). If they set a web proxy, addresses inside the cluster
bypass it; the site's own NO_PROXY is kept in front, also if it is a reference.
*/}}
{{- define "llmos.env.extra" -}}
{{- $root := index . 0 -}}
{{- $variables := list -}}
{{- $proxied := false -}}
{{- $theirs := dict -}}
{{- range index . 1 -}}
{{- if has (lower .name) (list "http_proxy" "https_proxy" "all_proxy") -}}
{{- $proxied = true -}}
{{- end -}}
{{- if eq (lower .name) "no_proxy" -}}
{{- $theirs = . -}}
{{- else -}}
{{- $variables = append $variables . -}}
{{- end -}}
{{- end -}}
{{- if $theirs -}}
{{- $variables = append $variables (set (deepCopy $theirs) "name" "SITE_NO_PROXY") -}}
{{- end -}}
{{- if or $theirs $proxied -}}
{{- $hosts := list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" "$(KUBERNETES_SERVICE_HOST)" -}}
{{- range list "hub" "proxy-api" -}}
{{- $hosts = append $hosts (printf "%s-%s" (include "llmos.fullname" $root) .) -}}
{{- end -}}
{{- $hosts = concat $hosts $root.Values.users.network.clusterCidrs -}}
{{- if $theirs -}}
{{- $hosts = prepend $hosts "$(SITE_NO_PROXY)" -}}
{{- end -}}
{{- range list "NO_PROXY" "no_proxy" -}}
{{- $variables = append $variables (dict "name" . "value" (join "," $hosts)) -}}
{{- end -}}
{{- end -}}
{{- if $variables -}}
{{- toYaml $variables -}}
{{- end -}}
{{- end }}

{{/* The site's own certificate authorities, which llmos/trust.py adds to the public ones. */}}
{{- define "llmos.env.trust" -}}
{{- with .Values.caCertificates }}
- name: LLMOS_CA_CERTIFICATES
  value: {{ trim . | quote }}
{{- end }}
{{- end }}

{{/* Valkey's address with its password; a variable may refer to an earlier one. */}}
{{- define "llmos.env.redis" -}}
{{- if .Values.valkey.enabled -}}
{{ include "llmos.env.secret" (list . "VALKEY_PASSWORD" "valkey-password") }}
- name: LLMOS_REDIS_URL
  value: redis://:$(VALKEY_PASSWORD)@{{ include "llmos.serviceHost" (list . "valkey") }}:6379/0
{{- else -}}
- name: LLMOS_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.valkey.external.existingSecret | default (printf "%s-valkey" (include "llmos.fullname" .)) }}
      key: redis-url
{{- end }}
{{- end }}

{{/* The variables of all processes. */}}
{{- define "llmos.env.process" -}}
- name: PYTHONUNBUFFERED
  value: "1"
- name: HOME
  value: /tmp
- name: USER
  value: llmos
- name: LLMOS_DATA_DIR
  value: /tmp/llmos
- name: LLMOS_STORE
  value: kubernetes
- name: LLMOS_BACKEND
  value: kubernetes
- name: LLMOS_POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: LLMOS_RELEASE
  value: {{ include "llmos.clusterName" . }}
- name: LLMOS_HOST
  value: 0.0.0.0
- name: LLMOS_PORT
  value: "8080"
- name: JUPYTERHUB_API_URL
  value: {{ include "llmos.hubApiUrl" . }}
- name: LLMOS_PUBLIC_URL
  value: {{ include "llmos.publicUrl" . | quote }}
- name: LLMOS_GATEWAY_URL
  value: {{ include "llmos.gatewayUrl" . | quote }}
{{ include "llmos.env.redis" . }}
{{- include "llmos.env.trust" . }}
{{- end }}

{{/* The variables of the controllers and the API: settings of the cluster and of people's namespaces. */}}
{{- define "llmos.env.cluster" -}}
- name: LLMOS_KUBERNETES_SETTINGS
  value: /etc/llmos/kubernetes.json
- name: LLMOS_NAMESPACE_SETTINGS
  value: /etc/llmos/namespaces.json
{{- end }}

{{- define "llmos.mounts.cluster" -}}
- { name: tmp, mountPath: /tmp }
- { name: users, mountPath: /etc/llmos, readOnly: true }
{{- end }}

{{- define "llmos.volumes.cluster" -}}
- name: tmp
  emptyDir: {}
- name: users
  configMap:
    name: {{ include "llmos.fullname" . }}-users
{{- end }}
