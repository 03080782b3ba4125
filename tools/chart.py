"""The Helm chart as text, made from the rendered overlays: what may be set becomes a value, all else stays as it is."""

from __future__ import annotations

import json
import re
from typing import Any

_Made = list[tuple[dict[str, Any], str]]

_NOTES = """\
The volume managers and uploaders of {{ .Release.Name }} start in the namespace {{ .Release.Namespace }}.

1. This namespace must admit privileged pods:
   kubectl label namespace {{ .Release.Namespace }} --overwrite pod-security.kubernetes.io/enforce=privileged
{{- if not .Values.credentials.optional }}
2. The uploaders wait for the Secret {{ .Values.credentials.secret }}:
   kubectl -n {{ .Release.Namespace }} create secret generic {{ .Values.credentials.secret }} --from-literal=S3_BUCKET=... \\
     --from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=...
{{- end }}
3. Ask whether all is well:
   kubectl -n {{ .Release.Namespace }} get pods -o wide
"""

_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "global": {"type": "object"},
        "image": {"type": "string", "minLength": 1},
        "form": {"enum": ["statefulset", "daemonset"]},
        "nodes": {"type": "integer", "minimum": 1},
        "openshift": {"type": "boolean"},
        "volume": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"size": {"type": "string"}, "storageClassName": {"type": "string"}, "hostPath": {"type": "string"}},
        },
        "credentials": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"secret": {"type": "string", "minLength": 1}, "optional": {"type": "boolean"}},
        },
        "serviceAccountAnnotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "settings": {"type": "object", "additionalProperties": {"type": ["string", "integer", "boolean"]}},
    },
}  # fmt: skip


def files(forms: dict[str, _Made], *, settings: str, image: str, version: str) -> dict[str, str]:
    """Give each file of the chart by its path. `forms` has the objects of each overlay with their text."""
    base, openshift, daemonset = forms["kubernetes"], forms["openshift"], forms["daemonset"]
    names = {_key(made) for made, _ in base}
    common = [text for made, text in base if made["kind"] not in ("StatefulSet", "Namespace")]
    return {
        "Chart.yaml": _chart(version),
        "values.yaml": _values(settings, image),
        "values.schema.json": json.dumps(_SCHEMA, indent=2) + "\n",
        "templates/NOTES.txt": _NOTES,
        "templates/agent.yaml": _template(common),
        "templates/statefulset.yaml": _only_if(
            'eq .Values.form "statefulset"', _template([t for made, t in base if made["kind"] == "StatefulSet"])
        ),
        "templates/daemonset.yaml": _only_if(
            'eq .Values.form "daemonset"', _template([t for made, t in daemonset if made["kind"] == "DaemonSet"])
        ),
        "templates/openshift.yaml": _only_if(
            ".Values.openshift", _template([t for made, t in openshift if _key(made) not in names])
        ),
    }  # fmt: skip


def _key(made: dict[str, Any]) -> tuple[str, str]:
    return made["kind"], made["metadata"]["name"]


def _chart(version: str) -> str:
    return (
        "# Written by `make manifests`, as is all of this chart.\napiVersion: v2\nname: dumpagent\n"
        "description: Java heap dumps on Kubernetes nodes, in S3 seconds after the JVM has finished them\n"
        f'type: application\nversion: {version}\nappVersion: "{version}"\nkubeVersion: ">=1.21.0-0"\n'
    )


def _values(settings: str, image: str) -> str:
    return f"""\
# With a digest: registry.example.com/dumpagent@sha256:...
image: {image}
# statefulset: a volume of its own for each of `nodes` nodes. daemonset: a directory of the node, on every node.
form: statefulset
nodes: 1
# true: also the SecurityContextConstraints and who may use them.
openshift: false
volume:
  size: 10Gi # at least twice the largest heap
  storageClassName: "" # empty: the cluster's default
  hostPath: /var/lib/heap-dumps # with form daemonset
credentials:
  # A Secret that you make; it may hold every name of `settings` too, and wins over it.
  secret: s3-credentials
  # true with a workload identity, which needs no Secret
  optional: false
# Of the uploader's service account, such as eks.amazonaws.com/role-arn
serviceAccountAnnotations: {{}}
# docs/settings.md explains each.
settings:
{settings}"""


def _only_if(condition: str, text: str) -> str:
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"


def _template(texts: list[str]) -> str:
    return "---\n".join(_with_values(text) for text in texts)


def _with_values(text: str) -> str:
    if "kind: ConfigMap" in text:
        text = text.partition("\ndata:\n")[0] + (
            "\ndata:\n  {{- range $name, $value := .Values.settings }}\n  {{ $name }}: {{ $value | quote }}\n  {{- end }}\n"
        )
    if "kind: ServiceAccount\n" in text and "name: heap-dump-s3-uploader" in text and "roleRef" not in text:
        text = text.replace(
            "automountServiceAccountToken",
            "  {{- with .Values.serviceAccountAnnotations }}\n  annotations: {{- toYaml . | nindent 4 }}\n  {{- end }}\n"
            "automountServiceAccountToken",
        )
    for pattern, value in (
        (r"namespace: heap-dumps$", "namespace: {{ .Release.Namespace }}"),
        (r"image: \S*\bdumpagent[:@]\S+$", "image: {{ .Values.image | quote }}"),
        (r"replicas: 1\b", "replicas: {{ .Values.nodes }}"),
        (r"secretRef: \{name: s3-credentials\}", "secretRef: {name: {{ .Values.credentials.secret }}, optional: {{ .Values.credentials.optional }}}"),
        (r"^( *)secretRef:\n *name: s3-credentials$", r"\1secretRef: {name: {{ .Values.credentials.secret }}, optional: {{ .Values.credentials.optional }}}"),
        (r"^( *)requests: \{storage: 10Gi\}", r"\1requests: {storage: {{ .Values.volume.size }}}"),
        (r"^( *)accessModes: \[ReadWriteOnce\]", r"\1accessModes: [ReadWriteOnce]\n\1{{- with .Values.volume.storageClassName }}\n\1storageClassName: {{ . }}\n\1{{- end }}"),
        (r"path: /var/lib/heap-dumps$", "path: {{ .Values.volume.hostPath }}"),
    ):  # fmt: skip
        text = re.sub(pattern, value, text, flags=re.MULTILINE)
    return text
