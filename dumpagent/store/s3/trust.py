"""Whose certificates the SDK trusts."""

from __future__ import annotations


def ca_file() -> str:
    """Give the file with the CAs: AWS_CA_BUNDLE, the profile's `ca_bundle`, or the SDK's own.

    Source: boto3 guide, "Configuration": AWS_CA_BUNDLE; botocore.httpsession.
    """
    import botocore.session
    from botocore.exceptions import BotoCoreError
    from botocore.httpsession import get_cert_path

    try:
        configured = botocore.session.get_session().get_config_variable("ca_bundle")
    except BotoCoreError:  # a profile that is not there: asking for credentials tells
        configured = None
    return str(configured or get_cert_path(True))
