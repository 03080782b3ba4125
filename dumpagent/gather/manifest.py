"""Pods and events as they may be passed on: without what may be a secret, and of other people's pods the state alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumpagent import settings
from dumpagent.secrets import HIDDEN
from dumpagent.setting import Setting, declared, flag

OURS = ("app.kubernetes.io/part-of", "dumpagent")
_OF_THE_SDK = {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
               "AWS_SHARED_CREDENTIALS_FILE", "NO_PROXY", "no_proxy"}  # fmt: skip
_METADATA = (
    "name",
    "namespace",
    "uid",
    "labels",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
)
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def _settings() -> list[Setting]:
    groups = [
        each
        for each in vars(settings).values()
        if isinstance(each, type) and hasattr(each, "__dataclass_fields__")
    ]
    return [setting for group in groups if group is not Setting for setting, _ in declared(group).values()]


_SHOWN = {setting.env for setting in _settings() if not setting.secret} | _OF_THE_SDK
_SECRET_FLAGS = {flag(setting.env) for setting in _settings() if setting.secret}


def is_ours(pod: Mapping[str, Any]) -> bool:
    """Say whether the pod is one of the agent's."""
    labels = (pod.get("metadata") or {}).get("labels") or {}
    return bool(labels.get(OURS[0]) == OURS[1])


def pod_without_secrets(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Give the pod. The value of a variable stays only if it is a setting of dumpagent that is no secret."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    known = {name: metadata[name] for name in _METADATA if name in metadata}
    if not is_ours(pod):
        containers = [
            {name: each.get(name) for name in ("name", "image", "resources", "volumeMounts")}
            for kind in _CONTAINERS for each in spec.get(kind) or ()
        ]  # fmt: skip
        return {"metadata": known, "spec": {"nodeName": spec.get("nodeName"), "containers": containers},
                "status": _status(pod.get("status") or {})}  # fmt: skip
    containers_of = {
        kind: [_container(each) for each in spec[kind]] for kind in _CONTAINERS if spec.get(kind)
    }
    return {"metadata": known, "spec": {**spec, **containers_of}, "status": _status(pod.get("status") or {})}


def _status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Give the status without the last words of containers, which an application writes as it likes."""
    cut = dict(status)
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        if kind in cut:
            cut[kind] = [_container_status(each) for each in cut[kind]]
    return cut


def _container_status(status: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(status)
    for when in ("state", "lastState"):
        found[when] = {
            name: {
                key: value for key, value in (facts or {}).items() if name != "terminated" or key != "message"
            }
            for name, facts in (status.get(when) or {}).items()
        }
    return found


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(container)
    if "env" in found:
        found["env"] = [
            {**each, "value": HIDDEN} if each.get("value") and each.get("name") not in _SHOWN else each
            for each in found["env"]
        ]
    for words in ("command", "args"):
        if found.get(words):
            found[words] = _words(found[words])
    return found


def _words(words: list[str]) -> list[str]:
    shown, hide_next = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide_next:
            shown.append(HIDDEN)
        elif equals and name in _SECRET_FLAGS:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(word)
        hide_next = word in _SECRET_FLAGS
    return shown


def event_without_rest(event: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an event says, without the records of who changed it."""
    names = ("involvedObject", "type", "reason", "message", "count", "firstTimestamp", "lastTimestamp", "eventTime",
             "source", "reportingComponent", "series")  # fmt: skip
    return {name: event[name] for name in names if event.get(name) is not None}


def event_time(event: Mapping[str, Any]) -> str:
    """Give when the event was last seen, as ISO text; empty if it does not say."""
    series = (event.get("series") or {}).get("lastObservedTime")
    created = (event.get("metadata") or {}).get("creationTimestamp")
    return str(series or event.get("lastTimestamp") or event.get("eventTime") or created or "")
