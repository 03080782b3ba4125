"""What a store does not know is left out of a request, and only that."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from dumpagent.errors import Refused
from dumpagent.store.s3.objects import negotiate
from dumpagent.store.s3.options import Feature, Option

CLASS = Option(Feature.STORAGE_CLASS, {"StorageClass": "STANDARD_IA"})
CONDITION = Option(Feature.CONDITION, {"IfNoneMatch": "*"})


def refused(status: int, code: str) -> Refused:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = Refused(f"the store answered {status} {code}")
    error.__cause__ = ClientError(answer, "PutObject")  # type: ignore[arg-type]  # the SDK reads no other field of it
    return error


def test_a_class_that_was_accepted_for_a_multipart_upload_and_not_for_an_object_is_left_out() -> None:
    """Ceph RGW begins an upload of any class, and refuses an object of it as an invalid argument."""
    learnt: dict[Feature, bool] = {Feature.STORAGE_CLASS: True, Feature.CONDITION: True}

    def send(**parameters: object) -> str:
        if "StorageClass" in parameters:
            raise (error := refused(400, "InvalidArgument")) from error.__cause__
        return "stored"

    answer, used = negotiate(send, [CLASS, CONDITION], known=learnt.get, learn=learnt.__setitem__)
    assert (answer, used) == ("stored", {Feature.CONDITION})
    assert learnt[Feature.STORAGE_CLASS] is False


def test_an_argument_that_is_invalid_without_the_class_too_is_told_and_teaches_nothing() -> None:
    learnt: dict[Feature, bool] = {Feature.STORAGE_CLASS: True}

    def send(**parameters: object) -> str:
        raise (error := refused(400, "InvalidArgument")) from error.__cause__

    with pytest.raises(Refused, match="InvalidArgument"):
        negotiate(send, [CLASS], known=learnt.get, learn=learnt.__setitem__)
    assert learnt == {Feature.STORAGE_CLASS: True}
