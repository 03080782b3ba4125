"""The exec probe `dumpagent check`; imports `os` and `sys` alone, because it starts every few seconds.

It believes what the daemon left in RUNTIME_DIR as long as that is fresh, and looks at the mount table itself. `.ready`
is looked at last, by a forked child, and only where the daemon has just found the volume well: nothing here hangs.
"""

import os
import sys

_MAGIC = "dumpagent-heartbeat 1"  # dumpagent/probes/heartbeat.py writes it
_MODES = ("mount", "upload")
_READY_WITHIN_S = 0.5  # the kubelet's default timeout is 1 s, and a container may have a tenth of a core


def answer(words: list[str]) -> int | None:
    """Give the exit code for `dumpagent check WORDS`, or None where the full command line must answer."""
    if words not in ([], ["ready"], ["live"]):
        return None
    runtime_dir = os.environ.get("RUNTIME_DIR") or "/run/dumpagent"
    return report(words[0] if words else "ready", runtime_dir)


def report(question: str, runtime_dir: str) -> int:
    """Give 0 if the daemon of this container is `question` (ready or live), else 1 and one line on stderr."""
    why = problem(question, runtime_dir)
    if not why:
        return 0
    line = f"dumpagent check: not {question}: {why}\n"
    os.write(2, line.encode("utf-8", "backslashreplace"))
    return 1


def problem(question: str, runtime_dir: str) -> str:
    """Say what is wrong with the daemons of this container; empty if nothing is."""
    found = False
    for mode in _MODES:
        path = f"{runtime_dir}/{mode}.heartbeat"
        try:
            text = _read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        found = True
        why = _problem_of(question, path, text)
        if why:
            return f"{mode}: {why}"
    return "" if found else f"no daemon has left a heartbeat in {runtime_dir} (RUNTIME_DIR): none runs here"


def _problem_of(question: str, path: str, text: str) -> str:
    lines = text.split("\n")
    beat = {name: value for name, _, value in (line.partition(" ") for line in lines[1:])}
    try:
        beaten, good_for = float(beat["beaten"]), float(beat["good-for"])
        mode, boot, volume, verdict = beat["mode"], beat["boot"], beat["volume"], beat["verdict"]
        if lines[0] != _MAGIC:
            raise ValueError
    except (KeyError, ValueError):
        return f"{path} is not a heartbeat of this version of dumpagent"
    # Source: proc_uptime(5); seconds since boot, so a stepped wall clock does not count.
    age_s = float(_read("/proc/uptime").split(" ", 1)[0]) - beaten
    if boot != _read("/proc/sys/kernel/random/boot_id").strip() or age_s < -1:
        return "the heartbeat is from before the last boot: the daemon does not run"
    if age_s > good_for:
        return f"the daemon's loop has not turned for {age_s:.0f} s (at most {good_for:.0f} s were announced)"
    mounted = _is_mounted(volume) if volume else None
    # An uploader cannot mount: a restart would not help it, so only the loop counts there.
    if question == "live":
        return "" if mounted is not False or mode != "mount" else f"nothing is mounted at {volume}"
    if verdict != "ready":
        return beat.get("reason", "") or "the daemon does not say why"
    if mounted is False:
        return f"nothing is mounted at {volume}"
    return _problem_of_ready(volume) if mounted else ""


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _is_mounted(volume: str) -> bool:
    """Say whether the mount table has `volume`, which is written as the table writes it.

    Source: proc_pid_mountinfo(5), field 5.
    """
    for line in _read("/proc/self/mountinfo").split("\n"):
        if f" {volume} " in line and line.split(" ", 5)[4] == volume:
            return True
    return False


def _problem_of_ready(volume: str) -> str:
    """Look for `.ready`, in a child: the volume may have begun to hang since the daemon's last look."""
    path = f"{_unescape(volume)}/.ready"
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            os.closerange(0, 3)  # a child that hangs must not keep open what the kubelet reads to its end
            ready = os.stat(path, follow_symlinks=False)
            # Anybody may have made the name while it was withdrawn: it is a file of root's, or of whom root is mapped to.
            ours = ready.st_uid == 0 or ready.st_uid == os.stat(f"{_unescape(volume)}/.dumpagent").st_uid
            code = 0 if ours and ready.st_mode & 0o170000 == 0o100000 else 2
        except FileNotFoundError:
            code = 1
        except OSError as error:
            code = 3 + (error.errno or 0)
        finally:
            os._exit(code)
    until = float(_read("/proc/uptime").split(" ", 1)[0]) + _READY_WITHIN_S
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if float(_read("/proc/uptime").split(" ", 1)[0]) > until:
            os.kill(pid, 9)
            return f"{path} does not answer: the volume hangs"
        os.sched_yield()
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    if code == 1:
        return f"there is no {path}"
    return (
        f"{path}: {os.strerror(code - 3)}"
        if code > 2
        else f"{path} is not the manager's: another user made it"
    )


def _unescape(field: str) -> str:
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


if __name__ == "__main__":
    sys.exit(answer(sys.argv[1:]))
