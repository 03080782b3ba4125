"""Which application wrote a dump, as far as the dump's path tells; what it does not tell is None, never a guess.

The layouts: `<namespace>_<pod>/...`, `<namespace>_<pod>.hprof`, `<namespace>/<workload>/...`, or `OWNER_PATTERN`. A file
`<namespace>_<pod>` is what a JVM writes when the pod's own directory is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dumpagent.dumps.names import is_dump_name, parse, parts_of
from dumpagent.owner_pattern import LONGEST_PATH, compile_pattern

# Source: Kubernetes, "Object Names and IDs": a namespace is an RFC 1123 label, a pod's name a subdomain. Neither can
# have an underscore, or the capital letters of the time that a claimed dump carries.
_NAMESPACE = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_POD = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_WRITER = re.compile(rf"(?P<namespace>{_NAMESPACE})_(?P<pod>{_POD})")
_NAMESPACE_FOLDER, _WORKLOAD_FOLDER = re.compile(_NAMESPACE), re.compile(_POD)
# Source: JDK heapDumper.cpp, HeapDumper::dump_heap: the name of a dump in a directory. No pod "pid1" in "java".
# A person may have put more behind it: "java_pid1.100".
_JVMS_OWN = re.compile(r"java_pid\d+(?=\.|$)")
# Source: Kubernetes apimachinery, util/rand, SafeEncodeString: the letters of generated names; a ReplicaSet's hash has
# up to ten of them, a pod's suffix five. CronJob controller: the minutes since 1970, eight digits.
_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
_OF_DEPLOYMENT = re.compile(rf"(?P<workload>.+)-{_SAFE}{{6,10}}-{_SAFE}{{5}}")
_OF_CRONJOB = re.compile(rf"(?P<workload>.+)-\d{{8}}-{_SAFE}{{5}}")
_OF_STATEFULSET = re.compile(r"(?P<workload>.+)-\d{1,4}")
_OF_DAEMONSET_OR_JOB = re.compile(rf"(?P<workload>.+)-{_SAFE}{{5}}")
# OWNER_PATTERN of this process: set once at its start, since everything that tells of a dump asks for its owner.
_pattern: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """The application that wrote a dump. `workload` is a Deployment, StatefulSet, DaemonSet, Job or CronJob."""

    namespace: str | None = None
    pod: str | None = None
    workload: str | None = None


def use_owner_pattern(text: str) -> None:
    """Let OWNER_PATTERN, a text that `compile_pattern` takes, say who wrote a dump; empty: the layouts alone."""
    global _pattern
    _pattern = compile_pattern(text) if text else None


def owner_of(relpath: str) -> Owner:
    """Say who wrote the dump at this path below the dump root.

    Where OWNER_PATTERN matches the whole path, it alone counts.
    """
    told = _pattern.fullmatch(relpath) if _pattern and len(relpath) <= LONGEST_PATH else None
    if told:
        named = told.groupdict()
        pod = named.get("pod") or None
        return Owner(named.get("namespace") or None, pod, named.get("workload") or workload_of(pod or ""))
    *folders, name = relpath.split("/")
    for folder in folders[:1]:
        if found := _WRITER.fullmatch(folder):
            return _of_pod(found["namespace"], found["pod"])
    dump = parts_of(name)
    stem = dump.bare_stem if is_dump_name(name) or not dump.suffix else ""
    if not _JVMS_OWN.match(stem) and (found := _WRITER.fullmatch(stem)):
        return _of_pod(found["namespace"], found["pod"])
    if (
        len(folders) >= 2
        and _NAMESPACE_FOLDER.fullmatch(folders[0])
        and _WORKLOAD_FOLDER.fullmatch(folders[1])
    ):
        if workload_of(folders[1]):
            return _of_pod(folders[0], folders[1])  # a subPathExpr of namespace and pod
        return Owner(folders[0], None, folders[1])
    return Owner()


def local_name(path: str) -> str:
    """Give the name of a file for the dump at `path`, so that the dumps of two pods fit in one directory.

    In its pod's own directory every JVM has the same name for its dump: the directory's name takes its place.
    """
    *folders, name = path.split("/")
    found = parse(name)
    if found and len(folders) == 1 and _WRITER.fullmatch(folders[0]) and _JVMS_OWN.match(found.stem):
        return folders[0] + _JVMS_OWN.sub("", name, count=1)
    return name


def workload_of(pod: str) -> str | None:
    """Give the workload whose controller made a pod of this name; None if the name is not a generated one.

    A name that two controllers could have made gives the first of CronJob, Deployment, StatefulSet, DaemonSet or Job.
    """
    for form in (_OF_CRONJOB, _OF_DEPLOYMENT, _OF_STATEFULSET, _OF_DAEMONSET_OR_JOB):
        if found := form.fullmatch(pod):
            return found["workload"]
    return None


def _of_pod(namespace: str, pod: str) -> Owner:
    return Owner(namespace, pod, workload_of(pod))
