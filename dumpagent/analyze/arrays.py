"""Large arrays whose pages cost memory only once they are written, and that go back to the system when released."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np

from dumpagent.analyze.native import Array

# Source: Linux, asm-generic/mman-common.h; Python knows it from 3.13 on.
_MAP_NORESERVE = 0x4000


class Arrays:
    """Makes arrays of zeros, each a mapping of its own: nothing of it is touched before it is used, so an upper bound
    costs nothing.


    `spill` is a directory for files that stand behind the arrays: what memory cannot hold goes there, and comes back.
    """

    def __init__(self, *, spill: str | None = None) -> None:
        self._spill = spill

    def zeros(self, count: int, dtype: Any, *, dense: bool = True, may_spill: bool = True) -> Array:
        """Give an array of `count` zeros. `dense` says that nearly all of it will be used, from the start on.

        Raises MemoryError; OSError where the spill directory cannot be written to.
        """
        size_bytes = max(1, count) * np.dtype(dtype).itemsize
        if self._spill and may_spill:
            with tempfile.TemporaryFile(dir=self._spill) as file:
                os.truncate(file.fileno(), size_bytes)
                return np.frombuffer(mmap.mmap(file.fileno(), size_bytes), dtype=dtype)[:count]
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        try:
            mapped = mmap.mmap(-1, size_bytes, flags=flags)
        except OSError as error:
            raise MemoryError(f"{size_bytes} bytes of address space are not to be had") from error
        try:
            # Large pages save a third of the time of random reads; where few are used they would cost memory.
            mapped.madvise(mmap.MADV_HUGEPAGE if dense else mmap.MADV_NOHUGEPAGE)
        except OSError:
            pass  # a kernel without them
        array: Array = np.frombuffer(mapped, dtype=dtype)[:count]
        return array

    @staticmethod
    def release(array: Array) -> None:
        """Give the memory behind `array` back; it reads as zeros from then on."""
        base: Any = array
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        if isinstance(base, memoryview):
            base = base.obj
        if isinstance(base, mmap.mmap):
            try:
                base.madvise(mmap.MADV_REMOVE)  # of a file: the blocks behind it too
            except OSError:
                base.madvise(mmap.MADV_DONTNEED)
