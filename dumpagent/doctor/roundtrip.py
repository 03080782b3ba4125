"""Uploads a heap dump of the doctor's own as the uploader does: judged, sent in parts, confirmed, read back, removed."""

from __future__ import annotations

import dataclasses
import gzip
import os
import time
from collections.abc import Iterator

from dumpagent.doctor.canary import canary
from dumpagent.doctor.finding import Finding, Patient, Result
from dumpagent.dumps.keys import own_key
from dumpagent.dumps.model import State
from dumpagent.dumps.text import size_text
from dumpagent.errors import DumpagentError
from dumpagent.store.protocol import Store
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.volume.scan import scan

# Two whole parts of the least size and a bit: what stores differ in shows with parts only.
_PART_BYTES, _ARRAY_BYTES = 5 << 20, 11 << 20
# The same dump each time, under the same key: where nothing can be deleted, one stays for each node.
TIME_MS = 1_767_225_600_000


def round_trip(patient: Patient, store: Store, *, name: str) -> Iterator[Finding]:
    """Send the canary from a folder `name` of the state directory; folder and object are gone afterwards."""
    folder = f"{patient.state_dir}/{name}"
    os.makedirs(folder, mode=0o700)
    try:
        yield _sent(patient, store, folder)
    finally:
        for directory, _, names in os.walk(folder, topdown=False):
            for each in names:
                os.unlink(f"{directory}/{each}")
            os.rmdir(directory)


def key_below(patient: Patient, name: str) -> str:
    """Give the prefix below which the doctor's objects `name` lie."""
    return own_key(patient.prefix, f"doctor/{name}")


def _sent(patient: Patient, store: Store, folder: str) -> Finding:
    content = canary(TIME_MS, array_bytes=_ARRAY_BYTES)
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
    sender = Uploader(
        store,
        place,
        prefix=key_below(patient, f"{place.node_name}/canary"),
        packed=patient.packed,
        part_bytes=_PART_BYTES,
    )
    began = time.monotonic()
    receipt = sender.upload(Job(dump, verdict), ledger)
    took_s = time.monotonic() - began
    read = b"".join(store.read(receipt.key))
    whole = (gzip.decompress(read) if receipt.key.endswith(".gz") else read) == content
    try:
        store.delete(receipt.key)
    except DumpagentError as error:
        return Finding(
            "canary", Result.WARNING, f"{str(error) if whole else 'it came back as something else'}",
            f"nothing to fix in a bucket where nothing may be deleted; {receipt.key} stays, and the next run finds it",
        )  # fmt: skip
    if not whole:
        return Finding(
            "canary", Result.FAILED, "the store gave back something else than was sent",
            "look for a proxy or a second store behind S3_ENDPOINT_URL",
        )  # fmt: skip
    confirmed = "stored and confirmed" if receipt.verified else "stored, but not confirmed,"
    if not receipt.is_news:
        confirmed = "found as an earlier run had stored it"
    elif not receipt.described:
        confirmed += ", without its metadata (the index keeps them),"
    return Finding(
        "canary", Result.OK, f"a heap dump of {size_text(len(content))} in parts was {confirmed} in {took_s:.2f} s, read back and removed"
    )  # fmt: skip


def ways(patient: Patient, learnt: Profile) -> Iterator[Finding]:
    """Say what was learnt of the store by writing to it, and what is done where it lacks something."""
    if learnt.storage_class is False:
        yield Finding(
            "storage class", Result.WARNING, f"the store does not know {patient.storage_class}; its default is used",
            "set S3_STORAGE_CLASS to one of the store's classes, or to STANDARD",
        )  # fmt: skip
    else:
        yield Finding("storage class", Result.OK, f"{patient.storage_class} is accepted")
    if learnt.digest is Digest.NONE:
        yield Finding(
            "digest", Result.WARNING, "the store verifies no digest of what it receives",
            "lengths are confirmed all the same; `dumpagent verify` reads back",
        )  # fmt: skip
    else:
        verified = learnt.digest.value if learnt.digest else "not tried"
        yield Finding("digest", Result.OK, f"{verified}: damage on the way is noticed")
    yield _conditions(learnt)
    if learnt.tags is False:
        yield Finding(
            "tags",
            Result.WARNING,
            "the store takes no tags of these credentials: S3_TAGS is left out",
            "give them s3:PutObjectTagging, where the store knows tags; else unset S3_TAGS",
        )
    else:
        yield Finding("tags", Result.OK, "kept" if learnt.tags else "not asked for")
    yield Finding("requests", Result.OK, _requests(learnt))


def _conditions(learnt: Profile) -> Finding:
    if learnt.conditional is False:
        return Finding(
            "conditions", Result.WARNING, "the store refuses or ignores If-None-Match: the key is looked at before each write",
            "give each node its own S3_PREFIX if several nodes write the same paths",
        )  # fmt: skip
    if learnt.conditional_complete is False:
        return Finding(
            "conditions", Result.OK, "If-None-Match holds for small objects only: keys are reserved before an upload in parts"
        )  # fmt: skip
    return Finding("conditions", Result.OK, "no object is overwritten")


def _requests(learnt: Profile) -> str:
    lacking = [
        "HEAD is not known: objects are looked at by GET" if learnt.head is False else "",
        "listings of version 1" if learnt.lists_v2 is False else "",
        "no checksum over a whole object: each part is confirmed" if learnt.whole_checksum is False else "",
        "nothing deleted is gone: one small object stays for each dump" if learnt.deletes is False else "",
        f"requests of at most {size_text(learnt.body_max_bytes)}" if learnt.body_max_bytes else "",
    ]
    return "; ".join(filter(None, lacking)) or "all that were tried are known"
