"""Who wrote a dump, from its path alone."""

from __future__ import annotations

import re

import pytest

from dumpagent.dumps.owner import Owner, owner_of, workload_of


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
    pattern = re.compile(r"teams/(?P<namespace>[^/]+)/(?P<workload>[^/]+)/.*")
    assert owner_of("teams/shop/cart/x.hprof", pattern) == Owner("shop", None, "cart")
    assert owner_of("shop/cart/x.hprof", pattern) == Owner("shop", None, "cart")
