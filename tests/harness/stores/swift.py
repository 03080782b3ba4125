"""OpenStack Swift with its S3 interface on one machine: one replica, files in a folder, http and TLS.

Source: Swift's administrator guide, "Proxy server configuration", s3api and tempauth filters.
"""

from __future__ import annotations

import configparser
import getpass
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
    REGION,
    Quirks,
    StoreServer,
    free_ports,
    wait_for_port,
)

_PINS = Path(__file__).parents[3] / "requirements" / "swift.txt"
_ACCOUNT, _SECRET = "dump:agent", "dumpagent-secret"
_PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo versioned_writes"
)
_BACKENDS = ("account", "container", "object")
# What `swift-ring-builder create 2 1 1`, `add` and `rebalance` do, for three rings in one process instead of nine.
_BUILD_RINGS = """
import json, sys
from swift.common.ring import RingBuilder
for path, port in json.load(sys.stdin).items():
    ring = RingBuilder(2, 1, 1)
    ring.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=port, device="disk", weight=1))
    ring.rebalance()
    ring.get_ring().save(path)
"""
QUIRKS = Quirks(knows_standard_ia=False, conditions_hold_in_a_race=False)


def swift_programs() -> Path:
    """Give the folder with Swift's programs; installs them once, into an environment of their own."""
    pins = _PINS.read_bytes()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"venv/swift-{hashlib.sha256(pins).hexdigest()[:12]}-py{python}"

    def install(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = subprocess.run(
            [
                *(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-deps", "--require-hashes"),
                *("--requirement", str(_PINS)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if pip.returncode:
            raise RuntimeError(f"cannot install OpenStack Swift: {pip.stderr.strip()}")

    return cached_folder(name, install) / "bin"


class Swift:
    """A Swift that ends with its `with` block. Its data is in `folder` and survives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[subprocess.Popen[Any]] = []
        self._ports = dict(zip((*_BACKENDS, "http", "https"), free_ports(5), strict=True))
        certificates = make_certificates(folder)
        self.http = StoreServer("swift", f"http://{HOST}:{self._ports['http']}", _ACCOUNT, _SECRET, QUIRKS)
        self.https = StoreServer(
            "swift-tls", f"https://{HOST}:{self._ports['https']}", _ACCOUNT, _SECRET, QUIRKS, certificates.ca
        )
        self._programs = swift_programs()
        self._configure(certificates.certificate, certificates.key)

    def _configure(self, certificate: Path, key: Path) -> None:
        (self._folder / "devices" / "disk").mkdir(parents=True)
        (self._folder / "recon").mkdir()
        self._write("swift.conf", {
            "swift-hash": {"swift_hash_path_suffix": "dump", "swift_hash_path_prefix": "agent"},
            "storage-policy:0": {"name": "one", "default": "yes"},
        })  # fmt: skip
        common: dict[str, object] = {
            "bind_ip": HOST,
            "workers": 0,
            "user": getpass.getuser(),
            "swift_dir": self._folder,
            "log_level": "ERROR",
        }
        self._build_rings()
        for kind in _BACKENDS:
            self._write(f"{kind}.conf", {
                "DEFAULT": common | {
                    "bind_port": self._ports[kind],
                    "devices": self._folder / "devices",
                    "mount_check": "false",
                    "fallocate_reserve": 0,
                },
                "pipeline:main": {"pipeline": f"{kind}-server"},
                f"app:{kind}-server": {"use": f"egg:swift#{kind}", "recon_cache_path": self._folder / "recon"},
            })  # fmt: skip
        filters: dict[str, dict[str, object]] = {
            f"filter:{name}": {"use": f"egg:swift#{name}"} for name in _PIPELINE.split()
        }
        account, user = _ACCOUNT.split(":")
        filters["filter:tempauth"][f"user_{account}_{user}"] = f"{_SECRET} .admin"
        filters["filter:s3api"] |= {"location": REGION, "s3_acl": "no"}
        for kind, tls in (("http", {}), ("https", {"cert_file": certificate, "key_file": key})):
            self._write(f"{kind}.conf", {
                "DEFAULT": common | {"bind_port": self._ports[kind]} | tls,
                "pipeline:main": {"pipeline": f"{_PIPELINE} proxy-server"},
                "app:proxy-server": {
                    "use": "egg:swift#proxy", "account_autocreate": "true", "allow_account_management": "true",
                },
                **filters,
            })  # fmt: skip

    def _write(self, name: str, sections: dict[str, dict[str, object]]) -> None:
        config = configparser.RawConfigParser()
        config.read_dict(
            {section: {k: str(v) for k, v in keys.items()} for section, keys in sections.items()}
        )
        with open(self._folder / name, "w") as file:
            config.write(file)

    def _build_rings(self) -> None:
        """Say that everything is on the one disk."""
        subprocess.run(
            [self._programs / "python", "-c", _BUILD_RINGS],
            input=json.dumps({
                str(self._folder / f"{kind}.ring.gz"): self._ports[kind] for kind in _BACKENDS
            }),
            text=True,
            check=True,
            capture_output=True,
        )  # fmt: skip

    def start(self) -> None:
        """Start all servers and return when they answer."""
        log = self._folder / "swift.log"
        with open(log, "ab") as out:
            for name in self._ports:
                program = f"swift-{'proxy' if name.startswith('http') else name}-server"
                self._children.append(
                    start(
                        [self._programs / program, str(self._folder / f"{name}.conf")],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=out,
                    )
                )
        for port in self._ports.values():
            wait_for_port(port, self._children, log)

    def kill(self) -> None:
        """End all servers at once with SIGKILL, as a power cut would."""
        for child in self._children:
            end(child, grace_s=0)
        self._children.clear()

    def __enter__(self) -> Swift:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
