"""Goes through everything that must hold for a dump to reach the store, and says what does not and how to mend it."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import enum
import errno
import http.client
import os
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from inotify_simple import INotify, flags

from dumpagent import check
from dumpagent.errors import DumpagentError
from dumpagent.model import State
from dumpagent.settings import GIB, Place
from dumpagent.store.credentials import Credentials
from dumpagent.store.protocol import LookRefused, Store
from dumpagent.upload.canary import canary
from dumpagent.upload.judge import CompletenessJudge
from dumpagent.upload.ledger import Ledger, receipts_in
from dumpagent.upload.load import Errand
from dumpagent.upload.retention import space_of
from dumpagent.upload.scan import Scan, scan
from dumpagent.upload.send import Sender

_PATIENCE_S = 10.0
_SKEW_REFUSED_S = 900.0  # Source: S3 API Reference, RequestTimeTooSkewed: 15 minutes
_SKEW_TOLD_S = 60.0
_SLOW_S = 5.0
_CREDENTIALS_S = 900.0
# Source: <linux/capability.h>
_CAPABILITIES = {
    "DAC_OVERRIDE": (1, "rename and delete dumps in other users' directories (CLAIM, LOCAL_KEEP)"),
    "DAC_READ_SEARCH": (2, "read dumps, which are readable by their application alone"),
    "LEASE": (28, "ask the kernel whether a JVM still writes"),
}


class Result(enum.Enum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"  # works, and a person should know
    FAILED = "failed"
    SKIPPED = "skipped"  # cannot be known, since something before it failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what came of it, what was seen, and what to do."""

    name: str
    result: Result
    seen: str
    fix: str = ""


class Hung(Exception):
    """No answer within the patience of the doctor."""


@dataclass(frozen=True)
class Patient:
    """What is looked at."""

    root: str
    state_dir: str
    runtime_dir: str
    place: Place
    prefix: str
    endpoint_url: str  # empty: AWS
    ca_bundle: str
    storage_class: str
    quiet_s: float


class Doctor:
    """Runs the checks in the order in which a dump meets what they check; none of them can hang for long."""

    def __init__(
        self,
        patient: Patient,
        store: Store,
        *,
        find_credentials: Callable[[], Credentials],
        profile: Callable[[], tuple[bool | None, str | None]] = lambda: (None, None),
        now: Callable[[], float] = time.time,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`profile` gives whether the store took the storage class, and which digest it verifies; None: not known."""
        self._patient, self._store, self._find_credentials, self._profile = (
            patient,
            store,
            find_credentials,
            profile,
        )
        self._now, self._patience_s = now, patience_s

    def examine(self) -> Iterator[Finding]:
        """Give the findings, each as soon as it is there."""
        answers = yield from self._volume()
        yield self._daemon()
        yield from self._capabilities()
        yield from self._mount()
        if answers:
            yield from self._guarded("volume writes", self._writes)
            yield from self._guarded("space", self._space)
            yield from self._guarded("dumps", self._dumps)
            yield from self._guarded("wake-ups", self._wakeups)
        reachable = True
        for finding in self._network():
            reachable = reachable and finding.result is not Result.FAILED
            yield finding
        yield from self._guarded("credentials", self._credentials)
        if not reachable:
            yield Finding("bucket", Result.SKIPPED, "the store cannot be reached")
            return
        usable = yield from self._bucket()
        if usable and answers:
            yield from self._guarded("canary", self._canary)

    def _guarded(self, name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """Run a check that may hang or fail in ways of its own."""
        try:
            yield from self._within(lambda: list(look()))
        except Hung:
            yield Finding(
                name,
                Result.FAILED,
                f"no answer within {self._patience_s:g} s",
                "the volume or the store hangs",
            )
        except DumpagentError as error:
            yield Finding(name, Result.FAILED, str(error), error.hint)
        except OSError as error:
            yield Finding(
                name, Result.FAILED, f"{error.filename or ''} {error.strerror or error}".strip(), _fix(error)
            )

    def _within(self, call: Callable[[], list[Finding]]) -> list[Finding]:
        """Give what `call` gives; in a thread, since a hung file system lets go of nobody. Raises Hung."""
        outcome: list[list[Finding] | BaseException] = []

        def work() -> None:
            try:
                outcome.append(call())
            except BaseException as error:  # noqa: BLE001 - raised again below
                outcome.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(self._patience_s)
        if not outcome:
            raise Hung
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    # -- this container -----------------------------------------------------------------------------------------

    def _volume(self) -> Generator[Finding, None, bool]:
        root = self._patient.root
        findings = list(self._guarded("volume", lambda: self._look(root)))
        yield from findings
        return findings[-1].result is Result.OK

    def _look(self, root: str) -> Iterator[Finding]:
        os.listdir(root)
        yield Finding("volume", Result.OK, f"{root} can be listed")

    def _daemon(self) -> Finding:
        why = check.problem("live", self._patient.runtime_dir) or self._killed()
        if not why:
            return Finding("daemon", Result.OK, "its loop turns")
        return Finding(
            "daemon", Result.WARNING, why, "is this its container? see `kubectl logs -p` for its end"
        )

    def _killed(self) -> str:
        """Say so if the daemon that left the heartbeat is gone: its last word is believed for a while."""
        for mode in ("mount", "upload"):
            try:
                with open(f"{self._patient.runtime_dir}/{mode}.heartbeat", encoding="utf-8") as file:
                    pid = next(line.split()[1] for line in file if line.startswith("pid "))
                os.stat(f"/proc/{pid}")
            except FileNotFoundError as error:
                if str(error.filename).startswith("/proc/"):
                    return f"process {pid}, which left the last heartbeat, was killed"
            except (OSError, StopIteration, IndexError):
                continue
        return ""

    def _capabilities(self) -> Iterator[Finding]:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
        missing = [
            f"{name} (to {why})" for name, (bit, why) in _CAPABILITIES.items() if not effective >> bit & 1
        ]
        if missing:
            yield Finding(
                "rights", Result.FAILED, "missing: " + "; ".join(missing),
                "run as uid 0 and add these capabilities to securityContext.capabilities.add; see docs/security.md",
            )  # fmt: skip
        else:
            yield Finding(
                "rights", Result.OK, "other users' 0600 files can be read, renamed and asked for writers"
            )

    def _mount(self) -> Iterator[Finding]:
        root = os.path.join(
            os.path.realpath(os.path.dirname(self._patient.root)), os.path.basename(self._patient.root)
        )
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ") for line in file]
        here = [mount for mount in mounts if mount[4] == root]
        above = max(
            (m for m in mounts if root.startswith(m[4].rstrip("/") + "/")),
            key=lambda m: len(m[4]),
            default=None,
        )
        if not here:
            yield Finding(
                "mount", Result.FAILED, f"nothing is mounted at {root}: dumps lie on this container's or the node's disk",
                "see the manager's log (dump-volume-manager); DUMP_ROOT must be where it mounts",
            )  # fmt: skip
        elif "ro" in here[-1][5].split(","):
            yield Finding(
                "mount",
                Result.WARNING,
                f"{root} is mounted read-only here",
                "CLAIM and LOCAL_KEEP need it writable: remove readOnly",
            )
        else:
            yield Finding(
                "mount", Result.OK, f"{root} shows {here[-1][3]} of a {here[-1][here[-1].index('-') + 1]}"
            )
        propagates = above is not None and any(
            word.startswith(("master:", "shared:")) for word in above[6 : above.index("-")]
        )
        if propagates:
            yield Finding("propagation", Result.OK, "a mount that is made anew will be seen")
        else:
            yield Finding(
                "propagation", Result.WARNING, f"the mount above {root} receives no mounts: after a loss the old volume stays here",
                "mount the parent (hostPath /mnt), not DUMP_ROOT itself, with mountPropagation: HostToContainer",
            )  # fmt: skip

    def _writes(self) -> Iterator[Finding]:
        path = f"{self._patient.state_dir}/doctor-{uuid.uuid4().hex}"
        os.makedirs(self._patient.state_dir, mode=0o700, exist_ok=True)
        began = time.monotonic()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(path)
        yield Finding("volume writes", Result.OK, f"4 KiB in {time.monotonic() - began:.3f} s")

    def _scan(self) -> Scan:
        return scan(self._patient.root, skip=frozenset({self._patient.state_dir}))

    def _space(self) -> Iterator[Finding]:
        space = space_of(self._patient.root)
        largest = self._largest_dump_bytes()
        seen = f"{space.free_bytes / GIB:.1f} of {space.total_bytes / GIB:.1f} GiB free; " + (
            f"the largest dump seen had {largest / GIB:.2f} GiB" if largest else "no dump was seen yet"
        )
        # JDK 22 and later write a dump in parts first, and merge them.
        if space.free_bytes < 2 * largest or space.free_percent < 5:
            yield Finding(
                "space",
                Result.FAILED,
                seen,
                f"keep {2 * largest / GIB:.2f} GiB free, twice the largest dump, which JDK 22+ needs while it writes: "
                "enlarge the claim, or let LOCAL_KEEP delete stored dumps",
            )
        else:
            yield Finding("space", Result.OK, seen)

    def _largest_dump_bytes(self) -> int:
        """Give the size of the largest dump that lies here or has a receipt: what was big once comes again."""
        receipts = receipts_in(self._patient.state_dir, store=self._store.name)
        sizes = [receipt.identity.size_bytes for receipt in receipts]
        return max([*sizes, *(dump.size_bytes for dump in self._scan().dumps)], default=0)

    def _dumps(self) -> Iterator[Finding]:
        found = self._scan()
        if found.unreadable:
            path, reason = next(iter(found.unreadable.items()))
            yield Finding(
                "dumps",
                Result.FAILED,
                f"{len(found.unreadable)} paths cannot be looked at, such as {path}: {reason}",
                "give the agent DAC_READ_SEARCH; mend the file system",
            )
        judge = CompletenessJudge(quiet_s=self._patient.quiet_s)
        states = []
        for dump in found.dumps[-20:]:
            with contextlib.suppress(OSError):
                states.append((judge.judge(dump), dump))
        cut = [(verdict, dump) for verdict, dump in states if verdict.state is State.TRUNCATED]
        if cut:
            verdict, dump = cut[-1]
            yield Finding(
                "dumps",
                Result.WARNING,
                f"{len(cut)} of the newest {len(states)} are truncated, such as {dump.relpath}: {verdict.reason}",
                "give JVMs time to write (liveness probe, grace period) and the volume room",
            )
        elif not found.unreadable:
            yield Finding(
                "dumps",
                Result.OK,
                f"{len(found.dumps)} on the volume, none of the newest {len(states)} truncated",
            )

    def _wakeups(self) -> Iterator[Finding]:
        try:
            inotify = INotify(nonblocking=True)
        except OSError as error:
            yield Finding(
                "wake-ups",
                Result.WARNING,
                f"no inotify: {error.strerror}",
                "raise fs.inotify.max_user_instances on the node; until then the scan finds dumps",
            )
            return
        try:
            watched = 0
            for path, _, _ in os.walk(self._patient.root):
                inotify.add_watch(path, flags.CLOSE_WRITE | flags.ONLYDIR)
                watched += 1
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            yield Finding(
                "wake-ups",
                Result.WARNING,
                f"the limit of inotify watches is used up after {watched} directories",
                "raise fs.inotify.max_user_watches on the node; until then the scan finds dumps",
            )
            return
        finally:
            inotify.close()
        yield Finding("wake-ups", Result.OK, f"{watched} directories can be watched")

    # -- the store ----------------------------------------------------------------------------------------------

    def _network(self) -> Iterator[Finding]:
        if not self._patient.endpoint_url:
            yield Finding("network", Result.SKIPPED, "AWS finds its own endpoint; the bucket check tells")
            return
        if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
            yield Finding("network", Result.SKIPPED, "a proxy is set; the bucket check tells")
            return
        url = urllib.parse.urlsplit(self._patient.endpoint_url)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = sorted(
                {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            )
        except OSError as error:
            yield Finding(
                "DNS", Result.FAILED, f"{host}: {error.strerror}", "correct S3_ENDPOINT_URL, or the pod's DNS"
            )
            return
        yield Finding("DNS", Result.OK, f"{host} is {', '.join(addresses[:3])}")
        yield from self._connection(url.scheme == "https", host, port)

    def _connection(self, tls: bool, host: str, port: int) -> Iterator[Finding]:
        name = "TLS" if tls else "connection"
        context = ssl.create_default_context(cafile=self._patient.ca_bundle or None) if tls else None
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._patience_s, context=context)
            if context
            else http.client.HTTPConnection(host, port, timeout=self._patience_s)
        )
        began = time.monotonic()
        try:
            connection.request("HEAD", "/")
            answer = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            yield Finding(
                name,
                Result.FAILED,
                f"{host}: {error.verify_message}",
                "set AWS_CA_BUNDLE to a file with the store's CA; the host name must be in the certificate",
            )
            return
        except (OSError, http.client.HTTPException) as error:
            yield Finding(
                name,
                Result.FAILED,
                f"{host}:{port}: {getattr(error, 'strerror', None) or error or type(error).__name__}",
                "check S3_ENDPOINT_URL (scheme, port), network policies and the store itself",
            )
            return
        finally:
            connection.close()
        took_s = time.monotonic() - began
        slow = took_s > _SLOW_S
        yield Finding(
            name,
            Result.WARNING if slow else Result.OK,
            f"{host}:{port} answered in {took_s:.2f} s",
            "the store or the line is slow: uploads will be, too" if slow else "",
        )
        yield self._clock(answer.getheader("Date"))

    def _clock(self, date: str | None) -> Finding:
        try:
            skew_s = self._now() - email.utils.parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return Finding("clock", Result.SKIPPED, "the store tells no time")
        seen = f"this node is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the store"
        fix = "mend NTP on the node (chronyc tracking): the store refuses requests from 15 minutes on"
        if abs(skew_s) >= _SKEW_REFUSED_S:
            return Finding("clock", Result.FAILED, seen, fix)
        if abs(skew_s) >= _SKEW_TOLD_S:
            return Finding("clock", Result.WARNING, seen, fix)
        return Finding("clock", Result.OK, seen)

    def _credentials(self) -> Iterator[Finding]:
        found = self._find_credentials()
        if found.expires_in_s is None:
            yield Finding("credentials", Result.OK, f"from {found.source}, without an end")
        elif found.expires_in_s < _CREDENTIALS_S and found.source == "env":
            yield Finding(
                "credentials",
                Result.WARNING,
                f"from {found.source}, end in {found.expires_in_s:.0f} s",
                "temporary keys in variables are never renewed: use a role (AWS_ROLE_ARN) or long-lived keys",
            )
        else:
            yield Finding(
                "credentials", Result.OK, f"from {found.source}, renewed in {found.expires_in_s:.0f} s"
            )

    def _bucket(self) -> Generator[Finding, None, bool]:
        began = time.monotonic()
        try:
            self._store.check()
        except LookRefused:
            yield Finding(
                "bucket",
                Result.WARNING,
                f"{self._store.name}: may not be listed",
                "s3:ListBucket lets dumpagent find what it has stored after its state was lost",
            )
        except DumpagentError as error:
            yield Finding("bucket", Result.FAILED, str(error), error.hint)
            return False
        else:
            took_s = time.monotonic() - began
            slow = took_s > _SLOW_S
            yield Finding(
                "bucket",
                Result.WARNING if slow else Result.OK,
                f"{self._store.name} answered in {took_s:.2f} s",
                "the store is slow" if slow else "",
            )
        return True

    def _canary(self) -> Iterator[Finding]:
        """Bring a dump of our own the whole way: judge, fingerprint, send, confirm, read back, list, remove."""
        folder = f"{self._patient.state_dir}/doctor-{uuid.uuid4().hex}"
        os.makedirs(folder, mode=0o700)
        try:
            yield from self._round_trip(folder)
        finally:
            for directory, _, names in os.walk(folder, topdown=False):
                for name in names:
                    os.unlink(f"{directory}/{name}")
                os.rmdir(directory)

    def _round_trip(self, folder: str) -> Iterator[Finding]:
        content = canary(int(self._now() * 1000))
        with open(f"{folder}/canary.hprof", "xb") as file:
            file.write(content)
        (dump,) = scan(folder).dumps
        verdict = CompletenessJudge(quiet_s=0).judge(dump)
        if verdict.state is not State.COMPLETE:
            yield Finding(
                "canary",
                Result.FAILED,
                f"a whole dump was judged {verdict.state.value}: {verdict.reason}",
                "please report this",
            )
            return
        ledger = Ledger(f"{folder}/state", store=self._store.name)
        ledger.load()
        parts = [self._patient.prefix.strip("/"), ".dumpagent-doctor", os.path.basename(folder)]
        place = dataclasses.replace(self._patient.place, node_name=self._patient.place.node_name or "doctor")
        sender = Sender(self._store, ledger, place, prefix="/".join(part for part in parts if part))
        began = time.monotonic()
        key = sender.bring(Errand(dump, verdict)).receipt.key
        yield Finding("put", Result.OK, f"{len(content)} bytes as {key} in {time.monotonic() - began:.2f} s")
        yield from self._right("head", "s3:GetObject", lambda: self._store.look(key) is not None)
        yield from self._right("get", "s3:GetObject", lambda: b"".join(self._store.read(key)) == content)
        yield from self._right(
            "list", "s3:ListBucket", lambda: any(found.key == key for found in self._store.objects(key))
        )
        yield from self._right("abort", "s3:AbortMultipartUpload", lambda: self._multipart(f"{key}.parts"))
        yield from self._right("delete", "s3:DeleteObject", lambda: self._delete(key))
        yield from self._ways()

    def _right(self, name: str, action: str, works: Callable[[], bool]) -> Iterator[Finding]:
        try:
            as_it_should = works()
        except DumpagentError as error:
            yield Finding(name, Result.FAILED, str(error), error.hint or f"give the credentials {action}")
        else:
            yield Finding(name, Result.OK, "works") if as_it_should else Finding(
                name, Result.FAILED, "the store answered with something else than was stored",
                "look for a proxy or a second store behind S3_ENDPOINT_URL",
            )  # fmt: skip

    def _multipart(self, key: str) -> bool:
        upload_id = self._store.begin(key, {})
        self._store.abort(key, upload_id)
        return True

    def _delete(self, key: str) -> bool:
        self._store.delete(key)
        return True

    def _ways(self) -> Iterator[Finding]:
        storage_class, digest = self._profile()
        if storage_class is False:
            yield Finding(
                "storage class",
                Result.WARNING,
                f"the store does not know {self._patient.storage_class}; its default is used",
                "set S3_STORAGE_CLASS to one of the store's classes, or to STANDARD",
            )
        else:
            yield Finding("storage class", Result.OK, f"{self._patient.storage_class} is taken")
        if digest == "none":
            yield Finding(
                "digest",
                Result.WARNING,
                "the store verifies no digest of what it receives",
                "lengths are confirmed all the same; `dumpagent verify` reads back",
            )
        else:
            yield Finding("digest", Result.OK, f"{digest or 'not tried'}: damage on the way is noticed")


def _fix(error: OSError) -> str:
    return {
        errno.ENOSPC: "the volume is full: delete or move dumps, enlarge the claim",
        errno.EDQUOT: "the quota is used up: raise it",
        errno.EROFS: "the volume is read-only: look at the storage behind the claim (after a file system error it must be mounted anew)",
        errno.ENOENT: "is the volume mounted? DUMP_ROOT must be the directory that the JVMs write to",
        errno.EACCES: "run as uid 0 with DAC_READ_SEARCH and DAC_OVERRIDE; on OpenShift see the SELinux level of the manifests",
        errno.ENOTCONN: "the volume's file system is gone: restart what mounts it",
        errno.ESTALE: "the volume was exported anew: the manager has to mount it again",
        errno.EIO: "the storage behind the claim fails",
    }.get(error.errno or 0, "look at the storage behind the claim")  # fmt: skip
