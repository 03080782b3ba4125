"""Builds the store for a command: with what was learnt of it before, and telling what is found out now."""

from __future__ import annotations

import os
import threading

from dumpagent.errors import BadSettings
from dumpagent.kernel.files import replace_file
from dumpagent.observe.events import Tell
from dumpagent.observe.events.store import (
    StorageClassUnknown,
    StoreClockApart,
    StoreLearnt,
    StoreUnconditional,
    StoreUnverifying,
    TagsLeftOut,
)
from dumpagent.secrets import hide
from dumpagent.setting import refuse_placeholder
from dumpagent.settings import S3, Replica
from dumpagent.store.pace import Pace
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.store.s3.store import S3Store
from dumpagent.store_settings import Access

_TAGS = (
    "give these credentials s3:PutObjectTagging, where the store knows tags, and change or set S3_TAGS anew so that they are tried "
    "again; else unset S3_TAGS"
)


def open_store(
    settings: S3,
    *,
    tell: Tell,
    stop: threading.Event,
    remembered_in: str | None = None,
    pace: Pace | None = None,
    access: Access | None = None,
) -> S3Store:
    """Give the store of these settings; no request is made yet. `access` is for the replica.

    `remembered_in` is the file that keeps the store's ways between runs; it may vanish at any time. `pace` limits what is
    sent, to all stores that share it.
    Raises BadSettings for credentials that nobody has filled in yet.
    """
    for name, value in os.environ.items():
        if name.startswith("AWS_"):
            refuse_placeholder(name, value)
    which = f"{hide(settings.endpoint_url) or 'AWS'} {settings.bucket} {settings.storage_class} {settings.tags}".rstrip()

    def learnt(before: Profile, now: Profile) -> None:
        _tell_news(tell, settings, before, now)
        if remembered_in:
            try:
                replace_file(remembered_in, now.to_json(store=which).encode(), mode=0o600)
            except OSError:
                pass  # found out again at the next start

    profile = _remembered(remembered_in, which)
    return S3Store(settings, access=access, stop=stop, profile=profile, learnt=learnt, pace=pace)


def open_store_to_read(settings: S3 | Replica) -> S3Store:
    """Give the store of these settings for somebody who fetches dumps; no request is made yet."""
    if isinstance(settings, Replica):
        return S3Store(settings.s3, access=settings.access, reads_only=True)
    return S3Store(settings, reads_only=True)


def bucket_to_read(first: S3, replica: Replica | None) -> tuple[S3, S3Store]:
    """Give the bucket that dumps are read from, the `replica`'s where that is asked for. Raises BadSettings."""
    if replica is None:
        return first, open_store_to_read(first)
    if not replica.bucket:
        raise BadSettings(
            "--replica is given and S3_REPLICA_BUCKET is not set",
            hint="set the S3_REPLICA_... variables as the uploader has them",
        )
    return replica.s3, open_store_to_read(replica)


def _remembered(path: str | None, which: str) -> Profile:
    try:
        with open(path or "/dev/null", encoding="utf-8") as file:
            return Profile.from_json(file.read(1 << 16), store=which)
    except (OSError, ValueError):
        return Profile()


def _tell_news(tell: Tell, settings: S3, before: Profile, now: Profile) -> None:
    if now.storage_class is False and before.storage_class is not False:
        tell(
            StorageClassUnknown(
                storage_class=settings.storage_class,
                hint="set S3_STORAGE_CLASS to a class of this store, or to STANDARD to end this warning",
            )
        )
    if now.tags is False and before.tags is not False:
        tell(TagsLeftOut(hint=_TAGS))
    if now.digest is not None and now.digest is not before.digest:
        tell(StoreLearnt(verified_digest=now.digest.value))
    if now.digest is Digest.NONE and before.digest is not Digest.NONE:
        tell(
            StoreUnverifying(
                hint="lengths and metadata are confirmed all the same; `dumpagent verify` reads back",
            )
        )
    if now.conditional is False and before.conditional is not False:
        tell(
            StoreUnconditional(
                hint="give each node its own S3_PREFIX if several nodes write the same paths",
            )
        )
    if now.clock_ahead_s is not None and now.clock_ahead_s != before.clock_ahead_s:
        tell(
            StoreClockApart(
                ahead_seconds=now.clock_ahead_s,
                hint="requests are signed by the store's clock from now on, and times of dumps are this node's: mend NTP on the node",
            )
        )
