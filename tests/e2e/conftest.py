"""One cluster for all tests here, brought up by the guide; the tests run in the file's order."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from dumpagent import __version__
from tests.e2e import images
from tests.e2e.chain import AGENT, NAMESPACE, REGISTRY, Chain
from tests.e2e.cluster import Cluster, Failed, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give the cluster that KUBECONFIG names, else one that is started here from nothing."""
    folder = tmp_path_factory.mktemp("cluster")
    names = f"{REGISTRY}/dumpagent:{__version__}", f"{REGISTRY}/memory-leak-app:{__version__}"
    with running(folder, lambda: images.build(folder, *names), names) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def chain(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Give the chain as the guide brings it up."""
    chain = Chain(cluster, tmp_path_factory.mktemp("guide"))
    for section in ("Your values", "Your overlay", "Apply"):
        print(chain.follow_guide(section))
    verified = chain.follow_guide("Verify")
    assert "store_answered" in verified, verified
    return chain


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the pods say to the report of a test that failed."""
    report = yield
    chain = getattr(item, "funcargs", {}).get("chain")
    if report.failed and call.when == "call" and chain is not None:
        for words in (
            ("get", "pods", "-A", "-o", "wide"),
            ("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp"),
            ("logs", "-n", AGENT, "dump-volume-manager-0", "-c", "dump-volume-manager", "--tail=40"),
            ("logs", "-n", AGENT, "heap-dump-s3-uploader-0", "-c", "s3-uploader", "--tail=40"),
        ):
            try:
                said = chain.cluster.kubectl(*words)
            except Failed as failed:
                said = str(failed)
            report.sections.append((f"kubectl {' '.join(words)}", said[-6000:]))
    return report
