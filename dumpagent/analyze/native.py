"""Compiles the loops that see every object, and keeps what was compiled so that a user never waits for it.

The compiled code is for a CPU that every node has, and is stamped with the sources of the whole package. It is kept
beside the sources when they are installed (`python -m dumpagent.analyze.compile`), else in the user's cache.
"""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

# Before numba is imported: what one CPU compiled must be of use to another. x86-64-v2 is what UBI 9 asks for.
# Source: numba, "Environment variables", NUMBA_CPU_NAME, NUMBA_CPU_FEATURES.
os.environ.setdefault("NUMBA_CPU_NAME", "x86-64-v2" if platform.machine() == "x86_64" else "generic")
os.environ.setdefault("NUMBA_CPU_FEATURES", "")

import numba
import numpy as np
from numba.core import cgutils, types
from numba.core.caching import CacheImpl, InTreeCacheLocator
from numba.extending import intrinsic

_F = TypeVar("_F", bound=Callable[..., Any])
Array = np.ndarray[Any, Any]
int64: Any = np.int64  # in compiled code, where it is no type but makes a number signed
_PACKAGE = Path(__file__).parent


def _stamp() -> str:
    """Give a digest of the package's compiled modules: one that changes makes everything compile anew.

    numba itself looks at the one file of a function only, not at those whose functions were put into it.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted([*_PACKAGE.glob("*.py"), *_PACKAGE.glob("heap/*.py"), *_PACKAGE.glob("graph/*.py")]):
        content = path.read_bytes()
        if b"@compiled" in content or b"@intrinsic" in content:
            digest.update(content)
    return digest.hexdigest()


class _Locator(InTreeCacheLocator):  # type: ignore[misc]  # numba's types are not looked at
    """Finds what was compiled at install time also where nothing can be written."""

    stamp = _stamp()

    def get_source_stamp(self) -> str:
        return self.stamp

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator | None:
        if not Path(py_file).is_relative_to(_PACKAGE):
            return None
        self = cls(py_func, py_file)
        beside = os.path.join(os.path.dirname(py_file), "__pycache__")
        name = f"{Path(py_file).stem}.{py_func.__qualname__}-*.nbi"
        if not glob.glob(name, root_dir=beside) and not _writable(beside):
            self._cache_path = os.path.join(_own_cache(), cls.get_suitable_cache_subpath(py_file))
            os.makedirs(self._cache_path, exist_ok=True)
        return self


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


_made: list[str] = []


def _own_cache() -> str:
    """Give a directory of this user's for compiled code; one that lives as long as the process, if there is none."""
    if not _made:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        wished = os.path.join(base, "dumpagent", "compiled")
        # What lies there is run: a directory that others can write to, such as below /tmp, is none of ours.
        ours = _writable(wished) and os.stat(wished).st_uid == os.geteuid()
        _made.append(wished if ours else tempfile.mkdtemp(prefix="dumpagent-compiled-"))
    return _made[0]


if _Locator not in CacheImpl._locator_classes:
    CacheImpl._locator_classes.insert(0, _Locator)


def compiled(function: _F) -> _F:
    """Compile `function` at its first call, without Python's lock, and keep the result.

    Nothing checks an index in it: the function does, for what comes from a dump.
    """
    return cast("_F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: _F) -> _F:
    """Compile a small function that compiled ones call."""
    return cast("_F", numba.njit(cache=True, nogil=True, inline="never", error_model="numpy")(function))


@intrinsic  # type: ignore[untyped-decorator]
def popcount32(typing: Any, value: Any) -> Any:
    """Give how many bits are set in the low 32 bits of a number, as int64."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        low = builder.trunc(args[0], cgutils.int32_t)
        return builder.zext(builder.ctpop(low), cgutils.intp_t)

    return types.int64(value), make


@intrinsic  # type: ignore[untyped-decorator]
def be64(typing: Any, content: Any, at: Any) -> Any:
    """Give the big-endian 64-bit number in `content` (uint8 array) from `at` on, as int64."""
    return types.int64(content, types.int64), _load(64)


@intrinsic  # type: ignore[untyped-decorator]
def be32(typing: Any, content: Any, at: Any) -> Any:
    """Give the big-endian unsigned 32-bit number in `content` (uint8 array) from `at` on, as int64."""
    return types.int64(content, types.int64), _load(32)


def _load(bits: int) -> Any:
    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, value=args[0])
        place = builder.gep(array.data, [args[1]])
        word = ir.IntType(bits)
        number = builder.load(builder.bitcast(place, word.as_pointer()), align=1)
        swapped = builder.bswap(number)
        return builder.zext(swapped, ir.IntType(64)) if bits < 64 else swapped

    return make
