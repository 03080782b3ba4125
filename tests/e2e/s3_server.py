"""An S3 server for the node's network, whose uploads stand still while a file exists.

    python -m tests.e2e.s3_server ADDRESS PORT HOLD_FILE

moto's S3, in memory. While HOLD_FILE exists, each UploadPart waits with its answer: so a test can be in the middle of
an upload for as long as it likes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def held(application: Application, hold_file: str) -> Application:
    """Give the application with its UploadPart requests waiting while `hold_file` exists."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT" and "partNumber=" in environ.get("QUERY_STRING", ""):
            while os.path.exists(hold_file):
                time.sleep(0.05)
        return application(environ, start_response)

    return answer


def main() -> None:
    """Serve until killed."""
    address, port, hold_file = sys.argv[1:]
    application = DomainDispatcherApplication(create_backend_app)
    run_simple(address, int(port), held(application, hold_file), threaded=True)


if __name__ == "__main__":
    main()
