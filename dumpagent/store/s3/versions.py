"""Deletes an object for good: on a versioned bucket a plain DELETE only hides it, and frees nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dumpagent.errors import Refused

Call = Callable[..., Any]  # S3Store's own: (doing, operation, **parameters), with its tries and errors


def erase(call: Call, key: str) -> None:
    """Delete the object and each of its versions. No error if there is none.

    A store without versions, or credentials that may not list them, get a plain DELETE.
    Raises Refused (a lock or hold, a missing right), Unreachable.
    Source: S3 API Reference, ListObjectVersions and DeleteObject with versionId; Object Lock: 403 AccessDenied.
    """
    try:
        versions = list(_versions(call, key))
    except Refused:
        versions = []
    for version in versions:
        call(f"deleting a version of {key}", "delete_object", Key=key, VersionId=version)
    if not versions:
        call(f"deleting {key}", "delete_object", Key=key)


def _versions(call: Call, key: str) -> Iterator[str]:
    """Give the ids of the object's versions and delete markers: markers first, so that a lock on a version hides nothing
    that was visible, and the newest version last.
    """
    more: dict[str, str] = {}
    versions: list[str] = []
    while True:
        page = call(f"listing the versions of {key}", "list_object_versions", Prefix=key, **more)
        yield from (found["VersionId"] for found in page.get("DeleteMarkers", ()) if found["Key"] == key)
        found = [found["VersionId"] for found in page.get("Versions", ()) if found["Key"] == key]
        versions += found
        beyond = page.get("NextKeyMarker", "") > key
        if not page.get("IsTruncated") or beyond:
            break
        more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}
    if versions != ["null"]:  # "null" alone: the bucket was never versioned
        yield from reversed(versions)
