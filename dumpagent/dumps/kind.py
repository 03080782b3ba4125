"""What a file is by its first bytes, whatever its name."""

from __future__ import annotations

import enum
import zlib

HEAD_BYTES = 64  # enough for all but gzip, whose first bytes must be unpacked
PACKED_HEAD_BYTES = 4096
# Source: HPROF binary format, header; 1.0.1 to 1.0.3 (Android's ART), and GraalVM's native images write 1.0.2.
_HPROF = b"JAVA PROFILE 1.0."
# Source: OpenJ9, "Portable Heap Dump (PHD) format": the text with its length before it, as writeUTF does.
_PHD = b"\x00\x12portable heap dump"
# Source: OpenJ9, "Java dump": each line begins with a tag, the first line with this one.
_JAVACORE = b"0SECTION       TITLE"
_GZIP = b"\x1f\x8b\x08"
_ELF, _ELF_CORE = b"\x7fELF", 4  # Source: elf(5), e_type at offset 16: ET_CORE
FIRST_BYTES = frozenset(each[0] for each in (_HPROF, _PHD, _JAVACORE, _GZIP, _ELF))


class FileKind(enum.Enum):
    """What a file is. The text stands in the log, in metrics, and in `doctor`."""

    HPROF = "hprof"
    PHD = "phd"  # the heap dump of an OpenJ9 JVM
    CORE = "core"  # the memory of a process: OpenJ9's system dump, or any program's core file
    JAVACORE = "javacore"  # OpenJ9's text about a dying JVM
    UNDECIDED = "undecided"  # too short as yet, and what is there fits
    OTHER = "other"


def kind_of(head: bytes) -> FileKind | None:
    """Say what the file is that begins with `head`, its first HEAD_BYTES or all of it; None: gzip, see `packed_kind`."""
    if not head:
        return FileKind.UNDECIDED
    if head[0] not in FIRST_BYTES:
        return FileKind.OTHER
    if head.startswith(_GZIP):
        return None
    for magic, kind in ((_HPROF, FileKind.HPROF), (_PHD, FileKind.PHD), (_JAVACORE, FileKind.JAVACORE)):
        if head.startswith(magic):
            return kind
        if magic.startswith(head):
            return FileKind.UNDECIDED
    if head.startswith(_ELF) and len(head) >= 18:
        order = "big" if head[5] == 2 else "little"  # Source: elf(5), EI_DATA
        return FileKind.CORE if int.from_bytes(head[16:18], order) == _ELF_CORE else FileKind.OTHER  # type: ignore[arg-type]
    return FileKind.UNDECIDED if _ELF.startswith(head[:4]) or _GZIP.startswith(head) else FileKind.OTHER


def packed_kind(head: bytes) -> FileKind:
    """Say what the gzip file that begins with `head`, its first PACKED_HEAD_BYTES or all of it, unpacks to."""
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return FileKind.OTHER
    kind = kind_of(unpacked) or FileKind.OTHER  # gzip in gzip is nothing that a JVM writes
    if kind is FileKind.UNDECIDED and len(head) >= PACKED_HEAD_BYTES:
        return FileKind.OTHER
    return kind


def is_plain_dump(head: bytes) -> bool:
    """Say whether the file that begins with `head` is a heap dump that gzip can make smaller: what is gzip already is not."""
    return head.startswith(b"JAVA PROFILE ")
