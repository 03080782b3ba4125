"""Ceph RGW on one machine: a monitor, one OSD, one gateway; http and TLS, buckets with and without STANDARD_IA.

Needs Debian's ceph-mon, ceph-osd and radosgw. No authentication inside the cluster, one replica, no manager.
Source: Ceph documentation, "Manual deployment", "Object gateway config reference" and "Pool placement".
"""

from __future__ import annotations

import configparser
import os
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.harness.children import end, start
from tests.harness.stores.certificates import make_certificates
from tests.harness.stores.server import (
    HOST,
    Quirks,
    StoreServer,
    free_ports,
    wait_for_port,
)

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw")
QUIRKS = Quirks(verifies_crc32=False, conditional_complete=False, knows_standard_ia=False)


class Ceph:
    """A Ceph cluster with an S3 gateway that ends with its `with` block.

    `durable` keeps the data on disk, so that it survives `kill` and `start`; else it is in memory. Two users:
    what `ia` and `ia_tls` create can have the storage class STANDARD_IA, what the others create cannot.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder = folder
        self._durable = durable
        self._children: list[subprocess.Popen[Any]] = []
        self._http, self._https, self._v2, self._v1 = free_ports(4)
        certificates = make_certificates(folder)
        plain = StoreServer("ceph", f"http://{HOST}:{self._http}", "plain", "plain-secret", QUIRKS)
        tls = replace(
            plain, name="ceph-tls", endpoint_url=f"https://{HOST}:{self._https}", ca_bundle=certificates.ca
        )
        with_class = replace(QUIRKS, knows_standard_ia=True)
        self.http, self.https = plain, tls
        self.ia = replace(plain, name="ceph-ia", access_key="ia", secret_key="ia-secret", quirks=with_class)
        self.ia_tls = replace(
            tls, name="ceph-ia-tls", access_key="ia", secret_key="ia-secret", quirks=with_class
        )
        self._configure(certificates.key_and_certificate)

    def _configure(self, tls_pem: Path) -> None:
        sections: dict[str, dict[str, object]] = {
            "global": {
                "fsid": uuid.uuid4(),
                "mon_host": f"[v2:{HOST}:{self._v2},v1:{HOST}:{self._v1}]",
                "mon_initial_members": "a",
                "public_addr": HOST,
                "cluster_addr": HOST,
                "auth_cluster_required": "none",
                "auth_service_required": "none",
                "auth_client_required": "none",
                "keyring": "/dev/null",
                "run_dir": self._folder,
                "admin_socket": "",
                "log_file": self._folder / "$name.log",
                "mon_cluster_log_file": "/dev/null",
                "osd_pool_default_size": 1,
                "osd_pool_default_min_size": 1,
                "osd_pool_default_pg_num": 1,
                "osd_pool_default_pgp_num": 1,
                "osd_pool_default_pg_autoscale_mode": "off",
                "osd_crush_chooseleaf_type": 0,
            },
            "mon": {
                "mon_data": self._folder / "mon",
                "mon_allow_pool_size_one": "true",
                "mon_max_pg_per_osd": 1000,
                # A disk that others have filled is none of this cluster's business.
                "mon_data_avail_warn": 2,
                "mon_data_avail_crit": 1,
                # One monitor agrees with itself at once; the defaults wait for others.
                "paxos_propose_interval": 0.05,
                "paxos_min_wait": 0.01,
            },
            "osd": {
                "osd_data": self._folder / "osd",
                "osd_objectstore": "bluestore" if self._durable else "memstore",
                "memstore_device_bytes": 4 << 30,
                "bluestore_block_size": 16 << 30,  # a sparse file
                "osd_memory_target": 900 << 20,
                "osd_class_load_list": "*",
                "osd_class_default_list": "*",
            },
            "client.rgw": {
                "rgw_data": self._folder / "rgw",
                "ms_mon_client_mode": "crc",  # the gateway alone insists on encryption, which needs cephx
                "rgw_frontends": f"beast endpoint={HOST}:{self._http} ssl_endpoint={HOST}:{self._https}"
                f" ssl_certificate={tls_pem}",
                "rgw_thread_pool_size": 32,
                # Aborted and overwritten data goes soon, so that tests can fill and empty a small store.
                "rgw_gc_obj_min_wait": 1,
                "rgw_gc_processor_period": 2,
                "rgw_gc_processor_max_time": 2,
            },
        }  # fmt: skip
        for name in ("mon", "osd", "rgw"):
            (self._folder / name).mkdir()
        config = configparser.RawConfigParser()
        config.read_dict({name: {k: str(v) for k, v in keys.items()} for name, keys in sections.items()})
        self._config = self._folder / "ceph.conf"
        with open(self._config, "w") as file:
            config.write(file)
        self._fsid = str(sections["global"]["fsid"])

    def _run(self, *words: str, timeout_s: float = 90) -> str:
        """Give what one of Ceph's programs prints. Raises RuntimeError with its words when it fails or hangs."""
        try:
            ended = subprocess.run(
                words,
                env=os.environ | {"CEPH_CONF": str(self._config)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{' '.join(words)} did not end in {timeout_s} s") from error
        if ended.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {ended.returncode}: {ended.stderr[-2000:]}")
        return ended.stdout

    def _daemon(self, *words: str) -> None:
        with open(self._folder / "daemons.log", "ab") as out:
            child = start(
                [*words, "-f"],
                env=os.environ | {"CEPH_CONF": str(self._config)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._children.append(child)

    def _make_cluster(self) -> None:
        monitors = str(self._folder / "monmap")
        address = f"[v2:{HOST}:{self._v2},v1:{HOST}:{self._v1}]"
        self._run("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", address, monitors)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors)
        self._daemon("ceph-mon", "-i", "a")
        disk = str(uuid.uuid4())
        self._run("ceph", "--connect-timeout", "60", "osd", "new", disk, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk, "--no-mon-config")
        self._daemon("ceph-osd", "-i", "0")
        # The first of these makes the default zone, and waits by itself until the OSD serves.
        for server in (self.http, self.ia):
            keys = f"--access-key {server.access_key} --secret-key {server.secret_key}"
            self._admin(f"user create --uid {server.access_key} --display-name {server.access_key} {keys}")
        placement = "--placement-id with-ia"
        self._admin(f"zonegroup placement add --rgw-zonegroup default {placement}")
        self._admin(
            f"zonegroup placement add --rgw-zonegroup default {placement} --storage-class STANDARD_IA"
        )
        self._admin(
            f"zone placement add --rgw-zone default {placement}"
            " --data-pool ia.data --index-pool ia.index --data-extra-pool ia.extra"
        )
        self._admin(
            f"zone placement add --rgw-zone default {placement} --storage-class STANDARD_IA --data-pool ia.cold"
        )
        self._admin(f"user modify --uid {self.ia.access_key} {placement}")

    def _admin(self, words: str) -> str:
        return self._run("radosgw-admin", "-n", "client.rgw", *words.split())

    def start(self) -> None:
        """Start all daemons and return when the gateway answers; the first time, make the cluster."""
        if (self._folder / "monmap").exists():
            self._daemon("ceph-mon", "-i", "a")
            self._daemon("ceph-osd", "-i", "0")
        else:
            self._make_cluster()
        self._daemon("radosgw", "-n", "client.rgw")
        for port in (self._http, self._https):
            wait_for_port(port, self._children, self._folder / "daemons.log", timeout_s=90)

    def kill(self) -> None:
        """End all daemons at once with SIGKILL, as a power cut would."""
        for child in reversed(self._children):
            end(child, grace_s=0)
        self._children.clear()

    def __enter__(self) -> Ceph:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
