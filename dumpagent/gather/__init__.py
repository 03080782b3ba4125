"""Collects what support needs to know, without dumps and without secrets: `dumpagent gather`."""
