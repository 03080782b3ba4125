"""Finds environment variables that are misspelt settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from dumpagent import settings
from dumpagent.setting import Setting, declared

# What the AWS SDK and its HTTP library read themselves, as far as people set it. Source: boto3, "Configuration".
SDK_VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_CA_BUNDLE",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip
_ALSO_KNOWN = {
    "AWS_DEFAULT_PROFILE",
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_DEFAULT_OUTPUT",
}
_ALIKE = 0.88  # S3_BUKET and S3_BUCKET: 0.94; AWS_REGION and AWS_ROLE_ARN: 0.64
_SHORTEST = 6


def every_setting() -> dict[str, Setting]:
    """Give each setting of each command by its variable."""
    groups = [
        g for g in vars(settings).values() if isinstance(g, type) and hasattr(g, "__dataclass_fields__")
    ]
    return {s.env: s for g in groups if g is not Setting for s, _default in declared(g).values()}


def misspelt(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give each variable that is near a setting but is none, with the setting that was meant."""
    known = {*every_setting(), *SDK_VARIABLES}
    for name in sorted(environ):
        upper = name.upper()
        if upper in known or upper in _ALSO_KNOWN or len(name) < _SHORTEST:
            continue
        longer = [each for each in known if each.startswith(upper + "_")]
        near = (
            longer
            if len(longer) == 1 and "_" in upper
            else difflib.get_close_matches(upper, known, 1, _ALIKE)
        )
        if near:
            yield name, near[0]
