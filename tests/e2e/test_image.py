"""The agent's image: what is in it, how big it is, and that it runs as any user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.e2e import images

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
_NAME = "localhost/dumpagent:tested"
_MOST_BYTES = 200 * 1000 * 1000


@pytest.fixture(scope="module")
def base() -> str:
    """Build the image; give the name of its base."""
    with images.locked():
        return images.build_dumpagent(_NAME)


@pytest.fixture
def container(base: str) -> Iterator[str]:
    """Give a container of the image."""
    with images.container(_NAME) as name:
        yield name


def _in(container: str, *words: str, user: str = "10001", **env: str) -> tuple[int, str]:
    """Give exit code and output of a program in the container."""
    settings = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    try:
        said = images.buildah(
            "run", "--isolation", "chroot", "--user", user, *settings, container, "--", *words
        )
    except images.CommandFailed as failed:
        return failed.code, failed.said
    return 0, said


def test_it_is_less_than_200_mb_above_its_base(base: str) -> None:
    """What a node pulls beside a base that it has already."""
    added = images.size_bytes(_NAME) - images.size_bytes(base)
    print(f"{added / 1e6:.0f} MB above the base")
    assert 0 < added < _MOST_BYTES


@pytest.mark.parametrize("user", ["10001", "0", "1000650000:0"])
def test_it_runs_as_any_user(container: str, user: str) -> None:
    """OpenShift gives each namespace its own range of users, of which no image knows."""
    code, said = _in(container, "dumpagent", "--help", user=user)
    assert code == 0
    assert "upload" in said


def test_check_says_that_no_daemon_runs(container: str) -> None:
    """The probe works, and fails with a reason."""
    code, said = _in(container, "dumpagent", "check")
    assert code == 1
    assert "no daemon" in said


@pytest.mark.parametrize("user", ["10001:0", "0:0", "1000650000:0"])
def test_it_works_on_a_read_only_root(base: str, user: str) -> None:
    """As the pods run it, with whatever user they name: each command starts, and writes nowhere in the image."""
    assert images.run_read_only(_NAME, user, ["--help"], {})[0] == 0
    code, said = images.run_read_only(_NAME, user, ["check"], {})
    assert (code, "no daemon" in said) == (1, True), said
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    store = {"S3_BUCKET": "b", "S3_ENDPOINT_URL": "http://127.0.0.1:9", "DUMP_ROOT": "/mnt", **keys}
    code, said = images.run_read_only(_NAME, user, ["upload", "--once"], store)
    assert (code, "127.0.0.1:9" in said) == (1, True), said
    assert "Traceback" not in said


def test_it_says_what_it_is_and_runs_as_a_number(base: str) -> None:
    """A kubelet can check runAsNonRoot only against a number; a registry shows the labels."""
    told = images.config(_NAME)
    assert told["Entrypoint"] == ["dumpagent"]
    assert told["User"].isdigit()
    assert told["User"] != "0"
    for label in ("org.opencontainers.image.title", "io.k8s.description", "io.openshift.tags"):
        assert told["Labels"][label]


# Runs in the image; gives the user CPU seconds of `words`, the least of seven.
_CPU_OF = """
import json, os, sys
words, used = sys.argv[1:], []
for _ in range(7):
    pid = os.posix_spawn(words[0], words, os.environ)
    used.append(os.wait4(pid, 0)[2])
print(min(use.ru_utime + use.ru_stime for use in used))
"""


def test_a_probe_costs_little_more_than_a_bare_python(container: str) -> None:
    """A tenth of a core answers it within the kubelet's second: facts of the image's launcher and its bytecode."""
    python = (
        _in(container, "sh", "-c", "head -1 /opt/dumpagent/bin/dumpagent")[1].removeprefix("#!").split()[0]
    )

    def cpu_s(*words: str) -> float:
        code, said = _in(container, python, "-ISc", _CPU_OF, *words)
        assert code == 0, said
        return float(said.split()[-1])

    bare, probe = cpu_s(python, "-c", "pass"), cpu_s("/opt/dumpagent/bin/dumpagent", "check")
    print(f"dumpagent check: {1000 * probe:.1f} ms of CPU, python -c pass: {1000 * bare:.1f} ms")
    assert probe <= 1.5 * bare


def test_upload_names_the_placeholder(container: str) -> None:
    """The manifests applied unread."""
    code, said = _in(container, "dumpagent", "upload", "--once", S3_BUCKET="REPLACE_ME")
    assert code == 2
    assert "S3_BUCKET still has REPLACE_ME" in said


def test_upload_once_reaches_for_the_store(container: str) -> None:
    """The SDK is there, and what is wrong is said: nothing listens on that port."""
    code, said = _in(
        container, "dumpagent", "upload", "--once", S3_BUCKET="b", S3_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", DUMP_ROOT="/tmp",
    )  # fmt: skip
    assert code == 1
    assert "127.0.0.1:9" in said


def test_what_the_daemons_start_finds_the_agent_too(container: str) -> None:
    """The uploader asks its store in a process of its own, which no launcher sets up."""
    python = (
        _in(container, "sh", "-c", "head -1 /opt/dumpagent/bin/dumpagent")[1].removeprefix("#!").split()[0]
    )
    assert _in(container, python, "-c", "import dumpagent.store.s3.probe, boto3") == (0, "")


@pytest.mark.parametrize("tool", ["pip", "setuptools", "wheel"])
def test_it_has_no_tools_to_install_more(container: str, tool: str) -> None:
    """What is not there cannot be used, nor be found by a scanner."""
    for python in ("python3", "/opt/app-root/bin/python3"):
        code, _ = _in(container, python, "-c", f"import {tool}")
        assert code != 0
    assert _in(container, "sh", "-c", f"command -v {tool} gcc cc")[0] != 0


def test_bytecode_is_compiled(container: str) -> None:
    """Nothing can be written at run time, and a probe without bytecode costs three times as much."""
    sources, compiled = (
        int(_in(container, "sh", "-c", f"find /opt/dumpagent/lib -name '{pattern}' | wc -l")[1])
        for pattern in ("*.py", "*.pyc")
    )
    assert sources == compiled > 100


def test_its_sbom_names_what_is_in_it(container: str) -> None:
    """Every Python package with the version that requirements/image.txt pins, and the packages of the base or that they are unknown."""
    code, said = _in(container, "cat", "/opt/dumpagent/sbom.cdx.json")
    assert code == 0
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(said) is None
    made = json.loads(said)
    found = {
        each["name"]: each["version"] for each in made["components"] if each["purl"].startswith("pkg:pypi/")
    }
    code, installed = _in(container, "sh", "-c", "ls -d /opt/dumpagent/lib/*.dist-info")
    names = {Path(line).name.partition("-")[0] for line in installed.split()}
    assert {name.replace("-", "_").replace(".", "_").lower() for name in found} == {
        name.replace(".", "_").lower() for name in names
    }
    assert {"dumpagent", "boto3", "isal"} <= set(found)
    (told,) = (each["value"] for each in made["properties"] if each["name"] == "dumpagent:base-packages")
    listed = sum(not each["purl"].startswith("pkg:pypi/") for each in made["components"])
    assert told.endswith(f"{listed} packages") if listed else told.startswith("unknown")
    assert "cyclonedx" not in " ".join(names)  # what built it is not in it
