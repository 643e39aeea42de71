"""What the search for stray identities finds, flags for nothing, and costs.

Files of 39 kinds say who a patient is, and as many only look so (`tests.planted.stray`); half of the persons are in the
dictionary of known patients. Clean data are our own de-identified outputs, and real files. Every figure is of the
public command, speeds are per CPU second of its processes. Exit code 0 however the figures turn out; 1 if a run fails.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pydicom.data
from rich.console import Console
from rich.table import Table

from benchmarks.command import told
from benchmarks.figures import Figure, show, store
from benchmarks.meter import cpu_of_ended_s
from demo.consortium import COMMANDS, CommandFailed
from site_node.app import open_site
from site_node.stray import records
from site_node.stray.digests import Keyer
from site_node.stray.finding import Confidence, Risk
from tests.planted import stray
from tests.planted.generate import generate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEEDS: Final = (21, 22)
EACH: Final = 4
COPIES: Final = 10  # of each small DICOM file, for the speed of headers
SMALL: Final = 500_000
BOMB_BYTES: Final = 3 * 1024**3
REAL: Final = (Path("/work/shared/data/hippocampus"), Path("/work/shared/data/consent/terminology"))
SCANNED: Final = (0, 7, 8, 9)
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Site:
    """A site's folder and the commands given to it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._start = [str(COMMANDS / "filmroom-site"), "--home", str(home)]
        self.do("init", "--name", "bench")

    def do(self, *arguments: str) -> str:
        """Run a command and return what it printed."""
        return told([*self._start, *arguments])

    def scan(self, folder: Path, *arguments: str) -> tuple[Mapping[str, Any], float]:
        """Return the summary of a scan and its CPU seconds."""
        before = cpu_of_ended_s()
        scan = [*self._start, "stray", "scan", str(folder), "--json", *arguments]
        (summary,) = json.loads(told(scan, codes=SCANNED))
        return summary, cpu_of_ended_s() - before

    def flagged(self, folder: Path) -> dict[str, set[str]]:
        """Return what is open by path: the kinds that are likely at least, and "" where a risk is medium or high."""
        site = open_site(self._home)
        keyer = Keyer(records.Keys.of(site.pseudonymiser).digests)
        source = keyer.token("source", str(folder.resolve()))
        with site.store.connect() as db:
            found = {file.id: file for file in records.files(db)}
        site.store.dispose()
        paths = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        named = {path: found.get(keyer.token(f"file/{source}", path)) for path in paths}
        return {path: _told(file) for path, file in named.items() if file is not None}


def _told(file: records.File) -> set[str]:
    kinds = {str(one.kind) for one in file.open if one.confidence >= Confidence.LIKELY}
    return kinds | ({""} if file.risk and file.risk >= Risk.MEDIUM else set())


@dataclass(slots=True)
class Score:
    """Counts of one kind of file."""

    files: int = 0
    flagged: int = 0
    items: int = 0
    found: int = 0
    clean: int = 0
    wrong: int = 0
    missed: list[str] = field(default_factory=list)


def main() -> int:
    """Measure, print the tables and store the figures; return the exit code."""
    os.environ.update(ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="filmroom-bench-") as folder:
        try:
            figures, kinds = measure(Path(folder))
        except CommandFailed as error:
            print(error, file=sys.stderr)
            return 1
    show("stray identities", figures)
    _show(kinds)
    print(f"stored in {store('stray', figures, peers=kinds)}")
    return 0


def measure(root: Path) -> tuple[dict[str, Figure], dict[str, dict[str, float]]]:
    """Return all figures, and those of each kind of file.

    Raises: CommandFailed.
    """
    scores: dict[str, Score] = {}
    by_knowledge = {True: Score(), False: Score()}
    for seed in SEEDS:
        _planted(root / f"seed-{seed}", seed, scores, by_knowledge)
    whole = _summed(scores.values())
    figures = {
        "files with an identity that are flagged": _percent(whole.flagged, whole.files, 99.0),
        "flagged files that have one": _percent(whole.flagged, whole.flagged + whole.wrong, 99.0),
        "identities found, all": _percent(whole.found, whole.items, 95.0),
        "identities found, known patients": _percent(by_knowledge[True].found, by_knowledge[True].items, 97.0),
        "identities found, strangers": _percent(by_knowledge[False].found, by_knowledge[False].items, None),
        "look-alikes flagged": Figure(100 * whole.wrong / max(1, whole.clean), 1.0, f"% of {whole.clean}"),
    }
    for name, score in scores.items():
        if score.missed:
            _say(f"missed: {name}: {', '.join(f'{what} {n}' for what, n in Counter(score.missed).items())}")
    figures |= _clean(root / "clean")
    figures |= _speed(root / "speed")
    figures |= _bomb(root / "bomb")
    return figures, {name: _row(score) for name, score in scores.items()}


def _planted(root: Path, seed: int, scores: dict[str, Score], by_knowledge: dict[bool, Score]) -> None:
    _say(f"files of seed {seed}")
    keys, known = stray.generate(root / "files", seed, EACH)
    stray.write_known(root / "known.csv", known)
    site = Site(root / "site")
    site.do("stray", "learn", str(root / "known.csv"))
    site.scan(root / "files")
    flagged = site.flagged(root / "files")
    for key in keys:
        kinds = flagged.get(key.path, set())
        score = scores.setdefault(key.format, Score())
        if not key.kinds:
            score.clean += 1
            score.wrong += "" in kinds
            continue
        for one in (score, by_knowledge[key.known]):
            one.files += 1
            one.flagged += "" in kinds
            one.items += len(key.kinds)
            one.found += len(kinds.intersection(key.kinds))
        score.missed += sorted(set(key.kinds) - kinds)


def _clean(root: Path) -> dict[str, Figure]:
    """Return how many files of clean data are flagged: our own outputs, and real files that name nobody."""
    _say("clean data: de-identified outputs, and real files")
    root.mkdir()
    generate(root / "originals", SEEDS[0])
    site = Site(root / "site")
    told_of = json.loads(site.do("deidentify", str(root / "originals" / "files"), str(root / "out"), "--json"))
    site.scan(root / "out")
    wrong = {path for path, kinds in site.flagged(root / "out").items() if "" in kinds}
    figures = {"our de-identified outputs flagged": Figure(len(wrong), 0.0, f"of {told_of['accepted']} files")}
    real = root / "real"
    real.mkdir()
    for folder in REAL:
        for path in sorted(folder.rglob("*"))[:200] if folder.is_dir() else ():
            if path.is_file():
                (real / f"{folder.name}-{path.name}").write_bytes(path.read_bytes())
    count = len(list(real.iterdir()))
    if count:
        site.scan(real)
        found = {path for path, kinds in site.flagged(real).items() if "" in kinds}
        figures["real files that name no patient flagged"] = Figure(len(found), None, f"of {count} files")
    return figures


def _speed(root: Path) -> dict[str, Figure]:
    """Return how fast headers are read, and what a second scan of unchanged files costs."""
    _say("speed")
    files = root / "files"
    files.mkdir(parents=True)
    data = Path(pydicom.data.__file__).parent / "test_files"
    small = [path for path in sorted(data.glob("*.dcm")) if path.stat().st_size < SMALL]
    site = Site(root / "site")
    summaries = []
    for copies in (1, COPIES):
        for copy in range(copies):
            for path in small:
                (files / f"{copy}-{path.name}").write_bytes(path.read_bytes())
        # Programs are started and tables loaded in both: what more files cost is what a file costs.
        summaries.append(site.scan(files, "--pictures", "none", "--processes", "1", "--full"))
    (few, start), (summary, whole) = summaries
    began = time.monotonic()
    again, _ = site.scan(files, "--pictures", "none", "--processes", "1")
    return {
        "headers": Figure((summary["read"] - few["read"]) / (whole - start), 200.0, "files/CPU s", "min"),
        "second scan, files read again": Figure(again["read"], 0.0, f"of {again['files']}"),
        "second scan of unchanged files": Figure(time.monotonic() - began, None, "s"),
    }


def _bomb(root: Path) -> dict[str, Figure]:
    """Return whether archives that unpack to too much are told, and how long that takes."""
    import gzip  # noqa: PLC0415 -- for this alone
    import zipfile  # noqa: PLC0415

    files = root / "files"
    files.mkdir(parents=True)
    with gzip.open(files / "zeros.gz", "wb", compresslevel=1) as out:
        for _ in range(BOMB_BYTES // 2**24):
            out.write(bytes(2**24))
    with zipfile.ZipFile(files / "zeros.zip", "w", zipfile.ZIP_DEFLATED) as made, made.open("big", "w") as member:
        for _ in range(BOMB_BYTES // 8 // 2**24):
            member.write(bytes(2**24))
    site = Site(root / "site")
    summary, cpu_s = site.scan(files)
    return {
        "bombs reported, never unpacked": Figure(summary["not_scanned"], 2.0, "of 2", "min"),
        "bombs": Figure(cpu_s, None, "CPU s"),
    }


def _summed(scores: Iterable[Score]) -> Score:
    whole = Score()
    for score in scores:
        for name in ("files", "flagged", "items", "found", "clean", "wrong"):
            setattr(whole, name, getattr(whole, name) + getattr(score, name))
    return whole


def _percent(part: int, whole: int, bar: float | None) -> Figure:
    return Figure(100 * part / max(1, whole), bar, f"% of {whole}", "min")


def _row(score: Score) -> dict[str, float]:
    row = {
        "files flagged %": 100 * score.flagged / max(1, score.files),
        "identities found %": 100 * score.found / max(1, score.items),
    }
    if score.clean:
        row["look-alikes flagged %"] = 100 * score.wrong / score.clean
    return row


def _show(kinds: Mapping[str, Mapping[str, float]]) -> None:
    columns = tuple(dict.fromkeys(name for row in kinds.values() for name in row))
    table = Table("kind of file", *columns, title="by kind of file")
    for name, row in kinds.items():
        table.add_row(name, *(f"{row[column]:.1f}" if column in row else "" for column in columns))
    Console().print(table)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
