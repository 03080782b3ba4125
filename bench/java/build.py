"""Builds shop.jar from Shop.java; needs a JDK. `make bench-java` runs it; the jar is checked in."""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
JAR = HERE / "shop.jar"


def build() -> None:
    """Write the jar. Raises CalledProcessError when the source does not compile."""
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [
                *("javac", "--release", "8", "-g:none", "-encoding", "UTF-8"),
                *("-Xlint:-options", "-d", temporary, str(HERE / "Shop.java")),
            ],
            check=True,
        )
        with zipfile.ZipFile(JAR, "w") as archive:
            for class_file in sorted(Path(temporary).iterdir()):
                # A fixed time and no compression: neither the clock nor zlib's version shows in the bytes.
                archive.writestr(zipfile.ZipInfo(class_file.name), class_file.read_bytes())


if __name__ == "__main__":
    build()
