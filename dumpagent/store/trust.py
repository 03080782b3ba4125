"""Whose certificates the SDK trusts."""

from __future__ import annotations

import os

from dumpagent.store_settings import PUBLIC_CAS, Access

# What other tools read, in the order in which people set them. The SDK's own settings come first.
# Source: boto3 guide, AWS_CA_BUNDLE; requests, REQUESTS_CA_BUNDLE; OpenSSL, SSL_CERT_FILE; curl(1), CURL_CA_BUNDLE.
_OTHERS = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


def ca_file_set(configured: str | None) -> str | None:
    """Give the file with CAs that is set: `configured` for the SDK, or by a variable of other tools.

    None where none is set, or only one that names no file: then the SDK's own are trusted.
    """
    if configured:
        return configured
    named = (os.environ.get(name, "") for name in _OTHERS)
    return next((path for path in named if path and os.path.isfile(path)), None)


def ca_file(access: Access | None = None) -> str:
    """Give the file with the CAs: AWS_CA_BUNDLE, the profile's `ca_bundle`, other tools' variables, or the SDK's own.

    For a replica what `access` says comes first.

    Source: boto3 guide, "Configuration"; botocore.httpsession.
    """
    import botocore.session
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import get_cert_path

    if access and access.ca_bundle:
        return access.ca_bundle if access.ca_bundle != PUBLIC_CAS else str(get_cert_path(True))
    try:
        configured = botocore.session.get_session().get_config_variable("ca_bundle")
    except BotoCoreError:  # a profile that is not there: asking for credentials tells
        configured = None
    return str(ca_file_set(configured) or get_cert_path(True))
