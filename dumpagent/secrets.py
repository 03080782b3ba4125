"""One net for credentials: what it knows as one, or what looks like one, never leaves this process in words.

It knows the values that the environment, the flags and the files named there hold. What only the SDK sees (answers
of STS, signed requests, rotated tokens) is known by its form.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from dumpagent.setting import PLACEHOLDER

HIDDEN = "***"
_SHORTEST = 6  # what is shorter is no secret, and would be found in half of all words
_SHORTEST_PATH = 10  # "/dumps" is in many a dump's name
_LONGEST_FILE = 1 << 16

# Source: the SDK's settings reference, "Environment variables"; the two of ECS and EKS Pod Identity among them.
_SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "S3_REPLICA_SECRET_ACCESS_KEY",
    "S3_REPLICA_SESSION_TOKEN",
)
_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
_URL_VARIABLES = ("NOTIFY_URL",)
_ADDRESS_VARIABLES = (
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "S3_REPLICA_ENDPOINT_URL",
)

_QUOTES = r"""(?:\\*["'])?"""
_OPENING = r"""(?:b?\\*["'])?"""  # of bytes too; a b without a quote is the secret's own
_FORMS = [
    # A whole header, up to its line's or its string's end: "Authorization: AWS4-HMAC-SHA256 Credential=..., Signature=..."
    (
        re.compile(rf"(?i)(authorization{_QUOTES}\s*[:=]\s*{_OPENING})(?!{re.escape(HIDDEN)})[^\"'\\\r\n]+"),
        rf"\1{HIDDEN}",
    ),
    # Headers, query strings and XML of signed and presigned requests, and of the answers of STS.
    (
        re.compile(
            r"(?i)((?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|secretaccesskey|sessiontoken"
            rf"|webidentitytoken|(?<![a-z-])signature){_QUOTES}\s*(?:[:=>]|%3d)\s*{_OPENING})[^\s\"'\\&<>,;]+"
        ),
        rf"\1{HIDDEN}",
    ),
    # A credentials file, or a dictionary of one.
    (
        re.compile(
            r"(?i)(aws_(?:secret_access_key|session_token)(?:\s*=\s*|\\*[\"']\s*[:,]\s*)(?:b?\\*[\"'])?)[^\s\"'\\,]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[a-z0-9._~+/=-]{6,}"), rf"\1{HIDDEN}"),
    # Source: RFC 7519, section 3: three parts of base64url, of which the first begins with {".
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), HIDDEN),
    (re.compile(r"""([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@"'\\]+@"""), rf"\1{HIDDEN}@"),
]


class Net:
    """Hides in texts what it was told of; also every form of it that JSON, a URL or `repr` makes."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def learn(self, secret: str) -> None:
        """Hide `secret` from now on. A placeholder of the manifests is none: it must be told by its name."""
        secret = secret.strip()
        if len(secret) < _SHORTEST or PLACEHOLDER in secret:
            return
        from urllib.parse import quote, quote_plus  # half a MiB, for those who have secrets

        written = {
            secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(secret), quote(secret, safe=""), quote_plus(secret),
        }  # fmt: skip
        if written <= self._values:
            return
        self._values |= written
        longest_first = sorted(self._values, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first)))

    def learn_url(self, url: str) -> None:
        """Hide all of `url` that is secret where it is a webhook's: the whole, its path, and a token in it."""
        if not url:
            return
        from urllib.parse import urlsplit

        self.learn(url)
        self.learn_address(url)
        try:
            parts = urlsplit(url)
        except ValueError:
            return
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        for secret, shortest in (
            (path, _SHORTEST_PATH),
            (parts.path, _SHORTEST_PATH),
            (parts.path.rpartition("/")[2], 16),
            (parts.query, _SHORTEST_PATH),
        ):
            if len(secret) >= shortest:
                self.learn(secret)

    def learn_address(self, url: str) -> None:
        """Hide the password that stands in `url`, if one does."""
        if "@" not in url:
            return
        from urllib.parse import unquote, urlsplit

        try:
            password = urlsplit(url).password or ""
        except ValueError:
            return
        self.learn(password)
        self.learn(unquote(password))

    def learn_environment(self, environ: Mapping[str, str]) -> None:
        """Hide what these variables hold, and what stands in the files that they name."""
        for name in _SECRET_VARIABLES:
            self.learn(environ.get(name, ""))
        for name in _TOKEN_FILES:
            self.learn(_read(environ.get(name, "")))
        for name in _URL_VARIABLES:
            self.learn_url(environ.get(name, ""))
        for name in _ADDRESS_VARIABLES:
            self.learn_address(environ.get(name, "") or environ.get(name.lower(), ""))

    def hide(self, text: str) -> str:
        """Give `text` with every secret in it as ***."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text


NET = (
    Net()
)  # of this process: what is said comes from everywhere, tracebacks and other people's loggers included
hide = NET.hide


class _Veiled:
    """A text stream with the net before it. What writes bytes writes them past it, as `dumpagent get -o -` must."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        self._stream.write(hide(text))
        return len(text)

    def writelines(self, lines: Any, /) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Learn this process's secrets, and put the net before stdout and stderr. Once more changes nothing."""
    NET.learn_environment(os.environ)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Veiled):
            if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "ascii":
                # click would write UTF-8 past an ASCII stream, and so past the net.
                stream.reconfigure(encoding="utf-8")
            setattr(sys, name, _Veiled(stream))


def _read(path: str) -> str:
    try:
        with open(path or os.devnull, encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_FILE)
    except OSError:
        return ""
