"""The real daemon before a real webhook: the command in a message works when it is pasted; a webhook holds up nobody."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import children
from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer, is_dump_key
from tests.harness.webhook import Webhook, serving

pytestmark = [pytest.mark.slow]

NAMES = (
    "shop & co/it's \"x\".hprof", "-x.hprof", "two  blanks/java pid.hprof", "$(touch pwned)/;touch pwned.hprof",
    "`touch pwned`.hprof", "<!channel>/*bold* _it_.hprof", "gr\u00fcn/\u00e4\u4e2d.hprof", "no\udcffutf8/new\nline.hprof", "back\\slash!!.hprof",
)  # fmt: skip


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serving(Webhook()) as hook:
        yield hook


class Agent:
    """A volume, and the daemon that watches it, as often as it is started."""

    def __init__(self, folder: Path, moto: StoreServer, url: str, **environment: str) -> None:
        self.root, self.log, self._folder = folder / "dump", folder / "log", folder
        self.root.mkdir()
        self.bucket = moto.new_bucket()
        self.client = moto.client()
        self.reader = {**os.environ, **moto.environment(self.bucket)}
        self.environment = {
            **self.reader, "DUMP_ROOT": str(self.root), "RUNTIME_DIR": str(folder / "run"), "FILE_STABLE_TIME": "0",
            "NOTIFY_URL": url, "SUMMARY": "off", **environment,
        }  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return children.start(
                [sys.executable, "-m", "dumpagent", "upload"], env=self.environment, stderr=out
            )

    def dump(self, name: str, content: bytes) -> None:
        path = os.fsencode(self.root) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)

    def stored(self) -> int:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return sum(is_dump_key(stored["Key"]) for stored in found)

    def until(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 90
        while not happened():
            assert time.monotonic() < end, f"{what}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.1)


@pytest.mark.parametrize(("form", "prefix"), [("slack", "heap dumps"), ("json", "")])
def test_the_command_in_a_message_fetches_that_dump_when_it_is_pasted_into_a_shell(
    form: str, prefix: str, moto: StoreServer, webhook: Webhook, tmp_path: Path
) -> None:
    """Blanks, quotes, commands, markup and bytes that are no text in a name: what is pasted is one dump's key, no more."""
    agent = Agent(tmp_path, moto, webhook.url, NOTIFY_FORMAT=form, S3_PREFIX=prefix)
    contents = {Maker(time_ms=1_767_268_800_000 + number * 1000).dump() for number in range(len(NAMES))}
    for name, content in zip(NAMES, contents, strict=True):
        agent.dump(name, content)
    daemon = agent.start()
    try:
        agent.until(
            lambda: (
                sum(_text(got).count("dumpagent get") for got in map(json.loads, webhook.bodies))
                >= len(NAMES)
            ),
            "all are told",
        )
    finally:
        children.end(daemon)
    commands = {
        html.unescape(found) if form == "slack" else found
        for got in map(json.loads, webhook.bodies)
        for found in re.findall(r"^```\n(dumpagent get .*)\n```$", _text(got), re.MULTILINE)
    }
    if form == "json":
        assert commands == {
            event["command"] for got in map(json.loads, webhook.bodies) for event in got["events"]
        }
    assert len(commands) == len(NAMES)
    environment = {**agent.reader, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for name in ("S3_BUCKET", "S3_PREFIX", "S3_ENDPOINT_URL"):
        environment.pop(name, None)  # the machine of somebody who has the message and keys that may read
    fetched = set()
    for number, command in enumerate(sorted(commands)):
        here = tmp_path / f"desk-{number}"
        here.mkdir()
        pasted = subprocess.run(
            ["sh", "-c", command], cwd=here, capture_output=True, text=True, check=False,
            env=environment,
        )  # fmt: skip
        assert pasted.returncode == 0, f"{command}\n{pasted.stderr}"
        (file,) = here.iterdir()
        fetched.add(file.read_bytes())
        file.unlink()
        look = command.replace("dumpagent get", "dumpagent inspect --json")
        pasted = subprocess.run(
            ["sh", "-c", look], cwd=here, capture_output=True, text=True, check=False, env=environment
        )
        assert pasted.returncode == 0, f"{look}\n{pasted.stderr}"
    assert fetched == contents


def _text(message: dict[str, Any]) -> str:
    return str(message["text"])


def test_a_webhook_that_hangs_holds_up_no_upload_and_is_told_each_dump_once_when_it_answers_again(
    moto: StoreServer, webhook: Webhook, tmp_path: Path
) -> None:
    """Over a kill -9 too."""
    agent = Agent(tmp_path, moto, webhook.url)
    webhook.hangs = True
    daemon = agent.start()
    agent.dump("a.hprof", Maker(time_ms=1_767_268_801_000).dump())
    agent.until(lambda: webhook.asked == 1, "the webhook is told, and hangs")
    for number in range(2, 5):
        agent.dump(f"{number}.hprof", Maker(time_ms=1_767_268_801_000 + number * 1000).dump())
    agent.until(lambda: agent.stored() == 4, "four dumps are stored while the first message hangs")
    agent.until(
        lambda: len(list((agent.root / ".dumpagent" / "outbox").iterdir())) == 4, "four messages wait"
    )
    daemon.kill()
    daemon.wait()
    webhook.hangs = False
    for life in range(2):
        daemon = agent.start()
        agent.until(lambda: len(_told(webhook)) >= 4, "all four are told")
        starts = life + 2
        agent.until(lambda: agent.log.read_text().count("store_answered") >= starts, "it is up")  # noqa: B023 - called here
        assert children.end(daemon) == 0
    assert sorted(_told(webhook)) == ["2.hprof", "3.hprof", "4.hprof", "a.hprof"]


def _told(webhook: Webhook) -> list[str]:
    return [
        key
        for got in map(json.loads, webhook.bodies)
        for key in re.findall(r"^dumpagent get .* (\S+)$", _text(got), re.MULTILINE)
    ]


def test_a_webhook_that_hangs_does_not_hold_up_the_end(
    moto: StoreServer, webhook: Webhook, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, moto, webhook.url)
    webhook.hangs = True
    daemon = agent.start()
    agent.dump("a.hprof", Maker().dump())
    agent.until(lambda: webhook.asked == 1, "the webhook is told, and hangs")
    assert children.end(daemon, grace_s=20) == 0, "not killed"
