"""The workbench of one drill: a clean folder, what it works on, and the notes it takes.

The folder is emptied before and after: what is restored names patients.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from site_node.archive.layout import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from site_node.archive.snapshot import Archive
    from site_node.config import DrillSettings
    from site_node.drills.rebuilt import Running
    from site_node.drills.report import Rebuilt

_KEPT = ("snapshot", "done", "catalogued", "files", "refused", "stages", "problems", "alarms")


@dataclass(slots=True)
class Notes:
    """What a drill found so far, and how long each stage took."""

    snapshot: str = ""
    snapshot_at: datetime | None = None
    manifest: str = ""
    total: int = 0
    drawn: int = 0
    done: int = 0
    """Studies that are behind it: a full drill that was stopped goes on from here."""
    files: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """Digests (SHA-256) of files that the PACS cannot read."""
    catalogued: int = 0
    """Files that came back as the rebuilt catalogue names them."""
    stages: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    """What came back as another than was archived, by kind: training pauses."""
    rebuilt: Rebuilt | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages[name] += round(1000 * (time.monotonic() - began))

    def problem(self, text: str) -> None:
        """Note what is wrong, once."""
        if text not in self.problems:
            self.problems.append(text)

    def bad(self, kind: str, count: int = 1) -> None:
        """Note what came back as another than was archived."""
        self.alarms += [kind] * count


@dataclass(frozen=True, slots=True)
class Bench:
    """What a drill works with; `progress` hears of files (done, total), `say` of what a person may want to know."""

    archive: Archive
    running: Running
    settings: DrillSettings
    folder: Path
    notes: Notes
    nonce: str
    at: datetime
    recovery_key: Path | None
    progress: Callable[[int, int], None]
    say: Callable[[str], None]
    keep: bool = False
    """Whether what was restored last stays for a look."""

    @property
    def scratch(self) -> Path:
        """The clean folder."""
        return self.running.home.root / self.settings.scratch

    def clean(self) -> None:
        """Empty the clean folder."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(mode=0o700, parents=True)

    def clear(self, *names: str) -> None:
        """Make room for what comes next."""
        if not self.keep:
            for name in names:
                shutil.rmtree(self.scratch / name, ignore_errors=True)


class Journal:
    """How far a full drill is, so that one that was stopped goes on; written after each batch, and gone at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any] | None:
        """Return what was kept of a drill that was stopped."""
        try:
            kept: dict[str, Any] = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return None
        return kept

    def keep(self, bench: Bench) -> None:
        """Keep how far this drill is."""
        notes = {key: getattr(bench.notes, key) for key in _KEPT}
        write(self._path, (json.dumps({"nonce": bench.nonce, "at": bench.at.isoformat(), "notes": notes}).encode(),))

    def end(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)


def resume(notes: Notes, kept: dict[str, Any], snapshot: str) -> bool:
    """Take over what was kept, if it is of the same snapshot; return whether it was."""
    told = kept["notes"]
    if told["snapshot"] != snapshot:
        return False
    notes.done, notes.catalogued = told["done"], told["catalogued"]
    notes.files, notes.stages = Counter(told["files"]), Counter(told["stages"])
    notes.problems, notes.alarms, notes.refused = (list(told[name]) for name in ("problems", "alarms", "refused"))
    return True
