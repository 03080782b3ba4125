"""EDQUOT: a file system with quotas, where the uploader itself may write nothing more.

ext4 with the quota feature; the limit is set by quotactl(2). The uploader runs once in its manifest's container.
"""

from __future__ import annotations

import pytest

from tests.harness.stores.moto import Moto
from tests.vm.machine import HOST_FROM_INSIDE, Machine
from tests.vm.node import PYTHON, Node, Pod, manifest

pytestmark = [pytest.mark.vm, pytest.mark.e2e, pytest.mark.timeout(3600)]
UPLOADER = manifest("heap-dump-s3-uploader", "s3-uploader")
_OWNER = 5000
_DUMP = "/mnt/quota/shop_orders-1/java_pid1.hprof"

# Source: quotactl(2): struct dqblk, Q_SETQUOTA, USRQUOTA; limits are in blocks of 1 KiB. What is used is the limit.
_SET_QUOTA = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
block = struct.pack("8QI4x", 1, 1, 0, 1, 1, 0, 0, 0, 1 | 4)
code = libc.quotactl(0x800008 << 8 | 0, sys.argv[1].encode(), int(sys.argv[2]), block)
assert code == 0, ctypes.get_errno()
"""
_MAKE_DUMP = """
import struct, sys
array = struct.pack(">BQIIB", 0x23, 4096, 1, 65536, 8) + bytes(65536)
with open(sys.argv[1], "xb") as file:
    file.write(b"JAVA PROFILE 1.0.2\\0" + struct.pack(">IQ", 8, 1790000000000))
    file.write(struct.pack(">BII", 0x1C, 0, len(array)) + array + struct.pack(">BII", 0x2C, 0, 0))
"""


def test_an_uploader_over_its_quota_still_brings_the_dump_to_the_store(
    machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It can keep no state (EDQUOT, not ENOSPC), says so, and the dump is stored whole all the same."""
    with Moto(tmp_path_factory.mktemp("quota")) as moto:
        bucket = moto.server.new_bucket()
        environment = moto.server.environment(bucket)
        environment = {
            name: value.replace("127.0.0.1", HOST_FROM_INSIDE) for name, value in environment.items()
        }
        environment |= {"S3_BUCKET": bucket, "S3_STORAGE_CLASS": "STANDARD", "DUMP_ROOT": "/mnt/quota"}
        node = Node(machine, environment)
        node.prepare()
        machine.sh(
            "modprobe quota_v2; truncate -s 64M /var/quota.img; mkdir -p /mnt/quota;"
            "mke2fs -q -t ext4 -O quota -E quotatype=usrquota /var/quota.img; mount -o loop,usrquota /var/quota.img /mnt/quota;"
            "rmdir /mnt/quota/lost+found; chmod 1777 /mnt/quota; mkdir -m 700 /mnt/quota/shop_orders-1; touch /mnt/quota/.ready"
        )
        machine.run(["/usr/bin/python3", "-c", _MAKE_DUMP, _DUMP]).check()
        machine.sh(f"chown -R {_OWNER}:{_OWNER} /mnt/quota/shop_orders-1")
        node.label("/mnt/quota", "s0")
        device = machine.sh("findmnt -no SOURCE /mnt/quota").strip()
        machine.run(["/usr/bin/python3", "-c", _SET_QUOTA, device, "0"]).check()
        refused = machine.run(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "touch", "/mnt/quota/x"])
        assert "quota exceeded" in refused.err, refused
        done = node.run(
            Pod("quota-uploader", "0a0a4444"), UPLOADER, [*PYTHON, "upload", "--once"], timeout_s=900
        )
        client = moto.server.client()
        keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
        assert "Disk quota exceeded" in done.out + done.err, done
        assert any(key.endswith("shop_orders-1/java_pid1.hprof") for key in keys), (keys, done)
        machine.sh("umount /mnt/quota; rmdir /mnt/quota")
