"""Who wrote a dump, from its path alone."""

from __future__ import annotations

import time

import pytest

from dumpagent.dumps.owner import Owner, owner_of, use_owner_pattern, workload_of
from dumpagent.owner_pattern import BadPattern, compile_pattern


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof", Owner("shop", "cart-7d4f9c8b6-x2k9q", "cart")),
        ("shop_cart-7d4f9c8b6-x2k9q/deep/er/heap", Owner("shop", "cart-7d4f9c8b6-x2k9q", "cart")),
        ("shop_db-0.hprof", Owner("shop", "db-0", "db")),
        ("shop_db-0.20261128T120301Z.hprof.gz", Owner("shop", "db-0", "db")),
        ("shop_db-0.hprof.1", Owner("shop", "db-0", "db")),
        ("shop_db-0.rescued-20260101T120000Z.hprof.1", Owner("shop", "db-0", "db")),
        ("shop_db-0.rescued-20260101T120000Z-ab12.20260101T120000Z.hprof", Owner("shop", "db-0", "db")),
        ("shop/db-0/java_pid1.hprof", Owner("shop", "db-0", "db")),
        # The directory is its user's alone, a file in it can have any name.
        ("shop_db-0/bank_vault-0.hprof", Owner("shop", "db-0", "db")),
        ("shop/checkout/java_pid1.hprof", Owner("shop", None, "checkout")),
        ("shop/cart-7d4f9c8b6-x2k9q/java_pid1.hprof", Owner("shop", "cart-7d4f9c8b6-x2k9q", "cart")),
        # A JVM writes a file of the directory's name where the directory is missing.
        ("shop_db-0", Owner("shop", "db-0", "db")),
        ("shop_db-0.20261128T120301Z", Owner("shop", "db-0", "db")),
        ("shop_db-0.rescued-20260101T120000Z", Owner("shop", "db-0", "db")),
        ("shop_db-0.rescued-20260101T120000Z.20260101T120000Z", Owner("shop", "db-0", "db")),
        ("shop_db-0.dump", Owner()),
        ("java_pid1", Owner()),
        ("java_pid1.hprof", Owner()),
        ("java_pid1.100.hprof", Owner()),
        ("java_pid1.20261128T120301Z-x.hprof", Owner()),
        ("heap", Owner()),
        ("Shop/Cart/java_pid1.hprof", Owner()),
        ("shop_bare/java_pid1.hprof", Owner("shop", "bare", None)),
        ("shop_/java_pid1.hprof", Owner()),
    ],
)
def test_the_path_tells_who_wrote_a_dump_and_unknown_stays_unknown(path: str, owner: Owner) -> None:
    assert owner_of(path) == owner


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("cart-7d4f9c8b6-x2k9q", "cart"),
        ("my-own-cart-54bf7c9d5b-zz2xk", "my-own-cart"),
        ("db-0", "db"),
        ("agent-x2k9q", "agent"),
        ("report-29384756-x2k9q", "report"),
        ("cart", None),
        ("", None),
    ],
)
def test_a_generated_name_tells_its_workload(pod: str, workload: str | None) -> None:
    assert workload_of(pod) == workload


def test_a_pattern_of_the_user_comes_first() -> None:
    use_owner_pattern(r"teams/(?P<namespace>[^/]+)/(?P<workload>[^/]+)/.*")
    try:
        assert owner_of("teams/shop/cart/x.hprof") == Owner("shop", None, "cart")
        assert owner_of("shop/cart/x.hprof") == Owner("shop", None, "cart")
    finally:
        use_owner_pattern("")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(?P<namespace>[^/]+", "no regular expression"),
        ("(?P<team>[^/]+)/.*", "the groups are namespace, pod, workload"),
        ("shop/.*", "no named group"),
        ("(?P<pod>(a+)+)b", "repeat"),
        ("(?P<pod>([a-z]+)*)/x", "repeat"),
        ("(?P<pod>(a|a)*)/x", "repeat"),
        ("(?P<pod>.*.*.*.*.*)x", "repeat"),
        (r"(?P<namespace>(\w+-?)+)/(?P<pod>.*)", "repeat"),
    ],
)
def test_a_pattern_that_cannot_work_or_could_be_made_slow_is_refused_before_the_start(
    text: str, why: str
) -> None:
    began = time.monotonic()
    with pytest.raises(BadPattern, match=why):
        compile_pattern(text)
    assert time.monotonic() - began < 20, "on a busy machine too"


@pytest.mark.parametrize(
    "text",
    [
        r"(?P<namespace>[^/]+)/(?P<workload>[^/]+)/(?P<pod>[^/]+)/.*",
        r"teams/(?P<namespace>[a-z0-9-]+)/[^/]+/(?P<pod>[a-z0-9.-]+)\.hprof(\.gz)?",
        r"(?P<namespace>[^_/]+)__(?P<pod>[^/]+)/.*",
    ],
)
def test_patterns_as_people_write_them_are_taken(text: str) -> None:
    assert compile_pattern(text).groupindex
