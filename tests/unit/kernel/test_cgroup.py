"""The limits of a container are found, whichever version of cgroups tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dumpagent.kernel.cgroup import cpu_limit_cores, memory_limit_bytes


def machine(root: Path, membership: str, files: dict[str, str]) -> dict[str, str]:
    """Write what the kernel shows, and give where it is."""
    for name, content in files.items():
        path = root / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "proc").write_text(membership)
    return {"root": str(root / "fs"), "proc": str(root / "proc")}


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 0.2),
        ("0::/pod/app\n", {"cpu.max": "max 100000\n", "pod/app/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/pod\n", {"cpu.max": "50000 100000\n", "pod/cpu.max": "20000 100000\n"}, 0.2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "10000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.1),
        (
            "3:cpu,cpuacct:/pod\n",
            {"cpu,cpuacct/pod/cpu.cfs_quota_us": "5000", "cpu,cpuacct/pod/cpu.cfs_period_us": "50000"},
            0.1,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": ""}, None),
        ("", {}, None),
    ],
)
def test_the_cpu_limit(tmp_path: Path, membership: str, files: dict[str, str], cores: float | None) -> None:
    assert cpu_limit_cores(**machine(tmp_path, membership, files)) == cores


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "268435456\n"}, 256 << 20),
        ("0::/pod\n", {"memory.max": "max\n", "pod/memory.max": "1048576\n"}, 1 << 20),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "268435456\n", "memory.high": "200000000\n"}, 200_000_000),
        ("0::/\n", {"memory.max": "268435456\n", "memory.high": "max\n"}, 256 << 20),
        ("4:memory:/pod\n", {"memory/pod/memory.limit_in_bytes": "4096\n"}, 4096),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
)
def test_the_memory_limit(tmp_path: Path, membership: str, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit_bytes(**machine(tmp_path, membership, files)) == limit


def test_without_a_proc_file_system_nothing_is_known(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert cpu_limit_cores(root=nowhere, proc=nowhere) is None
    assert memory_limit_bytes(root=nowhere, proc=nowhere) is None
