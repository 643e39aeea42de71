"""The programs that the archive runs: restic, rclone, SeaweedFS."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from site_node.errors import ConfigurationError


def find(name: str, install: str) -> str:
    """Return the path of a program that a wheel put beside Python, or the system has; `install` says how to get it.

    Raises: ConfigurationError if it is not installed.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigurationError(f"the program {name} is missing: {install}")
    return found
