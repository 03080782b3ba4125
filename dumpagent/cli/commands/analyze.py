"""`dumpagent analyze`: who holds the memory in a heap dump, exactly."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import click

from dumpagent.cli.options import takes
from dumpagent.cli.pending import Means, run_pending
from dumpagent.cli.spool import opened_dump
from dumpagent.errors import BadSettings, DumpagentError
from dumpagent.kernel.cgroup import memory_limit_bytes
from dumpagent.kernel.files import replace_file
from dumpagent.kernel.reading import OpenFile
from dumpagent.settings import S3, Analyzing
from dumpagent.terminal import progress

if TYPE_CHECKING:
    from dumpagent.analyze.analysis import Subject, Wishes
    from dumpagent.analyze.memory import Budget
    from dumpagent.analyze.model import Analysis

MATCHED, NO_DUMP, FAILED = 1, 2, 3
_JSON_ROWS, _TEXT_ROWS = 200, 10


@click.command("analyze", short_help="Say who holds the memory in a heap dump, exactly.")
@click.argument("dump", metavar="KEY|FILE", required=False)
@click.option(
    "--pending",
    is_flag=True,
    help="analyze every dump in the store that has no analysis; put both reports beside it",
)
@click.option(
    "--json", "as_json", is_flag=True, help="print the whole analysis as one line of JSON (docs/analyze.md)"
)
@click.option("--html", metavar="PATH", help="also write one self-contained page")
@click.option(
    "--rows", type=click.IntRange(1, 10_000), help="rows of each table  [default: 10; JSON and page: 200]"
)
@click.option(
    "--fail-on", "rules", multiple=True, metavar="RULE",
    help='exit with 1 if this holds, such as "suspect > 30%" or "instances:com.acme.Session > 1000"; can be repeated',
)  # fmt: skip
@click.option("--no-strings", is_flag=True, help="do not count strings that are there several times")
@click.option("--redact", is_flag=True, help="show how long such strings are, not what they say")
@click.option(
    "--memory",
    metavar="SIZE",
    help="memory that may be used, as 6GiB  [default: the cgroup's limit, else what is free]",
)
@click.option(
    "--spill",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="put into files in DIR what does not fit into memory; slower",
)
@takes(S3, Analyzing, without=["storage_class"], when_asked=True)
def command(
    s3: Callable[[], S3], analyzing: Callable[[], Analyzing], dump: str | None, pending: bool, as_json: bool, html: str | None, rows: int | None, rules: tuple[str, ...],
    no_strings: bool, redact: bool, memory: str | None, spill: str | None,
) -> None:  # fmt: skip
    """Analyze a heap dump: leak suspects with the way from a root, retained sizes, classes, threads, collections.

    DUMP is a file, or the key or path of a dump in the store, which is fetched into a temporary file in TMPDIR first.
    Reads .hprof and .hprof.gz alike. Needs about 60 bytes of memory for each object, and says so before it takes them.

    With --pending it is a job beside the bucket: it claims each dump that has no analysis, newest first, puts
    <key>.analysis.json and <key>.analysis.html beside it, skips and names what does not fit into its memory, and goes on
    after a dump that fails. Several jobs share the work. Needs credentials that may list, read and write.

    Exit code: 0 done, 1 a --fail-on rule matched, 2 no heap dump or bad use, 3 failed.
    """
    if pending:
        if dump or as_json or html or rules:
            raise click.UsageError("--pending takes no dump, --json, --html or --fail-on")
        with ending(said="nothing is kept"):
            means = Means(memory_bytes(memory), spill)
            sys.exit(
                run_pending(
                    s3(),
                    analyzing(),
                    means,
                    rows=rows or _JSON_ROWS,
                    strings=not no_strings,
                    show_text=not redact,
                )
            )
    if dump is None:
        raise click.UsageError("name a dump, or give --pending")
    with ending(said="nothing is kept"):
        try:
            from dumpagent.analyze.analysis import Wishes
            from dumpagent.analyze.rules import BadRule, read_rule
        except ModuleNotFoundError as error:
            stop(
                NO_DUMP, f"{error.name} is not installed", "install it with: pip install 'dumpagent[analyze]'"
            )
        try:
            wanted = [read_rule(rule) for rule in rules]
        except BadRule as error:
            raise click.UsageError(str(error)) from error
        wishes = Wishes(
            rows=rows or (_JSON_ROWS if as_json or html else _TEXT_ROWS), strings=not no_strings, show_text=not redact,
            named_classes=tuple(rule.name for rule in wanted if rule.name and rule.what != "suspect"),
        )  # fmt: skip
        analysis = analyzed(dump, s3, wishes, Means(memory_bytes(memory), spill))
        _show(analysis, as_json=as_json, html=html, rows=rows or _TEXT_ROWS)
        matched = [rule for rule in wanted if rule.matches(analysis)]
        for rule in matched:
            click.echo(f"dumpagent: {rule.text}: it is {_amount(rule.value(analysis))}", err=True)
        sys.exit(MATCHED if matched else 0)


def stop(code: int, message: str, hint: str = "") -> NoReturn:
    """Print what happened and what to do on stderr, and end."""
    click.echo(f"dumpagent: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)
    sys.exit(code)


@contextmanager
def ending(*, said: str) -> Iterator[None]:
    """End with the exit codes of `analyze` and `diff` at errors, and at once at Ctrl-C or SIGTERM."""
    from dumpagent.cli.stored import ending_at_once

    with ending_at_once(said=said):
        try:
            yield
        except BadSettings as error:
            stop(NO_DUMP, str(error), error.hint)
        except DumpagentError as error:
            no_heap = type(error).__name__ in ("NoHeap", "NothingToOpen", "NoSuchDump", "Ambiguous")
            stop(NO_DUMP if no_heap else FAILED, str(error), error.hint)
        except MemoryError as error:
            stop(
                FAILED,
                f"there is not enough memory: {error}",
                "run it where there is more, or with --spill DIR",
            )
        except OSError as error:
            stop(
                FAILED,
                f"{error.filename or ''}: {error.strerror or error}".lstrip(": "),
                "check the file and its volume",
            )


@dataclass(frozen=True, slots=True)
class Reading:
    """An open dump, what is known of it, the memory it may take, and who hears of each step."""

    opened: OpenFile
    known: Subject
    budget: Budget
    step: Callable[[str], Callable[[int], None]]


@contextmanager
def reading(dump: str, s3: Callable[[], S3], means: Means) -> Iterator[Reading]:
    """Open a file, or a dump in the store. Raises DumpagentError, OSError."""
    from dumpagent.analyze.known import known_of
    from dumpagent.analyze.memory import Budget

    with ExitStack() as stack:
        opened, name = stack.enter_context(opened_dump(dump, s3))
        size_bytes = opened.status().st_size
        known = known_of(opened, name, size_bytes)
        bars = _Bars(stack, name, size_bytes)
        budget = Budget(means.limit_bytes, _tell, spilled=means.spill is not None)
        yield Reading(opened, known, budget, bars.step)


def analyzed(dump: str, s3: Callable[[], S3], wishes: Wishes, means: Means) -> Analysis:
    """Analyze a file, or a dump in the store. Raises DumpagentError, OSError, MemoryError."""
    from dumpagent.analyze.analysis import analyze

    with reading(dump, s3, means) as found:
        return analyze(
            found.opened, found.known, found.budget, wishes=wishes, step=found.step, spill=means.spill
        )


class _Bars:
    """A progress bar for each reading of the dump."""

    def __init__(self, stack: ExitStack, name: str, size_bytes: int) -> None:
        self._outer, self._name, self._size_bytes = stack, name, size_bytes
        self._current = stack.enter_context(ExitStack())

    def step(self, title: str) -> Callable[[int], None]:
        self._current.close()
        return self._current.enter_context(progress.bar(title, self._size_bytes))


def _tell(text: str) -> None:
    if progress.on_terminal():
        click.echo(text, err=True)


def memory_bytes(wished: str | None) -> int:
    """Give how much memory may be used: as wished, else the cgroup's limit, else what is free. Raises UsageError."""
    if wished:
        from dumpagent.analyze.rules import BadRule, read_rule

        try:
            return int(read_rule(f"heap > {wished}").amount)
        except BadRule:
            raise click.UsageError(f"--memory {wished!r} is no size; 6GiB is one") from None
    limit = memory_limit_bytes()
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(
            (int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:")), 1 << 40
        )
    return min(limit or free, free)


def _show(analysis: Analysis, *, as_json: bool, html: str | None, rows: int) -> None:
    from dumpagent.analyze.report.asjson import as_json as to_json
    from dumpagent.analyze.report.text import as_text

    if html:
        from dumpagent.analyze.report.page import as_page

        replace_file(os.path.abspath(html), as_page(analysis).encode(), mode=0o600)
    if as_json:
        click.echo(to_json(analysis))
    else:
        click.echo(as_text(analysis, rows=rows, style=click.style), nl=False)
        if html:
            click.echo(f"written: {html}", err=True)


def _amount(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
