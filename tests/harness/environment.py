"""The environment of tests and demo: a developer's own cloud settings have no say in it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_FORGOTTEN = ("AWS_", "S3_", "DUMP", "MOUNT_", "STATE_", "LOG_", "NODE_NAME", "POD_")


def forget_own_settings() -> None:
    """Take what would change the agent or the S3 SDK out of this process's environment, and so out of its children's.

    Java's too: a JAVA_TOOL_OPTIONS with another heap size would change every dump.
    """
    for name in list(os.environ):
        if name.startswith(_FORGOTTEN) or name.lower().endswith("_proxy"):
            del os.environ[name]
    for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"):
        os.environ.pop(name, None)
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    # Daemons of parallel tests would write into one another's, and a developer may not write to /run.
    os.environ["METRICS_PORT"] = "0"
    os.environ["RUNTIME_DIR"] = tempfile.mkdtemp(prefix="dumpagent-run-")
    atexit.register(shutil.rmtree, os.environ["RUNTIME_DIR"], ignore_errors=True)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
