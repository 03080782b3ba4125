"""Which request breaks and how: at random, but each fault that there is comes at least once."""

from __future__ import annotations

import random
import threading
from collections import Counter

from tests.harness.faults import Fault, Request

# Delays are no fault of their own.
FAULTS = [fault for fault in Fault if fault not in (Fault.NONE, Fault.DELAY)]


class Weather:
    """A plan for `FaultProxy`, for several proxies at once. `share` (0 to 1) of all requests break; 0 is fair weather.

    A fault that has not come yet is preferred. `happened` counts what came.
    """

    def __init__(self, seed: int) -> None:
        self.share = 0.0
        self.happened: Counter[Fault] = Counter()
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def owed(self) -> list[Fault]:
        """Give the faults that have not come yet."""
        return [fault for fault in FAULTS if not self.happened[fault]]

    def __call__(self, request: Request) -> Fault:
        with self._lock:
            if self.share == 0:
                return Fault.NONE
            fitting = [fault for fault in FAULTS if _fits(fault, request)]
            rare = Fault.ERROR_IN_200 in fitting and not self.happened[Fault.ERROR_IN_200]
            if not rare and self._chance.random() >= self.share:
                return Fault.NONE
            owed = [fault for fault in fitting if not self.happened[fault]]
            fault = Fault.ERROR_IN_200 if rare else self._chance.choice(owed or fitting)
            self.happened[fault] += 1
            return fault


def _fits(fault: Fault, request: Request) -> bool:
    if fault in (Fault.CUT_BODY, Fault.DAMAGE_BODY):
        return request.body_bytes > 0
    # The one request that S3 answers before it knows. Source: API Reference, CompleteMultipartUpload.
    return fault is not Fault.ERROR_IN_200 or request.operation == "CompleteMultipartUpload"
