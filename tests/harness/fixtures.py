"""Fixtures that every test may ask for: real JVMs, and real S3 stores that are started once and then shared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.jvm import PINNED, Jdk, any_jdk, pinned_jdk
from tests.harness.stores.binaries import Rclone, SeaweedFS
from tests.harness.stores.ceph import PROGRAMS, Ceph
from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer
from tests.harness.stores.swift import Swift

# The ways into the shared stores, each a fixture of that name -> the server behind it. Tests of one server run in
# one worker (pytest-xdist, --dist loadgroup), so that each server is started once.
STORES = {
    "moto": "moto",
    "swift": "swift",
    "swift_tls": "swift",
    "ceph": "ceph",
    "ceph_tls": "ceph",
    "ceph_ia": "ceph",
    "ceph_ia_tls": "ceph",
    "seaweedfs": "seaweedfs",
    "seaweedfs_tls": "seaweedfs",
    "rclone": "rclone",
    "rclone_tls": "rclone",
}
# Program that a developer's machine may lack -> the Debian packages that have it, as tools/setup.sh installs them.
DEBIAN_PACKAGES = {
    program: package.partition("|")[0].replace(",", " ")
    for purpose, program, package in (
        line.split()[:3]
        for line in (Path(__file__).parents[2] / "requirements" / "debian.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    if purpose == "test"
}


def need(*programs: str) -> None:
    """Skip the test that asks, and say why, if one of these programs is not on PATH."""
    for program in programs:
        assert program in DEBIAN_PACKAGES, f"{program} is not in requirements/debian.txt"
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on PATH: apt-get install {DEBIAN_PACKAGES[program]}")


@pytest.fixture(scope="session", name="any_jdk")
def _any_jdk() -> Jdk:
    """A real JVM, whichever costs least to have."""
    return any_jdk()


@pytest.fixture(scope="session", params=PINNED)
def every_jdk(request: pytest.FixtureRequest) -> Jdk:
    """Each pinned JVM in turn, from 11 to 25."""
    return pinned_jdk(request.param)


_PREFIX = "dumpagent-store-"


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a new folder for a server's data; remove those of runs that were killed, whose process id is in the name."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    # Not pytest's tmp_path_factory: that keeps what servers stored for three more runs.
    prefix = f"{_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def moto() -> Iterator[StoreServer]:
    """moto over http: quick, and verifies nothing."""
    with _folder() as folder, Moto(folder) as running:
        yield running.server


@pytest.fixture(scope="session")
def swift_cluster() -> Iterator[Swift]:
    with _folder() as folder, Swift(folder) as running:
        yield running


@pytest.fixture(scope="session")
def ceph_cluster() -> Iterator[Ceph]:
    need(*PROGRAMS)
    with _folder() as folder, Ceph(folder) as running:
        yield running


@pytest.fixture(scope="session")
def swift(swift_cluster: Swift) -> StoreServer:
    """OpenStack Swift over http: the quickest real store."""
    return swift_cluster.http


@pytest.fixture(scope="session")
def swift_tls(swift_cluster: Swift) -> StoreServer:
    return swift_cluster.https


@pytest.fixture(scope="session")
def ceph(ceph_cluster: Ceph) -> StoreServer:
    """Ceph RGW over http, without STANDARD_IA."""
    return ceph_cluster.http


@pytest.fixture(scope="session")
def ceph_tls(ceph_cluster: Ceph) -> StoreServer:
    return ceph_cluster.https


@pytest.fixture(scope="session")
def ceph_ia(ceph_cluster: Ceph) -> StoreServer:
    """Ceph RGW over http, with the storage class STANDARD_IA."""
    return ceph_cluster.ia


@pytest.fixture(scope="session")
def ceph_ia_tls(ceph_cluster: Ceph) -> StoreServer:
    return ceph_cluster.ia_tls


@pytest.fixture(scope="session")
def seaweedfs_server() -> Iterator[SeaweedFS]:
    with _folder() as folder, SeaweedFS(folder) as running:
        yield running


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[Rclone]:
    with _folder() as folder, Rclone(folder) as running:
        yield running


@pytest.fixture(scope="session")
def seaweedfs(seaweedfs_server: SeaweedFS) -> StoreServer:
    """SeaweedFS over http."""
    return seaweedfs_server.http


@pytest.fixture(scope="session")
def seaweedfs_tls(seaweedfs_server: SeaweedFS) -> StoreServer:
    return seaweedfs_server.https


@pytest.fixture(scope="session")
def rclone(rclone_server: Rclone) -> StoreServer:
    """`rclone serve s3` over http: the plainest store there is."""
    return rclone_server.http


@pytest.fixture(scope="session")
def rclone_tls(rclone_server: Rclone) -> StoreServer:
    return rclone_server.https


@pytest.fixture(params=STORES)
def every_server(request: pytest.FixtureRequest) -> StoreServer:
    """Each running store in turn."""
    server: StoreServer = request.getfixturevalue(request.param)
    return server


def _server_of(item: pytest.Item) -> str | None:
    """Name the shared server that a test uses, None if it uses none."""
    names = [*getattr(item, "fixturenames", ())]
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        names += [value for value in callspec.params.values() if isinstance(value, str)]
    return next((STORES[name] for name in names if name in STORES), None)


@pytest.hookimpl(tryfirst=True)  # before `-m` and xdist look at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if server := _server_of(item):
            item.add_marker(pytest.mark.xdist_group(server))
            item.add_marker(pytest.mark.slow)  # somebody has to wait for the server to start


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skipped, and told so, where one is not on PATH")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        need(*marker.args)
