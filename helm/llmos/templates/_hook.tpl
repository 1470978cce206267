{{/*
Jobs that Helm, or another tool that applies the chart, runs before or after everything else; their program
is files/hooks.py.

A job's name contains a hash of its contents, since a job is immutable: the next version's has another name. It uses
none of the chart's PriorityClasses, which don't exist before the first install and after the last uninstall.
*/}}

{{/* The hook's annotations: (list "pre-upgrade" -20). */}}
{{- define "llmos.hook.annotations" -}}
helm.sh/hook: {{ index . 0 }}
helm.sh/hook-weight: {{ index . 1 | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* The header of an object: (list . "crds" "pre-upgrade" "v1" "ConfigMap" "name" "namespace"). */}}
{{- define "llmos.hook.head" -}}
apiVersion: {{ index . 3 }}
kind: {{ index . 4 }}
metadata:
  name: {{ index . 5 }}
  {{- with index . 6 }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "llmos.labels" (list (index . 0) (index . 1)) | nindent 4 }}
  annotations:
    {{- include "llmos.hook.annotations" (list (index . 2) (ternary -10 -20 (eq (index . 4) "Job"))) | nindent 4 }}
{{- end }}

{{/*
The job with its service account, rights, files and network policy:
(list . (dict "component" "crds" "hook" "pre-upgrade" "arguments" (list "crds") "rules" (list) "data" (dict) "namespace" "")).
With a namespace the rights apply only there.
*/}}
{{- define "llmos.hook" -}}
{{- $root := index . 0 -}}
{{- $hook := index . 1 -}}
{{- $component := $hook.component -}}
{{- $name := printf "%s-%s" (include "llmos.fullname" $root) $component -}}
{{- $head := list $root $component $hook.hook -}}
{{- $release := $root.Release.Namespace -}}
{{- $rights := printf "%s-%s" (include "llmos.clusterName" $root) $component -}}
{{- $role := ternary "Role" "ClusterRole" (not (empty $hook.namespace)) -}}
{{ include "llmos.hook.head" (concat $head (list "v1" "ServiceAccount" $name $release)) }}
---
{{ include "llmos.hook.head" (concat $head (list "rbac.authorization.k8s.io/v1" $role $rights $hook.namespace)) }}
rules:
  {{- toYaml $hook.rules | nindent 2 }}
---
{{ include "llmos.hook.head" (concat $head (list "rbac.authorization.k8s.io/v1" (printf "%sBinding" $role) $rights $hook.namespace)) }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $role }}
  name: {{ $rights }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $release }}
---
{{- if $root.Values.networkPolicy.enabled }}
{{ include "llmos.hook.head" (concat $head (list "networking.k8s.io/v1" "NetworkPolicy" $name $release)) }}
spec:
  podSelector:
    matchLabels:
      {{- include "llmos.selector" (list $root $component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
    {{- include "llmos.policy.dns" $root | nindent 4 }}
    {{- include "llmos.policy.apiServer" $root | nindent 4 }}
---
{{- end }}
{{- $data := merge (dict "hooks.py" ($root.Files.Get "files/hooks.py")) $hook.data }}
{{ include "llmos.hook.head" (concat $head (list "v1" "ConfigMap" $name $release)) }}
data:
  {{- toYaml $data | nindent 2 }}
---
{{- $pod := include "llmos.hook.pod" (list $root $component $name $hook.arguments) }}
{{- $version := print $pod (toJson $data) | sha256sum | trunc 8 }}
{{ include "llmos.hook.head" (concat $head (list "batch/v1" "Job" (printf "%s-%s" (include "llmos.bounded" (list $name 54)) $version) $release)) }}
spec:
  backoffLimit: {{ $hook.retries | default 3 }}
  activeDeadlineSeconds: 300
  ttlSecondsAfterFinished: 3600  # for tools other than Helm, which don't delete it
  template:
    {{- $pod | nindent 4 }}
{{- end }}

{{- define "llmos.hook.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
metadata:
  labels:
    {{- include "llmos.labels" (list $root $component) | nindent 4 }}
spec:
  {{- include "llmos.podSpec" (list $root $component (dict "nodeSelector" dict "tolerations" list)) | nindent 2 }}
  restartPolicy: Never
  containers:
    - {{- include "llmos.container" (list $root $component (dict "requests" (dict "cpu" "10m" "memory" "32Mi") "limits" (dict "memory" "128Mi"))) | nindent 6 }}
      command: [/opt/llmos/bin/python, -P, /etc/llmos/hooks.py]
      args: {{ toJson (index . 3) }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - { name: hooks, mountPath: /etc/llmos, readOnly: true }
  volumes:
    - name: hooks
      configMap:
        name: {{ index . 2 }}
{{- end }}
