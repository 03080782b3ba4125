"""Every setting of the agent, with its variable, unit, range, default and reason. Only the command line fills them in."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dumpagent import bandwidth
from dumpagent.setting import Kind, setting
from dumpagent.store_settings import S3 as S3
from dumpagent.store_settings import Replica as Replica


class Keep(enum.Enum):
    """Whether a dump that the store has confirmed stays on the volume."""

    ALWAYS = "always"
    WHILE_SPACE = "while-space"
    UNTIL_UPLOADED = "until-uploaded"


@dataclass(frozen=True, kw_only=True)
class Logging:
    """How the agent speaks."""

    log_format: str = setting(
        "auto", "LOG_FORMAT", Kind.CHOICE, "json, or console for people; auto is console on a terminal and json elsewhere",
        choices=("auto", "json", "console"),
    )  # fmt: skip
    log_level: str = setting(
        "info",
        "LOG_LEVEL",
        Kind.CHOICE,
        "the least level that is printed",
        choices=("debug", "info", "warning", "error"),
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this agent runs: goes into metadata, keys and metrics."""

    node_name: str = setting(
        "", "NODE_NAME", Kind.TEXT, "the node (downward API: spec.nodeName); empty: the host name"
    )
    pod_name: str = setting(
        "", "POD_NAME", Kind.TEXT, "this pod (downward API: metadata.name); empty: the host name"
    )
    pod_namespace: str = setting("", "POD_NAMESPACE", Kind.TEXT, "this pod's namespace (downward API)")
    cluster_name: str = setting(
        "",
        "CLUSTER_NAME",
        Kind.TEXT,
        "the cluster, for buckets that several share: told in metadata, messages and `ls`",
    )
    owner_pattern: str = setting(
        "",
        "OWNER_PATTERN",
        Kind.OWNER_PATTERN,
        "whose dump it is in other layouts: a regular expression for a dump's whole path below DUMP_ROOT with the groups namespace, workload, "
        "pod; empty: <namespace>_<pod>/..., <namespace>_<pod>.hprof, <namespace>/<workload>/...",
    )


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What `dumpagent prune` leaves in the bucket; the first dump of each workload always stays."""

    keep_last: int = setting(
        3, "PRUNE_KEEP_LAST", Kind.COUNT, "the last so many dumps of each workload stay", low=1, high=100_000
    )
    keep_largest: int = setting(
        1,
        "PRUNE_KEEP_LARGEST",
        Kind.COUNT,
        "the largest so many dumps of each workload stay",
        low=0,
        high=100_000,
    )
    keep_days: float = setting(
        30.0, "PRUNE_KEEP_DAYS", Kind.DAYS, "dumps that are younger stay", low=0, high=36_500
    )


@dataclass(frozen=True, kw_only=True)
class Analyzing:
    """What `dumpagent analyze --pending` takes on, beside the bucket."""

    deadline_s: float = setting(
        3600.0, "ANALYZE_DEADLINE", Kind.DURATION,
        "the job takes no dump after so long, and ends the one that it has; its claims end then too",
        low=10, high=604800,
    )  # fmt: skip
    max_age_days: float = setting(
        30.0,
        "ANALYZE_MAX_AGE",
        Kind.DAYS,
        "older dumps are left alone; 0: none is too old",
        low=0,
        high=36_500,
    )


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Where the dumps lie, as `upload`, `check` and `wait` see them."""

    dump_root: str = setting(
        "/mnt/dump", "DUMP_ROOT", Kind.DIRECTORY, "the directory that JVMs write their dumps below"
    )


@dataclass(frozen=True, kw_only=True)
class Watching:
    """When a dump is looked for and when it is taken."""

    watch_interval_s: float = setting(
        60.0, "WATCH_INTERVAL", Kind.DURATION, "time between full scans, which stand behind the event wake-ups",
        low=0.1, high=86400,
    )  # fmt: skip
    file_stable_time_s: float = setting(
        120.0, "FILE_STABLE_TIME", Kind.DURATION,
        "how long size and time of a file must have stood still when its completeness cannot be known",
        low=0, high=86400,
    )  # fmt: skip
    claim: bool = setting(
        True, "CLAIM", Kind.SWITCH,
        "rename a finished dump to <stem>.<dump time>.hprof, so that the JVM's next dump finds its name free",
    )  # fmt: skip
    include: str = setting(
        "", "INCLUDE", Kind.TEXT,
        "patterns of files that are dumps whatever they begin with, as `*.dump, shop/*/heap`; a file that begins as a dump is one anyway",
    )  # fmt: skip
    exclude: str = setting(
        "", "EXCLUDE", Kind.TEXT,
        "patterns of files and directories below DUMP_ROOT that are left alone, as `scratch/*, *.old`; snapshots, lost+found and trash are anyway",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BesideDumps:
    """Which files travel with a dump: what a dying JVM leaves beside it, and what tells how it came to that."""

    companions: str = setting(
        "", "COMPANIONS", Kind.TEXT,
        "further patterns of files that travel with a dump, as `*.trace`; hs_err, replay, javacore, thread dumps, GC logs and *.jfr do anyway; "
        "off: none does",
    )  # fmt: skip
    companion_max_bytes: int = setting(
        268435456, "COMPANION_MAX_SIZE", Kind.COUNT, "a file beside a dump that has more bytes is left alone",
        low=0, high=1 << 40,
    )  # fmt: skip
    companion_max_count: int = setting(
        50, "COMPANION_MAX_COUNT", Kind.COUNT, "so many files of one directory and user travel with its dumps",
        low=0, high=10_000,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long dumps stay on the volume once the store has confirmed them. Others are never deleted."""

    local_keep: Keep = setting(
        Keep.WHILE_SPACE, "LOCAL_KEEP", Kind.CHOICE,
        "whether dumps stay on the volume once the store has confirmed them: always; while-space: the oldest go when less than "
        "LOCAL_MIN_FREE is free; until-uploaded: they go at once",
        choices=tuple(keep.value for keep in Keep), made=Keep,
    )  # fmt: skip
    local_min_free_percent: float = setting(
        30.0,
        "LOCAL_MIN_FREE",
        Kind.PERCENT,
        "how much of the volume is to be free for the next dump",
        low=0,
        high=99,
    )


@dataclass(frozen=True, kw_only=True)
class Compressing:
    """In which form dumps go to the store."""

    compression: str = setting(
        "none", "COMPRESSION", Kind.CHOICE,
        "gzip: a plain dump becomes a .hprof.gz that Eclipse MAT opens directly; less to send and to store for more CPU",
        choices=("none", "gzip"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How much of the line to the store dumps may take."""

    bandwidth_limit: bandwidth.BandwidthLimit = setting(
        bandwidth.BandwidthLimit(), "BANDWIDTH_LIMIT", Kind.BANDWIDTH,
        "what this agent may send to the store, as 10MiB/s, also by hours: `2MiB/s 08:00-18:00, 10MiB/s 18:00-22:00, none`; the first "
        "that holds at the time counts; hours are UTC, or of the zone in TZ",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Remembering:
    """What is kept on the volume about dumps that were stored."""

    state_dir: str = setting(
        "",
        "STATE_DIR",
        Kind.DIRECTORY,
        "receipts and unfinished uploads; empty: DUMP_ROOT/.dumpagent",
        may_be_empty=True,
    )
    state_retention_days: float = setting(
        7.0, "STATE_RETENTION_DAYS", Kind.DAYS, "how long the receipt of a dump that is gone from the disk is kept",
        low=0, high=3650,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where a daemon leaves word for the probes of its own container."""

    runtime_dir: str = setting(
        "/run/dumpagent", "RUNTIME_DIR", Kind.DIRECTORY,
        "where the daemon writes its verdict for `check`; a local directory (an emptyDir), never on the volume",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mounting:
    """Which directory of the volume is bound where, and how it is watched."""

    source: str = setting(
        "/pv-storage", "MOUNT_SOURCE", Kind.DIRECTORY, "the volume's directory, as this container sees it"
    )
    target: str = setting(
        "/host/mnt/dump",
        "MOUNT_TARGET",
        Kind.DIRECTORY,
        "the node's dump directory, as this container sees it",
    )
    check_interval_s: float = setting(
        30.0, "MOUNT_CHECK_INTERVAL", Kind.DURATION,
        "time between write tests of the volume, which stand behind the wake-ups of the mount table",
        low=0.05, high=3600,
    )  # fmt: skip
    hung_after_s: float = setting(
        10.0, "MOUNT_HUNG_AFTER", Kind.DURATION,
        "a write test without an answer for so long is told as a hung volume",
        low=0.05, high=3600,
    )  # fmt: skip
    quiet_s: float = setting(
        120.0, "FILE_STABLE_TIME", Kind.DURATION,
        "how long a file must have stood still before it is rescued when its writers cannot be known",
        low=0, high=86400,
    )  # fmt: skip
    unmount_on_exit: bool = setting(
        False, "UNMOUNT_ON_EXIT", Kind.SWITCH,
        "on SIGTERM remove .ready and the mount; for block volumes that only one node can attach",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Draining:
    """What SIGTERM still waits for."""

    shutdown_wait_s: float = setting(
        0.0, "SHUTDOWN_WAIT", Kind.DURATION,
        "how long SIGTERM waits at most until dumps are stored; less than the pod's grace period", low=0, high=86400,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WaitLimit:
    """How long `wait` waits."""

    timeout_s: float = setting(
        0.0, "WAIT_TIMEOUT", Kind.DURATION, "give up after so long; 0: never", low=0, high=604800
    )


@dataclass(frozen=True, kw_only=True)
class Summarising:
    """What is said of a stored dump's contents."""

    summary: str = setting(
        "auto", "SUMMARY", Kind.CHOICE,
        "auto: once a dump is stored, estimate what holds its memory, beside it as <key>.report.json, in the log and in messages; "
        "not where the container has less than 192 MiB of memory, and not with --once; always: with --once too, which then takes longer",
        choices=("auto", "always", "off"),
    )  # fmt: skip
    summary_budget_s: float = setting(
        120.0, "SUMMARY_BUDGET", Kind.DURATION,
        "CPU time that one summary may take; then it tells what it has found so far",
        low=5, high=3600,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Where Prometheus and HTTP probes ask a daemon how it is."""

    metrics_port: int = setting(
        9095, "METRICS_PORT", Kind.COUNT, "port of /metrics, /healthz and /readyz; 0: none", low=0, high=65535
    )
    metrics_address: str = setting(
        "", "METRICS_ADDRESS", Kind.TEXT, "the address to listen on; empty: all of them, IPv6 and IPv4"
    )


@dataclass(frozen=True, kw_only=True)
class StoreChecking:
    """How often a store that is not needed just now is asked whether it can be used."""

    store_check_interval_s: float = setting(
        600.0, "STORE_CHECK_INTERVAL", Kind.DURATION,
        "time between questions to the store that have nothing to do with a dump; each costs half a CPU second",
        low=1, high=86400,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Notifying:
    """Who is told of stored dumps, and of a store that stays away, beside log and metrics."""

    notify_url: str = setting(
        "", "NOTIFY_URL", Kind.URL, "a webhook that is told of every stored dump; treat it as a secret; empty: nobody",
        secret=True,
    )  # fmt: skip
    notify_format: str = setting(
        "slack", "NOTIFY_FORMAT", Kind.CHOICE,
        "slack: {\"text\": ...}, for Slack, Mattermost and their like; teams: an Adaptive Card, for Microsoft Teams; "
        "json: text and all facts; cloudevents: the same as a CloudEvent",
        choices=("slack", "teams", "json", "cloudevents"),
    )  # fmt: skip
    notify_store_after_s: float = setting(
        300.0, "NOTIFY_STORE_AFTER", Kind.DURATION, "how long the store must have been away before that is told",
        low=0, high=86400,
    )  # fmt: skip
    presign_for_s: float = setting(
        0.0, "PRESIGN_FOR", Kind.DURATION,
        "how long a link in a message fetches its dump without credentials, at most 7 days, and no longer than the agent's own credentials "
        "hold; whoever has the link can read the dump; 0 or off: no link",
        low=0, high=604800, may_be_off=True,
    )  # fmt: skip
    pod_events: bool = setting(
        False, "POD_EVENTS", Kind.SWITCH,
        "put a Kubernetes Event on the pod that wrote a stored dump, where the dump's path names it; "
        "needs a token that may get pods and create events",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemoryWatch:
    """How the memory of the node's pods is watched (`dumpagent memory-watch`)."""

    cgroup_root: str = setting(
        "/sys/fs/cgroup", "CGROUP_ROOT", Kind.DIRECTORY, "the node's cgroups, as this container sees them"
    )
    interval_s: float = setting(
        1.0, "MEMORY_WATCH_INTERVAL", Kind.DURATION,
        "time between two looks; what grows and is killed between them is seen by the kernel's counter alone",
        low=0.2, high=60,
    )  # fmt: skip
    ask_api_server: bool = setting(
        False, "MEMORY_WATCH_PODS", Kind.SWITCH,
        "ask the API server which pods of this node use the dump volume and how large their heaps are, and put an Event on "
        "a killed one; needs a token that may list pods and create events; false: every pod, by its uid",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Triggering:
    """How often and how long a running JVM may be asked for a heap dump (`dumpagent trigger`)."""

    least_interval_s: float = setting(
        900.0, "TRIGGER_INTERVAL", Kind.DURATION,
        "the least time between two requests to one pod: each stops the application for as long as its dump takes",
        low=0, high=604800,
    )  # fmt: skip
    timeout_s: float = setting(
        600.0, "TRIGGER_TIMEOUT", Kind.DURATION,
        "how long the dump's end is waited for; the JVM goes on after it",
        low=1, high=86400,
    )  # fmt: skip
