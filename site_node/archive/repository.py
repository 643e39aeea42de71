"""The repository of snapshots: restic, run as a program.

restic encrypts, splits, keeps what is new, locks and verifies. Nothing here counts as done unless restic ended with 0.
The password is named by its file alone; what a store such as S3 asks for comes from a file too, into restic's
environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from site_node.archive import programs
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

GOOD, SUSPECT = "good", "suspect"
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as the repository lists it."""

    id: str
    at: datetime
    tags: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether it was taken whole, with no alarm."""
        return GOOD in self.tags


@dataclass(frozen=True, slots=True)
class Store:
    """Where a repository lies: a folder or any address that restic knows, with its environment and options."""

    address: str
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of snapshots."""

    store: Store
    password_file: Path
    cache: Path
    host: str

    def create(self) -> None:
        """Make the repository.

        Raises: ArchiveError if there is one already, or restic cannot make it.
        """
        self._run("init")

    def backup(self, folder: Path, tag: str, progress: Callable[[float], None]) -> str:
        """Take a snapshot of a folder and return its id; it counts if restic ended well and the list shows it.

        Raises: ArchiveError; nothing was taken then that counts.
        """
        made = ""
        arguments = ("backup", "--host", self.host, "--tag", tag, ".")
        try:
            for told in self._events(folder, *arguments):
                made = str(told.get("snapshot_id") or made)
                if told.get("message_type") == "status":
                    progress(float(told.get("percent_done", 0.0)))
        except ArchiveError:
            if made:  # restic keeps a snapshot without the files it could not read
                self._run("forget", made)
            raise
        listed = [snapshot.id for snapshot in self.snapshots() if made and snapshot.id.startswith(made)]
        if len(listed) != 1:
            raise ArchiveError("restic made a snapshot that its list does not show")
        return listed[0]

    def snapshots(self) -> list[Snapshot]:
        """Return this site's snapshots, oldest first.

        Raises: ArchiveError.
        """
        listed = json.loads(self._run("snapshots", "--host", self.host, "--json") or "null") or []
        found = [
            Snapshot(one["id"], datetime.fromisoformat(one["time"]), tuple(one.get("tags") or ())) for one in listed
        ]
        return sorted(found, key=lambda snapshot: snapshot.at)

    def restore(self, snapshot: Snapshot, target: Path, *names: str) -> None:
        """Restore files or folders of a snapshot (all of it without any) into `target`.

        Raises: ArchiveError.
        """
        include = [part for name in names for part in ("--include", f"/{name}")]
        self._run("restore", snapshot.id, "--target", str(target), *include)

    def check(self, subset: str = "") -> None:
        """Verify the repository and read its data: all of it, or a part such as `1/7` or `5%`.

        Raises: ArchiveError naming what restic found.
        """
        self._run("check", f"--read-data-subset={subset}" if subset else "--read-data")

    def forget(self, keep: Mapping[str, int]) -> None:
        """Forget good snapshots beyond the schedule, and suspect ones that are older than its days; free their space.

        Raises: ArchiveError.
        """
        schedule = [part for name, count in keep.items() for part in (f"--keep-{name}", str(count))]
        ours = ("--host", self.host, "--group-by", "host")
        self._run("forget", *ours, "--tag", GOOD, *schedule)
        self._run("forget", *ours, "--tag", SUSPECT, "--keep-within", f"{max(keep.get('daily', 1), 1)}d")
        self._run("prune")

    def unlock(self) -> None:
        """Remove locks of processes that are no longer there; those of living ones stay."""
        self._run("unlock")

    def _run(self, *arguments: str) -> str:
        with self._start(arguments) as process:
            said, complaint = process.communicate()
        _judge(arguments[0], process.returncode, complaint)
        return said

    def _events(self, folder: Path, *arguments: str) -> Iterator[dict[str, Any]]:
        """Yield what restic tells while it works in a folder."""
        with self._start((*arguments, "--json"), folder) as process:
            if process.stdout is None or process.stderr is None:
                raise ArchiveError("restic could not be started")
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            complaint = process.stderr.read()
        _judge(arguments[0], process.returncode, complaint)

    def _start(self, arguments: Sequence[str], folder: Path | None = None) -> subprocess.Popen[str]:
        program = programs.find("restic", "apt-get install restic")
        files = ("--password-file", str(self.password_file.absolute()), "--cache-dir", str(self.cache.absolute()))
        where = ("--repo", self.store.address, *files, *self.store.options)
        return subprocess.Popen(  # noqa: S603 -- no shell, a fixed program
            [program, *where, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(self.store.settings),
        )


def _judge(verb: str, code: int, complaint: str) -> None:
    if code == 0:
        return
    told = [line.strip() for line in complaint.splitlines() if not line.startswith("{")]
    errors = [json.loads(line) for line in complaint.splitlines() if line.startswith("{")]
    told += [str(one.get("error", {}).get("Err", one.get("error", ""))) for one in errors]
    fatal = [line.removeprefix("Fatal: ").strip() for line in complaint.splitlines() if line.startswith("Fatal: ")]
    words = fatal or [line for line in told if line]
    raise ArchiveError(f"restic {verb} failed ({code}): {words[-1] if words else 'no reason given'}")
