"""Every event the agent can tell of: its name in the log, its level, and what it means to the person reading it.

Names are past tense. Fields are the same everywhere: path, key, size_bytes, seconds, error, hint, reason, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that can happen. `level` is debug, info, warning or error; `meaning` stands in the docs."""

    name: str
    level: str
    meaning: str


class Tell(Protocol):
    """Tells everybody who listens that `event` happened, with its fields. Never raises, never waits for a listener."""

    def __call__(self, event: Event, /, **fields: object) -> None: ...


CATALOGUE: dict[str, Event] = {}


def _event(name: str, level: str, meaning: str) -> Event:
    CATALOGUE[name] = event = Event(name, level, meaning)
    return event


# Both daemons
AGENT_STARTED = _event("agent_started", "info", "The daemon runs; its settings stand beside it.")
AGENT_STOPPED = _event("agent_stopped", "info", "The daemon ended in good order after SIGTERM or SIGINT.")
AGENT_KILLED = _event(
    "agent_killed",
    "warning",
    "The daemon that ran in this pod before did not end in good order; this one goes on where it was cut.",
)

LIBRARY_WARNED = _event(
    "library_warned",
    "warning",
    "A library (the S3 SDK, its HTTP client) warned of something; told once of each kind.",
)

# Metrics and notifications
METRICS_SERVED = _event(
    "metrics_served", "info", "/metrics, /healthz and /readyz are answered on METRICS_PORT."
)
NOTIFY_FAILED = _event(
    "notify_failed", "warning", "NOTIFY_URL takes no message; what is to be told waits in the outbox."
)
NOTIFY_RECOVERED = _event("notify_recovered", "info", "NOTIFY_URL takes messages again.")
POD_EVENT_MADE = _event(
    "pod_event_made", "debug", "POD_EVENTS: the pod that wrote a stored dump has an Event of it."
)
POD_EVENT_SKIPPED = _event(
    "pod_event_skipped", "debug", "POD_EVENTS: no Event, since it is not certain which pod wrote the dump."
)
POD_EVENT_FAILED = _event(
    "pod_event_failed",
    "warning",
    "POD_EVENTS: the API server takes no Event; it is tried again for some minutes, then left out.",
)
POD_EVENT_RECOVERED = _event("pod_event_recovered", "info", "POD_EVENTS: Events can be made again.")
STORE_CHECKED = _event(
    "store_checked", "debug", "The store was asked, without a dump, whether it can be used."
)
SCAN_FINISHED = _event(
    "scan_finished", "debug", "One scan of the dump directory ended; what it took and found."
)
SPACE_MEASURED = _event(
    "space_measured", "debug", "How much space the volume has, and how much of it is free."
)
ATTEMPT_FAILED = _event(
    "attempt_failed",
    "debug",
    "One attempt to store a dump failed; the first of a row is told as a trouble too.",
)

# Upload mode
DUMP_FOUND = _event("dump_found", "info", "A heap dump was seen for the first time.")
DUMP_WAITING = _event("dump_waiting", "info", "`--once` leaves this dump for later, and says why.")
DUMP_CLAIMED = _event(
    "dump_claimed", "info", "The dump was renamed, so that the JVM's next dump finds its name free."
)
CLAIM_FAILED = _event(
    "claim_failed",
    "warning",
    "The dump could not be renamed; it is uploaded under the name that its JVM needs again.",
)
CLAIM_RECOVERED = _event("claim_recovered", "info", "Dumps can be renamed again.")
DUMP_UPLOADED = _event("dump_uploaded", "info", "The store holds the dump and has confirmed it.")
DUMP_ALREADY_STORED = _event(
    "dump_already_stored", "info", "The store held this very dump before; nothing was sent."
)
DUMP_WOULD_UPLOAD = _event(
    "dump_would_upload", "info", "`--dry-run`: what an upload would do with this dump."
)
DUMP_CHANGED = _event(
    "dump_changed", "info", "The dump was written to while it was uploaded; it is judged again."
)
DUMP_GONE = _event(
    "dump_gone", "warning", "The dump vanished from the disk before it was stored: it is lost."
)
UPLOAD_FAILED = _event(
    "upload_failed", "error", "This dump could not be stored; it stays pending and is tried again."
)
UPLOAD_RECOVERED = _event("upload_recovered", "info", "A dump that could not be stored before is stored now.")
STORE_ANSWERED = _event("store_answered", "info", "At the start: the bucket is there and lets us in.")
STORE_FAILED = _event(
    "store_failed", "error", "The store cannot be used; all dumps wait and are tried again."
)
STORE_RECOVERED = _event("store_recovered", "info", "The store can be used again.")
STORE_LEARNT = _event(
    "store_learnt", "info", "A property of the store was found out by trying; it is remembered."
)
STORAGE_CLASS_UNKNOWN = _event(
    "storage_class_unknown", "warning", "The store does not know S3_STORAGE_CLASS; its own default is used."
)
STORE_UNVERIFYING = _event(
    "store_unverifying",
    "warning",
    "The store takes bodies with a wrong digest: damage on the way goes unnoticed there.",
)
STORE_UNCONDITIONAL = _event(
    "store_unconditional",
    "warning",
    "The store knows no conditional writes: a key is looked at before it is written.",
)
SCAN_FAILED = _event(
    "scan_failed", "error", "Part of the dump directory could not be looked at; dumps may lie there."
)
SCAN_RECOVERED = _event("scan_recovered", "info", "All of the dump directory can be looked at again.")
STATE_UNWRITABLE = _event(
    "state_unwritable",
    "warning",
    "Receipts cannot be written; after a restart the store is asked about each dump.",
)
STATE_WRITABLE = _event("state_writable", "info", "Receipts can be written again.")
RECEIPTS_PRUNED = _event(
    "receipts_pruned", "info", "Receipts of dumps that left the disk long ago were dropped."
)
LEFTOVER_ABORTED = _event(
    "leftover_aborted",
    "info",
    "A multipart upload of this node that nobody will finish was aborted: its dump is gone, or a kill cut it off unnoted.",
)
DUMP_DELETED = _event(
    "dump_deleted",
    "info",
    "A dump that the store had just confirmed was deleted from the volume (LOCAL_KEEP).",
)
DELETE_FAILED = _event(
    "delete_failed", "warning", "Confirmed dumps cannot be deleted from the volume; they stay."
)
DELETE_RECOVERED = _event("delete_recovered", "info", "Confirmed dumps can be deleted again.")
OBJECT_MISSING = _event(
    "object_missing", "error", "The store no longer holds a dump that it had confirmed; it is uploaded again."
)
VOLUME_FULL = _event(
    "volume_full",
    "error",
    "Less than LOCAL_MIN_FREE is free and nothing may be deleted; the next dump may not fit.",
)
VOLUME_ROOMY = _event("volume_roomy", "info", "There is room on the volume again.")
AGENT_FAULTY = _event(
    "agent_faulty", "error", "A fault of the agent's own; please report the trace. Other dumps go on."
)
PASS_FINISHED = _event("pass_finished", "info", "`--once` is done; how many dumps took which way.")
PASS_INTERRUPTED = _event("pass_interrupted", "warning", "`--once` was stopped before it was done.")
OTHER_AGENT_FOUND = _event(
    "other_agent_found", "error", "Another agent works on this volume; this one waits for its end."
)
OTHER_AGENT_GONE = _event("other_agent_gone", "info", "The other agent is gone; this one begins.")

# Wake-ups from the kernel (inotify); behind each of these the scan every WATCH_INTERVAL finds what they miss
WATCH_UNAVAILABLE = _event(
    "watch_unavailable",
    "warning",
    "There are no wake-ups: dumps are found by the scan every WATCH_INTERVAL alone.",
)
WATCH_LIMITED = _event(
    "watch_limited", "warning", "Some directories send no wake-ups: the limit of watches is used up."
)
WATCH_OVERFLOWED = _event(
    "watch_overflowed",
    "warning",
    "Wake-ups came faster than they were read and some are lost: everything is scanned.",
)
WATCH_REMOTE = _event(
    "watch_remote",
    "info",
    "The volume is on a network: what other machines write there sends no wake-ups here.",
)
# Mount mode
MOUNT_ADOPTED = _event(
    "mount_adopted", "info", "At the start the target showed the volume already; it was kept."
)
MOUNT_BOUND = _event("mount_bound", "info", "The volume was bound to the target.")
MOUNT_LOST = _event(
    "mount_lost", "warning", "Nothing is mounted at the target: dumps land on the node's own disk."
)
MOUNT_WRONG = _event("mount_wrong", "warning", "Something other than the volume is mounted at the target.")
MOUNT_STACKED = _event("mount_stacked", "warning", "The volume is mounted at the target more than once.")
MOUNT_READ_ONLY = _event("mount_read_only", "error", "The mount at the target is read-only: dumps fail.")
MOUNT_RESTORED = _event("mount_restored", "info", "The target shows the volume again.")
REMOUNT_FAILED = _event(
    "remount_failed", "error", "The target cannot be made to show the volume; it is tried again."
)
REMOUNT_RECOVERED = _event("remount_recovered", "info", "Mounting works again.")
MOUNT_UNSHARED = _event(
    "mount_unshared",
    "warning",
    "The target is not in a shared mount: no other container will see the volume there.",
)
MOUNT_SET_ASIDE = _event(
    "mount_set_aside",
    "error",
    "The volume takes no writes and was taken off the target: dumps land on the node's own disk until it does.",
)
MOUNT_RELEASED = _event("mount_released", "info", "UNMOUNT_ON_EXIT: the target was unmounted.")
TABLE_UNREADABLE = _event(
    "table_unreadable", "error", "What is mounted cannot be known; nothing is changed by it."
)
TABLE_READABLE = _event("table_readable", "info", "What is mounted is known again.")
WRITE_TESTED = _event(
    "write_tested", "debug", "One write test of the volume ended, with its outcome and time."
)
WRITE_PROVEN = _event("write_proven", "info", "A write through the target reached the volume; .ready stands.")
BACKEND_FULL = _event(
    "backend_full", "error", "The volume is full: dumps will be cut off. .ready is withdrawn."
)
BACKEND_READ_ONLY = _event(
    "backend_read_only", "error", "The volume's file system refuses writes as read-only."
)
BACKEND_REFUSING = _event(
    "backend_refusing", "error", "The volume works, but this agent may not write to it."
)
BACKEND_DEAD = _event("backend_dead", "error", "The volume answers with an error that means it is gone.")
BACKEND_MISSING = _event("backend_missing", "error", "The volume's directory is not there.")
BACKEND_STALE = _event(
    "backend_stale", "warning", "The volume works, but the target shows an old or another one."
)
BACKEND_HUNG = _event("backend_hung", "error", "The volume does not answer; who writes to it waits too.")
BACKEND_UNKNOWN = _event(
    "backend_unknown", "error", "The write test ended in a way that says nothing certain."
)
BACKEND_RECOVERED = _event("backend_recovered", "info", "Writes reach the volume again.")
FILE_RESCUED = _event(
    "file_rescued",
    "info",
    "A file from the node's own disk, written while the mount was away, is in the volume now.",
)
RESCUE_FAILED = _event(
    "rescue_failed", "error", "A file on the node's own disk cannot be moved into the volume yet."
)
RESCUE_RECOVERED = _event("rescue_recovered", "info", "Files can be rescued again.")
STALE_READY_REMOVED = _event(
    "stale_ready_removed", "warning", "The node's own directory held a .ready, which said what was not so."
)
CHILD_REFUSED = _event(
    "child_refused",
    "error",
    "No process can be had for the write test or the rescue: raise the pod's pids limit.",
)
CHILD_STARTED = _event("child_started", "info", "Processes can be had again.")
HEARTBEAT_FAILED = _event(
    "heartbeat_failed", "error", "RUNTIME_DIR cannot be written: `dumpagent check` will fail."
)
HEARTBEAT_RECOVERED = _event("heartbeat_recovered", "info", "RUNTIME_DIR can be written again.")
