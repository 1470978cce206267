{{/* The settings that files/jupyterhub_config.py reads, as JSON. */}}
{{- define "llmos.hub.settings" -}}
{{- $fullname := include "llmos.fullname" . -}}
{{- $spawner := dict
      "namespaceLabels" (dict
          "app.kubernetes.io/managed-by" "llmos"
          "app.kubernetes.io/instance" (include "llmos.clusterName" .)
          "llmos.ai/owner-kind" "user")
      "image" (include "llmos.image" (list . .Values.images.notebook))
      "imagePullPolicy" .Values.images.pullPolicy
      "imagePullSecrets" .Values.images.pullSecrets
      "priorityClass" (include "llmos.priorityClass" (list . "users"))
      "nodeSelector" .Values.users.nodeSelector
      "tolerations" .Values.users.tolerations
      "caCertificates" .Values.caCertificates
      "storageCapacity" (toString .Values.users.home.size)
      "storageClass" .Values.users.home.storageClass -}}
{{- dict
      "admin" .Values.hub.admin
      "apiUrl" (printf "http://%s" (include "llmos.serviceHost" (list . "api")))
      "gatewayUrl" (printf "http://%s" (include "llmos.serviceHost" (list . "gateway")))
      "hubConnectUrl" (printf "http://%s:8081" (include "llmos.serviceHost" (list . "hub")))
      "proxyApiUrl" (printf "http://%s-proxy-api:8001" $fullname)
      "publicUrl" (include "llmos.publicUrl" .)
      "namedServerLimit" .Values.hub.namedServerLimit
      "concurrentSpawnLimit" .Values.hub.concurrentSpawnLimit
      "culler" .Values.culler
      "spawner" $spawner
      "config" .Values.hub.config
      "extraConfig" .Values.hub.extraConfig
    | toPrettyJson -}}
{{- end }}
