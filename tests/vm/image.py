"""The virtual machine's disk: Debian's kernel, and a root file system made by debootstrap with SELinux labels.

Made once per content (about four minutes) and kept in the cache; started machines write to a copy that goes with them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness.cache import cached_folder
from tests.harness.jvm import pinned_jdk

PROJECT = Path(__file__).parents[2]
JDK_VERSION = "17.0.9.2"
HOST_PROGRAMS = ("qemu-system-x86_64", "debootstrap", "mke2fs")
_SUITE = "bookworm"
_KERNEL = "linux-image-cloud-amd64"
# In the order of the initial root file system: the disk, the command line to us, the network, what the tests mount.
_FIRST_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net")
_PACKAGES = (
    "busybox-static", "checkpolicy", "e2fsprogs", "iproute2", "kmod", "libcap2-bin", "make", "mount", "policycoreutils", "procps",
    "python3", "runc", "selinux-policy-default", "selinux-policy-dev", "selinux-utils", "semodule-utils", "util-linux",
)  # fmt: skip
_ROOT_MIB = 1800
_POLICY = Path(__file__).parent / "containers.te"
_FORMAT = "1"  # raise it when what `_make` does changes


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine starts from; nothing of it is written to."""

    kernel: Path
    initrd: Path
    root: Path


def image() -> Image:
    """Give the disk; makes it the first time. Raises CalledProcessError with what debootstrap or pip printed."""
    pins = _runtime_pins()
    said = "\n".join(
        (
            _FORMAT,
            _SUITE,
            _KERNEL,
            *_FIRST_MODULES,
            *_PACKAGES,
            JDK_VERSION,
            *pins,
            _INIT,
            _POLICY.read_text(),
        )
    )
    key = hashlib.sha256(said.encode()).hexdigest()[:16]
    folder = cached_folder(f"vm/{key}", lambda folder: _make(folder, pins))
    return Image(folder / "vmlinuz", folder / "initrd", folder / "root.ext4")


def _runtime_pins() -> list[str]:
    """Give the pinned requirements that the image installs, without their hashes: pip takes none on a command line."""
    lines = (PROJECT / "requirements" / "image.txt").read_text().splitlines()
    return [line.removesuffix("\\").strip() for line in lines if "==" in line and not line.startswith("#")]


def _make(folder: Path, pins: Sequence[str]) -> None:
    root = folder / "root"
    packages = ",".join(_PACKAGES)
    key = hashlib.sha256(f"{_SUITE} {packages}".encode()).hexdigest()[:16]

    def bootstrap(made: Path) -> None:
        _run("debootstrap", "--variant=minbase", f"--include={packages}", _SUITE, made / "root")

    _run("cp", "-a", cached_folder(f"vm/debian-{key}", bootstrap) / "root", root)
    _add_policy(root)
    version = _add_kernel(folder, root)
    _add_python(root, pins)
    runtime = pinned_jdk(JDK_VERSION).java.parents[1]
    shutil.copytree(runtime, root / "opt" / "jdk", symlinks=True)
    (root / "etc" / "selinux" / "config").write_text("SELINUX=enforcing\nSELINUXTYPE=default\n")
    for name in ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / name, ignore_errors=True)
    _label(root)
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, folder / "root.ext4", f"{_ROOT_MIB}M")
    (folder / "initrd").write_bytes(_archive(_initial_files(root, version)))
    shutil.rmtree(root)


def _add_policy(root: Path) -> None:
    """Build and install the module with the types of containers, which Debian's policy has not."""
    shutil.copy(_POLICY, root / "root" / _POLICY.name)
    make = "make -s -f /usr/share/selinux/devel/Makefile NAME=default containers.pp"
    _run("chroot", root, "sh", "-ec", f"cd /root && {make} && semodule -n -s default -i containers.pp")


def _label(root: Path) -> None:
    """Label each file, as `fixfiles` does at a first start, where it takes ten minutes. Source: setfiles(8)."""
    contexts = "/etc/selinux/default/contexts/files/file_contexts"
    # It names files by /proc/self/fd; in a mount namespace of its own nothing is left mounted, whatever happens.
    script = f'mount -t proc proc "$0/proc" && chroot "$0" setfiles -F -e /proc {contexts} /'
    _run("unshare", "-m", "sh", "-ec", script, root)


def _add_kernel(folder: Path, root: Path) -> str:
    """Unpack the newest kernel without its hooks, which would build an initial root file system for any machine."""
    depends = _run("apt-cache", "depends", _KERNEL)
    package = re.findall(r"Depends: (linux-image-\S+)", depends)[0]
    _run("apt-get", "download", "-qq", package, cwd=folder)
    (archive,) = folder.glob("linux-image-*.deb")
    unpacked = folder / "kernel"  # not into the root itself: its /lib is a link, the archive's a directory
    _run("dpkg-deb", "-x", archive, unpacked)
    (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.move(kernel, folder / "vmlinuz")
    shutil.move(unpacked / "lib" / "modules", root / "usr" / "lib" / "modules")
    shutil.rmtree(unpacked)
    archive.unlink()
    version = kernel.name.removeprefix("vmlinuz-")
    _run("chroot", root, "depmod", version)
    return version


def _add_python(root: Path, pins: Sequence[str]) -> None:
    (python,) = (root / "usr" / "lib").glob("python3.[0-9]*")
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--python-version", python.name.removeprefix("python"), "--target", root / "opt" / "python"),
        *pins,
    )
    _run("chroot", root, "python3", "-m", "compileall", "-q", "/opt/python")


def _initial_files(root: Path, version: str) -> Iterator[tuple[str, int, bytes]]:
    """Give name, mode and content of what the kernel unpacks before it has a disk. Source: modules.dep, modprobe(8)."""
    modules = root / "lib" / "modules" / version
    depends = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
    by_name = {Path(path).name.split(".")[0].replace("-", "_"): path for path in depends}
    wanted: list[str] = []
    for name in _FIRST_MODULES:
        path = by_name[name]
        for each in (*reversed(depends[path].split()), path):
            if each not in wanted:
                wanted.append(each)
    for folder in ("bin", "dev", "proc", "sys", "root", "modules"):
        yield folder, 0o040755, b""
    yield "bin/busybox", 0o100755, (root / "bin" / "busybox").read_bytes()
    for number, path in enumerate(wanted):
        yield f"modules/{number:02}-{Path(path).name}", 0o100644, (modules / path).read_bytes()
    yield "init", 0o100755, _INIT.encode()


# The project comes as a plain tar archive on the second disk, so that one root file system serves every checkout.
_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod $module || echo "insmod $module failed"; done
tries=0
while [ ! -b /dev/vdb ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 /dev/vda /root && mkdir -p /root/var/layer/project && tar -x -C /root/var/layer/project -f /dev/vdb || exec sh
ln -s var/layer/project /root/project
umount /proc; umount /sys; mount --move /dev /root/dev
exec switch_root /root /usr/bin/python3 -u /project/tests/vm/guest.py
"""


def _archive(files: Iterator[tuple[str, int, bytes]]) -> bytes:
    """Pack a cpio archive. Source: Linux kernel, driver-api/early-userspace/buffer-format (newc)."""
    packed = bytearray()
    entries = [*files, ("TRAILER!!!", 0, b"")]
    for inode, (name, mode, content) in enumerate(entries, 1):
        numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08x" % number for number in numbers)
        packed += name.encode() + b"\0"
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return bytes(packed)


def _run(*argv: str | os.PathLike[str], cwd: Path | None = None) -> str:
    """Give the output of a program. Raises RuntimeError with all that it printed."""
    done = subprocess.run(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {done.returncode}: {done.stdout[-3000:]}")
    return done.stdout


def why_not() -> str:
    """Say why no machine can be had here, empty if one can."""
    if platform.machine() != "x86_64":
        return "the virtual machine is x86-64 and is made on an x86-64 machine"
    missing = [program for program in HOST_PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} missing: install qemu-system-x86 debootstrap e2fsprogs"
    return "" if os.geteuid() == 0 else "debootstrap needs root"
