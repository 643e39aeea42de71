"""What the archive stores, restores and notices: `filmroom-site archive` on real images, beside restic alone.

The 200 CT slices of four studies are real CT slices of pydicom's data, turned, mirrored and shifted. The mixed files
are all of pydicom's data of at least 100 kB: CT, MR, CR, US, OT, NM, SEG, compressed and not. Figures of storage are
bytes of the repository on disk, the site's state and all that restic notes included. What the program takes to start,
as its shortest command shows, is told beside a restore and taken off its figures. A start, a restore of the plain files
by restic alone and a restore take turns; of each the least counts, since what others do on the machine only adds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.attacks import ATTACKS, BENIGN, is_compressed, to_jpeg_ls
from benchmarks.command import told
from benchmarks.figures import Figure, show, store
from benchmarks.meter import cpu_of_ended_s
from demo.consortium import COMMANDS
from site_node.archive.anomaly import Finding, Watch
from site_node.archive.index import open_index
from site_node.archive.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydicom import Dataset

    from benchmarks.attacks import Change

SLICES: Final = 200
STUDIES: Final = 4
LEAST_BYTES: Final = 100_000
FILES_A_CASE: Final = 20
MASS: Final = 20
TURNS: Final = 5
_CT: Final = ("693_UNCR.dcm", "explicit_VR-UN.dcm", "bad_sequence.dcm", "J2K_pixelrep_mismatch.dcm")
_UID: Final = "2.25.4712"


def main() -> int:
    """Measure, print the figures beside their bars, store them; 1 if a bar is missed."""
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="filmroom-archive-") as scratch:
        work = Path(scratch)
        _slices(work / "ct")
        figures |= _measure("CT", work / "ct", work / "ct-site", edit=True)
        _mixed(work / "mixed")
        figures |= _measure("mixed", work / "mixed", work / "mixed-site", edit=False)
        figures |= _detection(work)
    show("archive", figures)
    store("archive", figures)
    return 1 if any(figure.met is False for figure in figures.values()) else 0


def _measure(name: str, originals: Path, place: Path, *, edit: bool) -> dict[str, Figure]:
    """Return what storing and restoring a folder costs."""
    place.mkdir()
    total = _size(originals)
    plain = _Plain(place, originals)
    site = _Site(place, originals)
    empty = _size(site.repository)
    first_s, cpu_s = site.timed("snapshot")
    first = _size(site.repository) - empty
    figures = {
        f"{name}: originals": Figure(total / 1e6, None, "MB"),
        f"{name}: stored": Figure(first / 1e6, None, "MB"),
        f"{name}: stored, of restic alone": Figure(first / plain.kept, 0.75, "x"),
        f"{name}: first snapshot": Figure(total / 1e6 / first_s, None, "MB/s", "min"),
        f"{name}: first snapshot, CPU": Figure(cpu_s, None, "s"),
    }
    before = _size(site.repository)
    unchanged_s, _ = site.timed("snapshot")
    figures[f"{name}: snapshot of the unchanged"] = Figure(unchanged_s, None, "s")
    figures[f"{name}: stored for the unchanged"] = Figure((_size(site.repository) - before) / 1e3, None, "kB")
    if edit:
        _edit_headers(originals)
        before = _size(site.repository)
        edited_s, _ = site.timed("snapshot")
        added = _size(site.repository) - before
        figures[f"{name}: stored for an edit of every header"] = Figure(1000 * added / first, 1.0, "‰ of first")
        figures[f"{name}: snapshot after the edit"] = Figure(edited_s, None, "s")
    return figures | _restore(name, originals, place / "back", site, plain)


def _restore(name: str, originals: Path, back: Path, site: _Site, plain: _Plain) -> dict[str, Figure]:
    """Return what restoring a folder costs, beside restic alone."""
    total, files = _size(originals), sum(1 for path in originals.rglob("*") if path.is_file())
    same, turns = files, []
    for _ in range(TURNS):
        shutil.rmtree(back, ignore_errors=True)
        turns.append((site.timed("alarm"), plain.timed(), site.timed("restore", str(back), "--everything")))
        same = min(same, _same(originals, back / "originals"))
    (start_s, plain_s, restore_s), (start_cpu_s, plain_cpu_s, cpu_s) = (
        [min(turn[of][unit] for turn in turns) for of in range(3)] for unit in range(2)
    )
    return {
        f"{name}: restored to the byte": Figure(100 * same / files, 100.0, "% of files", "min"),
        f"{name}: restore, whole command": Figure(restore_s, None, "s"),
        f"{name}: of it, the program's start": Figure(start_s, None, "s"),
        f"{name}: restore": Figure(total / 1e6 / (restore_s - start_s), 50.0, "MB/s", "min"),
        f"{name}: restore, of CPU": Figure(total / 1e6 / (cpu_s - start_cpu_s), None, "MB/CPU s", "min"),
        f"{name}: restore by restic alone": Figure(total / 1e6 / plain_s, None, "MB/s", "min"),
        f"{name}: restore by restic alone, of CPU": Figure(total / 1e6 / plain_cpu_s, None, "MB/CPU s", "min"),
        f"{name}: CPU of a restore, of restic alone": Figure((cpu_s - start_cpu_s) / plain_cpu_s, 2.5, "x"),
    }


class _Site:
    """A site with an archive, and the commands given to it."""

    def __init__(self, place: Path, originals: Path) -> None:
        home, self.repository = place / "site", place / "repo"
        self._start = [str(COMMANDS / "filmroom-site"), "--home", str(home)]
        told([*self._start, "init", "--name", "bench"])
        with (home / "site.toml").open("a") as toml:
            toml.write(f'[archive]\nrepository = "{self.repository}"\noriginals = "{originals}"\n')
        told([*self._start, "archive", "init"])

    def timed(self, *arguments: str) -> tuple[float, float]:
        """Run a command of the archive and return its wall and CPU seconds.

        Raises: CommandFailed.
        """
        return _timed([*self._start, "archive", *arguments, "--json"])


class _Plain:
    """What restic alone makes of the folder as it is; `kept` are the bytes in its repository."""

    def __init__(self, place: Path, originals: Path) -> None:
        restic = shutil.which("restic")
        if restic is None:
            raise SystemExit("restic is not installed")
        password, repository, self._back = place / "plain-password", place / "plain", place / "plain-back"
        password.write_text("plain\n")
        cache = place / "cache"
        self._start = [restic, "-r", str(repository), "--password-file", str(password), "--cache-dir", str(cache), "-q"]
        subprocess.run([*self._start, "init"], check=True)
        empty = _size(repository)
        subprocess.run([*self._start, "backup", str(originals)], check=True)
        self.kept = _size(repository) - empty

    def timed(self) -> tuple[float, float]:
        """Restore the folder and return the wall and CPU seconds of that."""
        shutil.rmtree(self._back, ignore_errors=True)
        return _timed([*self._start, "restore", "latest", "--no-lock", "--target", str(self._back)])


def _timed(command: Sequence[str]) -> tuple[float, float]:
    began, cpu = time.perf_counter(), cpu_of_ended_s()
    told(command)
    return time.perf_counter() - began, cpu_of_ended_s() - cpu


def _slices(folder: Path) -> None:
    """Write the CT slices."""
    pictures = list(_ct_pictures())
    for number in range(SLICES):
        study = number * STUDIES // SLICES
        template, picture = pictures[number % len(pictures)]
        turn, shift = number // len(pictures) % 8, number // len(pictures) // 8
        turned = np.rot90(picture.T if turn >= 4 else picture, turn % 4)  # noqa: PLR2004 -- the eight symmetries of a square
        _save(
            template,
            np.roll(turned, 37 * shift, axis=0),
            folder / f"study-{study}" / f"{number:03d}.dcm",
            number,
            study,
        )


def _ct_pictures() -> Iterator[tuple[Dataset, np.ndarray[tuple[int, int], np.dtype[np.int16]]]]:
    for name in _CT:
        ds = dcmread(str(get_testdata_file(name)))
        pictures = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
        del ds.PixelData
        for picture in pictures:
            yield ds, picture


def _save(
    template: Dataset, picture: np.ndarray[tuple[int, int], np.dtype[np.int16]], path: Path, number: int, study: int
) -> None:
    ds = dcmread(str(get_testdata_file("693_UNCR.dcm")), stop_before_pixels=True)
    ds.StudyInstanceUID, ds.SOPInstanceUID = f"{_UID}.{study}", f"{_UID}.{study}.{number}"
    ds.SeriesInstanceUID, ds.PatientID, ds.PatientName = f"{_UID}.{study}.0", f"P-{study}", f"Bench^{study}"
    ds.InstanceNumber, ds.ImagePositionPatient = number, [0, 0, 2.5 * number]
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(template.PixelRepresentation)
    ds.PixelData = np.ascontiguousarray(picture).astype("<i2" if ds.PixelRepresentation else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def _mixed(folder: Path) -> None:
    """Copy the real files."""
    folder.mkdir()
    for name in get_testdata_files():
        path = Path(str(name))
        if path.is_file() and path.stat().st_size >= LEAST_BYTES:
            shutil.copy(path, folder / path.name)


def _edit_headers(folder: Path) -> None:
    for path in folder.rglob("*.dcm"):
        ds = dcmread(path)
        ds.PatientName, ds.PatientID, ds.OtherPatientIDs = "Merged^Patient", "M-1", str(ds.PatientID)
        ds.save_as(path)


def _detection(work: Path) -> dict[str, Figure]:
    """Return in which attacks each file is found, and in which benign changes one is taken for an attack."""
    attacked = {name: _alarmed(work / "ct", work / "case", change) for name, change in ATTACKS.items()}
    benign = {name: _alarmed(work / "ct", work / "case", change) for name, change in BENIGN.items()}
    print(json.dumps({"attacks": attacked, "benign": benign}, indent=1))
    return {
        "attacks": Figure(len(ATTACKS), None, "cases"),
        "attacked files found": Figure(100 * sum(attacked.values()) / len(attacked), 100.0, "%", "min"),
        "benign changes": Figure(len(BENIGN), None, "cases"),
        "files of benign changes taken for attacked": Figure(100 * sum(benign.values()) / len(benign), 0.0, "%"),
    }


def _alarmed(originals: Path, case: Path, change: Change) -> float:
    """Return the share of changed files that are findings of an alarm."""
    shutil.rmtree(case, ignore_errors=True)
    folder = case / "originals"
    folder.mkdir(parents=True)
    for path in sorted(originals.rglob("*.dcm"))[:FILES_A_CASE]:
        shutil.copy(path, folder / path.name)
        if is_compressed(change):
            to_jpeg_ls(folder / path.name)
    index = open_index(case / "index.db")
    staging = Staging(case / "staging", index)
    watch: Callable[[], Watch] = lambda: Watch(MASS, _deaf)  # noqa: E731 -- one for each staging
    staging.update({"originals": folder}, watch())
    staging.accept("first")
    for path in sorted(folder.iterdir()):
        change(path)
    found = staging.update({"originals": folder}, watch()).findings
    index.dispose()
    return len(found) / FILES_A_CASE


def _deaf(found: Sequence[Finding]) -> None:
    """Hear of findings; they are counted at the end."""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _same(one: Path, other: Path) -> int:
    paths = (path for path in one.rglob("*") if path.is_file())
    return sum((other / path.relative_to(one)).read_bytes() == path.read_bytes() for path in paths)


if __name__ == "__main__":
    sys.exit(main())
