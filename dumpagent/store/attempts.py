"""When the same request is sent again, and after how long: the one place that knows.

The SDK's own retries are off: they do not end when the agent is told to, and send a body from where the last
attempt left it. What still fails after these attempts is for the caller, who tries the whole dump again later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tenacity

from dumpagent.errors import Unreachable
from dumpagent.store.protocol import Corrupted, Expired

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_LONGEST_ASKED_S = 30.0
_WORTH_ANOTHER = (Unreachable, Corrupted)


_growing = tenacity.wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Give the growing wait, or the one that the store asked for: a store that is busy counts who comes too early."""
    raised = state.outcome.exception() if state.outcome else None
    asked_s = raised.retry_after_s if isinstance(raised, Unreachable) else 0.0
    return max(_growing(state), min(asked_s, _LONGEST_ASKED_S))


@dataclass(frozen=True, slots=True)
class Attempts:
    """At most `most` attempts for one request, with growing waits that `stop` ends."""

    most: int
    stop: threading.Event

    def until_answered(self, send: Callable[[], Any]) -> Any:
        """Give what `send` gives. Raises what its last attempt raised: Unreachable, Corrupted, or any refusal at once.

        `send` makes its request anew each time: body, digest, and after Expired credentials too. Those are worth one
        attempt more, at once; who gets the same ones again need not ask a third time.
        """

        def send_with_fresh_credentials() -> Any:
            try:
                return send()
            except Expired:
                return send()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_WORTH_ANOTHER),
            stop=tenacity.stop_after_attempt(self.most) | tenacity.stop_when_event_set(self.stop),
            wait=_wait_s,
            sleep=tenacity.sleep_using_event(self.stop),
            reraise=True,
        )
        return retrying(send_with_fresh_credentials)
