"""What every peer's script shares: take each file of a folder, and tell what it cost in CPU seconds.

Needs the standard library alone, because it runs in the peers' environment.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def run(treat: Callable[[Path, Path], None]) -> None:
    """Treat every file of the folder that the arguments name, and print the account as the last line.

    `treat` writes what it makes of a file to the second path; what it raises is counted, and the next file comes.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--warm", type=int, default=0, help="so many files are treated before the count begins")
    parser.add_argument("--repeat", type=int, default=1, help="treat every file so many times")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.source.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        for path in paths[: arguments.warm]:
            _fault(treat, path, Path(scratch) / path.name)
    gc.freeze()  # tables that were loaded live as long as the process, as in Filmroom's own workers
    arguments.target.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    began = _cpu_s()
    for _ in range(arguments.repeat):
        for path in paths:
            fault = _fault(treat, path, arguments.target / path.name)
            if fault:
                failed[path.name] = fault
    cpu_s = _cpu_s() - began
    size = sum(path.stat().st_size for path in paths) * arguments.repeat
    account = {"cpu_s": cpu_s, "files": len(paths) * arguments.repeat, "bytes": size, "failed": failed}
    sys.stdout.write(f"\n{json.dumps(account)}\n")


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of the programs that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _fault(treat: Callable[[Path, Path], None], source: Path, target: Path) -> str:
    """Return the name of what was raised, "" if the file was treated."""
    try:
        treat(source, target)
    except Exception as fault:  # noqa: BLE001 -- a tool's own failure, whatever it is, is one of its figures
        if target.is_dir():
            shutil.rmtree(target)
        return type(fault).__name__
    return ""
