"""NO_PROXY as clusters write it: CIDRs, `*.domain` and ports, which Python's libraries do not know.

OpenShift's cluster-wide proxy puts the node, service and pod networks into it as CIDRs. What the variable means for the
addresses that this process asks is worked out once, and written into it in the form that the libraries do know.
Source: Go, golang.org/x/net/http/httpproxy, Config.NoProxy; Python, urllib.request.proxy_bypass_environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableMapping
from urllib.parse import urlsplit

_NAMES = ("NO_PROXY", "no_proxy")
_PORTS = {"http": 80, "https": 443}


def translate(environ: MutableMapping[str, str], urls: Iterable[str]) -> None:
    """Write the hosts among `urls` that NO_PROXY means into it by name; other entries stay.

    `*.domain` becomes `.domain`, which serves every host that is asked.
    """
    asked = [url for url in urls if url]
    for name in _NAMES:
        text = environ.get(name, "")
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        if not entries or "*" in entries:
            continue
        plain = [entry[1:] if entry.startswith("*.") else entry for entry in entries]
        plain += [host for url in asked if is_meant(url, entries) and (host := _host(url)) not in plain]
        if plain != entries:
            environ[name] = ",".join(dict.fromkeys(plain))


def is_meant(url: str, entries: Iterable[str]) -> bool:
    """Say whether one of the entries means the host of `url`."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return False
    return bool(host) and any(_means(entry.lower(), host, port) for entry in entries)


def _means(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if (named := _address(entry.strip("[]"))) is not None:
        return named == address
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        entry = name
        if (named := _address(entry.strip("[]"))) is not None:
            return named == address
    entry = entry.removeprefix("*")
    if address is not None:
        return False
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _host(url: str) -> str:
    """Give the host as it stands in a URL: an IPv6 address in brackets."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host
