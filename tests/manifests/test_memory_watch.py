"""What must hold of manifests/memory-watch: it starts, and it may do nothing but read."""

from __future__ import annotations

import click
import kubernetes_validate
import pytest

from dumpagent.cli import cli
from tests.harness import manifests
from tests.harness.manifests import Container, Object

FILES = ("memory-watch/rbac.yaml", "memory-watch/daemonset.yaml")


def _one(kind: str, name: str = "heap-dump-memory-watch") -> Object:
    return manifests.named(kind, name, *FILES)


@pytest.fixture
def container() -> Container:
    return manifests.first_container(_one("DaemonSet"))


def test_every_setting_stands_in_the_manifest_and_is_read(container: Container) -> None:
    """An admin sees what can be set, and nothing is misspelt."""
    command = cli.get_command(click.Context(cli), container.words[0])
    assert command
    known = {str(parameter.envvar) for parameter in command.params if parameter.envvar}
    assert set(container.env()) == known
    environment = {name: value for name, value in container.env().items() if value is not None}
    for parameter in command.params:
        if parameter.envvar and str(parameter.envvar) in environment and environment[str(parameter.envvar)]:
            parameter.type.convert(environment[str(parameter.envvar)], parameter, None)


def test_it_has_no_capability_and_sees_no_other_process(container: Container) -> None:
    """The least that reading takes."""
    pod = container.pod
    assert not {"hostPID", "hostIPC", "hostNetwork"} & pod.keys()
    security = container.security
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] != 0
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
    host = {v["name"] for v in pod["volumes"] if "hostPath" in v}
    assert all(m["readOnly"] for m in container.spec["volumeMounts"] if m["name"] in host)
    scc = _one("SecurityContextConstraints")
    assert (scc["allowedCapabilities"], scc["requiredDropCapabilities"]) == ([], ["ALL"])
    assert scc["allowPrivilegedContainer"] is False


def test_it_may_look_at_the_directories_of_every_namespace(container: Container) -> None:
    """Under SELinux a pod's own directory has its categories; with a level of its own the watch saw no dump there."""
    level = {"level": "s0:c0.c1023"}
    assert container.pod["securityContext"]["seLinuxOptions"] == level
    scc = _one("SecurityContextConstraints")
    assert scc["seLinuxContext"] == {"type": "MustRunAs", "seLinuxOptions": level}


def test_the_token_may_list_pods_and_create_events_and_no_more() -> None:
    """RBAC: no get, no secrets, no other group."""
    rules = _one("ClusterRole")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["pods"], ["list", "watch"]),
        (["events"], ["create"]),
    ]
    assert all(rule["apiGroups"] == [""] for rule in rules)


@pytest.mark.parametrize("version", ["1.25", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(version: str) -> None:
    """The schemas of the oldest and the newest version."""
    for each in manifests.objects(*FILES):
        if each["kind"] != "SecurityContextConstraints":
            kubernetes_validate.validate(each, version, strict=True)
