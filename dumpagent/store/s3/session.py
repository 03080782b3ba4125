"""The SDK's session, made without what nobody here asks of it."""

from __future__ import annotations

import contextlib
import os

import botocore.session
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader

from dumpagent.store.trust import ca_file, ca_file_set
from dumpagent.store_settings import Access


class _Catalogue(Loader):
    """The SDK's models. Each time it loads one it would look into the folders of all its 400 services first.

    That is 5,000 system calls, and a tenth of the time until the first byte of the first dump.
    """

    def list_available_services(self, _type_name: str) -> list[str]:
        """Give the names of all services, of whatever type: what is asked is only whether one is there."""
        names: set[str] = set()
        for path in self.search_paths:
            with contextlib.suppress(OSError):  # the user's own folder of models is seldom there
                names.update(os.listdir(path))
        return sorted(names)


def new_session(access: Access | None = None) -> botocore.session.Session:
    """Give a session as the SDK makes it: variables, profiles and roles are read when something needs them.

    With `access`, what that says comes before the variables.
    """
    session = botocore.session.Session(profile=(access.profile if access else "") or None)
    if not session.get_config_variable("data_path"):  # AWS_DATA_PATH: models of the user's own come first
        session.register_component("data_loader", _Catalogue())
    # STS and the store alike: the SDK itself asks the other tools' variables for neither, or for one of them.
    with contextlib.suppress(BotoCoreError):  # a profile that is not there: asking for credentials tells
        session.set_config_variable("ca_bundle", _ca_file(session, access))
    if access and access.region:
        session.set_config_variable("region", access.region)
    if access and access.access_key_id:
        session.set_credentials(access.access_key_id, access.secret_access_key, access.session_token or None)
    return session


def _ca_file(session: botocore.session.Session, access: Access | None) -> str | None:
    if access and access.ca_bundle:
        return ca_file(access)
    return ca_file_set(session.get_config_variable("ca_bundle"))
