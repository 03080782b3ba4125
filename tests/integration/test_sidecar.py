"""The uploader as a sidecar: the component's own command and variables, over an emptyDir, under an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.harness import children, manifests
from tests.harness.hprof import Maker
from tests.harness.stores.moto import Moto
from tests.mount.node import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user"),
]
_UID = 10001
_PATCH = manifests.FOLDER / "components" / "application-sidecar" / "patch.yaml"


def test_a_sidecar_without_any_privilege_uploads_what_its_application_writes(tmp_path: Path) -> None:
    """No volume manager, no .ready, no capability, no other user's file: the dump is in the bucket, the probe is content."""
    pod = yaml.safe_load(_PATCH.read_text())["spec"]["template"]["spec"]
    (spec,) = (c for c in pod["containers"] if c["name"] == "heap-dump-uploader")
    assert spec["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    with tempfile.TemporaryDirectory(dir="/tmp") as name, Moto(tmp_path) as moto:
        folder = Path(name)
        folder.chmod(0o755)
        moto.server.client().create_bucket(Bucket="dumps")
        dumps, run = folder / "dump", folder / "run"
        for made in (dumps, run):  # as the kubelet makes an emptyDir
            made.mkdir()
            made.chmod(0o777)
        paths = {"/mnt/dump": str(dumps), "/run/dumpagent": str(run)}
        own = {e["name"]: paths.get(e["value"], e["value"]) for e in spec["env"] if "value" in e}
        environ = (
            os.environ
            | own
            | moto.server.environment("dumps")
            | {"WATCH_INTERVAL": "1s", "METRICS_PORT": "0"}
        )
        # Another user may be unable to look into the checkout and Python's folder: he sees them at places of his own.
        places = {"project": str(manifests.PROJECT), "venv": sys.prefix, "base": sys.base_prefix}
        for place in places:
            (folder / place).mkdir()
        mounts = "".join(f'mount --bind "{source}" "{name}/{place}"; ' for place, source in places.items())
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        environ["LD_LIBRARY_PATH"] = f"{name}/base/lib"
        environ["PYTHONPATH"] = f"{name}/project:{name}/venv/lib/{version}/site-packages"
        program = [
            *("unshare", "--mount", "sh", "-ec", f'{mounts}cd "{name}/project"; exec "$@"', "sh"),
            *(
                "setpriv",
                f"--reuid={_UID}",
                f"--regid={_UID}",
                "--clear-groups",
                "--bounding-set=-all",
                "--inh-caps=-all",
            ),
            *(f"{name}/base/bin/{version}", "-m", "dumpagent"),
        ]
        log = tmp_path / "log"
        with open(log, "wb") as out:
            uploader = children.start([*program, *spec["args"]], env=environ, stdout=out, stderr=out)
        try:
            dump = dumps / "shop_checkout-1.hprof"
            dump.write_bytes(Maker().dump())
            dump.chmod(0o600)
            os.chown(dump, _UID, _UID)

            def stored() -> list[str]:
                found = moto.server.client().list_objects_v2(Bucket="dumps").get("Contents", [])
                return [o["Key"] for o in found if o["Key"].endswith("shop_checkout-1.hprof")]

            eventually(stored, "the dump is in the bucket", within_s=60)
            words = spec["livenessProbe"]["exec"]["command"][1:]
            assert subprocess.run([*program, *words], env=environ, check=False).returncode == 0
        finally:
            children.end(uploader)
