"""The JVMs that other tests stand on do what those tests take for granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.java.build import build
from tests.harness.jvm import JAR, Jdk

pytestmark = pytest.mark.slow


_ROOT = Path(__file__).parents[2]


@pytest.mark.needs("javac")
@pytest.mark.parametrize(
    ("source", "jar"),
    [
        ("tests/harness/java/LeakyApp.java", JAR),
        ("tests/harness/java/Unpack.java", _ROOT / "tests/harness/java/unpack.jar"),
        ("tests/harness/java/Leaks.java", _ROOT / "tests/harness/java/leaks.jar"),
        ("tests/harness/java/PlantedLeaks.java", _ROOT / "tests/harness/java/planted-leaks.jar"),
        ("bench/java/Shop.java", _ROOT / "bench/java/shop.jar"),
    ],
)
def test_a_checked_in_jar_is_what_its_source_compiles_to(tmp_path: Path, source: str, jar: Path) -> None:
    """Nobody has to trust a binary: the jar is byte for byte what `make java-fixtures` builds."""
    build(tmp_path / "built.jar", _ROOT / source)
    assert (tmp_path / "built.jar").read_bytes() == jar.read_bytes()


def test_an_application_that_leaks_dies_and_leaves_a_dump_of_its_heap(every_jdk: Jdk, tmp_path: Path) -> None:
    ended = every_jdk.run_oom(tmp_path, xmx_mib=16)
    assert ended.returncode == 1
    assert "java.lang.OutOfMemoryError: Java heap space" in ended.stdout
    (dump,) = tmp_path.iterdir()
    assert dump.suffix == ".hprof"
    assert dump.read_bytes()[:19] == b"JAVA PROFILE 1.0.2\0"
    assert dump.stat().st_size > 10 << 20


def test_an_application_survives_an_oom_and_dumps_again_on_request(any_jdk: Jdk, tmp_path: Path) -> None:
    """Only the first OutOfMemoryError of a JVM is dumped; later dumps are asked for."""
    with any_jdk.start_leaky(tmp_path, xmx_mib=32) as app:
        assert app.ask("classes 200") == "classes 200"
        assert app.ask("fill 4") == "filled 4"
        assert app.ask("oom payment-7") == "oom 1"
        assert app.ask("oom payment-7") == "oom 2"
        app.ask(f"dump {tmp_path}/asked.hprof")
        with pytest.raises(AssertionError, match="File exists"):
            app.ask(f"dump {tmp_path}/asked.hprof")
    assert {path.name for path in tmp_path.iterdir()} == {f"java_pid{app.pid}.hprof", "asked.hprof"}
    assert b"payment-7" in (tmp_path / f"java_pid{app.pid}.hprof").read_bytes()
    assert b"LeakyApp$Leaf000200" in (tmp_path / "asked.hprof").read_bytes().replace(b"/", b".")


def test_later_dumps_of_one_jvm_get_numbered_names(any_jdk: Jdk, tmp_path: Path) -> None:
    with any_jdk.start_leaky(tmp_path, xmx_mib=32) as app:
        app.ask("option HeapDumpBeforeFullGC true")
        app.ask("gc")
        app.ask("gc")
    stem = f"java_pid{app.pid}.hprof"
    assert {path.name for path in tmp_path.iterdir()} == {stem, f"{stem}.1"}


def test_a_jvm_that_dies_at_once_says_why(any_jdk: Jdk, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="Unrecognized VM option"):
        any_jdk.start_leaky(tmp_path, options=["-XX:+NoSuchThing"])


def test_a_running_jvm_is_gone_after_its_with_block(any_jdk: Jdk, tmp_path: Path) -> None:
    with any_jdk.start_leaky(tmp_path) as app:
        pid = app.pid
    assert not Path(f"/proc/{pid}").exists()
