"""Errors that carry what a person does next, sorted by whether trying again can help."""

from __future__ import annotations


class DumpagentError(Exception):
    """Something went wrong that a person can mend: `str()` says what happened with its values, `hint` what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadSettings(DumpagentError):
    """A setting cannot work: stop the start, exit 2. The message names variable, value and accepted range."""


class Refused(DumpagentError):
    """The other side understood and said no: the same request cannot help until somebody changes something."""


class Unreachable(DumpagentError):
    """The other side gave no usable answer: try again later, nothing is decided by it.

    `retry_after_s`: how long it asked to be left alone, 0 if it did not say.
    """

    retry_after_s = 0.0
