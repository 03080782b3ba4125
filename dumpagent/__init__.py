"""dumpagent keeps Java heap dumps safe: mounts their volume, knows when one is finished, uploads it to S3."""

__version__ = "0.2.0"
