"""What the admission policies admit and refuse, asked of a CEL interpreter: the API server's own is not needed.

What this cannot show: that the API server's type checker takes the expressions (it knows the pod's schema, this
interpreter does not), and that OpenShift sets the annotation `openshift.io/scc`.
"""

from __future__ import annotations

import copy
from typing import Any

import cel
import pytest

from tests.harness.manifests import Object
from tools.manifests import rendered

_POLICIES: list[Object] = rendered("admission")


def refusals(pod: Object, namespace: dict[str, str]) -> list[str]:
    """Give the messages of every policy that refuses this pod in a namespace with these labels."""
    said = []
    for binding in (o for o in _POLICIES if o["kind"] == "ValidatingAdmissionPolicyBinding"):
        wanted = binding["spec"].get("matchResources", {}).get("namespaceSelector", {}).get("matchLabels", {})
        if not wanted.items() <= namespace.items():
            continue
        (policy,) = (
            o["spec"]
            for o in _POLICIES
            if o["kind"] == "ValidatingAdmissionPolicy"
            and o["metadata"]["name"] == binding["spec"]["policyName"]
        )
        told: dict[str, Any] = {"object": pod}
        if not all(cel.evaluate(c["expression"], told) for c in policy.get("matchConditions", [])):
            continue
        told["variables"] = {}
        for variable in policy.get("variables", []):
            told["variables"][variable["name"]] = cel.evaluate(variable["expression"], told)
        said += [v["message"] for v in policy["validations"] if not cel.evaluate(v["expression"], told)]
    return said


def pod(
    scc: str = "", host_path: str = "", *, spec: Object | None = None, container: Object | None = None
) -> Object:
    """Give a pod as the API server hands it to a policy."""
    made: Object = {
        "metadata": {"name": "x"},
        "spec": {
            "serviceAccountName": "default",
            "securityContext": {"runAsNonRoot": True},
            "containers": [
                {"name": "c", "image": "i", "securityContext": {"allowPrivilegeEscalation": False}}
            ],
        },
    }
    if scc:
        made["metadata"]["annotations"] = {"openshift.io/scc": scc}
    if host_path:
        made["spec"]["volumes"] = [{"name": "h", "hostPath": {"path": host_path}}]
    made["spec"].update(spec or {})
    made["spec"]["containers"][0].update(container or {})
    return made


OPTED_IN = {"heap-dumps": "enabled"}
AGENT = {"kubernetes.io/metadata.name": "heap-dumps"}
PRIVILEGED = {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}


def _adding(*names: str) -> Object:
    return {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"add": list(names)}}}


_ADMITTED = {
    "an application with /mnt": (pod("heap-dump-writer", "/mnt"), {}),
    "an application without volumes": (pod("heap-dump-writer"), {}),
    "an application with other volumes": (
        pod("heap-dump-writer", spec={"volumes": [{"name": "t", "emptyDir": {}}]}), {}
    ),
    "the uploader": (pod("heap-dump-uploader", "/mnt"), {}),
    "another's pod under another SCC": (pod("privileged", "/"), {}),
    "another's pod in a namespace that has not opted in": (pod("", "/etc", container=PRIVILEGED), {}),
    "an opted-in application": (pod("", "/mnt"), OPTED_IN),
    "an opted-in application with a uid": (
        pod("", "/mnt", spec={"securityContext": {"runAsUser": 1000}}), OPTED_IN
    ),
    "an opted-in pod without /mnt, as root": (pod(spec={"securityContext": {"runAsUser": 0}}), OPTED_IN),
    "capabilities of baseline": (pod(container=_adding("CHOWN")), OPTED_IN),
    "the uploader in the agent's namespace": (
        pod("", "/mnt", spec={"securityContext": {"runAsUser": 0}}, container=_adding("DAC_OVERRIDE", "LEASE")), AGENT
    ),
    "the manager": (
        pod("", "/var/lib/heap-dumps", spec={"serviceAccountName": "dump-volume-manager"}, container=PRIVILEGED), AGENT
    ),
}  # fmt: skip

_REFUSED = {
    "an application with /": (pod("heap-dump-writer", "/"), {}),
    "an application with /mnt/": (pod("heap-dump-writer", "/mnt/"), {}),
    "an application with /mnt/../etc": (pod("heap-dump-writer", "/mnt/../etc"), {}),
    "an application with /mnt/dump": (pod("heap-dump-writer", "/mnt/dump"), {}),
    "the uploader's account with /": (pod("heap-dump-uploader", "/"), {}),
    "a second volume": (
        pod("heap-dump-writer", spec={"volumes": [{"name": "a", "hostPath": {"path": "/mnt"}}, {"name": "b", "hostPath": {"path": "/var"}}]}),
        {},
    ),
    "opted in, with /": (pod("", "/"), OPTED_IN),
    "opted in, privileged": (pod("", container=PRIVILEGED), OPTED_IN),
    "opted in, a privileged init container": (
        pod(spec={"initContainers": [{"name": "i", **PRIVILEGED}]}), OPTED_IN
    ),
    "opted in, a privileged ephemeral container": (
        pod(spec={"ephemeralContainers": [{"name": "i", **PRIVILEGED}]}), OPTED_IN
    ),
    "opted in, the node's processes": (pod(spec={"hostPID": True}), OPTED_IN),
    "opted in, the node's network": (pod(spec={"hostNetwork": True}), OPTED_IN),
    "opted in, a host port": (pod(container={"ports": [{"containerPort": 1, "hostPort": 80}]}), OPTED_IN),
    "opted in, SYS_ADMIN": (pod(container=_adding("SYS_ADMIN")), OPTED_IN),
    "opted in, DAC_READ_SEARCH": (pod(container=_adding("DAC_READ_SEARCH")), OPTED_IN),
    "opted in, ALL": (pod(container=_adding("ALL")), OPTED_IN),
    "opted in, Bidirectional": (
        pod("", "/mnt", container={"volumeMounts": [{"name": "h", "mountPath": "/mnt", "mountPropagation": "Bidirectional"}]}),
        OPTED_IN,
    ),
    "opted in, /mnt as root": (pod("", "/mnt", spec={"securityContext": {"runAsUser": 0}}), OPTED_IN),
    "opted in, /mnt as whoever the image names": (pod("", "/mnt", spec={"securityContext": {}}), OPTED_IN),
    "opted in, /mnt with one container as root": (
        pod("", "/mnt", container={"securityContext": {"runAsUser": 0}}), OPTED_IN
    ),
    "opted in, /mnt with runAsNonRoot taken back": (
        pod("", "/mnt", container={"securityContext": {"runAsNonRoot": False}}), OPTED_IN
    ),
    "the agent's namespace: the uploader's account with /": (pod("", "/"), AGENT),
    "the agent's namespace: one more capability": (
        pod("", "/mnt", container=_adding("DAC_OVERRIDE", "DAC_READ_SEARCH")), AGENT
    ),
    "the agent's namespace: privileged": (pod("", container=PRIVILEGED), AGENT),
    "the agent's namespace: escalation left open": (pod("", container={"securityContext": {}}), AGENT),
}  # fmt: skip


@pytest.mark.parametrize("case", _ADMITTED)
def test_admitted(case: str) -> None:
    assert refusals(*_ADMITTED[case]) == []


@pytest.mark.parametrize("case", _REFUSED)
def test_refused(case: str) -> None:
    assert refusals(*_REFUSED[case])


@pytest.mark.parametrize("overlay", ["kubernetes", "openshift", "daemonset", "demo-openshift", "pod-events"])
def test_our_own_pods_are_admitted(overlay: str) -> None:
    """In their own namespaces, under the SCC that they require."""
    made = rendered(overlay)
    labels = {
        o["metadata"]["name"]: o["metadata"].get("labels", {})
        | {"kubernetes.io/metadata.name": o["metadata"]["name"]}
        for o in made
        if o["kind"] == "Namespace"
    }
    for workload in (o for o in made if "template" in o.get("spec", {})):
        template = copy.deepcopy(workload["spec"]["template"])
        annotations = template["metadata"]["annotations"]
        annotations["openshift.io/scc"] = annotations["openshift.io/required-scc"]
        assert refusals(template, labels[workload["metadata"]["namespace"]]) == [], workload["metadata"][
            "name"
        ]
