"""Loading the SDK costs no more than it must, and leaves the process as it was."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from botocore.session import Session

from dumpagent.gc_pause import uncollected
from dumpagent.settings import S3
from dumpagent.store.s3.session import new_session
from dumpagent.store.s3.store import S3Store


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Give the generations that the garbage collector goes through, as it does."""
    seen = list[int]()

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(see)
    yield seen
    gc.callbacks.remove(see)


def test_the_garbage_collector_waits_until_the_client_is_made(collections: list[int]) -> None:
    S3Store(S3(bucket="dumps", endpoint_url="http://127.0.0.1:1")).warm_up()
    assert len(collections) <= 2  # what waited comes at the end
    assert gc.isenabled()


def test_the_garbage_collector_is_back_where_no_client_can_be_made() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        S3Store(S3(bucket="dumps", endpoint_url="nowhere")).warm_up()
    assert gc.isenabled()


def test_a_garbage_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        S3Store(S3(bucket="dumps", endpoint_url="http://127.0.0.1:1")).warm_up()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_imports_are_never_gone_through_again() -> None:
    script = "import gc; from dumpagent.gc_pause import uncollected\n"
    script += "with uncollected(for_ever=True): import json\n"
    script += "print(gc.get_freeze_count() > 1000, gc.isenabled())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "True True\n"


def test_what_is_not_for_ever_is_collected_again() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        pass
    assert gc.get_freeze_count() == before


def test_the_folders_of_other_services_are_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[str]()
    real = os.listdir

    def listing(path: str) -> list[str]:
        looked.append(path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listing)
    session = new_session()
    session.create_client("s3", region_name="us-east-1")
    assert 0 < len(looked) < 10


@pytest.mark.parametrize("service", ["s3", "sts", "sso", "sso-oidc"])  # the store, and what gives credentials
def test_the_models_are_those_of_the_sdk(service: str) -> None:
    assert new_session().get_service_data(service) == Session().get_service_data(service)


def test_a_service_that_is_not_there_is_unknown() -> None:
    with pytest.raises(UnknownServiceError):
        new_session().get_service_data("s4")


def test_the_models_of_the_user_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    loader = new_session().get_component("data_loader")
    assert type(loader) is Loader
    assert str(tmp_path) in loader.search_paths
