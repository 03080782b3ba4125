"""The files that a dying JVM leaves beside its dump: GC logs, flight recordings, error files."""
