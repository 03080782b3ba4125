"""S3_TAGS with what is known of a dump in it."""

from __future__ import annotations

import pytest

from dumpagent.store.tags import faults_of, tags_of

DUMP = {"verdict": "truncated", "workload": "checkout", "namespace": "shop", "node": "n-1", "cause": "oom"}


@pytest.mark.parametrize(
    ("template", "tags"),
    [
        ("", ""),
        ("team=shop&kind=heapdump", "team=shop&kind=heapdump"),
        ("verdict={verdict}&app={namespace}/{workload}", "verdict=truncated&app=shop%2Fcheckout"),
        ("team=a%20b&c=1%261", None),
        ("team=a%20b", "team=a%20b"),
        ("cluster={cluster}&verdict={verdict}", "verdict=truncated"),
    ],
)
def test_placeholders_become_what_is_known_and_the_rest_is_left_out(template: str, tags: str | None) -> None:
    if tags is None:
        assert list(faults_of(template)), "an & is no tag character"
        return
    assert list(faults_of(template)) == []
    assert tags_of(template, DUMP) == tags


def test_what_no_tag_takes_becomes_an_underscore_and_what_is_long_is_cut() -> None:
    odd = {"workload": "a*b%C3%BC&c=d\n" + "x" * 300}
    assert tags_of("w={workload}", odd).startswith("w=a_b%C3%BC_c%3Dd_xxx")
    assert len(tags_of("w={workload}", {"workload": "x" * 300})) == 258


def test_an_object_that_is_no_dump_has_the_fixed_tags_alone() -> None:
    assert tags_of("team=shop&verdict={verdict}", {}) == "team=shop"


@pytest.mark.parametrize(
    "template",
    ["team: shop", "=x&a=b", "a=1&a=2", "aws:x=1", "a={pod}", "a=b*c", "a=" + "x" * 257, "x" * 129 + "=1",
     "&".join(f"t{number}=1" for number in range(11))],
)  # fmt: skip
def test_what_no_store_takes_is_told_before_the_start(template: str) -> None:
    assert list(faults_of(template))
