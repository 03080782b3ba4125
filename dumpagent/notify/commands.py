"""Commands that a person is told to run, as a shell takes them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

_CLUSTER_ENDINGS = (".svc", ".local", ".internal")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the dumps are: `endpoint_url` is empty for AWS."""

    bucket: str
    prefix: str = ""
    endpoint_url: str = ""

    @property
    def flags(self) -> list[str]:
        """The flags that lead any machine to this store.

        An endpoint that only the cluster knows is left out: the reader's own S3_ENDPOINT_URL leads to the same store.
        """
        found = ["--s3-bucket", self.bucket]
        if self.prefix:
            found += ["--s3-prefix", self.prefix]
        if self.endpoint_url and self.leads_there_from_anywhere:
            found += ["--s3-endpoint-url", self.endpoint_url]
        return found

    @property
    def leads_there_from_anywhere(self) -> bool:
        """Whether a machine outside the cluster may reach the store."""
        host = urlsplit(self.endpoint_url).hostname or ""
        return not self.endpoint_url or (("." in host or ":" in host) and not host.endswith(_CLUSTER_ENDINGS))

    def __str__(self) -> str:
        return self.bucket + (f" at {self.endpoint_url}" if self.endpoint_url else "")


def fetch_command(key: str, address: StoreAddress | None = None) -> str:
    """Give the command that fetches the object `key`; without `address` the store is that of the reader's variables."""
    return _command("get", address.flags if address else [], key)


def inspect_command(key: str, address: StoreAddress) -> str:
    """Give the command that shows what is in the object `key`, without keeping it."""
    return _command("inspect --histogram", address.flags, key)


def _command(verb: str, flags: list[str], key: str) -> str:
    words = [*flags, *(["--"] if key.startswith("-") else []), key]
    return f"dumpagent {verb} {shlex.join(words)}"
