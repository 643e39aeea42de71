"""The repository of snapshots: restic, run as a program.

restic encrypts, splits, keeps what is new, locks and verifies. Nothing here counts as done unless restic ended with 0.
The password is named by its file alone; what a store such as S3 asks for comes from a file or this process's own
environment, into restic's environment. What only reads takes no lock: a restore must work from a repository that cannot
be written, or in which a killed process left its lock.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from site_node.archive import programs
from site_node.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

GOOD, SUSPECT = "good", "suspect"
SETTING = re.compile(r"(AWS|RCLONE|RESTIC_REST|AZURE|GOOGLE|B2|OS|ST)_[A-Z0-9_]+")
"""What a store may ask for by the environment."""
_PASSED_ON = re.compile(
    rf"{SETTING.pattern}|PATH|HOME|TMPDIR|LANG|SSL_CERT_FILE|SSL_CERT_DIR|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)
_LOCKED = "repository is already locked"
_FATAL = ("Fatal: ", "panic: ")
_TRACE = re.compile(r"\S+\.(go|s):\d+|(github\.com/|main\.|runtime\.)\S+")  # where in its program restic stopped
_NO_INDEX = re.compile(r"unknown blob|not found in (repository|index)", re.IGNORECASE)
_AT_ONCE = 500  # so that a command line stays within the system's bounds


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
    held: tuple[int, ...] = ()
    """Descriptors that restic inherits: what they lock stays locked until it ends, though this process be killed."""

    def create(self) -> None:
        """Make the repository.

        Raises: ArchiveError if there is one already, or restic cannot make it.
        """
        self._run("init")

    def backup(self, folder: Path, tag: str, progress: Callable[[float], None], complain: Callable[[str], None]) -> str:
        """Take a snapshot of a folder and return its id; `complain` hears what restic says of troubles, as it says it.

        Raises: ArchiveError; nothing was taken then that counts.
        """
        return self._locking(partial(self._backup, folder, tag, progress, complain))

    def _backup(
        self, folder: Path, tag: str, progress: Callable[[float], None], complain: Callable[[str], None]
    ) -> str:
        made, complaints = "", []
        arguments = ("backup", "--host", self.host, "--tag", tag, "--json", ".")
        # One stream for both: a second that nobody reads would fill up, and restic wait for ever.
        with self._start(arguments, folder, errors=subprocess.STDOUT) as process:
            for line in process.stdout or ():
                told = _told(line)
                made = str(told.get("snapshot_id") or made)
                if told.get("message_type") == "status":
                    progress(float(told.get("percent_done", 0.0)))
                elif words := _complaint(line):
                    complaints.append(words)
                    complain(words)
        if process.returncode and made:  # restic keeps a snapshot without the files it could not read
            self._run("forget", made)
        _judge("backup", process.returncode, complaints)
        return made

    def snapshots(self) -> list[Snapshot]:
        """Return this site's snapshots, oldest first.

        Raises: ArchiveError.
        """
        listed = json.loads(self._run("snapshots", "--no-lock", "--host", self.host, "--json") or "null") or []
        found = [
            Snapshot(one["id"], datetime.fromisoformat(one["time"]), tuple(one.get("tags") or ())) for one in listed
        ]
        return sorted(found, key=lambda snapshot: snapshot.at)

    def restore(self, snapshot: str, target: Path, *names: str) -> None:
        """Restore files or folders of a snapshot (all of it without any) into `target`; `*` in a name is any name.

        Raises: ArchiveError; what could be restored lies there all the same.
        """
        for at in range(0, len(names) or 1, _AT_ONCE):
            include = [part for name in names[at : at + _AT_ONCE] for part in ("--include", f"/{name}")]
            self._run("restore", "--no-lock", snapshot, "--target", str(target), *include)

    def check(self, subset: str = "") -> None:
        """Verify the repository and read its data: all of it, or a part such as `1/7` or `5%`.

        Raises: ArchiveError naming what restic found.
        """
        how = f"--read-data-subset={subset}" if subset else "--read-data"
        self._locking(partial(self._run, "check", how))

    def rebuild_index(self) -> None:
        """Make the index anew from the packs, after a file of it was lost or damaged.

        Raises: ArchiveError.
        """
        self._locking(partial(self._run, "rebuild-index"))

    def forget(self, keep: Mapping[str, int], spared: Collection[str]) -> None:
        """Forget good snapshots beyond the schedule, and suspect ones that are older than its days; free their space.

        Those whose ids are among `spared` stay.
        Raises: ArchiveError.
        """
        schedule = [part for name, count in keep.items() for part in (f"--keep-{name}", str(count))]
        days = ("--keep-within", f"{max(keep.get('daily', 1), 1)}d")
        surplus = (*self._surplus("--tag", GOOD, *schedule), *self._surplus("--tag", SUSPECT, *days))
        forgotten = [made for made in surplus if made not in spared]
        for at in range(0, len(forgotten), _AT_ONCE):
            self._locking(partial(self._run, "forget", *forgotten[at : at + _AT_ONCE]))
        self._locking(partial(self._run, "prune"))

    def _surplus(self, *policy: str) -> list[str]:
        ours = ("--host", self.host, "--group-by", "host")
        groups = json.loads(self._run("forget", "--no-lock", "--dry-run", "--json", *ours, *policy) or "null") or []
        return [one["id"] for group in groups for one in group.get("remove") or ()]

    def _locking(self, work: Callable[[], str]) -> str:
        """Do what takes a lock, once more if a lock of a process that is no longer there stood in the way."""
        try:
            return work()
        except ArchiveError as error:
            if _LOCKED not in str(error):
                raise
        self._run("unlock")  # those of the living stay
        return work()

    def _run(self, *arguments: str) -> str:
        with self._start(arguments) as process:
            said, complaint = process.communicate()
        _judge(
            arguments[0], process.returncode, [words for line in complaint.splitlines() if (words := _complaint(line))]
        )
        return said

    def _start(
        self, arguments: Sequence[str], folder: Path | None = None, errors: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        program = programs.find("restic", "apt-get install restic")
        files = ("--password-file", str(self.password_file.absolute()), "--cache-dir", str(self.cache.absolute()))
        return subprocess.Popen(  # noqa: S603 -- no shell, a fixed program
            [program, "--repo", self.store.address, *files, *self.store.options, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            cwd=folder,
            env={name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
            | dict(self.store.settings),
            pass_fds=self.held,
        )


def _told(line: str) -> dict[str, Any]:
    """Return what a line of restic tells; nothing where it is not JSON."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _complaint(line: str) -> str:
    """Return what a line of restic complains of; empty if it is about something else."""
    told = _told(line)
    return str(told.get("message") or told.get("error") or "") if told else line.strip()


def _judge(verb: str, code: int, complaints: list[str]) -> None:
    """Raise what restic died of, or else complained of last, unless it ended well."""
    if code == 0:
        return
    fatal = [line for line in complaints if line.startswith(_FATAL) or _LOCKED in line]
    words = fatal or [line for line in complaints if not _TRACE.fullmatch(line)][-1:]
    reason = next(iter(words), "no reason given").removeprefix("Fatal: ")
    if any(_NO_INDEX.search(line) for line in complaints):
        reason += "; its index or a pack is lost: try `archive rebuild-index`"
    raise ArchiveError(f"restic {verb} failed ({code}): {reason}")
