{{/* Annotations of what lives only after an uninstall: its order. */}}
{{- define "llmos.uninstall.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
