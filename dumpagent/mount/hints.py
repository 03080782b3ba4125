"""What a person does about each thing that mount mode finds."""

from __future__ import annotations

from dumpagent.mount.backend import Backend
from dumpagent.mount.table import Shows

FINDINGS = {
    Shows.NOTHING: "find who unmounts it: an old script, fstab, somebody on the node",
    Shows.ANOTHER: "find who mounts something else there (`stack` says what was found): an old script, fstab, autofs",
    Shows.STACKED: "find who mounts the volume a second time: an old script, another agent",
    Shows.READ_ONLY: "find who mounted it read-only; if the file system itself is, see the node's kernel log",
}
BACKENDS = {
    Backend.FULL: "give the volume more room, or see LOCAL_KEEP and LOCAL_MIN_FREE of the uploader",
    Backend.READ_ONLY: "repair the file system: the node's kernel log says why it is read-only",
    Backend.REFUSING: "let root write to the volume: export it with no_root_squash, or change its mode",
    Backend.DEAD: "restart the pod, so that the kubelet mounts the volume again; see the events of its claim",
    Backend.MISSING: "see that the volume is mounted at MOUNT_SOURCE in this container",
    Backend.STALE_TARGET: "nothing, if it comes once: the volume is bound anew; else restart the pod",
    Backend.HUNG: "repair the server of the volume; restarting this pod does not help",
    Backend.UNKNOWN: "see the node's kernel log and the events of the volume's claim",
}
FOUGHT = "find who else runs mount or umount on this directory (an old script, fstab, autofs) and stop it"
REMOUNT = "see the error; a restart of the pod gives it a fresh copy of the node's mounts"
UNSHARED = "mount the node's /mnt with mountPropagation: Bidirectional (and /mnt shared on the node)"
UNUSABLE = "the volume behind it is gone: see the events of its PersistentVolumeClaim, then restart the pod"
NO_MOUNTS = (
    "run it privileged and outside of user namespaces (rootless, hostUsers: false); then no seccomp or AppArmor "
    "profile is in the way"
)
NAME_TAKEN = (
    "find the application of this user on the node: it made a name that is the agent's; it was renamed"
)
