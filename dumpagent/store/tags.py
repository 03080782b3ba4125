"""The tags of an object: S3_TAGS, with what is known of its dump in the place of {verdict} and its like.

Source: S3 User Guide, "Categorizing your objects using tags": at most 10, names of 128 and values of 256 characters, of
letters, digits, blanks and + - = . _ : / @.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

NAMES = ("verdict", "cause", "workload", "namespace", "node", "cluster")
_MOST, _NAME_CHARACTERS, _VALUE_CHARACTERS = 10, 128, 256
_OTHER = re.compile(r"[^\w +\-=.:/@]")
_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class _Tag:
    name: str
    value: str


def faults_of(template: str) -> Iterator[str]:
    """Say what is wrong with S3_TAGS, in words."""
    tags = list(_read(template))
    if len(tags) > _MOST:
        yield f"has {len(tags)} tags; a store takes at most {_MOST}"
    seen: set[str] = set()
    for tag in tags:
        if not tag.name or "=" not in template:
            yield f"has a part without a name: write name=value, several with & between ({tag.name}={tag.value})"
            continue
        if tag.name in seen:
            yield f"has the name {tag.name!r} twice"
        seen.add(tag.name)
        if len(tag.name) > _NAME_CHARACTERS or len(tag.value) > _VALUE_CHARACTERS:
            yield f"has a name of more than {_NAME_CHARACTERS} or a value of more than {_VALUE_CHARACTERS} characters: {tag.name!r}"
        if tag.name.lower().startswith("aws:"):
            yield f"has the name {tag.name!r}: aws: is the store's own"
        fixed = tag.name + _PLACE.sub("", tag.value)
        if found := _OTHER.search(fixed):
            yield f"has {found[0]!r} in {tag.name!r}; a tag takes letters, digits, blanks and + - = . _ : / @"
        for name in _PLACE.findall(tag.value):
            if name not in NAMES:
                yield f"has {{{name}}} in {tag.name!r}; known are {', '.join(f'{{{known}}}' for known in NAMES)}"


def tags_of(template: str, metadata: Mapping[str, str]) -> str:
    """Give the tags of an object with these metadata, as x-amz-tagging has them; those of which something is unknown
    are left out.
    """
    return "&".join(
        f"{quote(tag.name, safe='')}={quote(value, safe='')}"
        for tag in _read(template)
        if (value := _filled(tag.value, metadata)) is not None
    )


def _read(template: str) -> Iterator[_Tag]:
    for part in template.split("&"):
        if part:
            name, _, value = part.partition("=")
            yield _Tag(unquote(name), unquote(value))


def _filled(value: str, metadata: Mapping[str, str]) -> str | None:
    wanted = _PLACE.findall(value)
    if any(not metadata.get(name) for name in wanted):
        return None
    filled = _PLACE.sub(lambda found: _OTHER.sub("_", unquote(metadata[found[1]])), value)
    return filled[:_VALUE_CHARACTERS]
