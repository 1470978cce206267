{{/* The pod of a backup: (list . "hub" SOURCE CLAIM). It runs on the node of its source, whose volume may be mounted by only one node. */}}
{{- define "llmos.backup.pod" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
metadata:
  labels:
    {{- include "llmos.labels" (list $root (printf "backup-%s" $kind)) | nindent 4 }}
spec:
  restartPolicy: Never
  enableServiceLinks: false
  automountServiceAccountToken: false
  {{- with $root.Values.images.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  securityContext:
    {{- include "llmos.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.scheduling.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "llmos.selector" (list $root $kind) | nindent 14 }}
  containers:
    - {{- include "llmos.container" (list $root "backup" $root.Values.backup.resources) | nindent 6 }}
      command: [/opt/llmos/bin/python, -P, -m, llmos_hub.supervisor.backup]
      args: [{{ $kind }}, {{ index . 2 }}, /backup, {{ $root.Values.backup.keep | quote }}]
      {{- if eq $kind "valkey" }}
      env:
        {{- include "llmos.env.redis" $root | nindent 8 }}
      {{- end }}
      volumeMounts:
        - { name: source, mountPath: /source, readOnly: true }
        - { name: backup, mountPath: /backup }
        - { name: tmp, mountPath: /tmp }
  volumes:
    - name: source
      persistentVolumeClaim:
        claimName: {{ index . 3 }}
    - name: backup
      persistentVolumeClaim:
        claimName: {{ $root.Values.backup.existingClaim | default (printf "%s-backup-%s" (include "llmos.fullname" $root) $kind) }}
    - name: tmp
      emptyDir: {}
{{- end }}

{{/* The sources of backups, as JSON: kind, path, claim. */}}
{{- define "llmos.backup.sources" -}}
{{- $fullname := include "llmos.fullname" . -}}
{{- $sources := list -}}
{{- if and .Values.hub.enabled (eq .Values.hub.db.type "sqlite") -}}
{{- $sources = append $sources (list "hub" "/source/jupyterhub.sqlite" (.Values.hub.db.existingClaim | default (printf "%s-hub" $fullname))) -}}
{{- end -}}
{{- if .Values.valkey.enabled -}}
{{- $sources = append $sources (list "valkey" "/source" (printf "data-%s-valkey-0" $fullname)) -}}
{{- end -}}
{{- toJson $sources -}}
{{- end }}
