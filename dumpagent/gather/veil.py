"""Hides secrets in every text of the archive.

What is known of this process's secrets is in `dumpagent.secrets`; here stands what only other people's texts hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from dumpagent.dumps.text import printable
from dumpagent.secrets import HIDDEN, NET, Net

_LONGEST_LINE = 1 << 16
# The net's patterns look at a run of such characters once for each of its characters.
_LONG_RUN = re.compile(r"[\w+.=/-]{6000}")
_MOST_BYTES = 1 << 16
_SECRET_KEY = re.compile(r"(?im)^\s*aws_(?:secret_access_key|session_token)\s*=\s*(\S+)")
# Options of mounts and programs, such as password=..., and blocks of a private key.
_FORMS = [
    (
        re.compile(
            r"(?i)((?:pass(?:word|wd|phrase)?|secret(?:[_-]?key)?|token|api[_-]?key|credentials?)\s*=\s*[\"']?)"
            r"(?!\*\*\*|[\"'\\\s,;])[^\s,\"';&\\]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*"), rf"\1{HIDDEN}"),
]


def learn(net: Net, environ: Mapping[str, str], account: str) -> None:
    """Tell the net the secrets that lie in files: the service account's token, and a credentials file of the SDK."""
    net.learn_environment(environ)
    net.learn(_start_of(f"{account}/token"))
    home = environ.get("HOME") or "/"
    for path in (
        environ.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/.aws/credentials",
        f"{home}/.aws/config",
    ):
        for value in _SECRET_KEY.findall(_start_of(path)):
            net.learn(value)


def veiled(text: str, net: Net = NET) -> str:
    """Give `text` without secrets and without what steers a terminal; a line too long to be searched is left out."""
    if len(text) > 6000:
        text = "".join(_searchable(line) for line in text.splitlines(keepends=True))
    text = net.hide(text)
    for form, replacement in _FORMS:
        text = form.sub(replacement, text)
    return printable(text, lines=True)


def _searchable(line: str) -> str:
    if len(line) > _LONGEST_LINE or _LONG_RUN.search(line):
        return f"(a line of {len(line)} characters is left out: it is too long to be searched for secrets)\n"
    return line


def _start_of(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return ""
