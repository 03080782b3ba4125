"""S3 servers that PyPI's wheels carry as one program each: SeaweedFS and rclone, on one machine, files in a folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.harness.cache import cached_folder
from tests.harness.children import end, start
from tests.harness.stores.certificates import make_certificates
from tests.harness.stores.server import (
    HOST,
    Quirks,
    StoreServer,
    free_ports,
    wait_for_port,
)

_PINS = Path(__file__).parents[3] / "requirements" / "stores.txt"
_KEY, _SECRET = "AKIAONEPROGRAM000001", "dumpagent-secret-of-one-program"
SEAWEEDFS = Quirks(
    keeps_whole_checksum=True,
    verifies_whole_checksum=True,
    lists_in_key_order=False,
    lists_replaced_parts=True,
)
RCLONE = Quirks(
    verifies_crc32=False,
    conditional_put=False,
    conditional_complete=False,
    conditions_hold_in_a_race=False,
    replaces_parts=False,
)


def programs() -> Path:
    """Give the folder with the programs `weed` and `rclone`; installs them once."""
    pins = _PINS.read_bytes()

    def install(folder: Path) -> None:
        pip = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--require-hashes", "--only-binary", ":all:", "--target", str(folder), "--requirement", str(_PINS)),
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if pip.returncode:
            raise RuntimeError(f"cannot install SeaweedFS and rclone: {pip.stderr.strip()}")

    return cached_folder(f"stores-{hashlib.sha256(pins).hexdigest()[:12]}", install) / "bin"


class _Programs:
    """Server processes that end with the `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._children = folder, list[subprocess.Popen[Any]]()
        self._log = folder / "store.log"

    def _start(self, command: list[str | Path], *ports: int) -> None:
        with open(self._log, "ab") as out:
            child = start([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._children.append(child)
        for port in ports:
            wait_for_port(port, self._children, self._log)

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once with SIGKILL, as a power cut would."""
        for child in self._children:
            end(child, grace_s=0)
        self._children.clear()

    def __enter__(self) -> Any:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class SeaweedFS(_Programs):
    """SeaweedFS: master, volume server, filer and S3 gateway in one process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = free_ports(5)
        certificates = make_certificates(folder)
        self._certificates = certificates
        self.http = StoreServer("seaweedfs", f"http://{HOST}:{self._ports[3]}", _KEY, _SECRET, SEAWEEDFS)
        self.https = StoreServer(
            "seaweedfs-tls", f"https://{HOST}:{self._ports[4]}", _KEY, _SECRET, SEAWEEDFS, certificates.ca
        )
        (folder / "data").mkdir()
        (folder / "s3.json").write_text(json.dumps({
            "identities": [{
                "name": "agent",
                "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }]
        }))  # fmt: skip

    def start(self) -> None:
        """Start it and return when it answers."""
        master, volume, filer, s3, s3_tls = self._ports
        self._start(
            [
                programs() / "weed", "server", f"-dir={self._folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}",
                f"-master.port={master}", f"-master.port.grpc={free_ports(1)[0]}", f"-volume.port={volume}",
                f"-volume.port.grpc={free_ports(1)[0]}", "-volume.max=0", "-master.volumeSizeLimitMB=64",
                "-filer", f"-filer.port={filer}", f"-filer.port.grpc={free_ports(1)[0]}",
                "-s3", f"-s3.port={s3}", f"-s3.port.grpc={free_ports(1)[0]}", f"-s3.config={self._folder / 's3.json'}",
                f"-s3.port.https={s3_tls}", f"-s3.cert.file={self._certificates.certificate}",
                f"-s3.key.file={self._certificates.key}",
            ],
            s3, s3_tls,
        )  # fmt: skip


class Rclone(_Programs):
    """`rclone serve s3` over a folder, http and TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = free_ports(2)
        certificates = make_certificates(folder)
        self._certificates = certificates
        self.http = StoreServer("rclone", f"http://{HOST}:{self._ports[0]}", _KEY, _SECRET, RCLONE)
        self.https = StoreServer(
            "rclone-tls", f"https://{HOST}:{self._ports[1]}", _KEY, _SECRET, RCLONE, certificates.ca
        )
        (folder / "data").mkdir()

    def start(self) -> None:
        """Start both and return when they answer."""
        for port, more in zip(
            self._ports,
            ((), ("--cert", self._certificates.certificate, "--key", self._certificates.key)),
            strict=True,
        ):
            self._start(
                [
                    programs() / "rclone", "serve", "s3", "--config", self._folder / "none.conf", "--addr", f"{HOST}:{port}",
                    "--auth-key", f"{_KEY},{_SECRET}", *more, self._folder / "data",
                ],
                port,
            )  # fmt: skip
