"""A store in front of another that fails where a test says: before the request is carried out, or after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dumpagent.part_sizes import Limits
from dumpagent.store.protocol import Body, OpenUpload, Part, Store, StoredObject


@dataclass
class FaultyStore:
    """Passes calls on to `behind`, counts them, and raises `error` at call number `at` (from 0).

    `after`: the request is carried out and only its answer is lost. A negative `at` never fails.
    """

    behind: Store
    error: BaseException
    at: int = -1
    after: bool = False
    calls: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.behind.name

    @property
    def limits(self) -> Limits:
        return self.behind.limits

    def _pass_on(self, call: str, *args: Any, **more: Any) -> Any:
        now = len(self.calls) == self.at
        self.calls.append(call)
        if now and not self.after:
            raise self.error
        answer = getattr(self.behind, call)(*args, **more)
        if now:
            raise self.error
        return answer

    def check(self) -> None:
        self._pass_on("check")

    def must_reserve(self) -> bool:
        return bool(self._pass_on("must_reserve"))

    def can_delete(self) -> bool:
        return bool(self._pass_on("can_delete"))

    def look(self, key: str) -> StoredObject | None:
        found: StoredObject | None = self._pass_on("look", key)
        return found

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        self._pass_on("put", key, body, metadata)

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        return str(self._pass_on("begin", key, metadata))

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        part: Part = self._pass_on("send_part", key, upload_id, number, body)
        return part

    def parts(self, key: str, upload_id: str) -> list[Part]:
        return list(self._pass_on("parts", key, upload_id))

    def complete(
        self, key: str, upload_id: str, parts: list[Part], *, crc32: int, replace: bool = False
    ) -> None:
        self._pass_on("complete", key, upload_id, parts, crc32=crc32, replace=replace)

    def abort(self, key: str, upload_id: str) -> None:
        self._pass_on("abort", key, upload_id)

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        return list(self._pass_on("open_uploads", prefix))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._pass_on("objects", prefix))

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        return iter(self._pass_on("read", key, start=start, length=length, etag=etag))

    def delete(self, key: str) -> None:
        self._pass_on("delete", key)
