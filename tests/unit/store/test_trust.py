"""The doctor trusts whom the SDK trusts, else it would call a certificate good that the uploads refuse."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from dumpagent.store.trust import ca_file


def test_the_file_that_the_variable_names_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/own-ca.pem")
    assert ca_file() == "/etc/own-ca.pem"


def test_a_profile_may_name_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nca_bundle = /etc/of-the-profile.pem\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert ca_file() == "/etc/of-the-profile.pem"
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    assert ca_file() != "/etc/of-the-profile.pem"


def test_without_either_it_is_the_sdk_s_own() -> None:
    assert ssl.create_default_context(cafile=ca_file()).cert_store_stats()["x509_ca"] > 10


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"])
def test_a_private_ca_may_stand_in_the_variable_of_another_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    for other in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    bundle = tmp_path / "ca.pem"
    monkeypatch.setenv(name, str(bundle))
    assert ca_file() != str(bundle), "one that is not there is not used"
    bundle.write_text("")
    assert ca_file() == str(bundle)
