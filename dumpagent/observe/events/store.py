"""What is told of the store."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class StoreAnswered(Event, level="info"):
    """At the start: the bucket is there and lets us in."""

    store: str


class StoreChecked(Event, level="debug"):
    """The store was asked, without a dump, whether it can be used."""

    store: str
    usable: bool


class StoreFailed(Failure, level="error"):
    """The store cannot be used; all dumps wait and are tried again."""

    store: str
    pending: int | None = None


class StoreRecovered(Recovery, level="info"):
    """The store can be used again."""

    store: str


class StoreLearnt(Event, level="info"):
    """A property of the store was found out by trying; it is remembered."""

    verified_digest: str


class StorageClassUnknown(Event, level="warning"):
    """The store does not know S3_STORAGE_CLASS; its own default is used."""

    storage_class: str
    hint: str


class TagsLeftOut(Event, level="warning"):
    """The store does not know object tags, or these credentials may not set them: objects go without S3_TAGS."""

    hint: str


class StoreUnverifying(Event, level="warning"):
    """The store takes bodies with a wrong digest: damage on the way goes unnoticed there."""

    hint: str


class StoreUnconditional(Event, level="warning"):
    """The store knows no conditional writes: a key is looked at before it is written."""

    hint: str


class IndexFailed(Failure, level="warning"):
    """The store refused a dump's index entry: the dump is stored, and `dumpagent ls` shows it with --all alone."""

    path: str


class IndexRecovered(Recovery, level="info"):
    """Index entries can be written again."""

    path: str


class LeftoverAborted(Event, level="info"):
    """A multipart upload of this node that nobody will finish was aborted: its dump is gone, or a kill cut it off
    unnoted.
    """

    key: str
    store: str


class StoreClockApart(Event, level="warning"):
    """The clocks of the store and this node differ by more than the store allows: requests are signed by the store's."""

    ahead_seconds: float
    hint: str
