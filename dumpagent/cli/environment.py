"""The variables that the SDK and the HTTP libraries read: tidied up, and refused where they cannot work."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

from dumpagent.errors import BadSettings
from dumpagent.setting import PLACEHOLDER, bare, refuse_placeholder
from dumpagent.settings import Notifying

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_TRUST = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE")
_OTHERS = {*_PROXIES, *(name.lower() for name in _PROXIES), *_TRUST}
# One word each; of a value nothing is shown, since people put secrets into the wrong variable.
_ONE_WORD = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ROLE_ARN",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS",
)  # fmt: skip
# Source: botocore.utils.validate_region_name.
_REGION = re.compile(r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)")


def tidy(environ: MutableMapping[str, str]) -> None:
    """Trim what the SDK and the HTTP libraries read, take quotes off, and unset what is empty.

    A Secret made with `echo` ends in a line break, a ConfigMap's empty value is not the SDK's "not set".
    """
    for name, value in list(environ.items()):
        if name.startswith("AWS_") or name in _OTHERS:
            plain = bare(value)
            if not plain:
                del environ[name]
            elif plain != value:
                environ[name] = plain


def examine(environ: Mapping[str, str]) -> list[BadSettings]:
    """Give what is wrong with these variables, which `tidy` has seen. Asks the file system, and no network."""
    return [
        *_placeholders(environ),
        *_words(environ),
        *_keys(environ),
        *_role(environ),
        *_profile(environ),
        *_trust(environ),
        *_time_zone(environ),
    ]


def _placeholders(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    for name, value in environ.items():
        if name.startswith("AWS_"):
            try:
                refuse_placeholder(name, value)
            except BadSettings as error:
                yield error


def _words(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    for name in _ONE_WORD:
        value = environ.get(name, "")
        found = re.search(r"[^\x21-\x7e]", value)
        if found:
            what = (
                "a line break"
                if found[0] in "\r\n"
                else "a blank"
                if found[0].isspace()
                else "a character beyond ASCII"
                if found[0] > "\x7f"
                else "a control character"
            )
            yield BadSettings(
                f"{name} has {what} in it (not shown here)",
                hint=f"set {name} to one word; a Secret made of several lines holds more than the value",
            )
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        value = environ.get(name, "")
        if re.fullmatch(r"[\x21-\x7e]+", value) and PLACEHOLDER not in value:
            if not _REGION.fullmatch(value):
                yield BadSettings(
                    f"{name} is {value!r}, which is no region; accepted: letters, digits and hyphens, as in eu-central-1",
                    hint=f"set {name} to the bucket's region, or us-east-1 where the store has none",
                )


def _keys(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        has, lacks = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")[:: 1 if key else -1]
        yield BadSettings(
            f"{has} is set and {lacks} is not",
            hint=f"set both, from one Secret; or unset {has} where a role gives the credentials",
        )
    elif environ.get("AWS_SESSION_TOKEN") and not key:
        yield BadSettings(
            "AWS_SESSION_TOKEN is set without the keys that it belongs to",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY too, or unset AWS_SESSION_TOKEN",
        )


def _role(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    others = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
              "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")  # fmt: skip
    role, token = environ.get("AWS_ROLE_ARN"), environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if role and not role.startswith("arn:"):
        yield BadSettings(
            f"AWS_ROLE_ARN is {role!r}, which is no ARN",
            hint="set it to the role's ARN: arn:aws:iam::<account>:role/<name>",
        )
    if bool(role) != bool(token) and not any(environ.get(name) for name in others):
        has, lacks = ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")[:: 1 if role else -1]
        yield BadSettings(
            f"{has} is set and {lacks} is not: the SDK would take neither",
            hint="both come from the service account's annotation eks.amazonaws.com/role-arn; was the pod made before it?",
        )


def _profile(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE")
    if not profile or profile == "default":
        return
    files = {
        environ.get("AWS_CONFIG_FILE", "~/.aws/config"): f"profile {profile}",
        environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"): profile,
    }
    for path, section in files.items():
        found = configparser.RawConfigParser(strict=False)
        try:
            found.read(os.path.expanduser(path), encoding="utf-8")
        except (configparser.Error, OSError, ValueError):
            return  # the SDK reads it differently, and tells what it does not like
        if found.has_section(section):
            return
    yield BadSettings(
        f"AWS_PROFILE is {profile!r}, and there is no such profile in {' or '.join(files)}",
        hint="correct AWS_PROFILE, mount the file, or unset AWS_PROFILE",
    )


def _trust(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    path = environ.get("AWS_CA_BUNDLE")
    if not path or os.path.isdir(path):
        return
    hint = "mount the ConfigMap with the store's CA (PEM) there, or correct AWS_CA_BUNDLE"
    try:
        with open(path, "rb") as file:
            if b"-----BEGIN" not in file.read(8 << 20):
                yield BadSettings(f"AWS_CA_BUNDLE is {path!r}, which holds no certificate (PEM)", hint=hint)
    except OSError as error:
        yield BadSettings(f"AWS_CA_BUNDLE is {path!r}: {error.strerror}", hint=hint)


def _time_zone(environ: Mapping[str, str]) -> Iterator[BadSettings]:
    """The C library takes a zone that it does not find for UTC, without a word.

    Source: tzset(3); the name of a zone, not a rule such as CET-1CEST,M3.5.0,M10.5.0/3.
    """
    zone, limit = environ.get("TZ", "").removeprefix(":"), environ.get("BANDWIDTH_LIMIT", "")
    if ":" not in limit or not re.fullmatch(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+)*", zone) or zone in ("UTC", "GMT"):
        return
    folder = environ.get("TZDIR", "/usr/share/zoneinfo")
    if not os.path.exists(f"{folder}/{zone}"):
        yield BadSettings(
            f"TZ is {zone!r}, which {folder} does not have: the hours of BANDWIDTH_LIMIT would be UTC",
            hint="correct TZ, or write its rule, as TZ=CET-1CEST,M3.5.0,M10.5.0/3",
        )


def without_effect(built: Sequence[object]) -> list[str]:
    """Say which settings do nothing because another one is not set. A start goes on: dumps do not depend on them."""
    told = []
    for each in built:
        if isinstance(each, Notifying) and not each.notify_url:
            if each.presign_for_s:
                told.append(
                    "PRESIGN_FOR is set and NOTIFY_URL is not: there is no message that a link could stand in"
                )
            if each.notify_format != "slack":
                told.append("NOTIFY_FORMAT is set and NOTIFY_URL is not: no message is sent")
    return told
