"""Progress bars for people: how much of a dump is done, how fast, how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
Drawn = AbstractContextManager[Advance]


def on_terminal() -> bool:
    """Say whether a person watches stderr."""
    return sys.stderr.isatty()


@contextmanager
def bar(title: str, total_bytes: int, done_bytes: int = 0) -> Iterator[Advance]:
    """Draw a bar on stderr while the block runs; call what is given with the bytes done since the last call.

    `done_bytes` were done before, and do not count as speed. Draws nothing when stderr is no terminal.
    """
    if not on_terminal():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total_bytes, completed=done_bytes)
        yield lambda done_bytes: progress.update(task, advance=done_bytes)


@contextmanager
def tally(title: str, total: int) -> Iterator[Advance]:
    """Draw on stderr how many of `total` things are done while the block runs; call what is given with how many more.

    Draws nothing when stderr is no terminal.
    """
    if not on_terminal():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.update(task, advance=count)
