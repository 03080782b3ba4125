"""What is remembered on the volume: receipts of stored dumps, and uploads that are under way.

It is a cache. Everything in it may vanish or turn to rubbish at any time: the store is then asked instead.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import Any

from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import PackedPart, Receipt, Unfinished
from dumpagent.errors import DumpagentError
from dumpagent.kernel.files import replace_file

_VERSION = 1
_DAY_S = 86400.0


class AnotherAgent(DumpagentError):
    """Another process holds the lock on this state directory."""


class Ledger:
    """The receipts and unfinished uploads of one volume for one store, in memory and in `directory`.

    When the directory cannot be written, memory alone remembers: `unwritable` is told the error, and a restart asks
    the store about each dump again. `read_only`: nothing is written or removed on disk, for a dry run. Safe to use from
    several threads.
    """

    def __init__(
        self,
        directory: str,
        *,
        store: str,
        unwritable: Callable[[OSError], None] = lambda _error: None,
        writable: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.time,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self.is_owned = threading.Event()  # set once the state was read and is ours
        self._read_only = read_only
        self._mutex = threading.RLock()  # the scan prunes receipts while an upload records one
        self._store = store
        self._unwritable = unwritable
        self._writable = writable
        self._now = now
        self._receipts: dict[Identity, Receipt] = {}
        self._paths: Counter[str] = Counter()  # of the receipts
        self._unfinished: dict[Identity, Unfinished] = {}
        self._lock_fd: int | None = None

    # -- opening ------------------------------------------------------------------------------------------------

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the state of this volume: lock it, then read it. Raises AnotherAgent if another agent owns it.

        In that order: the other agent still writes what would be read too early, and its temporary files are not ours.
        """
        self.lock()
        try:
            self.load()
            self.is_owned.set()
            yield
        finally:
            self.close()

    def load(self) -> None:
        """Read what an earlier run left. What cannot be read is as if it were not there."""
        for kind in () if self._read_only else ("receipts", "uploads"):
            try:
                os.makedirs(f"{self.directory}/{kind}", mode=0o700, exist_ok=True)
            except OSError as error:
                self._unwritable(error)
            remove_cut_writes(f"{self.directory}/{kind}")
        for receipt in receipts_in(self.directory, store=self._store):
            self._remember(receipt)
        for values in _read_all(f"{self.directory}/uploads"):
            unfinished = _unfinished_of(values)
            if unfinished and unfinished.store == self._store:
                self._unfinished[unfinished.identity] = unfinished

    def lock(self) -> None:
        """Keep every other agent off this volume while this process lives. Raises AnotherAgent if one is there.

        Where the file system has no locks, or the directory cannot be written, there is nothing to hold and no error:
        conditional writes and the look at the store before each upload still keep dumps from being stored twice.
        """
        if self._read_only:
            return
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            fd = os.open(
                f"{self.directory}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            self._unwritable(error)
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise AnotherAgent(
                    f"another `dumpagent upload` works on this volume (it holds {self.directory}/lock)",
                    hint="one agent per volume is enough; stop the other one, or give this one another DUMP_ROOT",
                ) from error
            self._unwritable(error)
            return
        self._lock_fd = fd

    def close(self) -> None:
        """Let the lock go."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    # -- receipts -----------------------------------------------------------------------------------------------

    def receipt(self, identity: Identity) -> Receipt | None:
        """Give the receipt of this very dump, None if there is none."""
        return self._receipts.get(identity)

    def has_path(self, path: str) -> bool:
        """Say whether a file that is stored under this path has a receipt."""
        with self._mutex:
            return path in self._paths

    def receipts(self) -> list[Receipt]:
        """Give all receipts, oldest upload first."""
        with self._mutex:
            return sorted(self._receipts.values(), key=lambda receipt: receipt.uploaded_at)

    def record(self, receipt: Receipt) -> None:
        """Remember that a dump is stored, and that its upload is no longer under way."""
        with self._mutex:
            self._keep(receipt)
            self.forget_unfinished(receipt.identity)

    def forget(self, identity: Identity) -> None:
        """Drop a receipt that turned out to be wrong: the store does not hold the dump."""
        with self._mutex:
            if (forgotten := self._receipts.pop(identity, None)) is not None:
                self._drop_path(forgotten.path)
                self._remove("receipts", identity)

    def note_present(self, present: Iterable[Identity], *, retention_s: float) -> list[Receipt]:
        """Take note of which dumps lie on the disk, and drop the receipts of those gone for `retention_s`.

        Only after a scan that could look everywhere. Gives the dropped receipts.
        """
        if self._read_only:
            return []
        here, now = set(present), self._now()
        dropped = []
        with self._mutex:
            for identity, receipt in list(self._receipts.items()):
                if identity in here:
                    if receipt.gone_since is not None:
                        self._keep(replace(receipt, gone_since=None))
                elif (
                    receipt.gone_since is None or receipt.gone_since > now
                ):  # the latter: the clock was set back
                    self._keep(replace(receipt, gone_since=now))
                if identity not in here and now - (self._receipts[identity].gone_since or now) >= retention_s:
                    self.forget(identity)
                    dropped.append(receipt)
        return dropped

    # -- uploads under way --------------------------------------------------------------------------------------

    def unfinished(self, identity: Identity) -> Unfinished | None:
        """Give the upload of this very dump that was begun and not ended."""
        return self._unfinished.get(identity)

    def all_unfinished(self) -> list[Unfinished]:
        with self._mutex:
            return list(self._unfinished.values())

    def note_unfinished(self, unfinished: Unfinished) -> None:
        """Remember an upload that is under way, in place of what was known of it."""
        with self._mutex:
            self._unfinished[unfinished.identity] = unfinished
            self._write("uploads", unfinished.identity, asdict(unfinished))

    def forget_unfinished(self, identity: Identity) -> None:
        with self._mutex:
            if self._unfinished.pop(identity, None) is not None:
                self._remove("uploads", identity)

    # -- files --------------------------------------------------------------------------------------------------

    def _keep(self, receipt: Receipt) -> None:
        self._remember(receipt)
        self._write("receipts", receipt.identity, asdict(receipt))

    def _remember(self, receipt: Receipt) -> None:
        if known := self._receipts.get(receipt.identity):
            self._drop_path(known.path)
        self._receipts[receipt.identity] = receipt
        self._paths[receipt.path] += 1

    def _drop_path(self, path: str) -> None:
        self._paths[path] -= 1
        if not self._paths[path]:
            del self._paths[path]

    def _write(self, kind: str, identity: Identity, values: dict[str, Any]) -> None:
        if self._read_only:
            return
        path = f"{self.directory}/{kind}/{identity}.json"
        content = json.dumps({"version": _VERSION, **values}, indent=1).encode()
        try:
            try:
                replace_file(path, content, mode=0o600)
            except FileNotFoundError:  # somebody cleared the state directory while we run
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                replace_file(path, content, mode=0o600)
        except OSError as error:
            self._unwritable(error)
        else:
            self._writable()

    def _remove(self, kind: str, identity: Identity) -> None:
        if self._read_only:
            return
        try:
            os.unlink(f"{self.directory}/{kind}/{identity}.json")
        except FileNotFoundError:
            pass
        except OSError as error:
            self._unwritable(error)


def receipts_in(directory: str, *, store: str) -> list[Receipt]:
    """Give the receipts for `store` that lie in the state directory, and change nothing there."""
    receipts = (_receipt_of(values) for values in _read_all(f"{directory}/receipts"))
    return [receipt for receipt in receipts if receipt and receipt.store == store]


def remove_cut_writes(directory: str) -> None:
    """Remove what a write left that was cut off by the end of an earlier run."""
    try:
        for name in os.listdir(directory):
            if name.endswith(".tmp"):
                os.unlink(f"{directory}/{name}")
    except OSError:
        pass  # it does no harm


def _read_all(directory: str) -> Iterable[dict[str, Any]]:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if not name.endswith(".json"):
            continue
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                values = json.loads(file.read(1 << 22))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(values, dict) and values.pop("version", None) == _VERSION:
            yield values


# What JSON may give for a field, by the field's annotation.
_TAKEN: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "int | None": lambda value: value is None or type(value) is int,
    "str": lambda value: type(value) is str,
    "bool": lambda value: type(value) is bool,
    "float": lambda value: type(value) in (int, float),
    "float | None": lambda value: value is None or type(value) in (int, float),
    "dict[int, str]": lambda value: isinstance(value, dict),
    "dict[int, PackedPart]": lambda value: isinstance(value, dict),
    "Identity": lambda value: isinstance(value, Identity),
}


def _typed(made: type, values: dict[str, Any]) -> Any:
    """Give an instance of the dataclass `made`. Raises TypeError if a field is missing or of another kind."""
    for declared in fields(made):
        if declared.name in values and not _TAKEN[str(declared.type)](values[declared.name]):
            raise TypeError(f"{declared.name} is no {declared.type}")
    return made(**values)


def _receipt_of(values: dict[str, Any]) -> Receipt | None:
    try:
        identity = _typed(Identity, values["identity"])
        receipt: Receipt = _typed(Receipt, {**values, "identity": identity})
    except (TypeError, KeyError):
        return None
    return receipt


def _unfinished_of(values: dict[str, Any]) -> Unfinished | None:
    try:
        identity = _typed(Identity, values["identity"])
        etags = {int(number): str(etag) for number, etag in values["etags"].items()}
        packed = {int(number): _typed(PackedPart, part) for number, part in values.get("packed", {}).items()}
        unfinished: Unfinished = _typed(
            Unfinished, {**values, "identity": identity, "etags": etags, "packed": packed}
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    return unfinished
