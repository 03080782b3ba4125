"""Asks the store who we are and what we may do: credentials, bucket, and each right by itself."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator

from dumpagent.doctor.finding import Finding, Result
from dumpagent.doctor.network import SLOW_S
from dumpagent.errors import DumpagentError
from dumpagent.store.protocol import Body, LookRefused, Occupied, Store
from dumpagent.store.s3.credentials import Credentials

_SOON_S = 900.0
_NEVER_RENEWED = "temporary keys in variables are never renewed: use a role (AWS_ROLE_ARN) or long-lived keys"


def credentials(find: Callable[[], Credentials]) -> Iterator[Finding]:
    """Say where the credentials come from, and whether they will end while nobody renews them."""
    found = find()
    left_s = found.expires_in_s
    if left_s is None and found.temporary:
        yield Finding("credentials", Result.WARNING, f"from {found.source}, with a session token of unknown end", _NEVER_RENEWED)  # fmt: skip
    elif left_s is None:
        yield Finding("credentials", Result.OK, f"from {found.source}, without an end")
    elif left_s <= 0:
        yield Finding(
            "credentials", Result.FAILED, f"from {found.source}, ended {-left_s:.0f} s ago", _NEVER_RENEWED
        )
    elif left_s < _SOON_S and found.source == "env":
        yield Finding(
            "credentials", Result.WARNING, f"from {found.source}, end in {left_s:.0f} s", _NEVER_RENEWED
        )
    else:
        yield Finding("credentials", Result.OK, f"from {found.source}, renewed in {left_s:.0f} s")


def bucket(store: Store) -> Iterator[Finding]:
    """Say whether the bucket answers us."""
    began = time.monotonic()
    try:
        store.check()
    except LookRefused:
        yield Finding(
            "bucket", Result.WARNING, f"{store.name}: may not be listed",
            "s3:ListBucket lets dumpagent find what it has stored after its state was lost",
        )  # fmt: skip
        return
    took_s = time.monotonic() - began
    slow = took_s > SLOW_S
    yield Finding(
        "bucket",
        Result.WARNING if slow else Result.OK,
        f"{store.name} answered in {took_s:.2f} s",
        "the store is slow: look at its own health" if slow else "",
    )


def rights(store: Store, key: str, content: bytes) -> Iterator[Finding]:
    """Try each right by itself, with an object of `content` under `key` that is deleted again."""
    put = _right("put", "s3:PutObject", lambda: _put(store, key, content))
    yield put
    if put.result is Result.OK:
        yield _right("head", "s3:GetObject", lambda: _size(store, key) == len(content))
        yield _right("get", "s3:GetObject", lambda: b"".join(store.read(key)) == content)
    else:
        yield Finding("head", Result.SKIPPED, "nothing could be stored to look at")
        yield Finding("get", Result.SKIPPED, "nothing could be stored to read")
    yield _right("list", "s3:ListBucket", lambda: list(store.objects(key)), Result.WARNING)
    yield _right("abort", "s3:AbortMultipartUpload", lambda: _begin_and_abort(store, f"{key}.parts"))
    if put.result is Result.OK:
        yield _right("delete", "s3:DeleteObject", lambda: store.delete(key), Result.WARNING)


def _right(name: str, action: str, works: Callable[[], object], otherwise: Result = Result.FAILED) -> Finding:
    try:
        as_it_should = works() is not False
    except DumpagentError as error:
        # A hint that names rights names all of them; here it is known which one is missing.
        fix = error.hint if error.hint and "s3:" not in error.hint else f"give these credentials {action}"
        return Finding(name, otherwise, str(error), fix)
    if as_it_should:
        return Finding(name, Result.OK, f"{action} is granted")
    return Finding(
        name, Result.FAILED, "the store answered with something else than was stored",
        "look for a proxy or a second store behind S3_ENDPOINT_URL",
    )  # fmt: skip


def _put(store: Store, key: str, content: bytes) -> None:
    with contextlib.suppress(Occupied):  # by an earlier run, where nothing can be deleted: the right is there
        store.put(key, Body(content, zlib.crc32(content)), {})


def _size(store: Store, key: str) -> int | None:
    found = store.look(key)
    return found.size_bytes if found else None


def _begin_and_abort(store: Store, key: str) -> None:
    store.abort(key, store.begin(key, {}))
