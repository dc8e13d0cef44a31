{{- define "inferno.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "inferno.labelsBesideSelector" . }}
{{- end }}

{{/* For what also carries a selector's labels, which say the instance. */}}
{{- define "inferno.labelsBesideSelector" -}}
app.kubernetes.io/part-of: inferno
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "inferno.operatorSelector" -}}
app.kubernetes.io/name: inferno-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "inferno.demoSelector" -}}
app.kubernetes.io/name: inferno-demo-model
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "inferno.operatorImage" -}}
{{ .Values.image.operator.repository }}:{{ .Values.image.operator.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "inferno.sidecarImage" -}}
{{ .Values.image.sidecar.repository }}:{{ .Values.image.sidecar.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "inferno.watchesAll" -}}
{{- if has "*" .Values.watchNamespaces }}true{{ end }}
{{- end }}

{{/* What the operator may do where it looks after models. It never reads a Secret: pods name them and the kubelet mounts them. */}}
{{- define "inferno.rules" -}}
- apiGroups: [inferno.ai]
  resources: [inferencepools, inferencemodels]
  verbs: [get, list, watch]
- apiGroups: [inferno.ai]
  resources: [inferencepools/status, inferencemodels/status]
  verbs: [patch]
# For owner references that block deletion, where the cluster enforces that permission.
- apiGroups: [inferno.ai]
  resources: [inferencemodels/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Each pool's gateway: who it is, what it may read, and that one pod of it stays while nodes are drained.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
# Gateways read these. The operator does not, but nobody may grant what he does not hold.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Patched is one annotation: which pod of a revision is to be deleted first. It gives nothing that the right to create
# Deployments does not give already.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
# Golden prompts, by the name that a model says.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Pod security "restricted". */}}
{{- define "inferno.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "inferno.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
