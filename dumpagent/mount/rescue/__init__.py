"""Moves what was written on the node's own disk, while the mount was away, into the volume."""
