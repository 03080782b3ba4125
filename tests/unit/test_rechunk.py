"""`dumpagent rechunk` makes a file that Eclipse MAT opens directly, or none at all."""

from __future__ import annotations

import gzip
from pathlib import Path

from click.testing import CliRunner

from dumpagent.cli import cli
from dumpagent.hprof.chunked import BLOCK_BYTES, announced_block_bytes


def test_a_plain_gzip_dump_gets_the_chunked_form(tmp_path: Path) -> None:
    content = b"JAVA PROFILE 1.0.2\0" + bytes(300_000)
    source, target = tmp_path / "a.hprof.gz", tmp_path / "b.hprof.gz"
    source.write_bytes(gzip.compress(content))
    assert CliRunner().invoke(cli, ["rechunk", str(source), str(target)]).exit_code == 0
    assert announced_block_bytes(target.read_bytes()[:64]) == BLOCK_BYTES
    assert gzip.decompress(target.read_bytes()) == content


def test_a_cut_or_foreign_file_leaves_nothing_behind(tmp_path: Path) -> None:
    for name, content in {"cut": gzip.compress(b"x" * 9999)[:-9], "foreign": b"JAVA PROFILE"}.items():
        (tmp_path / name).write_bytes(content)
        answer = CliRunner().invoke(cli, ["rechunk", str(tmp_path / name), str(tmp_path / "target")])
        assert answer.exit_code == 1
        assert name in answer.output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cut", "foreign"]


def test_a_file_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"x"))
    (tmp_path / "b").write_bytes(b"mine")
    answer = CliRunner().invoke(cli, ["rechunk", str(tmp_path / "a"), str(tmp_path / "b")])
    assert answer.exit_code == 1
    assert (tmp_path / "b").read_bytes() == b"mine"
