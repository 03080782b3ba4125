"""A collector that fails, hangs, crashes or says too much costs its own part only."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from dumpagent.errors import DumpagentError, Refused
from dumpagent.gather import volume
from dumpagent.gather.collector import Collector, Desk, collect
from dumpagent.gather.since import since
from dumpagent.gather.veil import veiled
from dumpagent.secrets import Net


def test_a_collector_that_hangs_is_left_behind_and_what_it_gave_is_kept() -> None:
    def hang(desk: Desk) -> None:
        desk.add("a.txt", "the beginning")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    begun = time.monotonic()
    found = collect(Collector("slow", hang, limit_s=0.5))
    assert time.monotonic() - begun < 10
    assert found.files == {"a.txt": "the beginning"}
    assert [gap.what for gap in found.gaps] == ["no answer within 0.5 s; what it gave before is kept"]


def test_a_collector_that_fails_says_why_and_what_to_do() -> None:
    def refused(_desk: Desk) -> None:
        raise Refused("no", hint="ask again")

    def missing(_desk: Desk) -> None:
        os.stat("/nowhere/at/all")

    def faulty(_desk: Desk) -> None:
        raise KeyError("x")

    found = [collect(Collector("c", work)).gaps for work in (refused, missing, faulty)]
    assert [(gap.what, gap.hint) for gaps in found for gap in gaps] == [
        ("no", "ask again"),
        ("/nowhere/at/all: No such file or directory", ""),
        ("KeyError: 'x'", "please report this"),
    ]


def test_a_collector_that_says_too_much_is_cut() -> None:
    def endless(desk: Desk) -> None:
        while True:
            desk.add("a.txt", "x" * 1023 + "\n")

    found = collect(Collector("loud", endless))
    assert len(found.files["a.txt"]) <= 8 << 20
    assert "more than 8 MiB" in found.gaps[0].what


def test_the_list_of_files_is_bounded_and_says_so(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.hprof").touch()
    found = collect(Collector("listing", lambda desk: volume.listing(desk, str(tmp_path), most=10)))
    assert found.files["listing.jsonl"].count("\n") == 10
    assert "ends after 10 files" in found.gaps[0].what


def test_state_is_bounded_and_a_link_or_fifo_in_it_is_not_read(tmp_path: Path) -> None:
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    (tmp_path / "uploads").mkdir()
    (receipts / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(receipts / "fifo.json")
    (receipts / "large.json").write_bytes(b"x\n" * (1 << 20))
    for number in range(1100):
        (receipts / f"{number}.json").write_text("{}")
    found = collect(Collector("state", lambda desk: volume.state(desk, str(tmp_path))))
    assert "root:" not in found.files["state/receipts.txt"]
    assert len(found.files["state/receipts.txt"]) < 1 << 20
    assert any("newest 1000 of 1103 files" in gap.what for gap in found.gaps)


@pytest.mark.parametrize(
    "text",
    [
        "1 2 0:1 / /mnt rw - cifs //host/share rw,username=me,password=s3cr3ts3cr3t,vers=3",
        "ceph rw,name=admin,secret=s3cr3ts3cr3t,acl",
        "x" * 7000 + "=s3cr3ts3cr3t",
        "-----BEGIN RSA PRIVATE KEY-----\ns3cr3ts3cr3t\n-----END",
    ],
    ids=["cifs", "ceph", "too long to be searched", "private key"],
)
def test_secrets_of_others_are_known_by_their_form(text: str) -> None:
    assert "s3cr3t" not in veiled(text, Net())
    assert "kept" in veiled(f"{text}\nkept\n", Net())


def test_a_line_made_to_be_slow_is_left_out_at_once() -> None:
    begun = time.process_time()
    veiled("a" * (4 << 20) + "\n", Net())
    veiled("a." * (1 << 20), Net())
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("duration", "moment", "ago_s"),
    [("", "", 86400), ("2h0m0s", "", 7200), ("1h30m", "", 5400), ("7d", "", 7 * 86400), ("", "1970-01-12T13:46:30Z", 10)],
)  # fmt: skip
def test_times_are_understood_as_must_gather_writes_them(duration: str, moment: str, ago_s: float) -> None:
    assert since(duration, moment, now=1_000_000) == 1_000_000 - ago_s


@pytest.mark.parametrize(("duration", "moment"), [("2", ""), ("2h,", ""), ("", "soon"), ("1h", "2026-01-01")])
def test_times_that_are_none_are_refused(duration: str, moment: str) -> None:
    with pytest.raises(DumpagentError, match="--since"):
        since(duration, moment, now=1_000_000)
