"""What must hold of the manifests whatever is changed in them, asked without a cluster."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

import dumpagent.settings
from dumpagent import __version__
from dumpagent.cli import cli
from dumpagent.notify.api_server import ACCOUNT
from dumpagent.setting import PLACEHOLDER, Setting, declared
from tests.e2e.chain import GUIDE, SECTIONS
from tests.harness import guide, manifests, schemas
from tests.harness.manifests import Container, Object
from tools.manifests import rendered

CONTAINERS = [pytest.param(container, id=str(container)) for container in manifests.containers()]
AGENTS = [
    pytest.param(container, id=str(container)) for container in manifests.containers() if container.words
]
DAEMONS = [
    pytest.param(c, id=str(c))
    for c in manifests.containers()
    if c.words and c.words[0] in ("mount", "upload")
]
PODS = [pytest.param(w, id=w["metadata"]["name"]) for w in manifests.workloads()]
# 1.25 is the oldest that the validator knows; OpenShift 4.12 is Kubernetes 1.25.
VERSIONS = ("1.25", kubernetes_validate.latest_version())
_EXTENSIONS = {"SecurityContextConstraints", "Route", "PodMonitor", "PrometheusRule"}


def _command(container: Container) -> click.Command:
    command = cli.get_command(click.Context(cli), container.words[0])
    assert command is not None, f"{container}: no command {container.words[0]!r}"
    return command


def _variables(command: click.Command) -> set[str]:
    return {str(parameter.envvar) for parameter in command.params if parameter.envvar}


def _settings() -> dict[str, Setting]:
    return {
        setting.env: setting
        for settings_class in vars(dumpagent.settings).values()
        if isinstance(settings_class, type) and hasattr(settings_class, "__dataclass_fields__")
        if settings_class is not Setting
        for setting, _default in declared(settings_class).values()
    }


def _upload(environ: dict[str, str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dumpagent", "upload", "--once", "--dump-root", str(tmp_path)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_placeholder_that_is_left_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Whoever applies the files unread is told which value is missing, not that some signature does not match."""
    (uploader,) = (c for c in manifests.containers() if c.words[:1] == ["upload"])
    assert uploader.env()[name] == PLACEHOLDER
    filled = {"S3_BUCKET": "b", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", name: PLACEHOLDER}
    answer = _upload(filled, tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"dumpagent: {name} still has {PLACEHOLDER} in it")
    assert "hint: put the real value" in answer.stderr


@pytest.mark.parametrize("container", AGENTS)
def test_every_variable_is_read_by_the_command_that_gets_it(container: Container) -> None:
    """A misspelt variable is silently ignored by every program; here it fails."""
    known = _variables(_command(container))
    unknown = {name for name in container.env() if not name.startswith(manifests.SDK_PREFIX)} - known
    assert not unknown, f"{container}: not read by `dumpagent {container.words[0]}`: {sorted(unknown)}"


@pytest.mark.parametrize("container", DAEMONS)
def test_every_setting_stands_in_the_manifest(container: Container) -> None:
    """An admin sees in the manifest what can be set."""
    missing = _variables(_command(container)) - set(container.env())
    assert not missing, f"add to manifests/ for {container}, with the default: {sorted(missing)}"


@pytest.mark.parametrize("container", AGENTS)
def test_every_value_is_accepted(container: Container) -> None:
    """What stands in the manifests starts."""
    settings = _settings()
    for name, value in container.env().items():
        if name in settings and value not in (None, PLACEHOLDER):
            settings[name].parse(str(value))


@pytest.mark.parametrize("container", AGENTS)
def test_arguments_parse(container: Container) -> None:
    """Init containers and daemons are called as the real command line wants it."""
    name, *words = container.words
    _command(container).make_context(name, words)


@pytest.mark.parametrize("container", AGENTS)
@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_parse(container: Container, probe: str, tmp_path: Path) -> None:
    """A probe that is called wrongly would say "unhealthy" for ever; 2 is the exit code for it."""
    if probe not in container.spec:
        assert container.init or container.words[0] == "cleanup", f"{container} has no {probe}"
        return
    program, *words = container.spec[probe]["exec"]["command"]
    assert program == "dumpagent"
    answer = subprocess.run(
        [sys.executable, "-m", "dumpagent", *words],
        env={**os.environ, "RUNTIME_DIR": str(tmp_path), "DUMP_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1, f"no daemon runs here, so 1 is right: {answer}"
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("container", AGENTS)
def test_probes_have_time_enough(container: Container) -> None:
    """Twenty times what `check` needs inside 100m CPU, since the daemon itself uses the same share."""
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container.spec:
            assert container.spec[probe]["timeoutSeconds"] >= 5


@pytest.mark.parametrize("container", DAEMONS)
def test_daemons_are_asked_as_often_as_promised(container: Container) -> None:
    """Out of service five seconds after the mount is lost; restarted only when nothing turns for more than a minute."""
    ready, live = container.spec["readinessProbe"], container.spec["livenessProbe"]
    assert (ready["exec"]["command"][2:], ready["periodSeconds"]) == (["ready"], 5)
    assert (live["exec"]["command"][2:], live["periodSeconds"]) == (["live"], 30)
    assert live["failureThreshold"] * live["periodSeconds"] > 60
    assert (
        container.spec["startupProbe"]["failureThreshold"] * container.spec["startupProbe"]["periodSeconds"]
        >= 60
    )


@pytest.mark.parametrize("workload", PODS)
def test_each_pod_has_time_to_end_and_leaves_word_of_why_it_did(workload: Object) -> None:
    """The kubelet's own defaults are not relied on; the last lines of a log stand in the pod's status."""
    pod = workload["spec"]["template"]["spec"]
    assert "terminationGracePeriodSeconds" in pod
    if workload["metadata"]["name"] in ("dump-volume-manager", "heap-dump-s3-uploader"):
        assert pod["terminationGracePeriodSeconds"] >= 10  # both end within 3 s, even on a volume that hangs
    for spec in (*pod.get("initContainers", []), *pod["containers"]):
        assert spec["terminationMessagePolicy"] == "FallbackToLogsOnError", spec["name"]


@pytest.mark.parametrize("name", ["dump-volume-manager", "heap-dump-s3-uploader"])
def test_one_pod_per_node_and_none_waits_for_another(name: str) -> None:
    """Two on a node would fight; under OrderedReady one broken node would hold up the repair of all."""
    workload = manifests.named("StatefulSet", name)
    labels = workload["spec"]["selector"]["matchLabels"]
    affinity = workload["spec"]["template"]["spec"]["affinity"]
    assert workload["spec"]["podManagementPolicy"] == "Parallel"
    assert affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == [
        {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    ]


@pytest.mark.parametrize(
    "kind_and_name", [("StatefulSet", "heap-dump-s3-uploader"), ("Deployment", "memory-leak-app")]
)
def test_who_needs_the_volume_goes_where_a_manager_is_and_waits_for_it(
    kind_and_name: tuple[str, str],
) -> None:
    """Scheduled beside a manager, and started when `dumpagent wait` has seen the volume."""
    pod = manifests.named(*kind_and_name)["spec"]["template"]["spec"]
    (rule,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"] == {"matchLabels": {"app": "dump-volume-manager"}}
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    first = pod["initContainers"][0]
    assert (first["name"], first["args"][0]) == ("wait-for-volume-manager", "wait")


@pytest.mark.parametrize("container", DAEMONS)
def test_daemons_know_their_node_and_pod(container: Container) -> None:
    """From the downward API: they go into metadata, keys and metrics."""
    fields = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container.spec["env"]
        if "valueFrom" in entry
    }
    assert fields == {
        "NODE_NAME": "spec.nodeName",
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
    }


def test_priority_and_size_are_the_promised_ones() -> None:
    """A manager takes an ordinary pod's place, and its volume holds what capacity was planned for."""
    manager = manifests.named("StatefulSet", "dump-volume-manager")
    (claim,) = manager["spec"]["volumeClaimTemplates"]
    assert manifests.named("PriorityClass", "dump-volume-critical")["value"] == 1_000_000
    assert manager["spec"]["template"]["spec"]["priorityClassName"] == "dump-volume-critical"
    assert claim["metadata"]["name"] == "dump-storage-pvc"
    assert claim["spec"]["resources"]["requests"] == {"storage": "10Gi"}


def test_openshift_shows_the_application_as_java_and_reaches_it_by_tls_alone() -> None:
    """The console's labels, and a route that sends plain requests to https."""
    for kind, name in (("Deployment", "memory-leak-app"), ("Service", "memory-leak-service")):
        assert manifests.named(kind, name)["metadata"]["labels"]["app.openshift.io/runtime"] == "java"
    route = manifests.named("Route", "memory-leak-app")["spec"]
    assert route["tls"] == {"termination": "edge", "insecureEdgeTerminationPolicy": "Redirect"}
    assert route["to"]["name"] == "memory-leak-service"


def test_the_demo_application_dumps_into_the_volume_under_its_own_user() -> None:
    """The JVM's flags name the pod's own directory, which its init container makes under the same user."""
    (app,) = (c for c in manifests.containers() if str(c) == "memory-leak-app/memory-leak-app")
    flags = str(app.env()["JAVA_TOOL_OPTIONS"]).split()
    assert "-XX:+HeapDumpOnOutOfMemoryError" in flags
    assert "-XX:HeapDumpPath=/mnt/dump/$(POD_NAMESPACE)_$(POD_NAME)" in flags
    assert "runAsUser" not in app.security, "OpenShift gives it one of its namespace's range"
    assert app.security["runAsNonRoot"] is True
    (wait,) = (c for c in manifests.containers() if str(c) == "memory-leak-app/wait-for-volume-manager")
    assert {"POD_NAME", "POD_NAMESPACE"} < wait.env().keys()
    assert "runAsUser" not in wait.spec["securityContext"], "the directory would be another user's"
    for container in (app, wait):
        assert {"name": "host-mnt", "mountPath": "/mnt", "mountPropagation": "HostToContainer"} in container.spec["volumeMounts"]  # fmt: skip


def test_the_documented_workload_identity_is_a_valid_pod() -> None:
    """Who has no keys copies it from docs/uploader.md into the uploader; its SCC lets it pass."""
    page = (manifests.PROJECT / "docs" / "uploader.md").read_text().partition("## Events on pods")[0]
    irsa, identity = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    assert (
        irsa["metadata"]["name"]
        == manifests.named("ServiceAccount", "heap-dump-s3-uploader")["metadata"]["name"]
    )
    assert "eks.amazonaws.com/role-arn" in irsa["metadata"]["annotations"]
    template = manifests.named("StatefulSet", "heap-dump-s3-uploader")["spec"]["template"]
    (spec,) = template["spec"]["containers"]
    container = {
        **spec,
        "envFrom": [source for source in spec["envFrom"] if "secretRef" not in source],
        "env": [*spec["env"], *identity["env"]],
        "volumeMounts": [*spec["volumeMounts"], *identity["volumeMounts"]],
    }
    volumes = [*template["spec"]["volumes"], *identity["volumes"]]
    pod = {**template["spec"], "containers": [container], "volumes": volumes}
    for version in VERSIONS:
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, version, strict=True
        )
    assert "projected" in manifests.named("SecurityContextConstraints", "heap-dump-uploader")["volumes"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_requests_and_limits_stand_everywhere(container: Container) -> None:
    """No pod of ours takes a node's memory or CPU unasked."""
    resources = container.spec["resources"]
    for amount in ("cpu", "memory"):
        assert resources["requests"][amount]
        assert resources["limits"][amount]


def test_requests_and_limits_are_the_promised_ones() -> None:
    """The figures that capacity is planned with."""
    figures = {
        str(c): tuple(
            c.spec["resources"][kind][what] for what in ("cpu", "memory") for kind in ("requests", "limits")
        )
        for c in manifests.containers()
        if not c.init and c.words[:1] in (["mount"], ["upload"])
    }
    assert figures == {
        "dump-volume-manager/dump-volume-manager": ("50m", "100m", "64Mi", "128Mi"),
        "heap-dump-s3-uploader/s3-uploader": ("100m", "200m", "192Mi", "256Mi"),
    }


@pytest.mark.parametrize("container", CONTAINERS)
def test_only_the_manager_is_privileged_and_bidirectional(container: Container) -> None:
    """Everybody else sees mounts come and go, and can make none."""
    manager = str(container) == "dump-volume-manager/dump-volume-manager"
    propagations = {
        mount["mountPath"]: mount.get("mountPropagation", "None") for mount in container.spec["volumeMounts"]
    }
    host_paths = {v["name"] for v in container.pod["volumes"] if "hostPath" in v}
    on_host = {m["mountPath"] for m in container.spec["volumeMounts"] if m["name"] in host_paths}
    assert bool(container.security.get("privileged")) is manager
    assert {propagations[path] for path in on_host} <= {"Bidirectional" if manager else "HostToContainer"}
    assert all(propagations[path] == "None" for path in set(propagations) - on_host)


@pytest.mark.parametrize("workload", PODS)
def test_host_paths_are_the_parent_of_the_dump_directory(workload: Object) -> None:
    """A container that mounts /mnt/dump itself keeps a volume that is gone."""
    pod = workload["spec"]["template"]["spec"]
    paths = [v["hostPath"] for v in pod["volumes"] if "hostPath" in v]
    assert paths == [{"path": "/mnt", "type": "Directory"}]


@pytest.mark.parametrize("workload", PODS)
def test_no_pod_shares_the_nodes_namespaces_or_an_api_token(workload: Object) -> None:
    """Nothing here talks to the API server unasked, or needs the node's network or processes."""
    pod = workload["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("container", CONTAINERS)
def test_root_file_systems_are_read_only(container: Container) -> None:
    """What must be written is a volume that the manifest names."""
    assert container.security["readOnlyRootFilesystem"] is True


def _documented_capabilities() -> dict[str, set[str]]:
    page = (manifests.PROJECT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+/[a-z0-9-]+)` \| [^|]* \| ([^|]*) \|", page, re.MULTILINE)
    return {container: set(re.findall(r"`([A-Z_]+)`", capabilities)) for container, capabilities in rows}


def test_capabilities_are_exactly_the_documented_ones() -> None:
    """Each capability has its reason on the security page, and no other is given."""
    given = {
        str(c): set(c.security.get("capabilities", {}).get("add", []))
        for c in manifests.containers()
        if not c.security.get("privileged")
    }
    documented = _documented_capabilities()
    assert {name: documented.get(name) for name in given} == given
    for container in manifests.containers():
        if not container.security.get("privileged"):
            assert container.security["capabilities"]["drop"] == ["ALL"]


def _refusals(container: Container, scc: Object) -> list[str]:
    """Say what OpenShift's admission would refuse in this container under this SCC. Source: SCC API reference."""
    security, pod = container.security, container.pod
    added = set(security.get("capabilities", {}).get("add", []))
    kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
    kinds |= {"persistentVolumeClaim" for _ in container.workload["spec"].get("volumeClaimTemplates", [])}
    selinux = scc["seLinuxContext"]
    wanted_level = selinux.get("seLinuxOptions", {}).get("level")
    seccomp = security.get("seccompProfile", {}).get("type", "")
    checks = {
        "privileged": scc["allowPrivilegedContainer"] or not security.get("privileged"),
        "hostPath": scc["allowHostDirVolumePlugin"] or "hostPath" not in kinds,
        "escalation": scc["allowPrivilegeEscalation"] or security.get("allowPrivilegeEscalation") is False,
        "volumes": kinds <= set(scc["volumes"]),
        "capabilities": added <= set(scc["allowedCapabilities"]) | set(scc["defaultAddCapabilities"]),
        "dropped": not added & set(scc["requiredDropCapabilities"]),
        "root file system": not scc["readOnlyRootFilesystem"] or security["readOnlyRootFilesystem"],
        "uid": {
            "MustRunAs": security.get("runAsUser") == scc["runAsUser"].get("uid"),
            "MustRunAsRange": "runAsUser" not in security,  # then it gets one of the namespace's range
        }[scc["runAsUser"]["type"]],
        "SELinux level": wanted_level in (None, security.get("seLinuxOptions", {}).get("level")),
        "SELinux": selinux["type"] == "RunAsAny" or "type" not in security.get("seLinuxOptions", {}),
        "seccomp": "*" in scc["seccompProfiles"] or seccomp == "RuntimeDefault",
    }
    return [name for name, fine in checks.items() if not fine]


@pytest.mark.parametrize("container", CONTAINERS)
def test_each_pod_fits_the_scc_that_it_requires(container: Container) -> None:
    """There is no OpenShift in these tests: its admission is asked here, field by field."""
    annotations = container.workload["spec"]["template"]["metadata"]["annotations"]
    scc = manifests.named("SecurityContextConstraints", annotations["openshift.io/required-scc"])
    assert _refusals(container, scc) == []


@pytest.mark.parametrize("workload", PODS)
def test_each_service_account_may_use_its_scc_and_no_other(workload: Object) -> None:
    """Least privilege: an application's account cannot start a privileged pod."""
    template = workload["spec"]["template"]
    account = template["spec"]["serviceAccountName"]
    bound = [
        binding["roleRef"]["name"]
        for binding in manifests.objects()
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and {"kind": "ServiceAccount", "name": account, "namespace": workload["metadata"]["namespace"]}
        in binding["subjects"]
    ]
    usable = [
        name
        for role in bound
        for rule in manifests.named("ClusterRole", role)["rules"]
        for name in rule["resourceNames"]
    ]
    assert usable == [template["metadata"]["annotations"]["openshift.io/required-scc"]]


@pytest.mark.parametrize(
    "scc", [o["metadata"]["name"] for o in manifests.objects() if o["kind"] == "SecurityContextConstraints"]
)
def test_an_scc_says_everything_explicitly(scc: str) -> None:
    """What an SCC leaves out is decided by a default that differs between versions; the host's namespaces stay closed."""
    found = manifests.named("SecurityContextConstraints", scc)
    for field in (
        "allowPrivilegedContainer", "allowPrivilegeEscalation", "allowHostDirVolumePlugin", "allowedCapabilities",
        "defaultAddCapabilities", "requiredDropCapabilities", "allowedUnsafeSysctls", "priority", "readOnlyRootFilesystem",
        "users", "groups", "runAsUser", "fsGroup", "supplementalGroups", "seLinuxContext", "seccompProfiles", "volumes",
    ):  # fmt: skip
        assert field in found, f"{scc} says nothing about {field}"
    for strategy in ("runAsUser", "fsGroup", "supplementalGroups", "seLinuxContext"):
        assert found[strategy]["type"], f"{scc} leaves {strategy} open"
    for field in ("allowHostNetwork", "allowHostPID", "allowHostIPC", "allowHostPorts"):
        assert found[field] is False


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_every_object(version: str) -> None:
    """No misspelt field, no wrong type, in the oldest and the newest version that can be asked."""
    for document in (*manifests.objects(), *manifests.objects(*manifests.MONITORING_FILES)):
        if document["kind"] not in _EXTENSIONS:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("workload", PODS)
def test_each_template_is_a_valid_pod(workload: Object, version: str) -> None:
    """An API server looks at templates less closely than at pods."""
    template = workload["spec"]["template"]
    kubernetes_validate.validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **template["metadata"]},
            "spec": template["spec"],
        },
        version,
        strict=True,
    )


@pytest.mark.parametrize("kind", sorted(_EXTENSIONS))
def test_openshift_accepts_its_objects(kind: str) -> None:
    """No misspelt field, no wrong type, by the schemas that OpenShift publishes."""
    found = [
        document
        for document in (*manifests.objects(), *manifests.objects(*manifests.MONITORING_FILES))
        if document["kind"] == kind
    ]
    assert found
    for document in found:
        _check(document)


def _check(document: Object) -> None:
    known = schemas.kind(document["kind"])
    schema = schemas.strict(known.schema)
    schema["properties"] |= {"kind": {"const": known.name}, "apiVersion": {"const": f"{known.group}/v1"}}
    jsonschema.validate(document, schema)


@pytest.mark.parametrize(
    ("file", "kind", "path"),
    [
        ("openshift-rbac.yaml", "SecurityContextConstraints", ()),
        ("openshift-rbac.yaml", "SecurityContextConstraints", ("runAsUser",)),
        ("openshift-route.yaml", "Route", ("spec", "to")),
        ("openshift-route.yaml", "Route", ("spec", "tls")),
        ("monitoring/podmonitor.yaml", "PodMonitor", ("spec", "podMetricsEndpoints", 0)),
        ("monitoring/prometheusrule.yaml", "PrometheusRule", ("spec", "groups", 0, "rules", 0)),
    ],
)
def test_openshift_refuses_a_misspelt_field(file: str, kind: str, path: tuple[str | int, ...]) -> None:
    """Down to the fields that matter: the schemas are more than names of kinds."""
    document = copy.deepcopy(next(o for o in manifests.objects(file) if o["kind"] == kind))
    place: Any = document
    for step in path:
        place = place[step]
    place["misspelt"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        _check(document)


def test_openshifts_prometheus_may_see_what_the_label_has_it_scrape() -> None:
    """Without the role it logs "cannot list pods", and no metric comes. Source: OpenShift runbook PrometheusKubernetesListWatchFailures."""
    objects = manifests.objects("monitoring/openshift-prometheus-rbac.yaml")
    role, binding = objects
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "prometheus-k8s", "namespace": "openshift-monitoring"}
    ]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["services", "endpoints", "pods"], "verbs": ["get", "list", "watch"]}
    ]


def test_kustomization_lists_the_five_files_in_order() -> None:
    """`oc apply -k` does the same as the guide."""
    listed = yaml.safe_load((manifests.FOLDER / "kustomization.yaml").read_text())
    assert tuple(listed["resources"]) == manifests.FILES
    assert listed["sortOptions"] == {"order": "fifo"}, (
        "kustomize puts kinds that it does not know last, the SCCs among them"
    )


def test_images_carry_the_version_of_this_release() -> None:
    """Manifests and code go together."""
    assert {c.spec["image"].rpartition(":")[2] for c in manifests.containers()} == {__version__}


def test_services_and_selectors_find_their_pods() -> None:
    """A selector that matches nothing fails in silence."""
    templates = [w["spec"]["template"] for w in manifests.workloads()]
    for workload in manifests.workloads():
        wanted = workload["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    for service in (o for o in manifests.objects() if o["kind"] == "Service"):
        (template,) = (
            t for t in templates if service["spec"]["selector"].items() <= t["metadata"]["labels"].items()
        )
        ports = {port["name"] for c in template["spec"]["containers"] for port in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_names_of_the_first_version_stay() -> None:
    """People have them in scripts."""
    have = {(o["kind"], o["metadata"]["name"]) for o in manifests.objects()}
    assert have >= {
        ("Namespace", "heap-dumps"),
        ("Namespace", "memory-leak-demo"),
        ("ServiceAccount", "dump-volume-manager"),
        ("SecurityContextConstraints", "dump-volume-privileged"),
        ("ClusterRole", "dump-volume-scc-user"),
        ("RoleBinding", "dump-volume-scc-binding"),
        ("PriorityClass", "dump-volume-critical"),
        ("StatefulSet", "dump-volume-manager"),
        ("ConfigMap", "s3-uploader-config"),
        ("Secret", "s3-credentials"),
        ("StatefulSet", "heap-dump-s3-uploader"),
        ("Deployment", "memory-leak-app"),
        ("Service", "memory-leak-service"),
        ("Route", "memory-leak-app"),
    }


@pytest.mark.parametrize("path", ["Containerfile", "memory-leak-app/Containerfile"])
def test_containerfiles_have_no_findings(path: str) -> None:
    """hadolint, with each exception beside its reason."""
    hadolint = Path(sys.executable).with_name("hadolint")
    said = subprocess.run([hadolint, manifests.PROJECT / path], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_every_command_of_the_guide_is_run_or_says_why_not() -> None:
    """Who follows the guide word by word never meets a command that nobody ran."""
    runnable = [b.section for b in guide.blocks(GUIDE) if not b.why_not]
    assert tuple(dict.fromkeys(runnable)) == SECTIONS
    text = GUIDE.read_text()
    assert 2 * len(guide.blocks(GUIDE)) == text.count("```"), "a block that is neither run nor excused"
    assert sum(bool(b.why_not) for b in guide.blocks(GUIDE)) == text.count("*Not run in the tests: ")


@pytest.fixture(scope="module")
def with_pod_events() -> list[Object]:
    """Give every object of an overlay that takes the component."""
    return rendered("pod-events")


def test_pod_events_are_off_and_their_component_changes_the_uploader_alone(
    with_pod_events: list[Object],
) -> None:
    """A token is mounted for the one container that asks, where it asks; nothing else is given to anybody."""
    assert "pod-events" not in (manifests.FOLDER / "kustomization.yaml").read_text()
    before = {(o["kind"], o["metadata"]["name"]): o for o in rendered("kubernetes")}
    after = {(o["kind"], o["metadata"]["name"]): o for o in with_pod_events}
    assert set(after) - set(before) == {
        ("ClusterRole", "heap-dump-pod-events"),
        ("RoleBinding", "heap-dump-pod-events"),
    }
    settings, uploader = ("ConfigMap", "s3-uploader-config"), ("StatefulSet", "heap-dump-s3-uploader")
    assert {key for key in before if before[key] != after[key]} == {settings, uploader}
    assert before[settings]["data"] | {"POD_EVENTS": "true"} == after[settings]["data"]
    pod = after[uploader]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert not any("api-token" in str(container) for container in pod["initContainers"])
    (container,) = pod["containers"]
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "api-token"]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "api-token"]
    assert (mount["mountPath"], mount["readOnly"]) == (ACCOUNT, True)
    files = [
        source.get("serviceAccountToken", {}).get("path") or source["configMap"]["items"][0]["path"]
        for source in volume["projected"]["sources"]
    ]
    assert files == ["token", "ca.crt"]
    scc = manifests.named("SecurityContextConstraints", "heap-dump-uploader")
    assert _refusals(Container(after[uploader], container, init=False), scc) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_objects_of_pod_events(with_pod_events: list[Object], version: str) -> None:
    """The patches leave valid objects."""
    for document in with_pod_events:
        if document["kind"] not in _EXTENSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_pod_events_may_look_pods_up_and_make_events_and_no_more() -> None:
    """No list, no watch, no secrets, no other namespace."""
    role, binding = manifests.objects("pod-events/rbac.yaml")
    assert [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in role["rules"]] == [
        ([""], ["pods"], ["get"]),
        ([""], ["events"], ["create"]),
    ]
    assert binding["kind"] == "RoleBinding"
    assert [subject["name"] for subject in binding["subjects"]] == ["heap-dump-s3-uploader"]
