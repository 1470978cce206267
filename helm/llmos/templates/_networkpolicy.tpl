{{/* Parts of NetworkPolicies. */}}

{{/* The header of a component's policy: (list . "hub"). */}}
{{- define "llmos.policy.head" -}}
{{- $root := index . 0 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "llmos.fullname" $root }}-{{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "llmos.labels" (list $root (index . 1)) | nindent 4 }}
{{- end }}

{{/* Pods of a component in the release's namespace, as a peer: (list . "hub"). */}}
{{- define "llmos.policy.component" -}}
- podSelector:
    matchLabels:
      {{- include "llmos.selector" . | nindent 6 }}
{{- end }}

{{/* The pod of the Hub or the proxy, as a peer: the chart's or that of an existing Hub: (list . "hub"). */}}
{{- define "llmos.policy.hub" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.hub.enabled -}}
{{ include "llmos.policy.component" . }}
{{- else -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ include "llmos.hubNamespace" $root }}
  podSelector:
    matchLabels:
      {{- toYaml (ternary $root.Values.externalHub.hubLabels $root.Values.externalHub.proxyLabels (eq (index . 1) "hub")) | nindent 6 }}
{{- end }}
{{- end }}

{{/* Pods in people's and groups' namespaces, as a peer; only in those of this release. */}}
{{- define "llmos.policy.users" -}}
- namespaceSelector:
    matchLabels:
      app.kubernetes.io/managed-by: llmos
      app.kubernetes.io/instance: {{ include "llmos.clusterName" . }}
{{- end }}

{{/* Notebook servers, as peers: in people's namespaces, and in the Hub's namespace if it keeps its own spawner. */}}
{{- define "llmos.policy.servers" -}}
{{ include "llmos.policy.users" . }}
{{- if not (include "llmos.hubSpawns" .) }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ include "llmos.hubNamespace" . }}
  podSelector:
    matchLabels:
      {{- toYaml .Values.externalHub.serverLabels | nindent 6 }}
{{- end }}
{{- end }}

{{/* The cluster's DNS. */}}
{{- define "llmos.policy.dns" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}
      podSelector:
        matchLabels:
          {{- toYaml .Values.networkPolicy.dnsLabels | nindent 10 }}
  ports:
    - { port: {{ .Values.networkPolicy.dnsPort }}, protocol: UDP }
    - { port: {{ .Values.networkPolicy.dnsPort }}, protocol: TCP }
# a node's own DNS cache
- to:
    - ipBlock:
        cidr: 169.254.20.10/32
  ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
{{- end }}

{{/* IPv4 addresses of cloud metadata services, which give out a node's credentials: the same as METADATA_SERVICES in llmos_hub/names.py. */}}
{{- define "llmos.metadataServices" -}}
- 169.254.0.0/16
- 168.63.129.16/32
- 100.100.100.200/32
- 192.0.0.192/32
{{- end }}

{{/* The cluster's API server, which is not a pod and has no labels. */}}
{{- define "llmos.policy.apiServer" -}}
- to:
    {{- range .Values.networkPolicy.apiServerCidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- if eq . "0.0.0.0/0" }}
        except:
          {{- include "llmos.metadataServices" $ | nindent 10 }}
        {{- end }}
    {{- end }}
  ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - { port: {{ . }}, protocol: TCP }
    {{- end }}
{{- end }}

{{/* Valkey, the chart's or an external one. */}}
{{- define "llmos.policy.valkey" -}}
{{- if .Values.valkey.enabled -}}
- to:
    {{- include "llmos.policy.component" (list . "valkey") | nindent 4 }}
  ports:
    - { port: 6379, protocol: TCP }
{{- else if .Values.valkey.external.egress -}}
{{ toYaml .Values.valkey.external.egress }}
{{- else -}}
- ports:
    - { port: {{ .Values.valkey.external.port }}, protocol: TCP }
{{- end }}
{{- end }}

{{/* The Hub's API. */}}
{{- define "llmos.policy.toHub" -}}
- to:
    {{- include "llmos.policy.hub" (list . "hub") | nindent 4 }}
  ports:
    - { port: 8081, protocol: TCP }
{{- end }}

{{/* The ingress rule for readers of metrics: (list . port). */}}
{{- define "llmos.policy.metrics" -}}
{{- $port := last . }}
{{- with (first .).Values.networkPolicy.metricsFrom }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - { port: {{ $port }}, protocol: TCP }
{{- end }}
{{- end }}
