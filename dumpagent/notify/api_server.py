"""The cluster's API server as a pod may ask it: with its service account's token and the cluster's own CA.

Both files are read anew for each question: the kubelet renews the token before it expires.
Source: Kubernetes, "Accessing the Kubernetes API from a Pod".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from dumpagent.errors import BadSettings, Refused, Unreachable
from dumpagent.secrets import NET

Ask = Callable[[str, str, Mapping[str, Any] | None], Mapping[str, Any]]  # ApiServer.ask

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_CONNECT_S, _READ_S = 5.0, 10.0
_MOST_BYTES = 16 << 20  # an object in etcd has at most 1.5 MiB; a node's 250 pods have some 5 MiB in all
_OBJECT = re.compile(r"<[^>]* object at 0x[0-9a-f]+>:? ?")
_PASSING = (401, 408, 409, 429)  # 401: the token may have been renewed meanwhile


class NotThere(Refused):
    """There is no such object (any more)."""


class Forbidden(Refused):
    """The service account may not do this."""


class AlreadyThere(Refused):
    """An object of this name is there already."""


class ApiServer:
    """Asks the API server at `address` (host:port) with what lies in the directory `account`."""

    def __init__(self, address: str, *, account: str = ACCOUNT) -> None:
        self._address, self._account = address, account

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Give the object that the server answers with.

        Raises NotThere, Forbidden, AlreadyThere, Refused, or Unreachable when trying again can help.
        """
        status, said = self._exchange(method, path, body, "application/json")
        found = _object_in(said)
        if 200 <= status < 300 and found:
            return found
        raise _refusal(status, found)

    def text(self, path: str) -> str:
        """Give what the server answers to a GET, as it stands: a container's log. Raises as `ask` does."""
        status, said = self._exchange("GET", path, None, "*/*")
        if 200 <= status < 300:
            return said.decode(errors="replace")
        raise _refusal(status, _object_in(said))

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, accepted: str
    ) -> tuple[int, bytes]:
        """Give status and body of the answer. Raises Unreachable."""
        # Here, since only a stored dump leads here: the S3 client has loaded it by then.
        import urllib3
        from urllib3.exceptions import HTTPError

        token = self._token()
        pool = urllib3.PoolManager(
            cert_reqs="CERT_REQUIRED", ca_certs=f"{self._account}/ca.crt", retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
        )  # fmt: skip
        try:
            answer = pool.request(
                method, f"https://{self._address}{path}", redirect=False, preload_content=False,
                headers={"Authorization": f"Bearer {token}", "Accept": accepted, "Content-Type": "application/json"},
                body=None if body is None else json.dumps(body).encode(),
            )  # fmt: skip
            try:
                said = answer.read(_MOST_BYTES)
            finally:
                answer.close()
        except (HTTPError, OSError) as error:
            raise Unreachable(
                # The same words each time: an object's address in them would look like another trouble.
                f"the API server at {self._address} cannot be asked: {type(error).__name__}: {_OBJECT.sub('', str(error))}",
                hint="see that network policies let this pod reach the API server, and that its CA is mounted with the token",
            ) from error
        finally:
            pool.clear()
        return answer.status, said

    def _token(self) -> str:
        path = f"{self._account}/token"
        try:
            with open(path, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
                hint="mount a token of the service account there, as manifests/pod-events does, or set POD_EVENTS=false",
            ) from error
        NET.learn(token)
        return token


def address_of(environ: Mapping[str, str]) -> str:
    """Give host:port of the cluster's API server. Raises BadSettings outside a pod."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise BadSettings(
            "POD_EVENTS is true, but KUBERNETES_SERVICE_HOST is not set: this is no pod of a cluster",
            hint="set POD_EVENTS=false outside a cluster",
        )
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _object_in(said: bytes) -> dict[str, Any]:
    try:
        value = json.loads(said)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(status: int, answer: Mapping[str, Any]) -> Refused | Unreachable:
    reason, message = str(answer.get("reason") or ""), str(answer.get("message") or "no reason")
    said = f"the API server answered {status} {reason} ({message})"
    if status == 404:
        return NotThere(said)
    if status == 403:
        return Forbidden(said)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyThere(said)
    if status >= 500 or status in _PASSING or status < 300:
        return Unreachable(said, hint="nothing to do if it passes")
    return Refused(said)
