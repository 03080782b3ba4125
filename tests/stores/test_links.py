"""PRESIGN_FOR: the link in a message fetches the dump, and stands nowhere but there."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer
from tests.harness.webhook import Webhook, serving
from tests.integration.test_notifications import Agent
from tests.stores.conftest import Connect

pytestmark = pytest.mark.slow
_SIGNATURE = re.compile(r"X-Amz-Signature=([0-9a-f]{64})")


@pytest.mark.parametrize("store", ["swift", "ceph", "seaweedfs"])
def test_a_link_fetches_its_object_without_credentials_and_no_other(
    store: str, request: pytest.FixtureRequest, connect: Connect
) -> None:
    server: StoreServer = request.getfixturevalue(store)
    bucket = server.new_bucket()
    for key in ("a b/grün&1.hprof", "other"):
        server.client().put_object(Bucket=bucket, Key=key, Body=key.encode())
    link = connect(server, bucket).link("a b/grün&1.hprof", 3600)
    with urllib.request.urlopen(link.url, timeout=30) as answer:
        assert answer.read() == "a b/grün&1.hprof".encode()
    assert 3500 < link.until - time.time() <= 3600
    forged = link.url.replace("/a%20b/gr%C3%BCn%261.hprof", "/other")
    assert forged != link.url
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(forged, timeout=30)


def test_the_link_in_a_message_is_in_no_log_no_file_no_metric_and_no_archive(
    moto: StoreServer, tmp_path: Path
) -> None:
    """With a session token, which the log hides wherever it stands; over a webhook that is away for a while."""
    content = Maker(time_ms=1_767_268_801_000).dump()
    with serving(Webhook(refusals=2)) as webhook:
        agent = Agent(
            tmp_path, moto, webhook.url,
            PRESIGN_FOR="1h", LOG_LEVEL="debug", AWS_SESSION_TOKEN="session-token-of-this-very-test", NOTIFY_FORMAT="json",
        )  # fmt: skip
        agent.dump("shop/checkout/java_pid1.hprof", content)
        daemon = agent.start()
        try:
            agent.until(lambda: webhook.asked >= 1, "the webhook is asked")
            on_the_volume = _texts(agent.root)
            agent.until(lambda: bool(webhook.bodies), "the webhook takes the message")
        finally:
            daemon.terminate()
            daemon.wait(60)
    told = json.loads(webhook.bodies[0])
    (event,) = told["events"]
    assert event["link"] in told["text"]
    assert "session-token-of-this-very-test" in event["link"]
    assert event["link_until"].startswith("20")
    with urllib.request.urlopen(event["link"], timeout=30) as answer:
        assert answer.read() == content
    found = _SIGNATURE.search(event["link"])
    assert found
    for text in (agent.log.read_text(), on_the_volume, _texts(agent.root), _texts(tmp_path / "run")):
        assert found[1] not in text
        assert "X-Amz-Signature" not in text
        assert "session-token-of-this-very-test" not in text


def _texts(root: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in root.rglob("*") if path.is_file())
