{{/* The values for a Hub that is there already, with this release's names in them. */}}
{{- define "llmos.notes.externalHub" -}}
{{- $secret := include "llmos.secretName" . -}}
{{- $users := dict "namespaceSelector" (dict "matchLabels" (dict "app.kubernetes.io/managed-by" "llmos")) -}}
{{- $own := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace))
      "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/instance" .Release.Name)) -}}
Your own Hub is in charge of people. Put what is between the lines into a file llmos-hub.yaml and upgrade your
Zero to JupyterHub with it (docs/kubernetes.md explains it line by line):

  helm get notes {{ .Release.Name }} -n {{ .Release.Namespace }} | sed -n '/^# ---8<---/,/^# --->8---/p' > llmos-hub.yaml
  helm upgrade JUPYTERHUB jupyterhub/jupyterhub -n {{ include "llmos.hubNamespace" . }} --reuse-values -f llmos-hub.yaml

# ---8<---
hub:
  initContainers:
    - name: llmos
      image: {{ include "llmos.image" (list . .Values.images.hub) }}
      imagePullPolicy: {{ .Values.images.pullPolicy }}
      command: [/opt/llmos/bin/python, -P, -m, llmos_hub.supervisor.container, copy-code, /llmos]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, runAsNonRoot: true, runAsUser: 1000}
      volumeMounts:
        - {name: llmos, mountPath: /llmos}
  extraVolumes:
    - {name: llmos, emptyDir: {}}
  extraVolumeMounts:
    - {name: llmos, mountPath: /opt/llmos-code, readOnly: true}
  extraEnv:
    LLMOS_SERVICE_TOKEN:
      valueFrom: {secretKeyRef: {name: {{ $secret }}, key: llmos-token}}
    LLM_SERVICE_TOKEN:
      valueFrom: {secretKeyRef: {name: {{ $secret }}, key: llm-token}}
  extraConfig:
    zz-llmos: |
      import os, sys
      sys.path.append("/opt/llmos-code")
      from llmos_hub.jupyterhub_config import Tokens, configure
      c.JupyterHub.spawner_class = "llmos_spawners.kubernetes.LLMOSKubeSpawner"
      c.LLMOSKubeSpawner.openai_base_url = "http://{{ include "llmos.serviceHost" (list . "gateway") }}/v1"
      c.LLMOSKubeSpawner.llmos_url = "http://{{ include "llmos.serviceHost" (list . "api") }}/services/llmos"
      c.LLMOSKubeSpawner.user_namespace_labels = {
          "app.kubernetes.io/managed-by": "llmos",
          "app.kubernetes.io/instance": "{{ include "llmos.clusterName" . }}",
          "llmos.ai/owner-kind": "user",
      }
      c.KubeSpawner.image = "{{ include "llmos.image" (list . .Values.images.notebook) }}"
      configure(
          c,
          api_url="http://{{ include "llmos.serviceHost" (list . "api") }}",
          gateway_url="http://{{ include "llmos.serviceHost" (list . "gateway") }}",
          tokens=Tokens(llmos=os.environ["LLMOS_SERVICE_TOKEN"], llm=os.environ["LLM_SERVICE_TOKEN"]),
          report=lambda line: print(f"LLMOS: {line}"),
      )
  networkPolicy:
    ingress:
      - from:
          - {{ toJson $own }}
          - {{ toJson $users }}
        ports:
          - {port: 8081, protocol: TCP}
singleuser:
  storage:
    homeMountPath: /home/llmos
  cloudMetadata:
    blockWithIptables: false
# --->8---
{{- if .Values.existingSecret }}

The Secret {{ $secret }} must be in namespace {{ include "llmos.hubNamespace" . }} too, with the keys llmos-token and llm-token.
{{- end }}
{{- end }}
