"""Files of a folder that has marks: nothing that cannot be read is passed over in silence."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# Root reads everything, unless it gives the capabilities up that let it.
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
PROGRAM = """
import sys
from pathlib import Path
from site_node import away
list(getattr(away, sys.argv[1])(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("walk", ["below", "marked"])
def test_a_folder_that_cannot_be_read_is_an_error_and_not_empty(tmp_path: Path, walk: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "0.dcm").write_bytes(b"")
    command = [*AS_ANYBODY, sys.executable, "-c", PROGRAM, walk, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0

    closed.chmod(0)
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    closed.chmod(0o700)

    assert told.returncode
    assert "PermissionError" in told.stderr
