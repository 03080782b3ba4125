"""Which dump of a workload came before another one."""

from __future__ import annotations

import glob

from dumpagent.fetch.catalogue import list_dumps
from dumpagent.fetch.choice import NoSuchDump
from dumpagent.fetch.listing import find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.store.protocol import Store


def previous(store: Store, dump: StoredDump, *, prefix: str = "", now: float) -> StoredDump:
    """Give the newest dump of the same workload that is older than `dump`; a cut one only if there is no other.

    Where the workload is not known, the directory that the JVM wrote to stands for it.
    Raises NoSuchDump; Refused, Unreachable.
    """
    owner = dump.owner
    if owner.workload:
        name = f"{owner.namespace}/{owner.workload}" if owner.namespace else owner.workload
        wanted, of = Wanted(workload=glob.escape(name), cluster=glob.escape(dump.cluster or "")), name
    elif dump.application:
        wanted, of = Wanted(app=dump.application), dump.application
    else:
        raise NoSuchDump(
            f"nothing tells of which workload {dump.path} is", hint="name both dumps: dumpagent diff OLD NEW"
        )
    found = list_dumps(store, wanted, prefix=prefix, now=now)
    if not found:
        found = look_at(store, find_objects(store, wanted, prefix=prefix), wanted, prefix=prefix)
    older = [each for each in found if each.key != dump.key and each.when < dump.when]
    whole = [each for each in older if each.verdict != "truncated"]
    if not older:
        raise NoSuchDump(
            f"the store has no dump of {of} that is older than {dump.path}",
            hint="`dumpagent ls` shows what is there; name both dumps: dumpagent diff OLD NEW",
        )
    return (whole or older)[-1]
