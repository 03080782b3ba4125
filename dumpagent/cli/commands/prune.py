"""`dumpagent prune`: deletes old dumps from the bucket."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import open_store
from dumpagent.cli.stored import ending_at_once, say, shown, size, timestamp
from dumpagent.prune.carry_out import carry_out
from dumpagent.prune.plan import Doomed, Plan, make_plan
from dumpagent.prune.policy import Rules
from dumpagent.settings import S3, Pruning


@click.command("prune", short_help="Delete old dumps from the bucket.")
@click.option("--dry-run", is_flag=True, help="say what would be deleted; delete nothing")
@takes(S3, Pruning, without=["storage_class"])
def command(s3: S3, pruning: Pruning, dry_run: bool) -> None:
    """Delete dumps that no rule keeps: PRUNE_KEEP_LAST, PRUNE_KEEP_LARGEST, PRUNE_KEEP_DAYS, and the first of each workload.

    A dump's reports and index entry go with it; on a versioned bucket all its versions go. A dump under a lock or hold
    stays. Objects without an index entry are left alone (`dumpagent reindex` gives dumps of older agents one).

    Needs credentials of its own with s3:ListBucket, s3:GetObject, s3:DeleteObject, and on a versioned bucket
    s3:ListBucketVersions and s3:DeleteObjectVersion. The uploader needs none of the last three. Can be stopped and run again.

    Exit code: 0, or 1 if a dump that should go could not be deleted.

    \b
    Examples:
      dumpagent prune --dry-run
      dumpagent prune --prune-keep-days 90 --prune-keep-last 5
    """
    store = open_store(s3, tell=lambda *_event, **_fields: None, stop=threading.Event())
    rules = Rules(pruning.keep_last, pruning.keep_largest, pruning.keep_days)
    with ending_at_once(said="what is deleted stays deleted; run it again to go on"):
        plan = make_plan(store, rules, prefix=s3.prefix, now=time.time())
        _show(plan, dry_run=dry_run)
        if dry_run:
            return
        pruned = carry_out(
            store, store, plan, stopped=lambda: False, deleted=_say_deleted, refused=_say_refused
        )
    say(f"deleted {pruned.deleted:,} dumps, {size(pruned.freed_bytes)}")
    if pruned.kept:
        say(f"{pruned.kept:,} dumps could not be deleted")
    sys.exit(1 if pruned.kept else 0)


def _show(plan: Plan, *, dry_run: bool) -> None:
    reasons = Counter(decision.why for decision in plan.kept)
    kept = ", ".join(f"{count:,} {why.value}" for why, count in reasons.items())
    say(f"{len(plan.kept):,} dumps stay{f': {kept}' if kept else ''}")
    if plan.unknown:
        say(f"{plan.unknown:,} objects without an index entry are left alone")
    if dry_run:
        for doomed in plan.doomed:
            click.echo(_line("would delete", doomed))
        say(f"{len(plan.doomed):,} dumps would go, {size(plan.size_bytes)}")


def _say_deleted(doomed: Doomed) -> None:
    click.echo(_line("deleted", doomed))


def _say_refused(doomed: Doomed, why: str) -> None:
    say(f"kept {shown(doomed.dump.path)}: {shown(why)}")


def _line(done: str, doomed: Doomed) -> str:
    dump = doomed.dump
    return f"{done}  {timestamp(dump.when)}  {size(doomed.size_bytes)}  {shown(dump.key)}"
