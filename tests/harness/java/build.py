"""Builds a jar from a Java source: the same bytes on every machine and with every javac that knows Java 8.

Needs a JDK (javac 17 to 25 tried). Run it as `make java-fixtures`: `build.py SOURCE JAR`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parent / "LeakyApp.java"


def build(jar: Path, source: Path = SOURCE) -> None:
    """Write `jar` with the classes of `source`. Raises CalledProcessError when it does not compile."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [
                *("javac", "--release", "8", "-g:none", "-encoding", "UTF-8"),
                *("-Xlint:-options", "-d", temporary, str(source)),
            ],
            check=True,
        )
        with zipfile.ZipFile(jar, "w") as archive:
            for class_file in sorted(Path(temporary).iterdir()):
                # A fixed time and no compression: neither the clock nor zlib's version shows in the bytes.
                archive.writestr(zipfile.ZipInfo(class_file.name), class_file.read_bytes())


if __name__ == "__main__":
    build(Path(sys.argv[2]), Path(sys.argv[1]))
