"""A full run with everything switched on, of all that it leaves behind each byte is searched for each secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import children
from tests.harness.faults import Fault, FaultProxy, always
from tests.harness.hprof import Maker
from tests.harness.stores.server import HOST, StoreServer, free_ports
from tests.harness.webhook import Webhook, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SECRETS = {
    "access key secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "session token": "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEU=",
    "web identity token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJlLW9mLWl0",
    "webhook's token": "xoxHookTokenEXAMPLE24chars",
    "webhook's path": "/services/T0EXAMPLE/B0EXAMPLE",
    "proxy's password": "pr0xy-pass-EXAMPLE",
}
# What the run makes up itself: signatures, temporary credentials.
FORMS = {
    "signature": re.compile(r"(?i)signature=(?!\*\*\*)[^\s&]"),
    "authorization header": re.compile(r"(?i)authorization\W{1,8}(AWS4|Bearer|Basic)"),
    "temporary secret": re.compile(r"<SecretAccessKey>(?!\*\*\*)"),
    "temporary token": re.compile(r"<SessionToken>(?!\*\*\*)"),
}
# `dumpagent` as __main__ starts it, with every logger of the SDK routed to stderr.
_ALL_LOGGERS = (
    "import logging, sys; from dumpagent import secrets; secrets.install(); logging.basicConfig(level=1);"
    "from dumpagent.cli import cli; cli.main(sys.argv[1:], prog_name='dumpagent')"
)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    path, token = SECRETS["webhook's path"], SECRETS["webhook's token"]
    with serving(Webhook(f"{path}/{token}", refusals=1)) as hook:
        yield hook


class World:
    """A volume, its store behind a proxy that can break, and everything that was said."""

    def __init__(self, folder: Path, moto: StoreServer, webhook: Webhook, credentials: str) -> None:
        self.folder, self.webhook = folder, webhook
        self.said: dict[str, str] = {}
        self.root = folder / "dump"
        self.root.mkdir()
        self.proxy = FaultProxy(moto)
        (self.port,) = free_ports(1)
        self.environment = {
            **os.environ, **self.proxy.server.environment(moto.new_bucket()), "DUMP_ROOT": str(self.root),
            "RUNTIME_DIR": str(folder / "run"), "WATCH_INTERVAL": "0.2", "FILE_STABLE_TIME": "0",
            "STORE_CHECK_INTERVAL": "1", "LOG_LEVEL": "debug", "METRICS_PORT": str(self.port), "METRICS_ADDRESS": HOST,
            "NOTIFY_URL": webhook.url, "NOTIFY_FORMAT": "json", "NOTIFY_STORE_AFTER": "0",
            "HTTP_PROXY": "http://me:" + SECRETS["proxy's password"] + f"@{HOST}:1", "NO_PROXY": HOST,
        }  # fmt: skip
        if credentials == "keys":
            self.environment |= {
                "AWS_SECRET_ACCESS_KEY": SECRETS["access key secret"],
                "AWS_SESSION_TOKEN": SECRETS["session token"],
            }
        else:
            del self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"]
            (folder / "token").write_text(SECRETS["web identity token"])
            self.environment |= {
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/heap-dumps",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"),
                "AWS_ENDPOINT_URL_STS": moto.endpoint_url,
            }

    def command(self, *words: str, name: str, **environment: str) -> None:
        """Run `dumpagent` to its end, and keep what it says."""
        ended = subprocess.run(
            [sys.executable, "-c", _ALL_LOGGERS, *words], env=self.environment | environment, check=False,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        self.said |= {f"{name}: stdout": ended.stdout, f"{name}: stderr": ended.stderr}

    def get(self, page: str) -> None:
        """Keep what the status server answers."""
        try:
            answer = urllib.request.urlopen(f"http://{HOST}:{self.port}{page}", timeout=20).read()
        except urllib.error.HTTPError as error:
            answer = error.read()
        self.said[page] = answer.decode()

    def until(self, happened: Callable[[], bool], what: str) -> None:
        """Return when it has happened."""
        end = time.monotonic() + 150
        while not happened():
            assert time.monotonic() < end, what
            time.sleep(0.1)

    def keep_files(self) -> None:
        """Keep all that the run left on disk, but for the dumps and the token itself."""
        for path in self.folder.rglob("*"):
            if path.is_file() and ".hprof" not in path.name and path.name != "token":
                self.said[str(path.relative_to(self.folder))] = path.read_text(errors="replace")


@pytest.mark.parametrize("credentials", ["keys", "web identity"])
def test_no_secret_is_in_anything_that_a_full_run_says(
    tmp_path: Path, moto: StoreServer, webhook: Webhook, credentials: str
) -> None:
    world = World(tmp_path, moto, webhook, credentials)
    (world.root / "a.hprof").write_bytes(Maker().dump())
    log = tmp_path / "daemon.log"
    with log.open("wb") as out:
        daemon = children.start(
            [sys.executable, "-c", _ALL_LOGGERS, "upload"], env=world.environment, stdout=out, stderr=out
        )
    try:
        world.until(lambda: len(webhook.bodies) >= 1, "the stored dump is told, at the second attempt")
        (world.root / "cut.hprof").write_bytes(Maker().dump()[:-9])
        world.until(lambda: b"TRUNCATED" in b"".join(webhook.bodies), "the cut one too")
        world.proxy.plan = always(Fault.KEY_REVOKED)
        world.until(lambda: b"cannot be used" in b"".join(webhook.bodies), "the store's refusal is told")
        for page in ("/metrics", "/healthz", "/readyz"):
            world.get(page)
        world.keep_files()
        world.command("doctor", "--json", name="doctor of a store that refuses")
    finally:
        assert children.end(daemon) == 0
    world.proxy.plan = always(Fault.NONE)
    (world.root / "b.hprof").write_bytes(Maker().dump() + b"\0")
    world.command("doctor", name="doctor")
    world.command("upload", "--once", name="dead proxy", NO_PROXY="")
    world.command("upload", "--once", "--notify-format", webhook.url, name="bad setting")
    world.command("ls", name="ls")
    world.command("get", "a.hprof", "--output", str(tmp_path / "got.hprof"), name="get")
    world.said["notifications"] = b"\n".join(webhook.bodies).decode()
    world.keep_files()
    world.proxy.__exit__(None, None, None)

    for name, words in (
        ("daemon.log", "botocore"), ("daemon.log", "notify_failed"), ("daemon.log", "InvalidAccessKeyId"),
        ("dead proxy: stderr", "proxy"), ("bad setting: stderr", "NOTIFY_FORMAT"), ("/metrics", "dumpagent_dumps_seen_total"),
        ("notifications", "dumpagent get"), ("doctor: stdout", "canary"), ("daemon.log", "***"),
    ):  # fmt: skip
        assert words in world.said[name], f"{name} says nothing of {words!r}: {world.said[name][-2000:]}"
    assert any("receipts" in name for name in world.said), sorted(world.said)
    leaks = [
        (name, what)
        for name, text in world.said.items()
        for what, secret in SECRETS.items()
        if secret in text
    ] + [
        (name, what) for name, text in world.said.items() for what, form in FORMS.items() if form.search(text)
    ]
    assert leaks == []
