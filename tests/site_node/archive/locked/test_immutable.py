"""Local copies cannot be changed by who has no capability, and the node gives it up; they are not called compliant."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from site_node import away
from site_node.archive.locked import immutable
from site_node.archive.locked.immutable import Copied
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files immutable")

ATTEMPTS = """
import os, sys
from pathlib import Path
from site_node.archive.locked import immutable
path = Path(sys.argv[1])
print(immutable.give_up_capability(), immutable.give_up_capability())
for attempt in (
    lambda: path.unlink(), lambda: path.write_bytes(b''), lambda: path.rename(path.with_name('other')),
    lambda: path.open('ab'), lambda: immutable.set_immutable(path, on=False),
):
    try:
        attempt()
        print('done')
    except Exception as error:
        print(type(error).__name__)
print(os.system(f'chattr -i {path} 2>/dev/null') != 0)
"""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with one local copy, and free it in the end."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"pixels")
    target = tmp_path / "target"
    try:
        immutable.copy(tmp_path / "source", target)
    except ConfigurationError as error:
        pytest.skip(str(error))
    yield target
    for path in target.rglob("*"):
        immutable.set_immutable(path, on=False)


def test_root_can_neither_change_nor_delete_and_lifts_it_by_one_command(kept: Path) -> None:
    assert immutable.is_immutable(kept / "a")
    for attempt in ((kept / "a").unlink, lambda: (kept / "a").write_bytes(b"")):
        with pytest.raises(PermissionError):
            attempt()
    immutable.set_immutable(kept / "a", on=False)  # the honest limit
    (kept / "a").write_bytes(b"changed")


def test_a_node_that_gave_the_capability_up_cannot_lift_it_nor_can_what_it_starts(kept: Path) -> None:
    tried = subprocess.run([sys.executable, "-c", ATTEMPTS, kept / "a"], check=True, capture_output=True, text=True)

    assert tried.stdout.split() == [
        "True", "False", *["PermissionError"] * 4, "ConfigurationError", "True",
    ]  # fmt: skip
    assert (kept / "a").read_bytes() == b"pixels"


def test_copying_again_is_nothing_new_and_what_changed_or_is_away_is_told(kept: Path) -> None:
    source = kept.parent / "source"

    assert immutable.copy(source, kept) == Copied(new=0, differing=0, away=0)
    (source / "a").write_bytes(b"encrypted")
    (source / "b").write_bytes(b"more pixels")
    away.put([(source / "c", away.Mark("0" * 64, 6, "0" * 64))])
    assert immutable.copy(source, kept) == Copied(new=1, differing=1, away=1)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"a": b"pixels", "b": b"more pixels"}
