"""How often something may be done: a burst at once, then at a steady rate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pace:
    """A bucket of `burst` turns that fills with `per_s` turns a second."""

    burst: float
    per_s: float
    _left: float = -1.0
    _at: float = 0.0

    def wait_s(self, now: float) -> float:
        """Take a turn and give 0, or give how many seconds are missing to the next one. `now` is monotonic seconds."""
        if self._left < 0:
            self._left, self._at = self.burst, now
        self._left = min(self.burst, self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.per_s
