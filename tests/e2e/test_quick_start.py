"""The quick start of the README, word by word, on the cluster of our own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e import images, kubelet
from tests.e2e.cluster import Cluster, LocalCluster, wait_for
from tests.harness import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

_README = manifests.PROJECT / "README.md"
# The program that builds images: here they are built already, on base images of our own, and get the names asked for.
_BUILDER = """#!/bin/sh
buildah() {{ command buildah --root {store}/root --runroot {store}/run --storage-driver overlay "$@"; }}
case $1 in
  build) case $3 in *memory-leak-app*) from={app};; *) from={agent};; esac; buildah tag "$from" "$3" ;;
  save) buildah push --quiet "$4" "docker-archive:$3:$4" ;;
esac
"""


def _commands() -> str:
    section = _README.read_text().split("## Quick start on a cluster\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(code)


def test_the_quick_start_ends_with_a_dump_in_the_bucket_and_ls_shows_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Five commands in a fresh checkout, the variables of the text set; the last one prints the dump's line."""
    if not isinstance(cluster, LocalCluster):
        pytest.fail(
            "KUBECONFIG: the quick start makes objects of the cluster, so it is run on one of our own alone"
        )
    cluster.renew_volume()
    bucket = "quick-start"  # empty, so that what `ls` shows is of this test
    cluster.ask_store(lambda s3: s3.create_bucket(Bucket=bucket))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("manifests", "scripts"):
        shutil.copytree(manifests.PROJECT / name, checkout / name)
    for name in ("Makefile", "project.env"):
        shutil.copy(manifests.PROJECT / name, checkout / name)
    if cluster.is_older_than_1_21():
        for file in (checkout / "manifests").rglob("*.yaml"):
            file.write_text(
                file.read_text().replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n")
            )
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    agent, app = cluster.images
    builder = _BUILDER.format(store=images.STORE, agent=agent, app=app)
    kubectl = "#!/bin/sh\nexec " + " ".join(map(str, cluster.kubectl_argv)) + ' "$@"\n'
    for name, text in (("builder", builder), ("kubectl", kubectl)):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    store = cluster.store
    environ = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "IMAGE_BUILDER": "builder",
        "IMAGE_LOAD": str(kubelet.SCRIPTS / "load"),
        "S3_BUCKET": bucket,
        "S3_ENDPOINT_URL": store.endpoint_url,
        "AWS_DEFAULT_REGION": store.region,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
    }
    assert len(_commands().splitlines()) == 5
    try:
        done = subprocess.run(
            ["bash", "-euc", _commands()], cwd=checkout, env=environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=500,
        )  # fmt: skip
        print(done.stdout)
        assert done.returncode == 0, done.stdout
        last = done.stdout.splitlines()[-1]
        assert re.search(r"complete +oom +memory-leak-demo/memory-leak-app .*/java_pid1\.hprof$", last), last
    finally:
        for words in (
            ("delete", "namespace", "memory-leak-demo", "--ignore-not-found"),
            ("delete", "-k", str(checkout / "manifests/overlays/kubernetes"), "--ignore-not-found"),
        ):
            cluster.kubectl(*words, timeout_s=300)
        wait_for("unmounted", lambda: " /mnt/dump " not in cluster.on_node("cat /proc/self/mountinfo"))
