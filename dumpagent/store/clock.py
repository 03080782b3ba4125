"""How far the store's clock is from this node's: what a request is signed with is the store's time.

A store refuses a request that was signed more than 15 minutes before or after its own time (Source: S3 API Reference,
"Error responses", RequestTimeTooSkewed), and a node whose clock is wrong would keep its dumps for ever.
"""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Callable

_APART_S = (
    300  # a refusal is taken for one of the clock if it is by so much, which is a third of what stores allow
)
_CODES = {"RequestTimeTooSkewed", "RequestExpired", "AccessDenied", "Forbidden", "400", "401", "403"}


class StoreClock:
    """The seconds that the store's clock is ahead of this node's. Safe to use from several threads.

    `now` is this node's clock, `learnt` is told each new difference, in seconds.
    """

    def __init__(
        self,
        ahead_s: float = 0.0,
        *,
        learnt: Callable[[float], None] = lambda _ahead_s: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.ahead_s = ahead_s
        self._learnt, self._now = learnt, now
        self._lock = threading.Lock()

    def learns_from(self, code: str, date: str) -> bool:
        """Say whether a refusal shows that the store has another time than was signed with; it is used from now on.

        `code` is the store's, or the HTTP status where it gave none; `date` the answer's header of that name.
        """
        if code not in _CODES:
            return False
        try:
            ahead_s = round(email.utils.parsedate_to_datetime(date).timestamp() - self._now())
        except (TypeError, ValueError):
            return False  # it tells no time
        with self._lock:
            if abs(ahead_s - self.ahead_s) < _APART_S:
                return False
            self.ahead_s = ahead_s
        self._learnt(ahead_s)
        return True
