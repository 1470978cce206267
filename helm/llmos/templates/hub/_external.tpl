{{/* The values for an existing Hub, with this release's names. */}}
{{- define "llmos.notes.externalHub" -}}
{{- $secret := include "llmos.secretName" . -}}
{{- $spawns := include "llmos.hubSpawns" . -}}
{{- $api := printf "http://%s" (include "llmos.serviceHost" (list . "api")) -}}
{{- $gateway := printf "http://%s" (include "llmos.serviceHost" (list . "gateway")) -}}
{{- $namespace := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace)) -}}
{{- $users := dict "namespaceSelector" (dict "matchLabels" (dict "app.kubernetes.io/managed-by" "llmos" "app.kubernetes.io/instance" (include "llmos.clusterName" .))) -}}
{{- $own := merge (dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/instance" .Release.Name))) $namespace -}}
Your own Hub manages people. Save the part between the marked lines as llmos-hub.yaml, and upgrade your
Zero to JupyterHub with it, after your own values (docs/explanation/joining-a-hub.md explains it line by line):

  helm get notes {{ .Release.Name }} -n {{ .Release.Namespace }} | sed -n '/^# ---8<---/,/^# --->8---/p' > llmos-hub.yaml
  helm upgrade JUPYTERHUB jupyterhub/jupyterhub -n {{ include "llmos.hubNamespace" . }} -f YOUR-VALUES.yaml -f llmos-hub.yaml

Print and apply the file again after each upgrade of this release. Before you uninstall it, stop the servers that its
spawner started and upgrade your Hub with only your own values: the Hub needs objects that would be deleted.

Helm replaces whole lists: if your values have one of these (initContainers, extraVolumes, extraVolumeMounts,
{{ ternary "networkPolicy.ingress" "networkPolicy.ingress, networkPolicy.egress" (eq $spawns "yes") }}), add your entries to the file's.

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
      valueFrom: {secretKeyRef: {name: {{ $secret }}, key: llmos-token, optional: true}}
    LLM_SERVICE_TOKEN:
      valueFrom: {secretKeyRef: {name: {{ $secret }}, key: llm-token, optional: true}}
  extraConfig:
    zz-llmos: |
      import os, sys
      sys.path.append("/opt/llmos-code")
      report = lambda line: print(f"LLMOS: {line}")
      if "LLMOS_SERVICE_TOKEN" not in os.environ:
          report("could not be added: the Secret {{ $secret }} is missing in this namespace. Is LLMOS uninstalled? Then upgrade this Hub with your own values alone")
      else:
          from llmos_hub.jupyterhub_config import Tokens, configure
          {{- if $spawns }}
          c.JupyterHub.spawner_class = "llmos_spawners.kubernetes.LLMOSKubeSpawner"
          c.JupyterHub.hub_connect_url = "{{ regexReplaceAll "^([a-z]+://[^/]+).*$" (include "llmos.hubApiUrl" .) "${1}" }}"
          c.LLMOSKubeSpawner.openai_base_url = "{{ $gateway }}/v1"
          c.LLMOSKubeSpawner.llmos_url = "{{ $api }}/services/llmos"
          c.LLMOSKubeSpawner.instance = "{{ include "llmos.clusterName" . }}"
          {{- with .Values.caCertificates }}
          c.LLMOSKubeSpawner.ca_certificates = {{ trim . | toJson }}
          {{- end }}
          c.KubeSpawner.image = "{{ include "llmos.image" (list . .Values.images.notebook) }}"
          {{- else }}
          from llmos_spawners.environment import keep_spawner
          keep_spawner(c, openai_base_url="{{ $gateway }}/v1", llmos_url="{{ $api }}/services/llmos", report=report)
          {{- end }}
          configure(
              c,
              api_url="{{ $api }}",
              gateway_url="{{ $gateway }}",
              tokens=Tokens(llmos=os.environ["LLMOS_SERVICE_TOKEN"], llm=os.environ["LLM_SERVICE_TOKEN"]),
              report=report,
          )
  networkPolicy:
    ingress:
      - from:
          - {{ toJson $own }}
          {{- if $spawns }}
          - {{ toJson $users }}
          {{- end }}
        ports:
          - {port: 8081, protocol: TCP}
singleuser:
  {{- if $spawns }}
  storage:
    homeMountPath: /home/llmos
  cloudMetadata:
    blockWithIptables: false
  {{- else }}
  networkPolicy:
    egress:
      - to:
          - {{ toJson $own }}
        ports:
          - {port: 8080, protocol: TCP}
  {{- end }}
# --->8---
{{- if .Values.existingSecret }}

The Secret {{ $secret }} must be in namespace {{ include "llmos.hubNamespace" . }} too, with the keys llmos-token and llm-token.
{{- end }}
{{- end }}
