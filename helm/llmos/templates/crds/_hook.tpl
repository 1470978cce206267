{{/* Annotations of what lives only while definitions are brought up to date: its order. */}}
{{- define "llmos.crds.hook" -}}
helm.sh/hook: pre-upgrade,pre-rollback
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
