"""Brings a small heap dump of our own the whole way: judged, sent, confirmed, read back, removed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator

from dumpagent.doctor.canary import canary
from dumpagent.doctor.finding import Finding, Patient, Result
from dumpagent.dumps.model import State
from dumpagent.errors import DumpagentError
from dumpagent.store.protocol import Store, own_key
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.volume.scan import scan


def round_trip(patient: Patient, store: Store, *, name: str, now: float) -> Iterator[Finding]:
    """Send the canary from a folder `name` of the state directory; folder and object are gone afterwards."""
    folder = f"{patient.state_dir}/{name}"
    os.makedirs(folder, mode=0o700)
    try:
        yield _sent(patient, store, folder, now)
    finally:
        for directory, _, names in os.walk(folder, topdown=False):
            for each in names:
                os.unlink(f"{directory}/{each}")
            os.rmdir(directory)


def key_below(patient: Patient, name: str) -> str:
    """Give the prefix below which the doctor's objects `name` lie."""
    return own_key(patient.prefix, f"doctor/{name}")


def _sent(patient: Patient, store: Store, folder: str, now: float) -> Finding:
    content = canary(int(now * 1000))
    with open(f"{folder}/canary.hprof", "xb") as file:
        file.write(content)
    (dump,) = scan(folder).dumps
    verdict = CompletenessJudge(quiet_s=0).judge(dump)
    if verdict.state is not State.COMPLETE:
        return Finding(
            "canary", Result.FAILED, f"a whole dump was judged {verdict.state.value}: {verdict.reason}",
            "please report this",
        )  # fmt: skip
    ledger = Ledger(f"{folder}/state", store=store.name)
    ledger.load()
    place = dataclasses.replace(patient.place, node_name=patient.place.node_name or "doctor")
    sender = Uploader(store, place, prefix=key_below(patient, os.path.basename(folder)))
    began = time.monotonic()
    receipt = sender.upload(Job(dump, verdict), ledger)
    took_s = time.monotonic() - began
    whole = b"".join(store.read(receipt.key)) == content
    try:
        store.delete(receipt.key)
    except DumpagentError as error:
        return Finding("canary", Result.WARNING, str(error), f"delete {receipt.key} with other credentials")
    if not whole:
        return Finding(
            "canary", Result.FAILED, "the store gave back something else than was sent",
            "look for a proxy or a second store behind S3_ENDPOINT_URL",
        )  # fmt: skip
    confirmed = "stored and confirmed" if receipt.verified else "stored, but not confirmed,"
    return Finding(
        "canary", Result.OK, f"a heap dump of {len(content)} bytes was {confirmed} in {took_s:.2f} s, read back and removed"
    )  # fmt: skip


def ways(patient: Patient, profile: Callable[[], tuple[bool | None, str | None]]) -> Iterator[Finding]:
    """Say what was learnt of the store by writing to it."""
    storage_class, digest = profile()
    if storage_class is False:
        yield Finding(
            "storage class", Result.WARNING, f"the store does not know {patient.storage_class}; its default is used",
            "set S3_STORAGE_CLASS to one of the store's classes, or to STANDARD",
        )  # fmt: skip
    else:
        yield Finding("storage class", Result.OK, f"{patient.storage_class} is taken")
    if digest == "none":
        yield Finding(
            "digest", Result.WARNING, "the store verifies no digest of what it receives",
            "lengths are confirmed all the same; `dumpagent verify` reads back",
        )  # fmt: skip
    else:
        yield Finding("digest", Result.OK, f"{digest or 'not tried'}: damage on the way is noticed")
