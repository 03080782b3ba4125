"""The analysis of real heaps: the holder of a planted leak is named, and the figures are those of a second reader."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dumpagent
from dumpagent.analyze.analysis import Subject, Wishes, analyze
from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.compile import small_dump
from dumpagent.analyze.heapgraph import HeapGraph, build
from dumpagent.analyze.memory import Budget
from dumpagent.analyze.model import Analysis
from dumpagent.analyze.opened import open_heap
from dumpagent.cli import cli
from dumpagent.hprof.source import InMemory
from tests.harness import heap_oracle
from tests.harness.jvm import Jdk, pinned_jdk
from tests.harness.leaks import COLLECTORS, HOLDERS, dump_leak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JDKS = ["11.0.13.1", "17.0.9.2", "21.0.8.2", "25.0.2.1"]
PLENTY = Budget(1 << 40, lambda _text: None)


def no_step(_title: str) -> object:
    return lambda _bytes: None


def analyzed(content: bytes) -> Analysis:
    return analyze(InMemory(content), Subject("x", len(content)), PLENTY, wishes=Wishes(), step=no_step)  # type: ignore[arg-type]


def graph_of(content: bytes) -> HeapGraph:
    arrays = Arrays()
    return build(open_heap(InMemory(content), arrays, PLENTY, size_bytes=len(content), step=no_step), arrays)  # type: ignore[arg-type]


@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.parametrize("version", JDKS)
def test_the_holder_of_each_planted_leak_is_the_first_suspect(
    version: str, collector: str, tmp_path: Path
) -> None:
    wrong = {}
    for leak, holder in HOLDERS.items():
        path = tmp_path / f"{leak}.hprof"
        dump_leak(pinned_jdk(version), leak, path, options=COLLECTORS[collector])
        suspects = analyzed(path.read_bytes()).suspects
        path.unlink()
        if not suspects or holder not in suspects[0].holder or suspects[0].share < 0.3:
            wrong[leak] = [(each.holder, each.share) for each in suspects[:3]]
    assert not wrong


def test_two_holders_of_the_same_objects_are_both_named(any_jdk: Jdk, tmp_path: Path) -> None:
    dump_leak(any_jdk, "shared", tmp_path / "a.hprof", options=COLLECTORS["Serial"])
    first = analyzed((tmp_path / "a.hprof").read_bytes()).suspects[0]
    assert {"PlantedLeaks$ByName.BY_NAME", "PlantedLeaks$ByNumber.BY_NUMBER"} <= {
        first.holder,
        *first.also_held_by,
    }
    assert first.shared


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("17.0.9.2", ["-XX:+UseSerialGC"]),
        ("17.0.9.2", ["-XX:+UseSerialGC", "-XX:-UseCompressedOops"]),
        ("25.0.2.1", ["-XX:+UseG1GC", "-XX:+UseCompactObjectHeaders"]),
        ("21.0.8.2", ["-XX:+UseParallelGC", "-XX:ObjectAlignmentInBytes=16"]),
        ("11.0.13.1", ["-XX:+UnlockExperimentalVMOptions", "-XX:+UseZGC"]),
    ],
)
def test_reachable_objects_and_what_they_keep_alive_are_those_of_a_second_reader(
    version: str, options: list[str], tmp_path: Path
) -> None:
    dump_leak(pinned_jdk(version), "sessions", tmp_path / "a.hprof", mib=1, options=options)
    content = (tmp_path / "a.hprof").read_bytes()
    oracle, graph = heap_oracle.read(content), graph_of(content)
    everything = heap_oracle.reachable(oracle)
    number_of = {each: int(graph.opened.index.numbers(np.array([each]))[0]) for each in everything}
    assert graph.walked.count == len(everything)
    assert graph.opened.index.count == len(oracle.classes)
    assert all(graph.number[each] for each in number_of.values())
    counts: dict[str, int] = {}
    for each in everything:
        counts[oracle.classes[each]] = counts.get(oracle.classes[each], 0) + 1
    classes = graph.opened.classes
    for internal, count in counts.items():
        number = classes.by_name.get(heap_name(internal))
        if number is not None and "+0x" not in internal and "/0x" not in internal:
            assert graph.by_class.counts[number] == count or internal.startswith("["), internal
    size_of = {each: graph.retained.shallow_of(number) for each, number in number_of.items()}
    assert sum(size_of.values()) == graph.retained.total_bytes
    # What an object keeps alive is what is not reachable any more without it.
    large = sorted(everything, key=lambda each: -graph.kept_by(number_of[each]))[:40]
    for each in [*large, *random.Random(7).sample(sorted(everything), 60)]:
        lost = everything - heap_oracle.reachable(oracle, without=each)
        assert graph.kept_by(number_of[each]) == sum(size_of[other] for other in lost), hex(each)


def heap_name(internal: str) -> str:
    if internal.startswith("["):
        return {"[B": "byte[]", "[C": "char[]", "[I": "int[]"}.get(internal, internal)
    return internal.replace("/", ".")


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("17.0.9.2", ["-XX:+UseSerialGC"]),
        ("17.0.9.2", ["-XX:+UseSerialGC", "-XX:-UseCompressedOops"]),
        ("11.0.13.1", ["-XX:+UseSerialGC"]),
        ("21.0.8.2", ["-XX:+UseSerialGC", "-XX:ObjectAlignmentInBytes=16"]),
        ("25.0.2.1", ["-XX:+UseSerialGC", "-XX:+UseCompactObjectHeaders"]),
    ],
)
def test_own_bytes_by_class_are_those_of_the_jvm_s_own_histogram(
    version: str, options: list[str], tmp_path: Path
) -> None:
    jdk = pinned_jdk(version)
    with jdk.start_leaky(tmp_path, xmx_mib=200, options=options) as app:
        app.ask("fill 20")
        for command in (
            ["GC.class_histogram"],
            ["GC.heap_dump", f"{tmp_path}/a.hprof"],
            ["GC.class_histogram"],
        ):
            argv = [str(jdk.tool("jcmd")), str(app.pid), *command]
            said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout
    wanted = dict(
        re.findall(
            r"^\s*\d+:\s+\d+\s+(\d+)\s+(LeakyApp\$Order|java\.util\.HashMap\$Node|java\.lang\.String)\b",
            said,
            re.MULTILINE,
        )
    )
    wanted = {
        name: int(size) for size, name in re.findall(r"^\s*\d+:\s+\d+\s+(\d+)\s+(\S+)", said, re.MULTILINE)
    }
    graph = graph_of((tmp_path / "a.hprof").read_bytes())
    names = graph.opened.classes.by_name
    checked = 0
    for name in (
        "LeakyApp$Order",
        "java.util.HashMap$Node",
        "java.lang.String",
        "java.util.HashMap",
        "java.lang.Integer",
    ):
        own = int(graph.by_class.shallow[names[name]])
        assert abs(own - wanted[name]) <= max(0.01 * wanted[name], 200), name
        checked += 1
    assert checked == 5


def test_gzip_gives_the_same_answer_as_the_plain_dump(any_jdk: Jdk, tmp_path: Path) -> None:
    dump_leak(any_jdk, "map", tmp_path / "a.hprof", mib=3, options=COLLECTORS["Serial"])
    content = (tmp_path / "a.hprof").read_bytes()
    plain, packed = analyzed(content), analyzed(gzip.compress(content, 1))
    assert packed.suspects == plain.suspects
    assert packed.heap == plain.heap
    assert packed.classes == plain.classes


def test_a_dump_that_is_cut_off_is_analyzed_as_far_as_it_goes(any_jdk: Jdk, tmp_path: Path) -> None:
    dump_leak(any_jdk, "map", tmp_path / "a.hprof", mib=3, options=COLLECTORS["Serial"])
    content = (tmp_path / "a.hprof").read_bytes()
    whole = analyzed(content)
    cut = analyzed(content[: len(content) * 9 // 10])
    assert cut.dump.state == "truncated"
    assert cut.dump.damage
    assert 0 < cut.heap.reachable_objects < whole.heap.reachable_objects
    assert cut.suspects


def test_a_spilled_analysis_gives_the_same_answer(any_jdk: Jdk, tmp_path: Path) -> None:
    dump_leak(any_jdk, "sessions", tmp_path / "a.hprof", mib=3, options=COLLECTORS["Serial"])
    runner, folder = CliRunner(), tmp_path / "spill"
    folder.mkdir()
    answers = [
        runner.invoke(cli, ["analyze", str(tmp_path / "a.hprof"), "--json", *more])
        for more in ([], ["--spill", str(folder), "--memory", "1MiB"])
    ]
    assert [answer.exit_code for answer in answers] == [0, 0], answers[1].output
    assert json.loads(answers[0].stdout) == json.loads(answers[1].stdout)
    assert not list(folder.iterdir())


def test_exit_codes_say_what_came_of_it(any_jdk: Jdk, tmp_path: Path) -> None:
    dump, junk = tmp_path / "a.hprof", tmp_path / "junk.hprof"
    dump_leak(any_jdk, "map", dump, mib=3, options=COLLECTORS["Serial"])
    junk.write_bytes(b"no heap dump at all" * 10)
    cases = [
        ([str(dump)], 0),
        ([str(dump), "--fail-on", "suspect > 99%"], 0),
        ([str(dump), "--fail-on", "suspect > 99%", "--fail-on", "instances:PlantedLeaks$Payload > 2999"], 1),
        ([str(dump), "--fail-on", "nonsense"], 2),
        ([str(junk)], 2),
        ([str(tmp_path / "missing.hprof")], 2),
        ([str(tmp_path)], 2),
        ([str(dump), "--memory", "1MiB"], 3),
        ([str(dump), "--memory", "much"], 2),
    ]
    for argv, code in cases:
        result = CliRunner().invoke(cli, ["analyze", *argv])
        assert result.exit_code == code, (argv, result.output)
        if code == 3:
            assert "need about" in result.stderr
            assert "hint:" in result.stderr


def test_what_was_compiled_at_the_build_of_an_image_is_used_where_nothing_can_be_written(
    request: pytest.FixtureRequest,
) -> None:
    """As the image does it: compiled beside the sources, then run by another user on a read-only tree."""
    # Not below pytest's own folder, which every run of pytest closes to other users again.
    tmp_path = Path(tempfile.mkdtemp(prefix="dumpagent-compiled-"))
    request.addfinalizer(lambda: shutil.rmtree(tmp_path, ignore_errors=True))
    tmp_path.chmod(0o755)
    installed = tmp_path / "lib"
    shutil.copytree(
        Path(dumpagent.__file__).parent, installed / "dumpagent", ignore=shutil.ignore_patterns("__pycache__")
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(
            [str(installed), *(path for path in sys.path if "site-packages" in path)]
        ),
    }
    subprocess.run(
        [sys.executable, "-m", "dumpagent.analyze.compile"], env=environment, cwd=tmp_path, check=True
    )
    (tmp_path / "small.hprof").write_bytes(small_dump(8))
    (tmp_path / "small.hprof").chmod(0o644)
    nobody = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups"] if os.geteuid() == 0 else []
    if not nobody:
        for path in installed.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run(
        [*nobody, sys.executable, "-m", "dumpagent", "analyze", str(tmp_path / "small.hprof"), "--json"],
        env={**environment, "NUMBA_DEBUG_CACHE": "1", "HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
        capture_output=True, text=True, cwd="/", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = set(re.findall(r"\[cache\] index loaded from '(.*)\.nbi'", done.stdout))
    found = set(re.findall(r"\[cache\] data loaded from '(.*)\.\d+\.nbc'", done.stdout))
    assert len(found) > 25, done.stdout
    assert asked == found, "what has an index and no data was compiled"
    assert "[cache] data saved" not in done.stdout, "something was compiled"
