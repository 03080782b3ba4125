"""Which one dump a person means by a key, or by a part of it."""

from __future__ import annotations

import difflib

from dumpagent.dumps.keys import below
from dumpagent.errors import DumpagentError
from dumpagent.fetch.catalogue import list_dumps, newest_dumps
from dumpagent.fetch.listing import find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.index.lost import with_metadata
from dumpagent.store.protocol import LookRefused, Store

_NEAR_MOST = 5
_NEAR = 0.6  # of 1; a typing error or two in a word


class NoSuchDump(DumpagentError):
    """Nothing in the store is what was asked for; the hint names what comes near."""


class Ambiguous(DumpagentError):
    """Several dumps are what was asked for: `candidates`, oldest first, at most as many as were asked about."""

    def __init__(self, message: str, candidates: list[StoredDump], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.candidates = candidates


def key_in(text: str, bucket: str) -> str:
    """Give the key in what a person typed: a key, or s3://bucket/key. Raises NoSuchDump for another bucket."""
    if not text.startswith("s3://"):
        return text.removeprefix("/")
    named, _, key = text.removeprefix("s3://").partition("/")
    if named != bucket:
        raise NoSuchDump(
            f"{text} is in the bucket {named}, and S3_BUCKET is {bucket}",
            hint=f"--s3-bucket {named} looks there",
        )
    return key


def choose(store: Store, wanted: Wanted, *, prefix: str = "", now: float, candidates: int = 10) -> StoredDump:
    """Give the one dump whose key, or path below the prefix, is `wanted.part`, or has it somewhere in it.

    Raises NoSuchDump, Ambiguous; Refused, Unreachable.
    """
    if exact := _exactly(store, wanted.part, prefix):
        return exact
    found = list_dumps(store, wanted, prefix=prefix, now=now)
    count = len(found or [])
    if (
        not found
    ):  # not in the index; a dump of an older agent, or of another tool, can have the name all the same
        objects = find_objects(store, wanted, prefix=prefix)
        # Each must be asked if metadata decide; of too many only some, to show them.
        sifted = wanted.by_metadata_alone or wanted.since is not None
        found = look_at(store, objects, wanted, prefix=prefix, limit=None if sifted else candidates)
        count = len(found) if sifted else len(objects)
    if not found:
        raise _none(store, wanted, prefix)
    if len(found) > 1:
        raise Ambiguous(
            f"{count} dumps have {wanted.part!r} in their path",
            found[-candidates:],
            hint="give more of the path, or --latest for the newest of them",
        )
    return _with_metadata(store, found[0], prefix)


def newest(store: Store, wanted: Wanted, *, prefix: str = "", now: float) -> StoredDump:
    """Give the newest dump that is wanted. Raises NoSuchDump; Refused, Unreachable."""
    found = newest_dumps(store, wanted, prefix=prefix, now=now)
    if not found:
        objects = find_objects(store, wanted, prefix=prefix)
        found = look_at(store, objects, wanted, prefix=prefix, limit=1)
    if not found:
        raise _none(store, wanted, prefix)
    return _with_metadata(store, found[-1], prefix)


def _with_metadata(store: Store, dump: StoredDump, prefix: str) -> StoredDump:
    """Give the dump as its object tells of it. Raises NoSuchDump if only its index entry is left."""
    if dump.entry is None:
        return dump
    found = store.look(dump.key)
    if found is None:
        raise NoSuchDump(
            f"{dump.key} is in the index of {store.name}, and the object is gone",
            hint="a lifecycle rule or a person deleted it; `dumpagent ls --all` shows what is there",
        )
    return StoredDump(with_metadata(store, found, prefix=prefix), dump.path)


def _exactly(store: Store, text: str, prefix: str) -> StoredDump | None:
    """Give the dump under exactly this key or path; None also where the store does not say.

    S3 answers 403 for a key that is not there to those who may not list. Why, the listing's refusal tells: the answer
    to a HEAD has no body, so no reason either.
    """
    root = below(prefix)
    for key in dict.fromkeys([text if text.startswith(root) else root + text, text]):
        try:
            found = store.look(key) if key else None
        except LookRefused:
            continue
        if found:
            return StoredDump(with_metadata(store, found, prefix=prefix), key.removeprefix(root))
    return None


def _none(store: Store, wanted: Wanted, prefix: str) -> NoSuchDump:
    everything = find_objects(store, Wanted(), prefix=prefix)
    where = f"{store.name} below {below(prefix)}" if below(prefix) else store.name
    if not everything:
        return NoSuchDump(
            f"{where} is empty", hint="check S3_BUCKET and S3_PREFIX; they must be those of the uploader"
        )
    paths = [stored.key.removeprefix(below(prefix)) for stored in everything]
    near = _near(wanted.part, paths) if wanted.part else []
    meant = (
        f"did you mean {near[0]}?" if len(near) == 1 else "\n    ".join(["did you mean one of these?", *near])
    )
    hint = meant if near else "`dumpagent ls` shows what is there"
    asked = [
        f"with {wanted.part!r} in its path" if wanted.part else "",
        f"below {wanted.app}" if wanted.app else "",
        f"from a node {wanted.node}" if wanted.node else "",
        f"of the namespace {wanted.namespace}" if wanted.namespace else "",
        f"of the workload {wanted.workload}" if wanted.workload else "",
        f"of the pod {wanted.pod}" if wanted.pod else "",
        f"of the cluster {wanted.cluster}" if wanted.cluster else "",
        f"with the verdict {wanted.verdict}" if wanted.verdict else "",
        f"with the cause {wanted.cause}" if wanted.cause else "",
        "of that time" if wanted.since is not None else "",
    ]
    return NoSuchDump(f"{where} has no dump {', '.join(filter(None, asked))}".rstrip(), hint=hint)


def _near(text: str, paths: list[str]) -> list[str]:
    """Give the paths that look like `text`, by the whole or by one of their parts."""
    matcher = difflib.SequenceMatcher(b=text.lower())
    scored = []
    for path in paths:
        lower = path.lower()
        likeness = max(_likeness(matcher, piece) for piece in {lower, *lower.split("/")})
        if likeness >= _NEAR:
            scored.append((-likeness, path))
    return [path for _, path in sorted(scored)[:_NEAR_MOST]]


def _likeness(matcher: difflib.SequenceMatcher[str], piece: str) -> float:
    """Give how much `piece` is like the matcher's text, 0 to 1; 0 for what is not worth the whole comparison."""
    matcher.set_seq1(piece)
    if matcher.real_quick_ratio() < _NEAR or matcher.quick_ratio() < _NEAR:
        return 0.0
    return matcher.ratio()
