"""Asks a running JVM for a heap dump, from outside its container (`dumpagent trigger`); off by default."""
