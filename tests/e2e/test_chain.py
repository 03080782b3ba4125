"""The whole chain on a real kubelet: no heap dump is lost, whatever happens to the pods around it.

The tests build on one another: each leaves a chain that works, and the last one uninstalls it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dumpagent.setting import PLACEHOLDER
from tests.e2e import hostile
from tests.e2e.chain import (
    AGENT,
    MANAGER,
    NAMESPACE,
    PREFIX,
    UPLOADER,
    Chain,
    Stored,
    is_ready,
    namespace_of,
    restarts,
)
from tests.e2e.cluster import Failed, wait_for
from tests.harness import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def _assert_whole(found: list[Stored], pod: str, *, namespace: str = NAMESPACE) -> None:
    """The dump is in the store once, under its own name, and says where it came from."""
    (stored,) = found
    assert stored.key == f"{PREFIX}{namespace}_{pod}/java_pid1.hprof"
    assert stored.metadata["verdict"] == "complete"
    assert stored.metadata["cause"] == "oom"
    assert (stored.metadata["namespace"], stored.metadata["pod"]) == (namespace, pod)
    assert (stored.metadata["agent-namespace"], stored.metadata["agent-pod"]) == (AGENT, UPLOADER)
    assert stored.metadata["original-path"] == f"{namespace}_{pod}/java_pid1.hprof"
    assert stored.size_bytes == int(stored.metadata["original-size"])


def test_every_template_is_a_pod_that_the_server_takes(chain: Chain) -> None:
    """The API server looks at a pod more closely than at a template."""
    for workload in manifests.workloads():
        template = workload["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "template",
                "namespace": workload["metadata"]["namespace"],
                **template["metadata"],
            },
            "spec": template["spec"],
        }
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            volumes = [*pod["spec"]["volumes"], {"name": name, "persistentVolumeClaim": {"claimName": name}}]
            pod["spec"] = {**pod["spec"], "volumes": volumes}
        chain.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_kustomize_makes_the_same_objects(chain: Chain) -> None:
    """`oc apply -k manifests` after the guide would change nothing in kind or name."""
    made = chain.cluster.kubectl(
        "apply", "--dry-run=client", "-o", "name", "-k", str(chain.folder / "manifests")
    )
    assert len(made.split()) == len(manifests.objects(*manifests.FILES))


# Bits of CapEff. Source: <linux/capability.h>
_CAPABILITY_BITS = {"DAC_OVERRIDE": 1, "LEASE": 28}


def test_daemons_and_applications_have_the_capabilities_of_their_manifest(chain: Chain) -> None:
    """As the kernel has it for process 1 of the container; nobody can gain more."""
    for pod, container in ((UPLOADER, "s3-uploader"), (chain.app_pod(), "memory-leak-app")):
        words = ("-n", namespace_of(pod), pod, "-c", container, "--", "cat", "/proc/1/status")
        lines = chain.cluster.kubectl("exec", *words).splitlines()
        status = {name: value for name, _, value in (line.partition(":\t") for line in lines)}
        (spec,) = (c for c in manifests.containers() if c.spec["name"] == container)
        wanted = sum(1 << _CAPABILITY_BITS[name] for name in spec.security["capabilities"].get("add", []))
        assert int(status["CapEff"], 16) == wanted, container
        assert status["NoNewPrivs"] == "1", container


def test_a_placeholder_that_was_left_stands_in_the_pods_status(chain: Chain) -> None:
    """Who applied the manifests unread finds the variable's name in `oc describe pod`."""
    template = chain.cluster.get("-n", AGENT, "statefulset", "heap-dump-s3-uploader")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    unread = {**container, "env": [*container["env"], {"name": "S3_BUCKET", "value": PLACEHOLDER}]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "unread", "namespace": AGENT},
        "spec": {**template["spec"], "affinity": {}, "restartPolicy": "Never", "containers": [unread]},
    }
    chain.cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    try:
        (ended,) = wait_for(
            "ended: the uploader with a placeholder",
            lambda: [
                status["state"]["terminated"]
                for status in chain.cluster.get("-n", AGENT, "pod", "unread")["status"].get(
                    "containerStatuses", []
                )
                if "terminated" in status["state"]
            ],
        )
    finally:
        chain.cluster.kubectl("delete", "pod", "-n", AGENT, "unread")
    assert ended["exitCode"] == 2
    assert f"S3_BUCKET still has {PLACEHOLDER} in it" in ended["message"]


def test_a_dump_travels_into_the_bucket(chain: Chain, tmp_path: Path) -> None:
    """OutOfMemoryError in a pod, the dump in S3: whole, from this node, readable; the application runs again."""
    pod = chain.app_pod()
    before = restarts(chain.pod(pod))
    print(chain.follow_guide("Trigger a heap dump and follow it"))
    found = chain.wait_stored(pod)
    _assert_whole(found, pod)
    assert found[0].metadata["node"] == chain.pod(pod)["spec"]["nodeName"]
    chain.download(found[0].key, tmp_path / "dump.hprof")
    inspected = subprocess.run(
        [sys.executable, "-m", "dumpagent", "inspect", tmp_path / "dump.hprof"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert inspected.returncode == 0, inspected.stdout + inspected.stderr
    wait_for("restarted: the application", lambda: restarts(chain.pod(pod)) == before + 1)


def test_the_same_pod_can_dump_again(chain: Chain) -> None:
    """The first dump was claimed: its name was free for the second, which has a key of its own."""
    pod = chain.app_pod()
    assert len(chain.stored(pod)) == 1
    chain.leak()
    first, second = chain.wait_stored(pod, 2)
    assert {first.metadata["verdict"], second.metadata["verdict"]} == {"complete"}
    assert first.metadata["crc32"] != second.metadata["crc32"]


def test_a_volume_that_is_unmounted_comes_back_at_once(chain: Chain) -> None:
    """Somebody unmounts it on the node, by force since it is in use: neither the manager nor an application is restarted for it."""
    app = chain.app_pod()
    before = restarts(chain.pod(MANAGER)), restarts(chain.pod(app))
    chain.cluster.on_node("umount -l /mnt/dump")
    wait_for("mounted again", chain.is_mounted, timeout_s=10, every_s=0.1)
    chain.cluster.kubectl(
        "exec", "-n", NAMESPACE, app, "-c", "memory-leak-app", "--", "ls", "/mnt/dump/.ready"
    )
    assert (restarts(chain.pod(MANAGER)), restarts(chain.pod(app))) == before


def test_a_dump_written_while_the_volume_is_away_is_not_lost(chain: Chain) -> None:
    """Not ready while the mount is gone; ready again after the remount; what went to the node's own disk is in S3."""
    app = chain.app_pod()
    count = len(chain.stored(app))
    with chain.stopped("bin/dumpagent mount"):  # else it would be mounted again before anybody could see it
        chain.cluster.on_node("umount -l /mnt/dump")
        chain.wait_ready(MANAGER, ready=False, timeout_s=40)
        chain.leak()
        assert chain.cluster.on_node("cd /mnt/dump && ls -A").strip(), "the dump is on the node's own disk"
    wait_for("mounted again", chain.is_mounted, timeout_s=20, every_s=0.2)
    chain.wait_ready(MANAGER)
    found = chain.wait_stored(app, count + 1)
    assert len(found) == count + 1
    assert {stored.metadata["verdict"] for stored in found} == {"complete"}
    assert {(stored.metadata["namespace"], stored.metadata["pod"]) for stored in found} == {(NAMESPACE, app)}


def test_an_application_waits_for_the_volume_and_starts_with_it(chain: Chain) -> None:
    """Its init container says what is missing, and lets it start once the volume is back."""
    old = chain.app_pod()

    def successor() -> str:
        pods = chain.cluster.get("-n", NAMESPACE, "pods", "-l", "app=memory-leak-app")["items"]
        return next((p["metadata"]["name"] for p in pods if p["metadata"]["name"] != old), "")

    with chain.stopped("bin/dumpagent mount"):
        chain.cluster.on_node("umount -l /mnt/dump")
        chain.cluster.kubectl("delete", "pod", "-n", NAMESPACE, old, "--wait=false")
        new = wait_for("created: its successor", successor)
        words = ("logs", "-n", NAMESPACE, new, "-c", "wait-for-volume-manager")
        wait_for(
            "told: what is missing",
            lambda: "nothing is mounted at /mnt/dump" in chain.cluster.kubectl(*words),
        )
        assert chain.pod(new)["status"]["phase"] == "Pending"
    chain.wait_ready(new)
    assert chain.is_mounted()
    chain.wait_ready(MANAGER)


def test_a_dump_survives_the_deletion_of_the_manager(chain: Chain) -> None:
    """The manager's pod goes while a JVM is in the middle of its dump: the dump is whole and in S3."""
    cluster, app = chain.cluster, _fresh_app(chain)
    path = f"/mnt/dump/{NAMESPACE}_{app}/java_pid1.hprof"
    java = chain.pids("memory-leak-app.jar")
    catch = f"until [ -s {path} ]; do :; done; kill -STOP {java}; stat -c %s {path}"
    cut: list[str] = []
    catcher = threading.Thread(target=lambda: cut.append(cluster.on_node(f"timeout 60 sh -c '{catch}'")))
    catcher.start()
    time.sleep(1)
    leaker = threading.Thread(target=chain.leak)
    leaker.start()
    catcher.join(90)
    assert cut, "the JVM was not caught in the middle of its dump"
    uid = chain.pod(MANAGER)["metadata"]["uid"]
    try:
        cluster.kubectl("delete", "pod", "-n", AGENT, MANAGER, "--wait=false")
        chain.wait_ready(MANAGER, not_uid=uid)
    finally:
        cluster.on_node(f"kill -CONT {java}")
    leaker.join(150)
    found = chain.wait_stored(app)
    _assert_whole(found, app)
    assert int(cut[0]) < found[0].size_bytes


def test_an_uploader_killed_in_mid_upload_goes_on(chain: Chain) -> None:
    """Killed with parts under way: stored once and whole after the restart, and no unfinished upload is left."""
    app = _fresh_app(chain)
    before = restarts(chain.pod(UPLOADER))
    with chain.cluster.held_uploads():
        chain.leak()
        wait_for("begun: the upload", lambda: any(app in key for key in chain.open_uploads()), timeout_s=120)
        chain.cluster.on_node(f"kill -9 {chain.pids('bin/dumpagent upload')}")
        wait_for("restarted: the uploader", lambda: restarts(chain.pod(UPLOADER)) == before + 1)
        assert not chain.stored(app)
    _assert_whole(chain.wait_stored(app), app)
    wait_for("none left: unfinished uploads", lambda: not chain.open_uploads(), timeout_s=30)


def test_applications_of_two_namespaces_share_a_node(chain: Chain) -> None:
    """Both JVMs have pid 1; neither dump takes the other's name, and each is stored under its own."""
    chain.follow_guide("Applications of another namespace")
    ours, theirs = _fresh_app(chain), chain.app_pod("team-b")
    leaks = [threading.Thread(target=chain.leak, args=(namespace,)) for namespace in (NAMESPACE, "team-b")]
    for leak in leaks:
        leak.start()
    for leak in leaks:
        leak.join(150)
    _assert_whole(chain.wait_stored(ours), ours)
    _assert_whole(chain.wait_stored(theirs), theirs, namespace="team-b")


def test_a_hostile_namespace_on_the_node_takes_nothing_from_its_neighbour(chain: Chain) -> None:
    """It squats names, swaps links, deletes what it can, before and while the victim dies: the dump is stored as always."""
    cluster, victim = chain.cluster, _fresh_app(chain)
    before = restarts(chain.pod(UPLOADER)), restarts(chain.pod(MANAGER))
    foreseen = f"{NAMESPACE}_foreseen-0"
    with hostile.attacking(
        chain, victim=f"{NAMESPACE}_{victim}", foreseen=foreseen, node=chain.pod(victim)["spec"]["nodeName"]
    ):
        chain.leak()
        _assert_whole(chain.wait_stored(victim), victim)
        template = cluster.get("-n", NAMESPACE, "deployment", "memory-leak-app")["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foreseen-0", "namespace": NAMESPACE}}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod | {"spec": template["spec"]}))
        wait_for(
            "refused: a directory that another user made",
            lambda: f"is a directory of the user {hostile.UID}" in str(chain.pod("foreseen-0")["status"]),
        )
        said = hostile.said(chain)
        cluster.kubectl("delete", "pod", "-n", NAMESPACE, "foreseen-0", "--wait=false")
    print(said[-2000:])
    assert "refused victim-deleted" in said
    assert "took" not in said
    assert not [
        stored for stored in chain.stored("team-b_evil") if stored.metadata.get("uid") != str(hostile.UID)
    ]
    assert (restarts(chain.pod(UPLOADER)), restarts(chain.pod(MANAGER))) == before
    assert is_ready(chain.pod(UPLOADER))
    assert is_ready(chain.pod(MANAGER))
    cluster.on_node(f"rm -rf /mnt/dump/{foreseen} /mnt/dump/team-b_evil /mnt/dump/java_pid1*.hprof")
    cluster.kubectl("delete", "namespace", "team-b", "--wait=false")


def test_both_daemons_are_monitored(chain: Chain) -> None:
    """What the PodMonitor selects answers on its port, each daemon with metrics of its own."""
    chain.follow_guide("Monitoring")
    for pod, metric in ((MANAGER, "dumpagent_mount_up 1"), (UPLOADER, "dumpagent_dumps_uploaded_total")):
        scraped = chain.cluster.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{AGENT}/pods/{pod}:9095/proxy/metrics"
        )
        assert f"\n{metric}" in scraped


def test_the_doctor_finds_nothing_wrong(chain: Chain) -> None:
    """In the uploader's container, with its rights: from the volume to a small dump in the store and out again."""
    before = len(chain.stored(""))
    words = (
        "-n",
        AGENT,
        UPLOADER,
        "-c",
        "s3-uploader",
        "--",
        "sh",
        "-c",
        "dumpagent doctor 2>&1; echo exit $?",
    )
    said = chain.cluster.kubectl("exec", *words)
    print(said)
    assert said.rstrip().endswith("exit 0"), said
    assert len(chain.stored("")) == before


def test_a_drained_node_has_stored_what_was_pending_has_no_mount_and_comes_back(chain: Chain) -> None:
    """Drained in mid upload: the dump is stored and the volume can be detached. Uncordoned: everything is there again."""
    cluster, app = chain.cluster, chain.app_pod()
    node = chain.pod(MANAGER)["spec"]["nodeName"]
    words = ("drain", node, "--delete-emptydir-data", "--pod-selector=app", "--timeout=200s")
    drain = threading.Thread(target=lambda: cluster.kubectl(*words, timeout_s=240))
    before, of_app = len(chain.stored(NAMESPACE)), len(chain.stored(app))
    with cluster.held_uploads():
        chain.leak()
        wait_for("begun: the upload", lambda: any(app in key for key in chain.open_uploads()), timeout_s=120)
        drain.start()
        for pod, container in ((UPLOADER, "s3-uploader"), (MANAGER, "dump-volume-manager")):
            logs = ("logs", "-n", AGENT, pod, "-c", container)
            wait_for("told: the drain", lambda logs=logs: "drain_began" in cluster.kubectl(*logs))  # type: ignore[misc]
        assert chain.is_mounted()
    drain.join(250)
    try:
        assert len(chain.stored(app)) == of_app + 1
        before += 1
        assert not chain.is_mounted()
    finally:
        cluster.kubectl("uncordon", node)
    chain.wait_ready(MANAGER, timeout_s=120)
    chain.wait_ready(UPLOADER, timeout_s=120)
    chain.app_pod()
    assert chain.is_mounted()
    assert len(chain.stored(NAMESPACE)) == before


# Container -> (requested bytes, millicores), as in the manifests.
_REQUESTS = {(MANAGER, "dump-volume-manager"): (64 << 20, 50), (UPLOADER, "s3-uploader"): (128 << 20, 100)}
# cgroup v2, then v1: the container's own, as it sees it.
_CGROUP_FILES = (
    "cpu.stat", "memory.stat", "memory.peak", "memory.events",
    "cpuacct/cpuacct.usage", "memory/memory.stat", "memory/memory.max_usage_in_bytes", "memory/memory.oom_control",
)  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """What a container has used: CPU seconds so far, memory of its own, the most with page cache, OOM kills."""

    cpu_s: float
    own_bytes: int
    peak_bytes: int
    oom_kills: int


def _usage(chain: Chain, pod: str, container: str) -> Usage:
    files = {}
    for file in _CGROUP_FILES:
        with contextlib.suppress(Failed):
            words = ("-n", AGENT, pod, "-c", container, "--", "cat", f"/sys/fs/cgroup/{file}")
            files[file] = chain.cluster.kubectl("exec", *words)

    def entry(file: str, name: str) -> int:
        return next(int(line.split()[1]) for line in files[file].splitlines() if line.startswith(f"{name} "))

    if "memory.peak" in files:
        return Usage(
            entry("cpu.stat", "usage_usec") / 1e6,
            entry("memory.stat", "anon"),
            int(files["memory.peak"]),
            entry("memory.events", "oom_kill"),
        )
    return Usage(
        int(files["cpuacct/cpuacct.usage"]) / 1e9,
        entry("memory/memory.stat", "total_rss"),
        int(files["memory/memory.max_usage_in_bytes"]),
        entry("memory/memory.oom_control", "oom_kill"),
    )


def test_daemons_keep_within_what_they_request(
    chain: Chain, record_property: Callable[[str, object], None]
) -> None:
    """At work and at rest, read from their cgroups: no OOM kill, memory below the request, idle CPU with all probes too."""
    app = chain.app_pod()
    chain.leak()
    newest = chain.wait_stored(app)[-1]
    # Its summary takes CPU seconds, and it is the last: the daemon is at rest behind it.
    wait_for("summarised: the dump", lambda: chain.has_object(f"{newest.key}.report.json"), timeout_s=180)
    before = {daemon: (time.monotonic(), _usage(chain, *daemon)) for daemon in _REQUESTS}
    time.sleep(30)
    for daemon, (request_bytes, request_millicores) in _REQUESTS.items():
        now, (then, first) = _usage(chain, *daemon), before[daemon]
        millicores = (now.cpu_s - first.cpu_s) * 1000 / (time.monotonic() - then)
        figures = (
            f"{millicores:.1f}m CPU at rest with its probes, {now.own_bytes / 2**20:.1f} MiB of its own,"
            f" {now.peak_bytes / 2**20:.1f} MiB at most with page cache"
        )
        record_property(daemon[1], figures)
        print(f"{daemon[1]}: {figures}")
        assert now.oom_kills == 0, f"{daemon[1]} was killed for its memory"
        assert now.own_bytes <= request_bytes, figures
        assert millicores <= request_millicores, figures


def test_a_probe_answers_within_the_kubelets_default_timeout(chain: Chain) -> None:
    """In the manager's own container, which has a tenth of a core."""
    words = "TIMEFORMAT=%R; for i in 1 2 3 4 5; do sleep 1; time dumpagent check ready; done"
    said = subprocess.run(
        [*map(str, chain.cluster.kubectl_argv), "exec", "-n", AGENT, MANAGER, "-c", "dump-volume-manager", "--", "bash", "-c", words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds = sorted(float(line) for line in said.stderr.split() if line[:1].isdigit())
    print(f"dumpagent check ready: {seconds} s")
    assert seconds[2] < 1.0


def test_uninstalling_leaves_nothing_on_the_node(chain: Chain) -> None:
    """No mount, no directory, no pod, no cluster-wide object; the objects in the bucket stay."""
    before = len(chain.stored(""))
    print(chain.follow_guide("Uninstalling"))
    assert not chain.is_mounted()
    assert chain.cluster.on_node("ls -A /mnt").strip() == ""
    for kind in ("scc", "clusterrole", "clusterrolebinding", "priorityclass"):
        if kind == "scc":
            kind = "securitycontextconstraints.security.openshift.io"
        assert "dump" not in chain.cluster.kubectl("get", kind, "-o", "name")
    assert len(chain.stored("")) == before


def _fresh_app(chain: Chain) -> str:
    """Replace the application's pod by one that has no dumps yet; give its name."""
    old = chain.app_pod()
    chain.cluster.kubectl("delete", "pod", "-n", NAMESPACE, old, "--wait=false")
    wait_for("replaced: the application", lambda: chain.app_pod() != old)
    chain.cluster.kubectl("wait", "-n", NAMESPACE, "--for=delete", f"pod/{old}", "--timeout=60s")
    new = chain.app_pod()
    assert is_ready(chain.pod(new))
    return new
