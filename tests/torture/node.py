"""One node of the torture: a volume, its applications, and the agent that lives and dies on it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.harness.faults import FaultProxy
from tests.harness.stores.server import StoreServer, free_ports
from tests.torture.jvms import MIB, Jvms
from tests.torture.scraper import Scraper
from tests.torture.tenant import Tenant
from tests.torture.volume import Volume
from tests.torture.weather import Weather
from tests.torture.zygote import KILLED_AT_A_SYSTEM_CALL, Life, Zygote

# What comes besides kills and broken requests; dealt like cards, so that each comes once in so many lives.
FILL, VANISH, AHEAD, BACK = (
    "the disk filled",
    "STATE_DIR vanished",
    "the clock jumped",
    "the clock jumped back",
)
NO_INODES, AWAY, EXCHANGED, STILL, FEW = (
    "the inodes were used up",
    "the volume was away",
    "another volume was in its place",
    "the agent stood still",
    "the agent had 64 descriptors",
)
_TEN_YEARS_S = 3.2e8
AT_A_CALL, AT_A_MOMENT, STOPPED = "killed at a system call", "killed at some moment", "stopped"
TROUBLES = [FILL, VANISH, AHEAD, BACK, NO_INODES, AWAY, EXCHANGED, STILL, FEW]
_CARDS = [*TROUBLES, *[""] * 9]
_HANG_S = 30.0
_SILENCE_S = 0.8  # of an agent that has nothing to do, or waits for a store that hangs
_LONGEST_LIFE_S = 20.0


class Node:
    """`live` begins a life, `survive` waits for its end. All nodes share a bucket, a prefix and the dumps' names."""

    def __init__(
        self,
        name: str,
        volume: Volume,
        zygote: Zygote,
        chance: random.Random,
        log: str,
        tenant: Tenant | None,
    ) -> None:
        self.name, self.root, self.zygote, self.log = name, volume.root, zygote, log
        self._volume, self._tenant = volume, tenant
        self.jvms = Jvms(self.root, chance)
        self.happened: Counter[str] = Counter()
        self._chance = chance
        self._cards: list[str] = []
        self._trouble = ""
        self._ends_after = 0

    @contextlib.contextmanager
    def on(self, server: StoreServer, bucket: str, weather: Weather) -> Iterator[None]:
        """Let the node's agent reach the store through `weather`, and be scraped."""
        (port,) = free_ports(1)
        self.scraper = Scraper(port)
        self.scraper.start()
        with FaultProxy(server, weather, hang_s=_HANG_S) as self.proxy:
            self._variables = self.proxy.server.environment(bucket) | {
                "DUMP_ROOT": str(self.root), "NODE_NAME": self.name, "FILE_STABLE_TIME": "0.3", "WATCH_INTERVAL": "0.2",
                "METRICS_PORT": str(port), "METRICS_ADDRESS": "127.0.0.1", "LOG_FORMAT": "json",
                "RUNTIME_DIR": f"{self.log}.run",
            }  # fmt: skip
            try:
                yield
            finally:
                self.scraper.stop()

    def live(self) -> None:
        """Begin a life that ends by force, with one trouble or none."""
        chance = self._chance
        if not self._cards:
            self._cards = chance.sample(_CARDS, len(_CARDS))
        self._trouble = self._cards.pop()
        if self._trouble == FILL:
            _fill(self.root / "fill")
        elif self._trouble == NO_INODES:
            _use_up_inodes(self.root / "fill")
        if self._trouble:
            self.happened[self._trouble] += 1
        keep = chance.choice(["always", "while-space", "until-uploaded"])
        claim = chance.choice(["true", "true", "false"])
        # By how far it came and not by time alone: on a busy machine nothing would ever be finished.
        self._ends_after = len(self.proxy.log) + chance.randrange(1, 60)
        life = Life(
            words=[],
            variables=self._variables | {"LOCAL_KEEP": keep, "CLAIM": claim},
            log=self.log,
            lasts_s=_LONGEST_LIFE_S,
            end_signal=chance.choice([signal.SIGKILL] * 3 + [signal.SIGTERM]),
            kill_at=0 if self._trouble == STILL else chance.choice([0, int(10 ** chance.uniform(1, 4))]),
            clock_jump_s={AHEAD: _TEN_YEARS_S, BACK: -_TEN_YEARS_S}.get(self._trouble, 0.0),
            stands_still_s=1.5 if self._trouble == STILL else 0.0,
            descriptors=64 if self._trouble == FEW else 0,
        )
        self.zygote.begin(life)

    def meanwhile(self) -> None:
        """Let the applications act, and the state vanish, while the agent lives."""
        for _ in range(self._chance.randrange(1, 4)):
            usage = shutil.disk_usage(self.root)
            # A disk that is full all the time would let nothing but empty dumps be tortured.
            if self._trouble != NO_INODES and (self._trouble == FILL or usage.free > usage.total // 2):
                self.jvms.act()
            time.sleep(self._chance.uniform(0, 0.2))
        if self._trouble in (AWAY, EXCHANGED):
            self._volume.take_away(other=self._trouble == EXCHANGED)
            time.sleep(self._chance.uniform(0, 1.5))
            if self._chance.random() < 0.7:
                self._volume.bring_back()  # else when the life has ended
        if self._trouble == VANISH:
            shutil.rmtree(self.root / ".dumpagent", ignore_errors=True)

    def tidy(self, stored: set[str]) -> None:
        """Take from the volume, while no agent lives, what the store holds, as people do by hand."""
        for path in self.root.glob("app-*/*.hprof*"):
            if hashlib.sha256(path.read_bytes()).hexdigest() in stored:
                path.unlink()

    def survive(self) -> None:
        """Let the life go on until it has asked the store so often, or asks no more; then end it, and mend the disk."""
        asked, since = len(self.proxy.log), time.monotonic()
        while asked < self._ends_after and time.monotonic() < since + _SILENCE_S:
            time.sleep(0.01)
            if len(self.proxy.log) > asked:
                asked, since = len(self.proxy.log), time.monotonic()
        self.zygote.end_now()
        code = self.zygote.ended()
        if code == KILLED_AT_A_SYSTEM_CALL:
            end = AT_A_CALL
        elif code == -signal.SIGKILL:
            end = AT_A_MOMENT
        else:
            end = STOPPED if code in (0, -signal.SIGTERM) else f"exit {code}"
        self.happened[end] += 1
        self._volume.bring_back()
        if (self.root / "fill").is_dir():
            shutil.rmtree(self.root / "fill")
        (self.root / "fill").unlink(missing_ok=True)

    def end_tenant(self) -> None:
        """End the hostile user, if there is one."""
        if self._tenant:
            self._tenant.end()

    def close(self) -> None:
        """End everything."""
        self.end_tenant()
        self.zygote.close()
        self._volume.close()

    def settle(self) -> int:
        """Bring what there is, with nothing in the way; give the exit code of the pass."""
        variables = self._variables | {"LOCAL_KEEP": "always", "FILE_STABLE_TIME": "0"}
        for _ in range(5):
            code = self.zygote.live(Life(words=["--once"], variables=variables, log=self.log))
            if code == 0:
                break
        return code

    def sweep(self, done: Callable[[], bool], *, within_s: float) -> None:
        """Let the agent live on after one more dump, until `done()`: long enough to end what it left open."""
        variables = self._variables | {"LOCAL_KEEP": "always", "FILE_STABLE_TIME": "0"}
        until = time.monotonic() + within_s
        lasts_s = 5.0
        while True:
            self.jvms.last_words()  # each time before a life, or nobody would bring it
            life = Life(
                words=[], variables=variables, log=self.log, lasts_s=lasts_s, end_signal=signal.SIGTERM, sweep_quiet_s=0.5
            )  # fmt: skip
            self.zygote.live(life)
            if done() or time.monotonic() > until:
                return
            lasts_s *= 2  # on a busy machine a question for each upload, twice, takes its time


def _use_up_inodes(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.mkdir()
        for number in range(100_000):
            (path / str(number)).touch()


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb") as file:
        while True:
            file.write(bytes(MIB))
