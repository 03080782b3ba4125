"""`dumpagent config`: every setting, its value and where the value comes from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import click

from dumpagent import settings
from dumpagent.cli.bucket import settle
from dumpagent.cli.environment import examine, tidy
from dumpagent.cli.options import refuse, shown, warn_of_unknown_variables
from dumpagent.cli.replica import settle_replica
from dumpagent.cli.unknown import SDK_VARIABLES
from dumpagent.dumps.text import printable
from dumpagent.errors import BadSettings
from dumpagent.secrets import NET
from dumpagent.setting import Kind, Setting, declared
from dumpagent.settings import S3, Replica

_HIDDEN = "***"
_SECRET_OF_THE_SDK = {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
_ADDRESSES = {"HTTP_PROXY", "HTTPS_PROXY"}  # may have a password in it


@dataclasses.dataclass(frozen=True)
class Line:
    """One setting as it is shown: `source` is "variable" or "default"; `wrong` says why a value is not accepted."""

    name: str
    value: str
    source: str
    wrong: str = ""


@click.command("config", short_help="Show every setting, its value and where it comes from.")
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per setting")
@click.option("--set", "only_set", is_flag=True, help="show only what is set")
def command(as_json: bool, only_set: bool) -> None:
    """Show every setting with its value and its source: a variable, or the default. Secrets are hidden.

    Run it in the container whose settings you want to see. Exit code 2 if a value is not accepted; all of them are
    named. A flag beats its variable, but a flag is not seen here: it belongs to the command it is given to.
    """
    warn_of_unknown_variables()
    wrong: list[BadSettings] = []
    lines = [*_settings(wrong), *_of_the_sdk()]
    if only_set:
        lines = [line for line in lines if line.source != "default"]
    if as_json:
        for line in lines:
            click.echo(json.dumps({k: v for k, v in dataclasses.asdict(line).items() if k != "wrong" or v}))
    else:
        width = max((len(line.name) for line in lines), default=0)
        for line in lines:
            note = "not accepted" if line.wrong else line.source
            click.echo(f"{line.name:<{width}}  {line.value:<28}  {note}".rstrip())
    environ = dict(os.environ)
    tidy(environ)
    wrong += examine(environ)
    if environ.get("S3_BUCKET"):
        wrong += _of_the_store(environ)
    refuse(wrong)


def _of_the_store(environ: Mapping[str, str]) -> list[BadSettings]:
    """Give what is wrong with the settings of the stores taken together."""
    first, wrong = settle(S3(**_accepted(S3, environ)), environ)
    return wrong + settle_replica(Replica(**_accepted(Replica, environ)), first, environ)[1]


def _accepted(group: type, environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for field, (setting, _default) in declared(group).items():
        if text := environ.get(setting.env):
            try:
                values[field] = setting.parse(text)
            except BadSettings:
                continue  # told already, by itself
    return values


def _settings(wrong: list[BadSettings]) -> list[Line]:
    found: dict[str, Line] = {}
    for group in vars(settings).values():
        if not isinstance(group, type) or not hasattr(group, "__dataclass_fields__") or group is Setting:
            continue
        for setting, default in declared(group).values():
            text = os.environ.get(setting.env)
            if text is None or not text.strip():
                if setting.required:
                    found[setting.env] = Line(setting.env, "", "not set")
                else:
                    found.setdefault(setting.env, Line(setting.env, shown(setting, default), "default"))
                continue
            if setting.secret:
                NET.learn_url(text) if setting.kind is Kind.URL else NET.learn(text)
            why = ""
            try:
                setting.parse(text)
            except BadSettings as error:
                why = str(error)
                if setting.env not in found:
                    wrong.append(error)
            value = _HIDDEN if setting.secret else str(printable(text))
            found[setting.env] = Line(setting.env, value, "variable", why)
    return list(found.values())


def _of_the_sdk() -> list[Line]:
    lines = []
    for name in SDK_VARIABLES:
        text = os.environ.get(name)
        if text:
            hidden = name in _SECRET_OF_THE_SDK or (name in _ADDRESSES and "@" in text)
            lines.append(Line(name, _HIDDEN if hidden else str(printable(text)), "variable, read by the SDK"))
    return lines
