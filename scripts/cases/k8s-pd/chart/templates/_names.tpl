{{- define "pdctl.base" -}}
{{ default (printf "%s-llm-d-modelservice" .Release.Name) .Values.nameOverride }}
{{- end }}

{{- define "pdctl.serviceURL" -}}
http://{{ include "pdctl.base" .root }}-{{ .role }}.{{ .root.Release.Namespace }}.svc.cluster.local:{{ (index .root.Values .role).servicePort }}
{{- end }}

{{- define "pdctl.routerLabels" -}}
app: vllm-router
mode: pd-disaggregation
model: llama31
{{- end }}
