"""`make demo`: a Java application runs out of memory, and its heap dump travels into an S3 bucket.

Everything is real but the size: a JVM, its dump, the agent, S3 requests over a socket. Ends by itself and leaves
nothing behind: all files are in one temporary folder, and the S3 server is a child that cannot outlive the demo.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.harness.environment import forget_own_settings
from tests.harness.jvm import Jdk, any_jdk, system_jdk
from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer

BUCKET = "heap-dumps"
_AGENT_TIMEOUT_S = 60
_POD = "shop_checkout-7d4f9c8b6-x2k9q"  # the pod's own directory, which `dumpagent wait` makes on a cluster


class DemoFailed(Exception):
    """A step did not show what it is there to show: the text says what happened and what to do."""


class Demo:
    """The steps, in the order of `run`; each says what it proves before it goes on."""

    def __init__(self, console: Console, folder: Path, server: StoreServer) -> None:
        self._console = console
        self._server = server
        self._folder = folder
        self._dump_root = folder / "dump"
        self._dump_root.mkdir()
        self._environment = {
            "DUMP_ROOT": str(self._dump_root),
            "S3_PREFIX": "demo",
            "NODE_NAME": "worker-1",
            "POD_NAME": "demo",
            "POD_NAMESPACE": "shop",
            "LOG_FORMAT": "console",
            **server.environment(BUCKET),
        }
        self._step = 0

    def run(self) -> None:
        """Show the whole way of a dump. Raises DemoFailed."""
        self._show_store()
        jdk = self._find_java()
        first = self._run_out_of_memory(jdk)
        self._upload()
        self._show_bucket(first)
        self._lose_state()
        self._run_out_of_memory_again(jdk, first)
        self._fetch(first)

    def variables(self) -> str:
        """Give the agent's settings as shell assignments, to use the bucket by hand."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self._environment.items())

    def _begin(self, title: str) -> None:
        self._step += 1
        self._console.print(f"\n[bold cyan]{self._step}. {title}[/]")

    def _say(self, text: str) -> None:
        self._console.print(Text(f"   {text}"), style="dim", soft_wrap=True)

    def _quote(self, output: str) -> None:
        for line in output.replace(str(self._folder), "...").splitlines():
            self._console.print(Text(f"   | {line}"), style="yellow", soft_wrap=True)

    def _proved(self, text: str) -> None:
        self._console.print(Text(f"   \N{HEAVY CHECK MARK} {text}"), style="green", soft_wrap=True)

    def _show_store(self) -> None:
        self._begin("An S3 store")
        self._server.client().create_bucket(Bucket=BUCKET)
        self._say(f"{self._server.endpoint_url}, on this machine only, with the empty bucket {BUCKET!r}.")

    def _find_java(self) -> Jdk:
        self._begin("A Java application with a memory leak")
        if system_jdk() is None:
            self._say("No java on PATH: fetching one with pip, 35 MB, once ...")
        try:
            jdk = any_jdk()
        except RuntimeError as error:
            raise DemoFailed(
                f"There is no Java to run.\n{error}\n"
                "Install any JRE from version 11 on, so that `java -version` works, or give pip its way to its index."
            ) from error
        self._say(f"Java {jdk.major}: {jdk.java}")
        return jdk

    def _run_out_of_memory(self, jdk: Jdk) -> bytes:
        """Let the application die, and give its heap dump. Raises DemoFailed."""
        dump = self._dump_root / _POD / "java_pid1.hprof"  # in a container a JVM is process 1
        dump.parent.mkdir(parents=True, exist_ok=True)
        self._say(f"$ java -XX:+HeapDumpOnOutOfMemoryError -XX:HeapDumpPath=.../dump/{_POD} -Xmx32m")
        ended = jdk.run_oom(dump, xmx_mib=32)
        self._quote(ended.stdout)
        if not dump.exists():
            raise DemoFailed(
                f"The JVM ended with {ended.returncode} and left no heap dump; its words stand above.\n"
                "Try another Java: PATH=/path/to/jdk/bin:$PATH make demo"
            )
        content = dump.read_bytes()
        self._proved(f"It died, and left a heap dump: {dump.name}, {len(content) / 1e6:.1f} MB.")
        return content

    def _run_agent(self, *words: str) -> str:
        """Run a command of the agent, one pass if none is named; show and give what it says. Raises DemoFailed."""
        words = words or ("upload", "--once")
        self._say(f"$ dumpagent {shlex.join(words)}")
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "dumpagent", *words],
                env=os.environ
                | {"PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "100"}
                | self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_AGENT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(
                f"The agent did not end within {_AGENT_TIMEOUT_S} s. Please report this."
            ) from error
        self._quote(ended.stdout)
        if ended.returncode:
            raise DemoFailed(
                f"The agent ended with exit code {ended.returncode}; the reason stands above.\n"
                "Please report this with the output of `make demo`."
            )
        return str(ended.stdout)

    def _upload(self) -> None:
        self._begin("The agent finds the finished dump and uploads it")
        self._run_agent()
        self._say("(It warns that this small store verifies no digest of what it receives. Real ones do.)")

    def _stored(self) -> dict[str, bytes]:
        """Give the content of every object in the bucket by its key, oldest first."""
        client = self._server.client()
        entries = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        entries.sort(key=lambda entry: entry["LastModified"])
        keys = [entry["Key"] for entry in entries if ".dumpagent/" not in entry["Key"]]
        return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def _expect(self, *contents: bytes) -> list[str]:
        """Give the keys of the objects, which hold exactly these dumps in this order. Raises DemoFailed."""
        stored = self._stored()
        if list(stored.values()) != list(contents):
            sizes = {key: len(content) for key, content in stored.items()}
            raise DemoFailed(
                f"The bucket should hold {len(contents)} dump(s) as the JVM wrote them, and holds {sizes}.\n"
                "Please report this with the output of `make demo`."
            )
        return list(stored)

    def _show_bucket(self, content: bytes) -> None:
        self._begin("What the bucket holds now")
        (key,) = self._expect(content)
        answer = self._server.client().head_object(Bucket=BUCKET, Key=key)
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 3))
        table.add_row("key", Text(f"{BUCKET}/{key}"), style="bold")
        table.add_row("size", f"{answer['ContentLength']:,} bytes")
        table.add_row("storage class", answer.get("StorageClass", "STANDARD"))
        for name, value in sorted(answer["Metadata"].items()):
            table.add_row(name, Text(value))
        self._console.print(table)
        digest = hashlib.sha256(content).hexdigest()
        self._proved(f"Byte for byte what the JVM wrote: SHA-256 {digest[:16]}... on disk and in the store.")

    def _lose_state(self) -> None:
        self._begin("The pod restarts, and the agent's notes are lost")
        self._say("$ rm -r .../dump/.dumpagent")
        shutil.rmtree(self._dump_root / ".dumpagent")
        before = self._modified()
        self._run_agent()
        if self._modified() != before:
            raise DemoFailed("The agent stored the same dump once more. Please report this.")
        self._proved("The same dump is never stored twice: the agent recognised it in the bucket.")

    def _modified(self) -> list[tuple[str, datetime]]:
        listing = self._server.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [(entry["Key"], entry["LastModified"]) for entry in listing]

    def _run_out_of_memory_again(self, jdk: Jdk, first: bytes) -> None:
        self._begin("The application dies again, and its dump has the same name")
        for old in (self._dump_root / _POD).iterdir():
            old.unlink()  # a JVM never overwrites a dump: it would give this one up
        second = self._run_out_of_memory(jdk)
        self._run_agent()
        for key in self._expect(first, second):
            self._say(f"{BUCKET}/{key}")
        self._proved("Both are in the bucket, byte for byte: an object is never overwritten.")

    def _fetch(self, first: bytes) -> None:
        self._begin("A developer finds the dump, fetches it and looks into it")
        self._run_agent("ls")
        key = next(key for key, content in self._stored().items() if content == first)
        said = self._run_agent("get", key)
        lines = (self._folder / line.strip() for line in said.splitlines() if line.strip())
        fetched = next(
            (path for path in lines if path.is_file()), None
        )  # one line is the path, the next commands follow
        if fetched is None or fetched.read_bytes() != first:
            raise DemoFailed(
                f"`dumpagent get {key}` did not fetch what is in the bucket. Please report this."
            )
        self._run_agent("inspect", fetched.name)
        self._proved("Fetched whole, and checked. Eclipse MAT opens it.")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Give the exit code: 0, 1 if a step failed, 130 after Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="make demo", description="See a real heap dump travel into an S3 bucket."
    )
    parser.add_argument("--keep", action="store_true", help="keep the store running afterwards, until Ctrl-C")
    keep = parser.parse_args(argv).keep
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _stop)
    forget_own_settings()
    began = time.monotonic()
    console.print("[bold]dumpagent demo[/]: a Java heap dump, from OutOfMemoryError to the bucket")
    try:
        with tempfile.TemporaryDirectory(prefix="dumpagent-demo-") as name, Moto(Path(name)) as moto:
            demo = Demo(console, Path(name), moto.server)
            demo.run()
            seconds = time.monotonic() - began
            console.print(f"\n[bold green]All of it worked, in {seconds:.0f} s.[/]")
            if keep:
                console.print("The store and the dump stay until Ctrl-C. Paste this into another terminal:\n")
                console.print(Text(f"cd {shlex.quote(os.getcwd())}\n{demo.variables()}"), soft_wrap=True)
                for line in ("ls", "get --latest --output /tmp", "verify", "doctor"):
                    console.print(Text(f"{shlex.quote(sys.executable)} -m dumpagent {line}"), soft_wrap=True)
                signal.pause()
            else:
                console.print(
                    "Nothing is left running or on disk. `make demo ARGS=--keep` lets you look around."
                )
    except DemoFailed as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        return 1
    except (RuntimeError, OSError, BotoCoreError, ClientError, subprocess.SubprocessError) as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        console.print(
            "Loopback (127.0.0.1) and the temporary folder must be usable; TMPDIR names another folder."
        )
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped; nothing is left running or on disk.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
