"""What the bucket must look like in the end, and every way in which it does not."""

from __future__ import annotations

import hashlib
from collections import Counter

from tests.harness.stores.server import StoreServer, is_dump_key
from tests.torture.jvms import Truth
from tests.torture.node import AT_A_CALL, AT_A_MOMENT, STOPPED, TROUBLES, Node
from tests.torture.tenant import PREFIX
from tests.torture.weather import Weather

_EMPTY = hashlib.sha256(b"").hexdigest()  # of which every disk that is full makes one


class Stored:
    """The SHA-256 of every object in a bucket, by key; each version of an object is read once."""

    def __init__(self, server: StoreServer, bucket: str) -> None:
        self._client, self._bucket = server.client(), bucket
        self._read: dict[tuple[str, str], str] = {}

    def digests(self) -> dict[str, str]:
        """Give what the bucket holds now."""
        found = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for entry in filter(lambda entry: is_dump_key(entry["Key"]), page.get("Contents", [])):
                version = entry["Key"], entry["ETag"]
                if version not in self._read:
                    body = self._client.get_object(Bucket=self._bucket, Key=entry["Key"])["Body"]
                    self._read[version] = hashlib.sha256(body.read()).hexdigest()
                found[entry["Key"]] = self._read[version]
        return found


def open_uploads(server: StoreServer, bucket: str) -> list[str]:
    """Give the keys of all multipart uploads that are open."""
    found = []
    for page in server.client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        found += [entry["Key"] for entry in page.get("Uploads", [])]
    return found


def judge_bucket(server: StoreServer, bucket: str, truths: list[Truth]) -> list[str]:
    """Give every dump that is lost or doubled, and everything in the bucket that should not be there."""
    paths = {digest: path for truth in truths for digest, path in truth.paths.items()}
    times = sum((truth.times for truth in truths), Counter[str]())
    stored = Stored(server, bucket).digests()  # all of it anew
    counted = Counter(stored.values())
    broken = [f"lost: {path} ({digest[:12]})" for digest, path in paths.items() if digest not in counted]
    broken += [
        f"stored {count} times: {paths.get(digest, '?')}"
        for digest, count in counted.items()
        if count > times[digest] > 0
    ]
    strange = {key: digest for key, digest in stored.items() if digest not in paths}
    broken += [f"not a dump of ours: {key}" for key in strange if PREFIX not in key]
    broken += [
        f"a dump of ours under the name of another: {key}"
        for key, digest in stored.items()
        if digest in paths and digest != _EMPTY and PREFIX in key
    ]
    broken += [f"left open: {key}" for key in open_uploads(server, bucket) if PREFIX not in key]
    truncated = sum(truth.truncated for truth in truths)
    print(
        f"{len(paths)} dumps were finished ({truncated} of them cut off), {len(stored)} objects are stored "
        f"({len(strange)} of the hostile user's): "
        f"{'nothing lost, doubled, overwritten or left open' if not broken else f'{len(broken)} BROKEN'}"
    )
    return broken


def judge_aborts(nodes: list[Node]) -> list[str]:
    """Give every multipart upload that one node began and another aborted."""
    broken = []
    for node in nodes:
        of_others = set[str]().union(*(other.proxy.begun for other in nodes if other is not node))
        broken += [
            f"{node.name} aborted another node's upload of {request.key}"
            for request, _ in node.proxy.log
            if request.operation == "AbortMultipartUpload" and request.upload_id in of_others
        ]
    return broken


def never_happened(nodes: list[Node], weather: Weather) -> list[str]:
    """Give every fault and every end that has not come yet, so that nothing is proved of it."""
    missing = [fault.name for fault in weather.owed]
    ends = (*TROUBLES, AT_A_CALL, AT_A_MOMENT, STOPPED)
    return missing + [what for what in ends if not any(node.happened[what] for node in nodes)]


def judge_scrapes(nodes: list[Node]) -> list[str]:
    """Give every scrape that did not add up, and every life that ended by itself."""
    broken = []
    for node in nodes:
        broken += [
            f"{count} lives on {node.name} ended by themselves: {end}"
            for end, count in node.happened.items()
            if end.startswith("exit")
        ]
        broken += node.scraper.broken[:10]
        if not node.scraper.scrapes:
            broken.append(f"{node.name} was never scraped")
    return broken
