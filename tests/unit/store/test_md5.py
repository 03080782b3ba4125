"""A FIPS machine refuses MD5: the agent asks for it in one place only, as a checksum, and needs no answer."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import dumpagent
from dumpagent.store.md5 import md5_of
from dumpagent.store.protocol import Body
from dumpagent.store.s3.profile import Digest
from dumpagent.store.s3.request import digest_of

_PACKAGE = Path(dumpagent.__file__).parent
_REFUSED_BY_FIPS = {"md5", "sha1", "new", "blake2b", "blake2s"}


def _asked_of_hashlib() -> list[tuple[str, ast.Call]]:
    """Give each call of hashlib that FIPS refuses, with the module that makes it."""
    found = []
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "hashlib":
                pytest.fail(f"{path}: `from hashlib import` hides which digest is asked for")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "hashlib"
                and node.func.attr in _REFUSED_BY_FIPS
            ):
                found.append((str(path.relative_to(_PACKAGE)), node))
    return found


def test_old_digests_are_asked_for_in_one_module_and_not_for_security() -> None:
    """hashlib.md5() raises ValueError on a FIPS machine, and the upload with it."""
    assert [module for module, _ in _asked_of_hashlib()] == ["store/md5.py"]
    ((_, call),) = _asked_of_hashlib()
    assert [(each.arg, ast.unparse(each.value)) for each in call.keywords] == [("usedforsecurity", "False")]


def test_the_search_finds_a_forbidden_call() -> None:
    """A check that could not fail would be none."""
    assert any(node for _, node in _asked_of_hashlib())


def test_the_checksum_is_md5() -> None:
    """In chunks or at once."""
    assert md5_of([b"a", b"bc"]) == hashlib.md5(b"abc").digest()


def _without_md5(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def refused(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(hashlib, "md5", refused)


@pytest.mark.parametrize("fault", [ValueError("unsupported hash type md5"), AttributeError("md5")])
def test_a_store_that_verifies_md5_gets_a_crc32_from_a_machine_without_md5(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The profile of a store outlives the machine that learnt it: the next one may be a FIPS machine."""
    body = Body(b"abc", zlib.crc32(b"abc"))
    assert set(digest_of(body, Digest.MD5)) == {"ContentMD5"}
    _without_md5(monkeypatch, fault)
    assert set(digest_of(body, Digest.MD5)) == {"ChecksumCRC32"}


def test_with_openssl_set_to_fips_only_the_checksum_stays_available(tmp_path: Path) -> None:
    """OpenSSL's own switch: each fetch asks for fips=yes, which hashlib.md5() then cannot have."""
    config = tmp_path / "openssl.cnf"
    config.write_text(
        "openssl_conf = all\n[all]\nalg_section = fips\n[fips]\ndefault_properties = fips=yes\n"
    )
    code = (
        "import hashlib, sys\n"
        "try:\n    hashlib.md5(b'')\n    sys.exit('OpenSSL did not refuse')\nexcept ValueError:\n    pass\n"
        "from dumpagent.store.md5 import md5_of\n"
        "print(md5_of([b'abc']).hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENSSL_CONF": str(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, hashlib.md5(b"abc").hexdigest()), done.stderr
