"""Which credentials the SDK has found, and for how long they hold."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dumpagent.errors import Refused
from dumpagent.store_settings import Access


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where credentials come from, in the SDK's words; `expires_in_s` is None for those without a known end.

    `temporary`: with a session token, which ends some day.
    """

    source: str
    expires_in_s: float | None
    temporary: bool = False


def find_credentials(access: Access | None = None) -> Credentials:
    """Give what the SDK's chain finds, or `access` says. Raises Refused when there are none.

    Source: boto3 guide, "Credentials": variables, web identity, profiles, instance metadata.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from dumpagent.store.s3.session import new_session

    try:
        found = new_session(access).get_credentials()
        if found is None:
            raise Refused(
                "the SDK found no credentials",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE",
            )
        token = found.get_frozen_credentials().token
    except (
        RuntimeError
    ) as error:  # the SDK's words for keys in variables whose AWS_CREDENTIAL_EXPIRATION is over
        raise Refused(
            f"the credentials have ended: {error}",
            hint="renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; a role (AWS_ROLE_ARN) renews them by itself",
        ) from error
    except (BotoCoreError, ClientError, OSError) as error:
        raise Refused(
            f"no credentials can be had: {error}", hint="check AWS_ROLE_ARN and its token file"
        ) from error
    expiry = expiry_of(found)
    left_s = None if expiry is None else expiry - time.time()
    return Credentials(str(found.method), left_s, temporary=bool(token))


def expiry_of(found: object) -> float | None:
    """Give when the SDK's credentials end, in seconds since the epoch; None where that is not known."""
    import datetime as dt

    expiry = getattr(found, "_expiry_time", None)
    return expiry.timestamp() if isinstance(expiry, dt.datetime) else None
