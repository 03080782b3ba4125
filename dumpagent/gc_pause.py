"""Keeping the garbage collector away from what is made once and stays: modules, and the SDK's models."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def uncollected(*, for_ever: bool = False) -> Iterator[None]:
    """Make what stays: the garbage collector waits meanwhile.

    It would go through a hundred thousand new objects again and again while there are more: a quarter of the CPU of
    a start. `for_ever`, for imports: nor does it ever go through what there is then.
    """
    with _LOCK:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if for_ever:
                gc.freeze()
            if was_on:
                gc.enable()
