"""`dumpagent doctor`: says what keeps a dump from reaching the store, and what to do about it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator

import click

from dumpagent.cli.node_pods import pods_of
from dumpagent.cli.options import require_directory, takes
from dumpagent.cli.store import open_store
from dumpagent.doctor.examination import Doctor, is_missing
from dumpagent.doctor.finding import Finding, Patient, Result
from dumpagent.doctor.table import collect, show
from dumpagent.dumps.globs import Globs
from dumpagent.dumps.recognise import FileRules
from dumpagent.observe.log import log_to, printable
from dumpagent.settings import (
    S3,
    Compressing,
    Logging,
    Place,
    Remembering,
    Replica,
    Runtime,
    Volume,
    Watching,
)
from dumpagent.store.s3.credentials import find_credentials
from dumpagent.store.trust import ca_file
from dumpagent.store_settings import for_replica


@click.command("doctor", short_help="Say what keeps dumps from the store, and what to do.")
@takes(
    Volume,
    Watching,
    S3,
    Replica,
    Remembering,
    Runtime,
    Place,
    Compressing,
    without=("cluster_name", "owner_pattern"),
)
@click.option(
    "--store",
    "store_only",
    is_flag=True,
    help="the store alone: what it can do, and what is done where it cannot",
)
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per finding")
def command(
    volume: Volume,
    watching: Watching,
    s3: S3,
    replica: Replica,
    remembering: Remembering,
    runtime: Runtime,
    place: Place,
    compressing: Compressing,
    store_only: bool,
    as_json: bool,
) -> None:
    """Go through settings, volume, mount, rights, wake-ups, network, clock, credentials and bucket, then upload a heap
    dump of 11 MiB in parts, as the uploader does, and remove it. Exit 1 if anything failed; a warning alone does not.

    With S3_REPLICA_BUCKET the replica goes through the same checks.

    Run it in the uploader's container: it looks with that container's eyes. It changes nothing that it does not undo.
    No check takes longer than ten seconds, the upload a minute, whatever hangs.
    """
    root = volume.dump_root.rstrip("/") or "/"
    if store_only:
        folder = tempfile.TemporaryDirectory(prefix="dumpagent-doctor-")
        state_dir = folder.name
    else:
        if is_missing(root):  # what stands there in its place is a finding: nothing is mounted
            require_directory(root, "DUMP_ROOT")
        state_dir = remembering.state_dir or f"{root}/.dumpagent"
    quiet = log_to(None, Logging(log_level="error"))
    store = open_store(s3, tell=quiet, stop=threading.Event())
    place = dataclasses.replace(place, node_name=place.node_name or socket.gethostname())
    patient = Patient(
        root=root, state_dir=state_dir, runtime_dir=runtime.runtime_dir, place=place, prefix=s3.prefix,
        endpoint_url=s3.endpoint_url, ca_file=ca_file(),
        packed=compressing.compression == "gzip", storage_class=s3.storage_class, quiet_s=watching.file_stable_time_s,
        rules=FileRules(Globs(watching.include), Globs(watching.exclude)),
    )  # fmt: skip
    pods = None if store_only else pods_of(place.node_name, root)
    doctor = Doctor(
        patient, store, find_credentials=find_credentials, profile=lambda: store.profile, list_pods=pods
    )
    examination = doctor.examine_store() if store_only else doctor.examine()
    if replica.bucket:
        examination = itertools.chain(examination, _examine_replica(replica, patient))
    if as_json:
        findings = []
        for finding in examination:
            findings.append(finding)
            click.echo(json.dumps(printable(finding.as_line())))
    else:
        findings = collect(examination)
        show(findings)
    if store_only:
        folder.cleanup()
    sys.stdout.flush()
    # A check that hangs in the kernel must not hold up the end.
    os._exit(1 if any(finding.result is Result.FAILED for finding in findings) else 0)


def _examine_replica(replica: Replica, patient: Patient) -> Iterator[Finding]:
    """Give the findings about the replica's store."""
    store = open_store(
        replica.s3,
        tell=log_to(None, Logging(log_level="error")),
        stop=threading.Event(),
        access=replica.access,
    )
    of_replica = dataclasses.replace(
        patient,
        prefix=replica.prefix,
        endpoint_url=replica.endpoint_url,
        ca_file=ca_file(replica.access),
        storage_class=replica.storage_class,
    )
    doctor = Doctor(
        of_replica,
        store,
        find_credentials=lambda: find_credentials(replica.access),
        profile=lambda: store.profile,
    )
    for finding in doctor.examine_store():
        yield dataclasses.replace(
            finding,
            name=f"replica {finding.name}",
            seen=for_replica(finding.seen),
            fix=for_replica(finding.fix),
        )
