"""What the command line says to somebody who got something wrong, or does not know it yet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dumpagent.cli import COMMANDS, cli
from dumpagent.cli.unknown import every_setting, misspelt


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does, with these variables."""
    return subprocess.run(
        [sys.executable, "-m", "dumpagent", *words],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [("upload", "--once"), ("upload", "--dry-run"), ("doctor",)])
def test_a_dump_root_that_does_not_exist_is_an_error_and_is_not_made(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """Before, it was created, and the command ended as if there were nothing to do."""
    root = tmp_path / "nothing"
    answer = run(*words, DUMP_ROOT=str(root), S3_BUCKET="b", AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")
    assert answer.returncode == 2
    assert f"DUMP_ROOT is '{root}', which does not exist" in answer.stderr
    assert "hint: mount the volume there" in answer.stderr
    assert not root.exists()


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    answer = run(
        *("upload", "--once", "--metrics-port", "70000"),
        WATCH_INTERVAL="soon",
        LOG_LEVEL="loud",
        DUMP_ROOT=str(tmp_path),
    )
    assert answer.returncode == 2
    for name in (
        "S3_BUCKET is not set",
        "WATCH_INTERVAL is 'soon'",
        "LOG_LEVEL is 'loud'",
        "METRICS_PORT is '70000'",
    ):
        assert name in answer.stderr
    assert "4 settings are not accepted" in answer.stderr


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    answer = run("upload", "--once", DUMP_ROOT=str(tmp_path), S3_BUKET="b")
    assert (
        "the variable S3_BUKET is set, but no setting has that name; did you mean S3_BUCKET?" in answer.stderr
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [("S3_ENDPOINT", "S3_ENDPOINT_URL"), ("AWS_ACCES_KEY_ID", "AWS_ACCESS_KEY_ID"), ("WATCH_INTERVALL", "WATCH_INTERVAL"), ("s3_buket", "S3_BUCKET")],
)  # fmt: skip
def test_near_misses(name: str, meant: str) -> None:
    assert list(misspelt({name: "x"})) == [(name, meant)]


def test_nothing_is_said_of_variables_that_are_somebody_elses() -> None:
    """A container's usual environment, the SDK's other variables, and every setting of ours."""
    usual = (
        "PATH", "HOME", "HOSTNAME", "LANG", "TERM", "PYTHONPATH", "KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT_443_TCP_PORT",
        "AWS_EC2_METADATA_DISABLED", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_EXECUTION_ENV", "LOG_DIR", "https_proxy", "no_proxy",
        "NODE_ENV", "NODE_VERSION", "POD_IP", "BASH_ENV", "PROMPT_COMMAND", "JAVA_HOME", "CLAIMS_URL", "MOUNT_POINT", "STATE",
    )  # fmt: skip
    assert list(misspelt(dict.fromkeys((*usual, *every_setting()), "x"))) == []


def test_a_typo_in_a_command_gets_a_suggestion() -> None:
    answer = run("uplod")
    assert answer.returncode == 2
    assert "No such command 'uplod'. Did you mean 'upload'?" in answer.stderr


def test_config_shows_value_and_source_and_hides_secrets() -> None:
    answer = run(
        "config", S3_BUCKET="my-dumps", AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="very-secret-value",
        NOTIFY_URL="https://hooks.example.com/T0/very-secret-path", HTTPS_PROXY="http://user:very-secret-word@proxy:3128",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    lines = {line.split()[0]: line.split() for line in answer.stdout.splitlines()}
    assert lines["S3_BUCKET"] == ["S3_BUCKET", "my-dumps", "variable"]
    assert lines["WATCH_INTERVAL"] == ["WATCH_INTERVAL", "60", "s", "default"]
    assert set(lines) >= set(every_setting())
    assert "very-secret" not in answer.stdout + answer.stderr


def test_config_names_every_value_that_is_not_accepted() -> None:
    answer = run("config", "--json", S3_BUCKET="b", WATCH_INTERVAL="soon", LOG_LEVEL="loud")
    assert answer.returncode == 2
    assert "WATCH_INTERVAL is 'soon'" in answer.stderr
    assert "LOG_LEVEL is 'loud'" in answer.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_parse(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    said = command.get_help(click.Context(command, info_name=name, terminal_width=200, max_content_width=200))
    assert "Examples:" in said, f"add an example of `dumpagent {name}` to dumpagent/cli/examples.py"
    lines = [line.strip() for line in said.partition("Examples:")[2].splitlines()]
    lines = [line for line in lines if line.startswith("dumpagent ")]
    assert lines
    for line in lines:
        program, called, *words = shlex.split(line.partition(" | ")[0])
        assert (program, called) == ("dumpagent", name)
        if not any(
            isinstance(p.type, click.Path) for p in command.params
        ):  # a path that must exist does not, here
            command.make_context(name, words)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_nothing_is_coloured_in_a_pipe(environ: dict[str, str], tmp_path: Path) -> None:
    for words in (
        ("config",),
        ("--help",),
        (
            "doctor",
            "--dump-root",
            str(tmp_path),
            "--s3-bucket",
            "b",
            "--s3-endpoint-url",
            "http://127.0.0.1:9",
        ),
    ):
        answer = run(*words, **environ)
        assert "\x1b" not in answer.stdout + answer.stderr, words
