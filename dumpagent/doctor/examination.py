"""The order of the checks: that in which a dump meets what they check."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterator

from dumpagent.doctor import access, container, dumps, memory, mounts, network, roundtrip, volume, wakeups
from dumpagent.doctor.canary import canary
from dumpagent.doctor.finding import Finding, Patient, Result
from dumpagent.doctor.timeouts import Look, guarded, of_store, of_volume
from dumpagent.store.protocol import Store
from dumpagent.store.s3.credentials import Credentials
from dumpagent.store.s3.profile import Profile

_PATIENCE_S = 10.0
_CANARY_TIMES = 6  # it sends 11 MiB


def is_missing(root: str) -> bool:
    """Say whether nothing can be found at `root`; a volume that hangs is there."""
    heard = of_volume("volume", lambda: volume.stands(root), _PATIENCE_S)
    return bool(heard.failed) and not heard.hung


class Doctor:
    """Runs the checks, none of which can hang for long."""

    def __init__(
        self,
        patient: Patient,
        store: Store,
        *,
        find_credentials: Callable[[], Credentials],
        profile: Callable[[], Profile] = Profile,
        list_pods: memory.ListPods | None = None,
        now: Callable[[], float] = time.time,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`profile` gives what was learnt of the store."""
        self._patient, self._store, self._find_credentials, self._profile = (
            patient,
            store,
            find_credentials,
            profile,
        )
        self._list_pods, self._now, self._patience_s = list_pods, now, patience_s

    def examine(self) -> Iterator[Finding]:
        """Give the findings, each as soon as it is there."""
        yield from guarded("daemon", lambda: container.daemon(self._patient.runtime_dir)).findings
        yield from guarded("rights", container.rights).findings
        yield from guarded("mount", lambda: mounts.mount(self._patient.root)).findings
        writable = yield from self._volume()
        yield from of_store("memory", lambda: memory.memory(self._list_pods), self._patience_s).findings
        yield from self._store_alone(writable)

    def examine_store(self) -> Iterator[Finding]:
        """Give the findings about the store alone; the state directory of the patient is any folder."""
        yield from self._store_alone(True)

    def _store_alone(self, writable: bool) -> Iterator[Finding]:
        reachable = yield from self._network()
        yield from of_store(
            "credentials", lambda: access.credentials(self._find_credentials), self._patience_s
        ).findings
        if reachable:
            yield from self._bucket(writable)
        else:
            yield Finding("bucket", Result.SKIPPED, "the store cannot be reached")

    def _volume(self) -> Generator[Finding, None, bool]:
        """Look at the volume for as long as it answers; say whether it takes writes."""
        patient = self._patient
        root, state_dir = patient.root, patient.state_dir
        looks: dict[str, Look] = {
            "volume": lambda: volume.answers(root),
            "volume writes": lambda: volume.takes_writes(state_dir),
            "owners": lambda: volume.owners(root),
            "space": lambda: volume.space(root, state_dir, self._store.name),
            "dumps": lambda: dumps.dumps(
                root, state_dir, quiet_s=patient.quiet_s, now=self._now(), rules=patient.rules
            ),
            "wake-ups": lambda: wakeups.wakeups(root),
        }
        writable = False
        for name, look in looks.items():
            heard = of_volume(name, look, self._patience_s)
            yield from heard.findings
            if heard.hung or (name == "volume" and heard.failed):
                return False
            writable = writable or (name == "volume writes" and not heard.failed)
        return writable

    def _network(self) -> Generator[Finding, None, bool]:
        """Say whether the store can be reached, or that this cannot be known from here."""
        patient = self._patient
        heard = guarded(
            "network",
            lambda: network.network(
                patient.endpoint_url, patient.ca_file, now=self._now, patience_s=self._patience_s
            ),
        )
        yield from heard.findings
        return not heard.failed

    def _bucket(self, writable: bool) -> Iterator[Finding]:
        patient, store = self._patient, self._store
        name = f"doctor-{uuid.uuid4().hex}"
        heard = of_store("bucket", lambda: access.bucket(store), self._patience_s)
        yield from heard.findings
        if heard.failed:
            return
        key = f"{roundtrip.key_below(patient, patient.place.node_name or 'doctor')}/rights"
        content = canary(roundtrip.TIME_MS)
        heard = of_store("rights", lambda: access.rights(store, key, content), self._patience_s)
        yield from heard.findings
        if heard.hung or "put" in heard.failed:
            return
        if not writable:
            yield from roundtrip.ways(patient, self._profile())
            yield Finding("canary", Result.SKIPPED, "the volume takes no writes, or does not answer")
            return
        heard = of_store(
            "canary",
            lambda: roundtrip.round_trip(patient, store, name=name),
            self._patience_s * _CANARY_TIMES,
        )
        yield from heard.findings
        yield from roundtrip.ways(patient, self._profile())
