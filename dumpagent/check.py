"""The exec probe `dumpagent check`; imports `os` and `sys` alone, because it starts every few seconds."""


def answer(words: list[str]) -> int | None:  # noqa: ARG001 - the shape that the entry point calls
    """Give the exit code for `dumpagent check WORDS`, or None where the full command line must answer."""
    return None
