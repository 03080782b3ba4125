"""Settings classes as command line options: flag beats variable, a bad value stops the start with exit code 2."""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import click

from dumpagent.cli import no_proxy
from dumpagent.cli.bucket import settle
from dumpagent.cli.environment import examine, tidy, without_effect
from dumpagent.cli.replica import settle_replica
from dumpagent.errors import BadSettings
from dumpagent.secrets import NET
from dumpagent.setting import Kind, Setting, declared, flag
from dumpagent.settings import S3, Notifying, Replica

_C = TypeVar("_C", bound=Callable[..., Any])


class _SettingType(click.ParamType[Any]):
    """Reads one setting's text; our refusals name the variable and the range, which click's own do not."""

    def __init__(self, declared_setting: Setting) -> None:
        self.setting = declared_setting
        self.name = declared_setting.kind.value.lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the value, or the refusal itself: all that are wrong are told at once, by `takes`."""
        try:
            return self.setting.parse(value) if isinstance(value, str) else value
        except BadSettings as error:
            return error

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        if self.setting.kind is Kind.CHOICE:
            return "[" + "|".join(self.setting.choices) + "]"
        return str(self.setting.kind.value)


def shown(setting: Setting, default: Any) -> str:
    """Give a setting's default as people write it."""
    if default in ("", None):
        return "required" if setting.required else "empty"
    if setting.kind is Kind.SWITCH:
        return str(default).lower()
    if isinstance(default, enum.Enum):
        return str(default.value)
    unit = {Kind.DURATION: " s", Kind.PERCENT: " %", Kind.DAYS: " days"}.get(setting.kind, "")
    return f"{default:g}{unit}" if isinstance(default, (int, float)) else str(default)


def _option(parameter: str, setting: Setting, default: Any, *, hidden: bool) -> Callable[[_C], _C]:
    extent = f" ({setting.low:g} to {setting.high:g})" if setting.low is not None else ""
    return click.option(
        flag(setting.env),
        parameter,
        type=_SettingType(setting),
        envvar=setting.env,
        default=None,
        hidden=hidden,
        help=f"{setting.why}{extent}  [{setting.env}; default: {shown(setting, default)}]",
    )


def takes(
    *settings_classes: type,
    without: Collection[str] = (),
    when_asked: bool = False,
    hidden: Collection[type] = (),
) -> Callable[[_C], _C]:
    """Give a command the options of these settings classes; it is called with one instance of each, in this order.

    Fields named in `without` keep their defaults: the command has no use for them. With `when_asked` the command gets,
    in place of each instance, a function that gives it: what is required is required only then. The options of `hidden`
    classes are not in the command's help.

    Raises BadSettings at the command's start when a value is out of range or a required one is missing.
    """

    def decorate(command: _C) -> _C:
        @functools.wraps(command)
        def with_settings(*args: Any, **parameters: Any) -> Any:
            warn_of_unknown_variables()
            chosen = [
                _chosen(settings_class, number, parameters, without)
                for number, settings_class in enumerate(settings_classes)
            ]
            if when_asked:
                later = [
                    functools.partial(_built, each) for each in zip(settings_classes, chosen, strict=True)
                ]
                return command(*later, *args, **parameters)
            built, wrong = _all_built(settings_classes, chosen)
            refuse(wrong)
            for line in without_effect(built):
                click.echo(f"dumpagent: {line}", err=True)
            return command(*built, *args, **parameters)

        decorated: Any = with_settings
        for number, settings_class in reversed(list(enumerate(settings_classes))):
            assert dataclasses.is_dataclass(settings_class)  # noqa: S101 - a programming error, not a user's
            for field, (setting, default) in reversed(declared(settings_class).items()):
                if field not in without:
                    decorated = _option(
                        _parameter(number, field), setting, default, hidden=settings_class in hidden
                    )(decorated)
        result: _C = decorated
        return result

    return decorate


@dataclasses.dataclass(frozen=True, slots=True)
class _Chosen:
    """What the flags and the environment say of one settings class."""

    values: dict[str, Any]
    wrong: list[BadSettings]


def _chosen(
    settings_class: type, number: int, parameters: dict[str, Any], without: Collection[str]
) -> _Chosen:
    """Take the parameters of a settings class out of `parameters`."""
    chosen = _Chosen({}, [])
    for field, (setting, _default) in declared(settings_class).items():
        if field in without:
            continue
        given = parameters.pop(_parameter(number, field))
        if isinstance(given, BadSettings):
            chosen.wrong.append(given)
        elif given is not None:
            chosen.values[field] = given
            if setting.secret:
                NET.learn_url(given) if setting.kind is Kind.URL else NET.learn(given)
        elif setting.required:
            chosen.wrong.append(not_set(setting))
    return chosen


def _all_built(
    settings_classes: Sequence[type], chosen: Sequence[_Chosen]
) -> tuple[list[Any], list[BadSettings]]:
    """Give the instances of all whose values are accepted, and all that is wrong: of them, between them, around them."""
    wrong = [error for each in chosen for error in each.wrong]
    built = [
        settings_class(**each.values)
        for settings_class, each in zip(settings_classes, chosen, strict=True)
        if not each.wrong
    ]
    if S3 in settings_classes:
        tidy(os.environ)
        wrong += examine(os.environ)
        for number, instance in enumerate(built):
            if isinstance(instance, S3):
                built[number], more = settle(instance, os.environ)
                wrong += more
        first = next((each for each in built if isinstance(each, S3)), None)
        for number, instance in enumerate(built):
            if isinstance(instance, Replica):
                built[number], more = settle_replica(instance, first, os.environ)
                wrong += more
    if not wrong:
        no_proxy.translate(os.environ, _asked(built))
    return built, wrong


def _asked(built: Sequence[Any]) -> list[str]:
    """Give the addresses that this process will ask, as far as the settings tell them."""
    sdk = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    api_server = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return [
        *(each.endpoint_url for each in built if isinstance(each, (S3, Replica))),
        *(each.notify_url for each in built if isinstance(each, Notifying)),
        *(os.environ.get(name, "") for name in sdk),
        *("https://sts.amazonaws.com", f"https://sts.{region}.amazonaws.com"),
        f"https://[{api_server}]" if ":" in api_server else f"https://{api_server}" if api_server else "",
    ]


def _built(of: tuple[type, _Chosen]) -> Any:
    """Give the instance. Raises BadSettings for all that is wrong."""
    settings_class, chosen = of
    built, wrong = _all_built([settings_class], [chosen])
    refuse(wrong)
    return built[0]


def not_set(setting: Setting) -> BadSettings:
    """Give the refusal of a required setting that nobody set."""
    return BadSettings(
        f"{setting.env} is not set; accepted: {setting.accepted}",
        hint=f"set the variable {setting.env} or the flag {flag(setting.env)}: {setting.why}",
    )


def refuse(wrong: Sequence[BadSettings]) -> None:
    """Raise one BadSettings for all that is wrong; do nothing if nothing is."""
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        lines = "".join(f"\n  {error}" for error in wrong)
        raise BadSettings(
            f"{len(wrong)} settings are not accepted:{lines}", hint="`dumpagent config` shows all settings"
        )


def require_directory(path: str, env: str) -> None:
    """Raise BadSettings if there is no directory at `path`. For commands that people start; a daemon waits for it."""
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise BadSettings(
            f"{env} is {path!r}, which {what}",
            hint=f"mount the volume there, or set {env} to the directory that JVMs write their dumps below",
        )


def warn_of_unknown_variables() -> None:
    """Say on stderr which variables look like a misspelt setting: no program reads them, and none would say so."""
    from dumpagent.cli.unknown import misspelt

    for name, meant in misspelt(os.environ):
        click.echo(
            f"dumpagent: the variable {name} is set, but no setting has that name; did you mean {meant}?",
            err=True,
        )


def _parameter(number: int, field: str) -> str:
    return f"s{number}_{field}"
