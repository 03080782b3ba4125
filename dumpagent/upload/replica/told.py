"""Tells what becomes of dumps at the replica under names of its own, so that the counts of dumps are of the first destination's."""

from __future__ import annotations

from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.companions import CompanionFailed, CompanionRecovered, CompanionUploaded
from dumpagent.observe.events.dumps import (
    AttemptFailed,
    DumpAlreadyStored,
    DumpUploaded,
    DumpWouldUpload,
    ObjectMissing,
    PassFinished,
    UploadFailed,
    UploadRecovered,
)
from dumpagent.observe.events.replica import (
    ReplicaAlreadyStored,
    ReplicaAnswered,
    ReplicaAttemptFailed,
    ReplicaChecked,
    ReplicaCompanionFailed,
    ReplicaCompanionRecovered,
    ReplicaCompanionUploaded,
    ReplicaFailed,
    ReplicaObjectMissing,
    ReplicaPassFinished,
    ReplicaRecovered,
    ReplicaUploaded,
    ReplicaUploadFailed,
    ReplicaUploadRecovered,
    ReplicaWouldUpload,
)
from dumpagent.observe.events.store import StoreAnswered, StoreChecked, StoreFailed, StoreRecovered
from dumpagent.store_settings import for_replica

OF_REPLICA: dict[type[Event], type[Event]] = {
    AttemptFailed: ReplicaAttemptFailed,
    CompanionFailed: ReplicaCompanionFailed,
    CompanionRecovered: ReplicaCompanionRecovered,
    CompanionUploaded: ReplicaCompanionUploaded,
    DumpAlreadyStored: ReplicaAlreadyStored,
    DumpUploaded: ReplicaUploaded,
    DumpWouldUpload: ReplicaWouldUpload,
    ObjectMissing: ReplicaObjectMissing,
    PassFinished: ReplicaPassFinished,
    StoreAnswered: ReplicaAnswered,
    StoreChecked: ReplicaChecked,
    StoreFailed: ReplicaFailed,
    StoreRecovered: ReplicaRecovered,
    UploadFailed: ReplicaUploadFailed,
    UploadRecovered: ReplicaUploadRecovered,
}


def as_replica(tell: Tell) -> Tell:
    """Give what tells events as the replica's; what has no such name, as a scan of the volume, goes on as it is."""

    def told(event: Event, /) -> None:
        fields = event.fields()
        if hint := fields.get("hint"):
            fields["hint"] = for_replica(str(hint))
        tell(OF_REPLICA.get(type(event), type(event))(**fields))

    return told
