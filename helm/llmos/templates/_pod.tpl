{{/* Common parts of the pods of all components. */}}

{{/* Components that run before the first install or after the last uninstall, when the chart's own PriorityClasses don't exist. */}}
{{- define "llmos.hooks" -}}
["crds", "uninstall", "hub-still-uses-llmos"]
{{- end }}

{{/* The settings of a component's pod: (list . "hub" .Values.hub). */}}
{{- define "llmos.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "llmos.fullname" $root }}-{{ $component }}
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- $classes := $root.Values.scheduling.priorityClasses }}
{{- with ternary $classes.existingSystem (include "llmos.priorityClass" (list $root "system")) (has $component (include "llmos.hooks" . | fromJsonArray)) }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "llmos.podSecurity" $root | nindent 2 }}
{{- with merge (dict) $values.nodeSelector $root.Values.scheduling.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $values.tolerations $root.Values.scheduling.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "llmos.selector" (list $root $component) | nindent 14 }}
  {{- end }}
{{- end }}

{{- define "llmos.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "llmos.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A container of the control plane's image, up to its command: (list . "hub" .Values.hub.resources). */}}
{{- define "llmos.container" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
image: {{ include "llmos.image" (list $root $root.Values.images.hub) }}
imagePullPolicy: {{ $root.Values.images.pullPolicy }}
securityContext:
  {{- include "llmos.containerSecurity" $root | nindent 2 }}
{{- with index . 2 }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The probes of a process with /health and /ready; takes the name of its port. */}}
{{- define "llmos.probes" -}}
startupProbe:
  httpGet: { path: /health, port: {{ . }} }
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /health, port: {{ . }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /ready, port: {{ . }} }
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* A ServiceAccount, with its token mounted or not: (list . "hub" true). */}}
{{- define "llmos.serviceAccount" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "llmos.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
automountServiceAccountToken: {{ index . 2 }}
{{- end }}

{{/* A PodDisruptionBudget: a drain evicts at most one replica at a time; it doesn't block the drain with a single one: (list . "api"). */}}
{{- define "llmos.disruptionBudget" -}}
{{- $root := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "llmos.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "llmos.selector" (list $root (index . 1)) | nindent 6 }}
{{- end }}

{{/* A Service for people or load balancers: (list . "gateway" .Values.gateway.service). */}}
{{- define "llmos.publicService" -}}
{{- $root := index . 0 -}}
{{- $service := index . 2 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "llmos.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
  {{- with $service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $service.type }}
  selector:
    {{- include "llmos.selector" (list $root (index . 1)) | nindent 4 }}
  ports:
    - name: http
      port: {{ $service.port }}
      targetPort: http
      {{- if and (ne $service.type "ClusterIP") $service.nodePort }}
      nodePort: {{ $service.nodePort }}
      {{- end }}
{{- end }}

{{/* The labels and annotations of a component's pods: (list . "hub" .Values.hub). */}}
{{- define "llmos.podMetadata" -}}
labels:
  {{- include "llmos.labels" (list (index . 0) (index . 1)) | nindent 2 }}
{{- with (index . 2).podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A claim that is kept after an uninstall: (list . "hub" "name" .Values.hub.db.storage). */}}
{{- define "llmos.claim" -}}
{{- $root := index . 0 -}}
{{- $storage := index . 3 -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ index . 2 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with $storage.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $storage.size }}
{{- end }}
