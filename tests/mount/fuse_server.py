"""A FUSE file system in memory that dies or hangs when told to: `python -I -S fuse_server.py MOUNTPOINT HANG_FILE [SQUASH]`.

It speaks the kernel's protocol on /dev/fuse itself, so that no package is needed. While HANG_FILE exists it takes
requests and does not answer them: who asks then is in an uninterruptible wait, which SIGKILL does not end.
SQUASH is `root:UID` or `all:UID`: whom it maps to this user, as an NFS server does; modes are then checked by the mapped
user. Source: <linux/fuse.h>, protocol 7.31; exports(5), root_squash, all_squash, anonuid.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import time

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS = (
    1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17,
)  # fmt: skip
RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, BATCH_FORGET, RENAME2 = (
    18, 20, 25, 26, 27, 28, 29, 30, 35, 36, 42, 45,
)  # fmt: skip
_IN = struct.Struct("<IIQQIIII")  # fuse_in_header
_OUT = struct.Struct("<IiQ")  # fuse_out_header
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")


class Node:
    """A file or a directory."""

    def __init__(self, number: int, mode: int, uid: int = 0, gid: int = 0) -> None:
        self.number, self.mode, self.uid, self.gid = number, mode, uid, gid
        self.content = bytearray()
        self.names: dict[bytes, Node] = {}
        self.links = 1
        self.mtime_ns = time.time_ns()

    def attr(self) -> bytes:
        s, ns = divmod(self.mtime_ns, 10**9)
        size = len(self.content)
        return _ATTR.pack(
            self.number, size, size // 512, s, s, s, ns, ns, ns, self.mode, self.links, self.uid, self.gid, 0, 4096, 0
        )  # fmt: skip


class Server:
    """Answers requests from a tree in memory."""

    def __init__(self, squash: str = "") -> None:
        self._whom, _, mapped = squash.partition(":")
        self._mapped = int(mapped or 0)
        self.nodes = {1: Node(1, stat.S_IFDIR | 0o777)}

    def answer(self, opcode: int, nodeid: int, uid: int, gid: int, body: bytes) -> bytes:
        """Give the reply's body. Raises OSError for an error reply."""
        node = self.nodes.get(nodeid)
        if self._whom == "all" or (self._whom == "root" and uid == 0):
            uid = gid = self._mapped
        if self._whom and node:
            self._check(opcode, node, uid, body)
        if opcode == INIT:
            _major, minor, readahead, _flags = struct.unpack_from("<IIII", body)
            return struct.pack(
                "<IIIIHHIIHHI28x", 7, min(minor, 31), readahead, 1 << 5, 16, 12, 1 << 20, 1, 256, 0, 0
            )
        if opcode in (OPENDIR, OPEN):
            return struct.pack("<QII", nodeid, 0, 0)
        if opcode in (RELEASE, RELEASEDIR, FSYNC, FSYNCDIR, FLUSH):
            return b""
        if opcode == STATFS:
            return struct.pack(
                "<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 20, 4096, 255, 4096, 0
            )
        if node is None:
            raise OSError(errno.ESTALE, "no such node")
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + node.attr()
        if opcode == SETATTR:
            valid, _, _, size, _, _, mtime, _, _, mtimensec, _, mode, _, new_uid, new_gid = (
                struct.unpack_from("<IIQQQQQQIIIIIII", body)
            )
            if valid & 1:
                node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
            node.uid, node.gid = (new_uid if valid & 2 else node.uid), (new_gid if valid & 4 else node.gid)
            if valid & 8:
                node.content[:] = node.content[:size].ljust(size, b"\0")
            if valid & 32:
                node.mtime_ns = mtime * 10**9 + mtimensec
            return struct.pack("<QII", 0, 0, 0) + node.attr()
        if opcode == LOOKUP:
            return self._entry(self._child(node, body.rstrip(b"\0")))
        if opcode in (CREATE, MKDIR):
            at = 16 if opcode == CREATE else 8
            mode, umask = struct.unpack_from("<II", body, 4 if opcode == CREATE else 0)
            kind = stat.S_IFREG if opcode == CREATE else stat.S_IFDIR
            name = body[at:].rstrip(b"\0")
            if name in node.names:
                raise OSError(errno.EEXIST, "exists")
            child = Node(max(self.nodes) + 1, kind | stat.S_IMODE(mode & ~umask), uid, gid)
            self.nodes[child.number] = node.names[name] = child
            opened = struct.pack("<QII", child.number, 0, 0) if opcode == CREATE else b""
            return self._entry(child) + opened
        if opcode == LINK:
            (old,) = struct.unpack_from("<Q", body)
            name = body[8:].rstrip(b"\0")
            if name in node.names:
                raise OSError(errno.EEXIST, "exists")
            node.names[name] = self.nodes[old]
            self.nodes[old].links += 1
            return self._entry(self.nodes[old])
        if opcode in (UNLINK, RMDIR):
            self._child(node, body.rstrip(b"\0")).links -= 1
            del node.names[body.rstrip(b"\0")]
            return b""
        if opcode in (RENAME, RENAME2):
            (newdir,) = struct.unpack_from("<Q", body)
            old_name, new_name = body[8 if opcode == RENAME else 16 :].split(b"\0")[:2]
            self.nodes[newdir].names[new_name] = self._child(node, old_name)
            del node.names[old_name]
            return b""
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return bytes(node.content[offset : offset + size])
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            node.content[:] = node.content.ljust(offset, b"\0")
            node.content[offset : offset + size] = body[40 : 40 + size]
            node.mtime_ns = time.time_ns()
            return struct.pack("<II", size, 0)
        if opcode == READDIR:
            _, offset, size = struct.unpack_from("<QQI", body)
            return self._directory(node, offset, size)
        raise OSError(errno.ENOSYS, "not here")

    def _check(self, opcode: int, node: Node, uid: int, body: bytes) -> None:
        """Check the mode as the server does: by the user whom it sees. Raises OSError."""
        shift = 6 if uid == node.uid else 0
        allowed = node.mode >> shift & 7
        needs = {
            LOOKUP: 1,
            OPENDIR: 4,
            CREATE: 3,
            MKDIR: 3,
            UNLINK: 3,
            RMDIR: 3,
            RENAME: 3,
            RENAME2: 3,
            LINK: 3,
        }
        wanted = needs.get(opcode, 0)
        if opcode == OPEN:
            wanted = {os.O_RDONLY: 4, os.O_WRONLY: 2}.get(struct.unpack_from("<I", body)[0] & os.O_ACCMODE, 6)
        if allowed & wanted != wanted:
            raise OSError(errno.EACCES, "the mode refuses it")
        if opcode == SETATTR and uid != node.uid and struct.unpack_from("<I", body)[0] & 7:
            raise OSError(errno.EPERM, "not the owner")
        if opcode in (UNLINK, RMDIR, RENAME, RENAME2) and node.mode & stat.S_ISVTX and uid != node.uid:
            name = body[{RENAME: 8, RENAME2: 16}.get(opcode, 0) :].split(b"\0")[0]
            if name in node.names and node.names[name].uid != uid:
                raise OSError(errno.EPERM, "the sticky bit refuses it")

    def _child(self, node: Node, name: bytes) -> Node:
        try:
            return node.names[name]
        except KeyError:
            raise OSError(errno.ENOENT, "no such name") from None

    def _entry(self, node: Node) -> bytes:
        return struct.pack("<QQQQII", node.number, 0, 0, 0, 0, 0) + node.attr()

    def _directory(self, node: Node, offset: int, size: int) -> bytes:
        entries = b""
        for at, (name, child) in enumerate(sorted(node.names.items())):
            entry = struct.pack("<QQII", child.number, at + 1, len(name), child.mode >> 12) + name
            entry += b"\0" * (-len(entry) % 8)
            if at >= offset and len(entries) + len(entry) <= size:
                entries += entry
        return entries


def main() -> None:
    mountpoint, hang_file = sys.argv[1:3]
    fd = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40777,user_id=0,group_id=0,allow_other"
    if libc.mount(b"fuse-test", os.fsencode(mountpoint), b"fuse", ctypes.c_ulong(0), options.encode()) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    print("mounted", flush=True)
    server = Server(*sys.argv[3:])
    kept: list[bytes] = []  # requests that wait for the end of the hang
    while True:
        try:
            request = os.read(fd, (1 << 20) + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # unmounted everywhere
            if error.errno in (errno.EINTR, errno.ENOENT):
                continue
            raise
        if os.path.exists(hang_file):
            kept.append(request)
            while os.path.exists(hang_file):
                time.sleep(0.01)
        for one in [*kept, request] if request not in kept else kept:
            _length, opcode, unique, nodeid, uid, gid, _pid, _ = _IN.unpack_from(one)
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            try:
                body, number = server.answer(opcode, nodeid, uid, gid, one[_IN.size :]), 0
            except OSError as error:
                body, number = b"", -(error.errno or errno.EIO)
            try:
                os.write(fd, _OUT.pack(_OUT.size + len(body), number, unique) + body)
            except OSError as error:
                if error.errno != errno.ENOENT:  # who asked was interrupted
                    raise
        kept.clear()


if __name__ == "__main__":
    main()
