"""Goes through everything that must hold for a dump to reach the store: `dumpagent doctor`."""
