"""Credentials never come out in words, whatever is said and by whom; everything else is left as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from dumpagent.secrets import HIDDEN, Net
from dumpagent.setting import PLACEHOLDER

KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOOK = "https://hooks.example.com/services/T00/B00/XXXXXXXXXXXXXXXXXXXXXXXX?k=vvvvvvvvvv"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "written",
    [KEY, quote(KEY), quote(KEY, safe=""), json.dumps({"x": KEY}), repr(KEY)],
    ids=["bare", "quoted", "all quoted", "json", "repr"],
)
def test_a_known_secret_is_found_in_every_way_of_writing_it(written: str) -> None:
    net = Net()
    net.learn_environment({"AWS_SECRET_ACCESS_KEY": KEY})
    hidden = net.hide(f"before {written} after")
    assert HIDDEN in hidden
    assert "MDENG" not in hidden
    assert hidden.startswith("before ")
    assert hidden.endswith(" after")


@pytest.mark.parametrize(
    "text",
    [HOOK, f"POST {HOOK.removeprefix('https://hooks.example.com')}", "token XXXXXXXXXXXXXXXXXXXXXXXX", "k=vvvvvvvvvv"],
    ids=["whole", "path", "token", "query"],
)  # fmt: skip
def test_a_webhooks_address_is_hidden_in_all_its_parts(text: str) -> None:
    net = Net()
    net.learn_url(HOOK)
    assert "XXXX" not in net.hide(text)
    assert "vvvv" not in net.hide(text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2026/s3, SignedHeaders=host, Signature=s3cr3ts3cr3t", "Auth"),
        ("{'Authorization': b'AWS4-HMAC-SHA256 Signature=s3cr3ts3cr3t', 'Host': b'store'}", "'Host': b'store'"),
        ('{"headers": "{\\"Authorization\\": \\"Bearer s3cr3ts3cr3t\\"}", "x": 1}', '"x": 1'),
        ("Proxy-Authorization: Basic s3cr3ts3cr3t", "Proxy-"),
        ("GET /b/k?X-Amz-Credential=s3cr3ts3cr3t&X-Amz-Date=2026&X-Amz-Signature=s3cr3ts3cr3t HTTP/1.1", "X-Amz-Date=2026"),
        ("GET /b/k?AWSAccessKeyId=s3cr3ts3cr3t&Signature=s3cr3ts3cr3t&Expires=1 HTTP/1.1", "Expires=1"),
        ("x-amz-security-token:s3cr3ts3cr3t\nhost:store", "host:store"),
        ("Signature:\ns3cr3ts3cr3t\n", "Signature:"),
        ("<SecretAccessKey>s3cr3ts3cr3t</SecretAccessKey><SessionToken>s3cr3ts3cr3t</SessionToken>", "</SessionToken>"),
        ("{'WebIdentityToken': 's3cr3ts3cr3t', 'RoleArn': 'arn'}", "'RoleArn': 'arn'"),
        ("aws_secret_access_key = s3cr3ts3cr3t", "aws_secret"),
        ("cannot connect to proxy http://me:s3cr3ts3cr3t@proxy:3128/", "@proxy:3128/"),
        (f"the API server refused {JWT.replace('c2lnbmF0dXJl', 's3cr3ts3cr3t')} twice", "twice"),
    ],
)  # fmt: skip
def test_what_nobody_told_of_is_known_by_its_form(text: str, kept: str) -> None:
    """Signed requests, temporary credentials and rotated tokens exist in the SDK alone."""
    hidden = Net().hide(text)
    assert "s3cr3t" not in hidden
    assert kept in hidden
    # A secret may begin with the b that bytes have before their quotes.
    assert Net().hide(text.replace("s3cr3ts3cr3t", "bs3cr3ts3cr3t")) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: they do not belong together, or the store knows neither",
        "renew the temporary credentials (AWS_SESSION_TOKEN); with IRSA check that the pod's token file is refreshed",
        "listing in bucket dumps at https://s3.example.com:9000: the store answered 403 SignatureDoesNotMatch (no)",
        "is there an authorization for it? s3://dumps/a@b/c.hprof",
        '{"event": "dump_uploaded", "path": "/mnt/dump/a@b:c/java_pid1.hprof", "crc32": "0badcafe"}',
    ],
)
def test_hints_names_and_addresses_are_left_as_they_are(text: str) -> None:
    net = Net()
    net.learn_environment({"AWS_SECRET_ACCESS_KEY": KEY, "NOTIFY_URL": "http://hooks/dump"})
    assert net.hide(text) == text


def test_a_placeholder_is_still_named() -> None:
    """An error that hides the REPLACE_ME which it complains of helps nobody."""
    net = Net()
    net.learn_environment(
        {"AWS_SECRET_ACCESS_KEY": PLACEHOLDER, "NOTIFY_URL": f"https://{PLACEHOLDER}/x/y/z"}
    )
    text = f"AWS_SECRET_ACCESS_KEY still has {PLACEHOLDER} in it"
    assert net.hide(text) == text


def test_tokens_that_the_environment_names_as_files_are_hidden(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("no-jwt-but-a-secret\n")
    net = Net()
    net.learn_environment({"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")})
    assert net.hide("sent no-jwt-but-a-secret") == f"sent {HIDDEN}"
    net.learn_environment({"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "gone")})


def test_a_proxys_password_is_hidden_alone_too() -> None:
    net = Net()
    net.learn_environment({"https_proxy": "http://me:pass%40word@proxy:3128"})
    assert net.hide("pass@word pass%40word") == f"{HIDDEN} {HIDDEN}"


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError(secret)",
        "import threading; t = threading.Thread(target=lambda: {}[secret]); t.start(); t.join()",
        "import logging; logging.getLogger('botocore.hooks').warning('sent %s', secret)",
        "import warnings; warnings.warn(secret)",
        "import click; click.echo(secret); click.echo(secret, err=True); print(secret)",
        "from dumpagent.cli import fail; from dumpagent.errors import Refused; fail(Refused(secret, hint=secret))",
    ],
    ids=["traceback", "thread", "logging", "warning", "echo", "error"],
)  # fmt: skip
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_nothing_gets_past_the_net_on_stdout_or_stderr(code: str, locale: str) -> None:
    before = "import os; from dumpagent import secrets; secrets.install(); secret = os.environ['AWS_SESSION_TOKEN']\n"
    ended = subprocess.run(
        [sys.executable, "-c", before + code], check=False, capture_output=True, text=True,
        env={**os.environ, "AWS_SESSION_TOKEN": KEY, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert HIDDEN in ended.stdout + ended.stderr, ended
    assert KEY not in ended.stdout + ended.stderr
