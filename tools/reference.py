"""Writes the parts of docs/ that the code knows best: every command's --help, every setting, every event.

python tools/reference.py           write docs/commands.md, docs/settings.md and docs/events.md
python tools/reference.py --check   say which of them are out of date, and exit 1
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dumpagent import settings
from dumpagent.cli import COMMANDS, cli
from dumpagent.cli.options import shown
from dumpagent.observe.events.catalogue import CATALOGUE
from dumpagent.setting import Setting, declared, flag

DOCS = Path(__file__).parent.parent / "docs"
_MADE = "<!-- Written by tools/reference.py (`make docs`); do not edit. -->\n\n"


def commands() -> str:
    """Give docs/commands.md."""
    text = _MADE + "# Commands\n\nWhat `--help` says of each command.\n\n"
    text += f"```text\n{_help(cli, 'dumpagent')}\n```\n"
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if command is None:
            raise LookupError(name)
        text += f"\n## dumpagent {name}\n\n```text\n{_help(command, f'dumpagent {name}')}\n```\n"
    return text


def _help(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def settings_table() -> str:
    """Give docs/settings.md."""
    text = (
        _MADE
        + "# Settings\n\nA flag beats its variable. A value that is not accepted stops the start with exit code 2 and "
        "a message that names the variable, the value and the range.\n\n"
        "Durations are seconds, or carry a unit: `500ms`, `30s`, `5m`, `2h`, `7d`.\n"
    )
    for title, group in _groups():
        text += f"\n## {title}\n\n| Variable | Flag | Default | Accepted | Meaning |\n| --- | --- | --- | --- | --- |\n"
        for setting, default in declared(group).values():
            default_text = shown(setting, default)
            text += f"| `{setting.env}` | `{flag(setting.env)}` | {default_text} | {setting.accepted} | {setting.why} |\n"
    return text


def _groups() -> list[tuple[str, type]]:
    classes = [value for value in vars(settings).values() if isinstance(value, type)]
    groups = [each for each in classes if hasattr(each, "__dataclass_fields__") and each is not Setting]
    return [((group.__doc__ or group.__name__).splitlines()[0].rstrip("."), group) for group in groups]


def events() -> str:
    """Give docs/events.md."""
    text = (
        _MADE
        + "# Events\n\nEvery line that the agent logs carries one of these names in its field `event`. There is one line per "
        "change of state, none per idle pass; a trouble that lasts is told at once, then every ten minutes, and its end is told.\n\n"
        "| Event | Level | Meaning |\n| --- | --- | --- |\n"
    )
    for event in CATALOGUE.values():
        text += f"| `{event.name}` | {event.level} | {event.meaning} |\n"
    return text


PAGES = {"commands.md": commands, "settings.md": settings_table, "events.md": events}


def stale() -> list[str]:
    """Give the pages that do not say what the code says."""
    return [
        name
        for name, make in PAGES.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text() != make()
    ]


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        out_of_date = stale()
        for name in out_of_date:
            print(f"docs/{name} is out of date: run `make docs`", file=sys.stderr)
        sys.exit(1 if out_of_date else 0)
    for name in stale():
        (DOCS / name).write_text(PAGES[name]())
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
