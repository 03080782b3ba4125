"""What people write into variables is taken as it is meant, or refused by name before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dumpagent.cli.bucket import settle
from dumpagent.cli.environment import examine, tidy, without_effect
from dumpagent.cli.no_proxy import translate
from dumpagent.settings import S3, Notifying

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAKEY0000000000001", "AWS_SECRET_ACCESS_KEY": "verysecretverysecret1"}


def test_values_are_trimmed_unquoted_and_unset_where_empty() -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "AKIA\n",
        "AWS_SECRET_ACCESS_KEY": '"s3cr3t"\n',
        "AWS_PROFILE": " ",
        "S3_BUCKET": " b ",
    }
    tidy(environ)
    assert environ == {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "S3_BUCKET": " b "}


WRONG = {
    "line break": ({**KEYS, "AWS_ACCESS_KEY_ID": "AKIA\nBKIA"}, "AWS_ACCESS_KEY_ID has a line break"),
    "blank": ({**KEYS, "AWS_SECRET_ACCESS_KEY": "very secret"}, "AWS_SECRET_ACCESS_KEY has a blank"),
    "half": ({"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY is not"),
    "other half": ({"AWS_SECRET_ACCESS_KEY": "x"}, "AWS_ACCESS_KEY_ID is not"),
    "token alone": ({"AWS_SESSION_TOKEN": "x"}, "AWS_SESSION_TOKEN"),
    "region": ({**KEYS, "AWS_DEFAULT_REGION": "eu_central_1"}, "AWS_DEFAULT_REGION is 'eu_central_1'"),
    "region in words": ({**KEYS, "AWS_REGION": "Europe (Frankfurt)"}, "AWS_REGION has a blank"),
    "profile": ({"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/nix"}, "AWS_PROFILE is 'nobody'"),
    "role alone": ({"AWS_ROLE_ARN": "arn:aws:iam::1:role/x"}, "AWS_WEB_IDENTITY_TOKEN_FILE is not"),
    "no arn": ({"AWS_ROLE_ARN": "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "no ARN"),
    "no ca": ({**KEYS, "AWS_CA_BUNDLE": "/nix/ca.pem"}, "AWS_CA_BUNDLE is '/nix/ca.pem'"),
    "empty ca": ({**KEYS, "AWS_CA_BUNDLE": "/dev/null"}, "holds no certificate"),
    "placeholder": ({**KEYS, "AWS_DEFAULT_REGION": "REPLACE_ME"}, "AWS_DEFAULT_REGION still has"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_variable_of_the_sdk_that_cannot_work_is_refused_by_name(kind: str) -> None:
    environ, said = WRONG[kind]
    (error,) = examine(environ)
    assert said in str(error)
    assert error.hint
    assert "very" not in str(error)


def test_what_works_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[shop]\naws_access_key_id = x\n")
    for environ in (
        {},
        KEYS,
        {"AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/not/yet"},
        {"AWS_PROFILE": "shop", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {**KEYS, "AWS_DEFAULT_REGION": "auto", "AWS_SESSION_TOKEN": "x+/=="},
    ):
        assert examine(environ) == []


TAKEN = {
    "s3://dumps/java": ("dumps", "java"),
    "s3://dumps": ("dumps", ""),
    "S3://dumps/java/a/": ("dumps", "java/a"),
    "dumps/": ("dumps", ""),
    "dumps/java": ("dumps", "java"),
    "tenant:dumps": ("tenant:dumps", ""),
    "My_Dumps": ("My_Dumps", ""),
    "arn:aws:s3:eu-central-1:1:accesspoint/a": ("arn:aws:s3:eu-central-1:1:accesspoint/a", ""),
}


@pytest.mark.parametrize("text", TAKEN)
def test_a_bucket_is_taken_as_people_write_it(text: str) -> None:
    settled, wrong = settle(S3(bucket=text), {})
    assert (settled.bucket, settled.prefix) == TAKEN[text]
    assert wrong == []


CONTRADICTIONS = {
    "an address": (S3(bucket="https://dumps.s3.amazonaws.com"), "S3_BUCKET"),
    "two prefixes": (S3(bucket="s3://b/one", prefix="two"), "S3_PREFIX"),
    "a key without KMS": (S3(bucket="b", sse="AES256", sse_kms_key_id="k"), "S3_SSE_KMS_KEY_ID"),
    "parts that no store takes": (S3(bucket="b", part_size_bytes=1 << 20), "S3_PART_SIZE"),
    "tags in words": (S3(bucket="b", tags="team: shop"), "S3_TAGS"),
    "a tenant in a host name": (S3(bucket="t:b", addressing_style="virtual"), "S3_ADDRESSING_STYLE"),
    "a bucket before an address": (
        S3(bucket="b", addressing_style="virtual", endpoint_url="http://10.0.0.1:9000"), "S3_ENDPOINT_URL",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(kind: str) -> None:
    s3, named = CONTRADICTIONS[kind]
    _, (error,) = settle(s3, {})
    assert named in str(error)
    assert error.hint


def test_the_sdks_own_endpoint_is_an_endpoint_of_ones_own() -> None:
    url = "http://store:9000"
    assert settle(S3(bucket="b"), {"AWS_ENDPOINT_URL": url})[0].endpoint_url == url
    assert (
        settle(S3(bucket="b"), {"AWS_ENDPOINT_URL_S3": url, "AWS_ENDPOINT_URL": "http://x"})[0].endpoint_url
        == url
    )
    ignored = {"AWS_ENDPOINT_URL": url, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    assert settle(S3(bucket="b"), ignored)[0].endpoint_url == ""
    _, (error,) = settle(S3(bucket="b", endpoint_url="http://a"), {"AWS_ENDPOINT_URL_S3": "http://b"})
    assert "two stores" in str(error)


def test_all_that_is_wrong_is_told_at_once_and_no_secret_with_it(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))},
        "DUMP_ROOT": str(tmp_path),
        "S3_BUKET": "dumps",
        "S3_BUCKET": "not a bucket",
        "S3_SSE_KMS_KEY_ID": "key",
        "WATCH_INTERVAL": "soon",
        "AWS_ACCESS_KEY_ID": "AKIASECRET1\nAKIASECRET2",
        "AWS_SECRET_ACCESS_KEY": "hidden\thidden",
        "AWS_DEFAULT_REGION": "-bad-",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dumpagent", "upload", "--once"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for named in (
        "S3_BUKET",
        "S3_BUCKET",
        "S3_SSE_KMS_KEY_ID",
        "WATCH_INTERVAL",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
    ):
        assert named in done.stderr
    assert "did you mean S3_BUCKET" in done.stderr
    assert "AKIASECRET" not in done.stderr
    assert "hidden\t" not in done.stderr


def test_no_proxy_means_what_clusters_mean_by_it() -> None:
    environ = {"NO_PROXY": "10.128.0.0/14,*.svc,store.example:9000,fd00::/8,.local"}
    asked = [
        "https://10.130.1.2:9000",
        "https://store.example:9000/x",
        "http://[fd00::5]",
        "https://10.1.1.1",
    ]
    translate(environ, asked)
    entries = environ["NO_PROXY"].split(",")
    assert {"10.130.1.2", "store.example", "[fd00::5]", ".svc", ".local"} <= set(entries)
    assert "10.1.1.1" not in entries
    other_port = {"no_proxy": "store.example:9000"}
    translate(other_port, ["https://store.example"])
    assert other_port == {"no_proxy": "store.example:9000"}
    everything = {"NO_PROXY": "*"}
    translate(everything, asked)
    assert everything == {"NO_PROXY": "*"}


def test_a_link_without_a_message_to_stand_in_is_told_by_name_and_dumps_are_uploaded_all_the_same() -> None:
    assert without_effect([Notifying(presign_for_s=3600, notify_format="teams")]) == [
        "PRESIGN_FOR is set and NOTIFY_URL is not: there is no message that a link could stand in",
        "NOTIFY_FORMAT is set and NOTIFY_URL is not: no message is sent",
    ]
    assert (
        without_effect([Notifying(), Notifying(presign_for_s=3600, notify_url="https://hooks.example.com/x")])
        == []
    )
