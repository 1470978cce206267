{{- define "jupyterhub.labels" -}}
app: jupyterhub
component: {{ .component }}
release: {{ .root.Release.Name }}
{{- end }}

{{- define "jupyterhub.config" -}}
{{ dict "hub" .Values.hub "singleuser" .Values.singleuser "Release" (dict "Name" .Release.Name) | toYaml }}
{{- end }}
