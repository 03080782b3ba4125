"""`python -m tests.soak`: what many applications leave when they die in one minute, through the real uploader.

Each directory gets, as its own user, a heap dump, an error file, a GC log that is opened and closed for each piece, and a
flight recording. At the end every file must be in the store byte for byte, and every dump before the first log.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

from tests.harness.children import end, start
from tests.harness.hprof import Maker
from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer

_FIRST_UID = 20_000
_PIECES = 10


def leave(folder: Path, uid: int, dump: bytes, log_bytes: int) -> dict[str, int]:
    """Write as a JVM does; give the CRC32 of each file by its name."""
    contents = {
        "hs_err_pid1.log": b"# A fatal error %d\n" % uid * 2000,
        "rec.jfr": os.urandom(1 << 20),
        "gc.log": os.urandom(1000) * (log_bytes // 1000),
        "java_pid1.hprof": dump,
    }
    folder.mkdir()
    os.chown(folder, uid, uid)
    for name, content in contents.items():
        step = len(content) if name.endswith(".hprof") else len(content) // _PIECES + 1
        for at in range(0, len(content), step):
            with (folder / name).open("ab") as file:
                os.fchown(file.fileno(), uid, uid)
                file.write(content[at : at + step])
    return {name: zlib.crc32(content) for name, content in contents.items()}


def run(server: StoreServer, root: Path, *, count: int, log_bytes: int, seconds: float) -> list[str]:
    """Let `count` applications die within `seconds`; give what was broken."""
    bucket, lines = server.new_bucket(), list[dict[str, object]]()
    environment = {
        **os.environ, **server.environment(bucket), "DUMP_ROOT": str(root), "LOG_FORMAT": "json", "METRICS_PORT": "0",
        "RUNTIME_DIR": str(root.parent),
    }  # fmt: skip
    agent = start(
        [sys.executable, "-m", "dumpagent", "upload"], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def read() -> None:
        assert agent.stderr is not None
        lines.extend(json.loads(line) for line in agent.stderr)

    threading.Thread(target=read, daemon=True).start()
    began, left = time.monotonic(), dict[str, dict[str, int]]()
    try:
        for number in range(count):
            dump = Maker().dump(segments=20 + number % 50, segment_bytes=40_000)
            left[f"app-{number}"] = leave(root / f"app-{number}", _FIRST_UID + number, dump, log_bytes)
            time.sleep(max(0.0, began + (number + 1) * seconds / count - time.monotonic()))
        deadline = time.monotonic() + 60 + 4.0 * count
        while time.monotonic() < deadline and _count(lines, "companion_uploaded") < 3 * count:
            time.sleep(0.5)
    finally:
        end(agent)
    order = [str(line["path"]) for line in lines if line["event"] in ("dump_uploaded", "companion_uploaded")]
    print(f"{len(order)} files of {4 * count} stored in {time.monotonic() - began:.0f} s", flush=True)
    last_dump = max((at for at, path in enumerate(order) if ".hprof" in path), default=-1)
    first_log = min((at for at, path in enumerate(order) if path.endswith("gc.log")), default=len(order))
    broken = [f"{len(order)} files are stored, not {4 * count}"] if len(order) != 4 * count else []
    if first_log < last_dump:
        broken.append("a log was stored before the last dump")
    return broken + _compare(server, bucket, left)


def _compare(server: StoreServer, bucket: str, left: dict[str, dict[str, int]]) -> list[str]:
    client, broken = server.client(), list[str]()
    stored: dict[tuple[str, str], list[int]] = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            if not item["Key"].startswith(".dumpagent/"):
                content = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                key = item["Key"].split("/")[0], item["Key"].split("/")[-1]
                stored.setdefault(key, []).append(zlib.crc32(content))
    wanted = {(app, name): [crc32] for app, files in left.items() for name, crc32 in files.items()}
    broken += [
        f"{'/'.join(key)}: {len(stored.get(key, []))} objects, or other bytes"
        for key in sorted(wanted.keys() | stored.keys())
        if wanted.get(key) != stored.get(key)
    ]
    return broken


def _count(lines: list[dict[str, object]], event: str) -> int:
    return sum(line["event"] == event for line in list(lines))


def main() -> None:
    """Read the command line and soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--applications", type=int, default=200)
    parser.add_argument("--log-bytes", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="in which they die")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dumpagent-soak-") as folder:
        root, store = Path(folder, "dump"), Path(folder, "store")
        root.mkdir()
        store.mkdir()
        with Moto(store) as moto:
            broken = run(
                moto.server, root, count=words.applications, log_bytes=words.log_bytes, seconds=words.seconds
            )
    for line in broken[:40]:
        print(f"BROKEN: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
