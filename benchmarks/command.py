"""The public command `filmroom-site deidentify`, run as a hospital runs it: what it made, cost and survived."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.meter import cpu_of_ended_s
from demo.consortium import COMMANDS, CommandFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

REPORT: Final = "report.csv"
_EVERY_S: Final = 0.01
_LIMIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run over a folder: the summary it printed, and each file's outcome, reason and output by its name."""

    summary: Mapping[str, Any]
    cpu_s: float
    outcomes: Mapping[str, tuple[str, str]]
    outputs: Mapping[str, Path]

    def named(self, outcome: str) -> frozenset[str]:
        """Return the names of the files with an outcome."""
        return frozenset(name for name, (what, _) in self.outcomes.items() if what == outcome)


class Site:
    """A site's folder and the commands given to it."""

    def __init__(self, home: Path) -> None:
        self._start = [str(COMMANDS / "filmroom-site"), "--home", str(home)]
        self._do("init", "--name", "bench")

    def deidentify(self, folder: Path, target: Path) -> Run:
        """De-identify a folder into another and return what became of it.

        Raises: CommandFailed.
        """
        before = cpu_of_ended_s()
        said = self._do("deidentify", str(folder), str(target), "--json")
        cpu_s = cpu_of_ended_s() - before
        names = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in folder.iterdir()}
        outcomes: dict[str, tuple[str, str]] = {}
        outputs: dict[str, Path] = {}
        with (target / REPORT).open(newline="") as report:
            for row in csv.DictReader(report):
                name = names[row["source_sha256"]]
                outcomes.setdefault(name, (row["outcome"], row["reason"]))  # later rows say it was known already
                if row["path"] and (target / row["path"]).exists():
                    outputs[name] = target / row["path"]
        return Run(json.loads(said), cpu_s, outcomes, outputs)

    def deidentify_until_killed(self, folder: Path, target: Path) -> None:
        """Begin the same, and end it with SIGKILL as soon as the first files are reported."""
        with self._begin(folder, target) as process:
            end = time.monotonic() + _LIMIT_S
            while process.poll() is None and not (target / REPORT).exists() and time.monotonic() < end:
                time.sleep(_EVERY_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def memory(self, folder: Path, target: Path) -> int:
        """Run the same and return the most memory of its own that the command held, in bytes.

        What is mapped from a file is not counted: the kernel takes it back when it likes.
        """
        highest = 0
        with self._begin(folder, target) as process:
            while process.poll() is None:
                highest = max(highest, _anonymous(process.pid))
                time.sleep(_EVERY_S)
        if process.returncode:
            raise CommandFailed(["deidentify"], process.returncode, "")
        return highest

    def _begin(self, folder: Path, target: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._start, "deidentify", str(folder), str(target)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _do(self, *arguments: str) -> str:
        return told([*self._start, *arguments])


def told(command: Sequence[str], *, codes: Collection[int] = (0,), **environment: str) -> str:
    """Run a command and return what it printed; `codes` are those of a run that went well.

    Raises: CommandFailed.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1", **environment}
    )
    if done.returncode not in codes:
        raise CommandFailed(command, done.returncode, done.stdout + done.stderr)
    return done.stdout


@dataclass(frozen=True, slots=True)
class Account:
    """What a tool cost over a folder, as its script tells."""

    cpu_s: float
    files: int
    size: int
    failed: Mapping[str, str]

    @property
    def files_per_s(self) -> float:
        """Files per CPU second."""
        return self.files / self.cpu_s

    @property
    def megabytes_per_s(self) -> float:
        """Million bytes per CPU second."""
        return self.size / self.cpu_s / 1e6


def peer(
    name: str,
    source: Path,
    target: Path,
    *,
    python: Path | None = None,
    warm: int = 0,
    repeat: int = 1,
) -> Account:
    """Run a script of benchmarks.peers over a folder.

    Raises: CommandFailed.
    """
    command = [str(python or sys.executable), "-m", f"benchmarks.peers.{name}", str(source), str(target)]
    said = told(
        [*command, "--warm", str(warm), "--repeat", str(repeat)],
        PYTHONPATH=str(Path(__file__).parents[1]),
    )
    account = json.loads(said.rstrip().rsplit("\n", 1)[-1])
    return Account(account["cpu_s"], account["files"], account["bytes"], account["failed"])


def _anonymous(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
