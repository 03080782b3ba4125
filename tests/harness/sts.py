"""AWS's token service as far as IRSA uses it: gives a session for the token that counts just now, and for no other."""

from __future__ import annotations

import datetime as dt
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs

from tests.harness.stores.server import HOST, StoreServer

_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{session}</SessionToken><Expiration>{expires}</Expiration></Credentials>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/dumps/x</Arn><AssumedRoleId>AROA:x</AssumedRoleId></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
_REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Uploader</Type>
<Code>ExpiredTokenException</Code><Message>Token expired</Message></Error></ErrorResponse>"""


class Sts:
    """Listens to the end of its `with` block. Sessions have the store's own keys, and are `session-1`, `session-2`...

    `token` is the web identity that it takes, or the access key of who assumes a role, `lasts_s` how long a session is said to last; `asked` the tokens shown.
    Source: STS API Reference, AssumeRoleWithWebIdentity, AssumeRole.
    """

    def __init__(self, server: StoreServer, *, token: str, lasts_s: float = 3600) -> None:
        self.token, self.lasts_s = token, lasts_s
        self.asked: list[str] = []
        self.given = 0

        class Answer(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - the name is http.server's; `self` is the service
                form = parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
                action = form["Action"][0]
                if (
                    action == "AssumeRole"
                ):  # signed with the keys of the profile that the role names as its source
                    self.asked.append(
                        handler.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
                    )
                else:
                    self.asked += form["WebIdentityToken"]
                good = self.asked[-1] == self.token
                self.given += good
                expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.lasts_s)
                body = _REFUSAL
                if good:
                    body = _ANSWER.replace("AssumeRoleWithWebIdentity", action).format(
                        key=server.access_key,
                        secret=server.secret_key,
                        session=f"session-{self.given}",
                        expires=expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    )
                handler.send_response(200 if good else 400)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body.encode())

            def log_message(handler, *_: object) -> None:  # noqa: N805
                """Stay silent."""

        self._server = ThreadingHTTPServer((HOST, 0), Answer)
        self.url = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="sts", daemon=True)

    def __enter__(self) -> Sts:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
