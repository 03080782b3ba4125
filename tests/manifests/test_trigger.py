"""What must hold of manifests/trigger: off until a node is labelled, and no right that asking a JVM does not take."""

from __future__ import annotations

import click
import kubernetes_validate
import pytest

from dumpagent.cli import cli
from tests.harness import manifests
from tests.harness.manifests import Container, Object

FILES = ("trigger/rbac.yaml", "trigger/daemonset.yaml")


def _one(kind: str, name: str = "heap-dump-trigger") -> Object:
    return manifests.named(kind, name, *FILES)


@pytest.fixture
def container() -> Container:
    return manifests.first_container(_one("DaemonSet"))


def test_it_runs_nowhere_until_a_node_is_labelled(container: Container) -> None:
    """Off by default, and nothing else names it."""
    assert container.pod["nodeSelector"] == {"heap-dump-trigger": "true"}
    assert container.words == ["trigger", "--stand-by"]


def test_every_setting_stands_in_the_manifest_and_is_read(container: Container) -> None:
    """An admin sees what can be set, and nothing is misspelt."""
    command = cli.get_command(click.Context(cli), container.words[0])
    assert command
    known = {str(parameter.envvar): parameter for parameter in command.params if parameter.envvar}
    assert set(container.env()) == set(known)
    for name, value in container.env().items():
        if value:
            known[name].type.convert(value, known[name], None)


def test_it_has_the_three_capabilities_and_the_constraint_lets_no_more(container: Container) -> None:
    """SYS_PTRACE to enter the JVM's root, SETUID and SETGID to become its user; nothing to read or kill others with."""
    security, wanted = container.security, ["SETGID", "SETUID", "SYS_PTRACE"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": wanted}
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    assert not {"hostIPC", "hostNetwork"} & container.pod.keys()
    scc = _one("SecurityContextConstraints")
    assert (scc["allowedCapabilities"], scc["allowPrivilegedContainer"]) == (wanted, False)
    assert not set(wanted) & set(scc["requiredDropCapabilities"])
    host = {v["name"] for v in container.pod["volumes"] if "hostPath" in v}
    assert all(m["readOnly"] for m in container.spec["volumeMounts"] if m["name"] in host)


def test_the_token_may_get_a_pod_and_no_more() -> None:
    """RBAC: no list, no secrets, no exec."""
    (rule,) = _one("ClusterRole")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(version: str) -> None:
    """The schemas of the oldest and the newest version."""
    for each in manifests.objects(*FILES):
        if each["kind"] != "SecurityContextConstraints":
            kubernetes_validate.validate(each, version, strict=True)
