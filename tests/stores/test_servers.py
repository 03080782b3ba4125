"""The real stores that other tests stand on run, and differ from each other in the ways that we say."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.harness.fixtures import need
from tests.harness.stores.ceph import PROGRAMS, Ceph
from tests.harness.stores.server import StoreServer
from tests.harness.stores.swift import Swift

PART = bytes(5 << 20)


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_an_object_comes_back_as_it_was_put(every_server: StoreServer) -> None:
    client, bucket = every_server.client(), every_server.new_bucket()
    client.put_object(Bucket=bucket, Key="a/dump.hprof", Body=b"JAVA PROFILE", Metadata={"node": "n1"})
    answer = client.get_object(Bucket=bucket, Key="a/dump.hprof")
    assert answer["Body"].read() == b"JAVA PROFILE"
    # rclone gives names in capitals.
    assert {name.lower(): value for name, value in answer["Metadata"].items()} == {"node": "n1"}


def test_a_wrong_md5_is_refused_where_we_say_so(every_server: StoreServer) -> None:
    client, bucket = every_server.client(), every_server.new_bucket()
    if every_server.quirks.verifies_md5:
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
        assert code_of(error) == "BadDigest"
    else:
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")


def test_a_wrong_crc32_is_refused_where_we_say_so(every_server: StoreServer) -> None:
    client, bucket = every_server.client(), every_server.new_bucket()
    if every_server.quirks.verifies_crc32:
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")
        assert code_of(error) in ("BadDigest", "InvalidRequest")
    else:
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")


def test_standard_ia_is_known_where_we_say_so(every_server: StoreServer) -> None:
    client, bucket = every_server.client(), every_server.new_bucket()
    if every_server.quirks.knows_standard_ia:
        client.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="STANDARD_IA")
        assert client.head_object(Bucket=bucket, Key="k")["StorageClass"] == "STANDARD_IA"
    else:
        with pytest.raises(ClientError) as error:
            client.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="STANDARD_IA")
        assert code_of(error) in ("InvalidStorageClass", "InvalidArgument")


def test_conditional_writes_are_honoured_where_we_say_so(every_server: StoreServer) -> None:
    client, bucket = every_server.client(), every_server.new_bucket()
    client.put_object(Bucket=bucket, Key="k", Body=b"first")
    if not every_server.quirks.conditional_put:
        client.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"
        return
    with pytest.raises(ClientError) as error:
        client.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert code_of(error) in ("PreconditionFailed", "412")

    upload_id = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=1, Body=b"third")

    def complete() -> None:
        client.complete_multipart_upload(
            Bucket=bucket,
            Key="k",
            UploadId=upload_id,
            IfNoneMatch="*",
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )

    if every_server.quirks.conditional_complete:
        with pytest.raises(ClientError) as error:
            complete()
        assert code_of(error) in ("PreconditionFailed", "412")
    else:
        complete()
    kept = client.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert kept == (b"first" if every_server.quirks.conditional_complete else b"third")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swift", "ceph"])
def test_a_server_that_was_killed_comes_back_with_its_data(kind: str, tmp_path: Path) -> None:
    """Outages can be rehearsed: objects and open multipart uploads are there again."""
    if kind == "ceph":
        need(*PROGRAMS)
    with Ceph(tmp_path, durable=True) if kind == "ceph" else Swift(tmp_path) as running:
        client, bucket = running.http.client(), running.http.new_bucket()
        client.put_object(Bucket=bucket, Key="k", Body=b"kept")
        upload_id = client.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
        client.upload_part(Bucket=bucket, Key="m", UploadId=upload_id, PartNumber=1, Body=PART)
        running.kill()
        running.start()
        client = running.http.client()
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"
        (part,) = client.list_parts(Bucket=bucket, Key="m", UploadId=upload_id)["Parts"]
        assert part["Size"] == len(PART)
