"""Looks at the way to the store, a layer at a time: name, connection, certificate, clock."""

from __future__ import annotations

import email.utils
import http.client
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator

from dumpagent.doctor.finding import Finding, Result

_SKEW_TOLD_S = 60.0
SLOW_S = 5.0
# Source: openssl-verification-options(1), X509_V_ERR_*
_OTHER_NAME = {62, 64}  # HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH
_DATED = {9, 10}  # CERT_NOT_YET_VALID, CERT_HAS_EXPIRED


def network(
    endpoint_url: str, ca_file: str, *, now: Callable[[], float], patience_s: float
) -> Iterator[Finding]:
    """Say which layer is in the way; those behind it are not tried."""
    if not endpoint_url:
        yield Finding("network", Result.SKIPPED, "AWS finds its own endpoint; the bucket check tells")
        return
    url = urllib.parse.urlsplit(endpoint_url)
    if urllib.request.getproxies().get(url.scheme) and not urllib.request.proxy_bypass(url.netloc):
        yield Finding("network", Result.SKIPPED, "the store is asked through a proxy; the bucket check tells")
        return
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    try:
        addresses = sorted(
            {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        )
    except OSError as error:
        yield Finding(
            "DNS", Result.FAILED, f"{host}: {error.strerror}", "correct S3_ENDPOINT_URL, or the pod's DNS"
        )
        return
    if addresses != [host]:
        yield Finding("DNS", Result.OK, f"{host} is {', '.join(addresses[:3])}")
    yield from _connection(url.scheme == "https", host, port, ca_file, now, patience_s)


def _connection(
    tls: bool, host: str, port: int, ca_file: str, now: Callable[[], float], patience_s: float
) -> Iterator[Finding]:
    name = "TLS" if tls else "connection"
    connection = http.client.HTTPConnection(host, port, timeout=patience_s)
    if tls:
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except OSError as error:
            yield Finding(
                name, Result.FAILED, f"{ca_file}: {error.strerror or error}",
                "set AWS_CA_BUNDLE to a readable file with the certificate of the store's CA (PEM)",
            )  # fmt: skip
            return
        connection = http.client.HTTPSConnection(host, port, timeout=patience_s, context=context)
    began = time.monotonic()
    try:
        connection.request("HEAD", "/")
        answer = connection.getresponse()
    except ssl.SSLCertVerificationError as error:
        yield Finding(name, Result.FAILED, f"{host}: {error.verify_message}", _fix_of(error, host))
        return
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            name, Result.FAILED,
            f"{host}:{port}: {getattr(error, 'strerror', None) or error or type(error).__name__}",
            "check S3_ENDPOINT_URL (scheme, port), network policies and the store itself",
        )  # fmt: skip
        return
    finally:
        connection.close()
    took_s = time.monotonic() - began
    slow = took_s > SLOW_S
    yield Finding(
        name,
        Result.WARNING if slow else Result.OK,
        f"{host}:{port} answered in {took_s:.2f} s",
        "the store or the line is slow: uploads will be, too" if slow else "",
    )
    yield _clock(answer.getheader("Date"), now())


def _fix_of(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _OTHER_NAME:
        return f"the certificate is another host's: set S3_ENDPOINT_URL to a name that it holds, or have it issued for {host}"
    if error.verify_code in _DATED:
        return "have the store's certificate renewed; if it is new, mend the clock of this node"
    return "a private CA: mount its certificate and set AWS_CA_BUNDLE to the file"


def _clock(date: str | None, now: float) -> Finding:
    try:
        skew_s = now - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Finding("clock", Result.SKIPPED, "the store tells no time")
    seen = f"this node is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the store"
    fix = "mend NTP on the node (chronyc tracking): requests are signed by the store's clock, and times of dumps are this node's"
    if abs(skew_s) >= _SKEW_TOLD_S:
        return Finding("clock", Result.WARNING, seen, fix)
    return Finding("clock", Result.OK, seen)
