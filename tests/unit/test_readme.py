"""The README's quick start: five commands whose files, names and variables exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_PROJECT = Path(__file__).parents[2]
_README = (_PROJECT / "README.md").read_text()


def _commands() -> list[str]:
    match = re.search(r"```sh\n(.*?)```", _README.partition("## Quick start on a cluster")[2], re.DOTALL)
    assert match
    return match[1].strip().splitlines()


def test_the_quick_start_is_five_commands_of_bash() -> None:
    commands = _commands()
    assert len(commands) == 5
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_what_the_quick_start_names_is_there() -> None:
    """The make target, the overlay, and no variable that the reader was not asked for."""
    text = "\n".join(_commands())
    for target in re.findall(r"^make (\S+)$", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (_PROJECT / "Makefile").read_text(), re.MULTILINE)
    for folder in re.findall(r"-k (\S+)", text):
        assert (_PROJECT / folder / "kustomization.yaml").exists()
    asked = set(
        re.findall(
            r"`([A-Z0-9_]+)`", _README.partition("## Quick start on a cluster")[2].partition("```sh")[0]
        )
    )
    assert set(re.findall(r"\$([A-Z0-9_]+)", text)) == asked


def test_the_readme_is_one_screen_and_names_no_image_that_nobody_published() -> None:
    assert len(_README.splitlines()) <= 60
    assert not re.search(r"\b(docker\.io|quay\.io|ghcr\.io)\b", _README)
