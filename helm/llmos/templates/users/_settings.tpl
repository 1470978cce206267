{{- define "llmos.users.settings" -}}
{{- $hub := dict "image" (include "llmos.image" (list . .Values.images.hub)) -}}
{{- $engine := dict "image" (include "llmos.image" (list . .Values.images.engineCpu)) -}}
{{- $models := dict "accessMode" .Values.users.models.accessMode "size" (toString .Values.users.models.size) -}}
{{- with .Values.users.models.storageClass -}}
{{- $_ := set $models "storageClass" . -}}
{{- end -}}
{{- $network := .Values.users.network -}}
{{- $also := $network.also -}}
{{- if .Values.mirror.enabled -}}
{{- $mirror := dict
      "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace))
      "podSelector" (dict "matchLabels" (include "llmos.selector" (list . "mirror") | fromYaml)) -}}
{{- $ports := list (dict "port" 8080 "protocol" "TCP") -}}
{{- $also = append $also (dict "to" (list $mirror) "ports" $ports) -}}
{{- end -}}
{{- $settings := dict
      "release" (include "llmos.clusterName" .)
      "namespace" .Release.Namespace
      "images" (dict "" $hub "fetch" $engine "llamacpp" $engine)
      "imagePullPolicy" .Values.images.pullPolicy
      "imagePullSecrets" .Values.images.pullSecrets
      "models" $models
      "gpuResource" .Values.users.gpus.resource
      "gpuTypeLabel" .Values.users.gpus.typeLabel
      "gpuTolerations" .Values.users.gpus.tolerations
      "nodeSelector" .Values.users.nodeSelector
      "tolerations" .Values.users.tolerations
      "lostNodeAfter" .Values.users.lostNodeAfter
      "networkPolicies" .Values.networkPolicy.enabled
      "egress" (dict "enabled" $network.internet "exceptCidrs" $network.clusterCidrs "also" $also) -}}
{{- with .Values.users.gpus.runtimeClass -}}
{{- $_ := set $settings "gpuRuntimeClass" . -}}
{{- end -}}
{{- with include "llmos.priorityClass" (list . "users") -}}
{{- $_ := set $settings "priorityClass" . -}}
{{- end -}}
{{- toPrettyJson $settings -}}
{{- end }}

{{/* The contents of each namespace, which llmos_hub/managers/namespace_options.py reads. */}}
{{- define "llmos.users.namespaces" -}}
{{- $root := . -}}
{{- $users := .Values.users -}}
{{- $policy := .Values.networkPolicy -}}
{{- $network := dict
      "internet" $users.network.internet
      "clusterCidrs" $users.network.clusterCidrs
      "dns" (dict "namespace" $policy.dnsNamespace "labels" $policy.dnsLabels "ports" (list $policy.dnsPort)) -}}
{{- range $name, $port := dict "hub" 8081 "proxy" 8000 "api" 8080 "gateway" 8080 -}}
{{- $labels := include "llmos.selector" (list $root $name) | fromYaml -}}
{{- $namespace := $root.Release.Namespace -}}
{{- if and (not $root.Values.hub.enabled) (has $name (list "hub" "proxy")) -}}
{{- $labels = ternary $root.Values.externalHub.hubLabels $root.Values.externalHub.proxyLabels (eq $name "hub") -}}
{{- $namespace = include "llmos.hubNamespace" $root -}}
{{- end -}}
{{- $_ := set $network $name (dict "namespace" $namespace "labels" $labels "ports" (list $port)) -}}
{{- end -}}
{{- $bindings := list -}}
{{- if .Values.rbac.create -}}
{{- range list "api" "controllers" -}}
{{- $bindings = append $bindings (dict
      "clusterRole" (printf "%s-%s-in-namespace" (include "llmos.clusterName" $root) .)
      "serviceAccount" (printf "%s-%s" (include "llmos.fullname" $root) .)
      "namespace" $root.Release.Namespace) -}}
{{- end -}}
{{- if eq (include "llmos.hubSpawns" .) "yes" -}}
{{- $bindings = append $bindings (dict
      "clusterRole" (printf "%s-hub-in-namespace" (include "llmos.clusterName" .))
      "serviceAccount" (include "llmos.hubServiceAccount" .)
      "namespace" (include "llmos.hubNamespace" .)) -}}
{{- end -}}
{{- end -}}
{{- $options := dict
      "instance" (include "llmos.clusterName" .)
      "quota" (include "llmos.users.quantities" $users.quota | fromJson)
      "counts" (include "llmos.users.quantities" $users.counts | fromJson)
      "limits" (dict
          "defaultRequest" (include "llmos.users.quantities" $users.limits.defaultRequest | fromJson)
          "default" (include "llmos.users.quantities" $users.limits.default | fromJson)
          "max" (include "llmos.users.quantities" $users.limits.max | fromJson))
      "network" $network
      "pullSecrets" .Values.images.pullSecrets
      "bindings" $bindings
      "podSecurity" $users.podSecurity
      "labels" $users.namespaceLabels
      "orphanGraceHours" $users.orphanGraceHours
      "deleteVolumes" $users.deleteVolumes -}}
{{- if $users.groupQuota -}}
{{- $_ := set $options "groupQuota" (include "llmos.users.quantities" $users.groupQuota | fromJson) -}}
{{- end -}}
{{- toPrettyJson $options -}}
{{- end }}

{{/* Quantities as strings: 50 becomes "50". */}}
{{- define "llmos.users.quantities" -}}
{{- $amounts := dict -}}
{{- range $name, $amount := . -}}
{{- $_ := set $amounts $name (toString $amount) -}}
{{- end -}}
{{- toJson $amounts -}}
{{- end }}
