"""The allocator is told what is meant, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEGABYTES = 64
PROGRAM = f"""
import psutil
from models.memory import give_back, keep_large_blocks, share_one_arena
share_one_arena()
SETTING
resting = psutil.Process().memory_info().rss
block, pin = bytearray({MEGABYTES} * 2**20), bytearray(2**12)
del block
held = psutil.Process().memory_info().rss - resting
give_back()
print(held // 2**20, (psutil.Process().memory_info().rss - resting) // 2**20)
"""


def measured(setting: str) -> list[int]:
    """Return the MiB that stay after a large block was freed, and after free memory was given back."""
    command = [sys.executable, "-c", PROGRAM.replace("SETTING", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_freed_block_stays_until_it_is_given_back_where_large_blocks_are_kept() -> None:
    done = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("SETTING", s)], capture_output=True, text=True, check=True
        )
        for s in ("", "keep_large_blocks()")
    ]
    (let_go, _), (kept, given_back) = ([int(word) for word in one.stdout.split()] for one in done)

    assert let_go < MEGABYTES / 2
    assert kept > MEGABYTES / 2
    assert given_back < MEGABYTES / 2
