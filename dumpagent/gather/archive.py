"""Where the gathered texts are put: a directory, a .tar.gz, or a .tar.gz on standard output. Nothing is overwritten."""

from __future__ import annotations

import io
import os
import tarfile
import time
from typing import BinaryIO, Protocol

from dumpagent.errors import DumpagentError

_OTHER = "give another --output"


class Archive(Protocol):
    """Takes texts by name. `close` ends it; `discard` removes what is unfinished."""

    place: str

    def write(self, name: str, text: str) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


def open_archive(output: str, folder: str, stdout: BinaryIO) -> Archive:
    """Open what `output` names; `folder` is the directory inside a .tar.gz. Raises DumpagentError if it is there already."""
    try:
        if output == "-":
            return TarArchive("standard output", folder, stdout)
        if output.endswith((".tar.gz", ".tgz")):
            fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            return TarArchive(output, folder, open(fd, "wb"), removable=True)
        return Directory(output)
    except FileExistsError as error:
        raise DumpagentError(f"{output} is there already, and is not overwritten", hint=_OTHER) from error
    except OSError as error:
        hint = "give --output a directory that can be written, or `--output -` for standard output"
        raise DumpagentError(f"{output} cannot be written: {error.strerror}", hint=hint) from error


class Directory:
    """A directory of files, each with mode 0600."""

    def __init__(self, place: str) -> None:
        """Make the directory, or take one that is empty. Raises FileExistsError if it is not, or OSError."""
        self.place = place
        self._written: list[str] = []
        try:
            os.makedirs(place, mode=0o700)
        except FileExistsError:
            if os.path.islink(place) or not os.path.isdir(place) or os.listdir(place):
                raise

    def write(self, name: str, text: str) -> None:
        path = f"{self.place}/{name}"
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._written.append(path)
        with open(fd, "wb") as file:
            file.write(_encoded(text))

    def close(self) -> None:
        """Nothing is left to do: each file is whole."""

    def discard(self) -> None:
        """Remove what was written; the directory, too, if nothing else is in it."""
        for path in self._written:
            _remove(path)
        for folder in sorted({os.path.dirname(path) for path in self._written} | {self.place}, reverse=True):
            try:
                os.rmdir(folder)
            except OSError:
                pass  # somebody else's file is in it


class TarArchive:
    """A .tar.gz whose files lie in one folder, each with mode 0600."""

    def __init__(self, place: str, folder: str, file: BinaryIO, *, removable: bool = False) -> None:
        self.place = place
        self._folder, self._file, self._removable = folder, file, removable
        self._tar = tarfile.open(fileobj=file, mode="w|gz")  # noqa: SIM115 - closed by `close`

    def write(self, name: str, text: str) -> None:
        content = _encoded(text)
        entry = tarfile.TarInfo(f"{self._folder}/{name}")
        entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
        self._tar.addfile(entry, io.BytesIO(content))

    def close(self) -> None:
        self._tar.close()
        self._file.flush()
        if self._removable:
            self._file.close()

    def discard(self) -> None:
        if self._removable:
            _remove(self.place)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
