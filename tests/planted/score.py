"""What of a planted corpus survives: `python -m tests.planted.score KEY ORIGINALS OUTPUTS`.

An output has the name of its original; one that is not there was refused or held. Every figure is of what the search
finds in the originals: a thing planted that it cannot find there is not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from tests.planted.key import Burned, FileKey, Planted, load, strings, walk
from tests.planted.places import TECHNICAL
from tests.planted.search import Bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

TECHNICAL_TAGS = frozenset(int(tag) for tag in map(tag_for_keyword, TECHNICAL) if tag is not None)
KINDS = ("basic", "date", "uid", "device")
VALIDATOR_TIMEOUT_S = 60
MARGIN = 24  # pixels around a box that may change with it
# Bases whose own pixels show text, which may be blanked anywhere.
SHOW_TEXT = frozenset(("us-palette", "us-rgb", "us-multi-rle", "us-multi-jpeg", "us-jpeg2000"))
READABLE = 0.35  # share of a string's contrast with which it can still be read


@dataclass(slots=True)
class Figures:
    """The figures of one run, and where they come from."""

    files: int = 0
    outputs: int = 0
    planted: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    leaks: list[tuple[str, str, str, str]] = field(default_factory=list)  # file, place, kind, where it stands now
    technical: int = 0
    technical_kept: int = 0
    technical_lost: Counter[str] = field(default_factory=Counter)
    harmless: int = 0
    harmless_kept: int = 0
    harmless_lost: Counter[str] = field(default_factory=Counter)
    private: int = 0
    private_kept: int = 0
    images: int = 0
    images_identical: int = 0
    images_changed: list[str] = field(default_factory=list)
    burned: int = 0
    burned_survived: int = 0
    markers: int = 0
    markers_kept: int = 0
    dated: int = 0
    intervals_kept: int = 0
    intervals_lost: list[str] = field(default_factory=list)
    references: int = 0
    references_kept: int = 0
    references_lost: list[tuple[str, str]] = field(default_factory=list)
    validated: int = 0
    new_errors: int = 0
    new_error_lines: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)

    def share(self, kind: str) -> float:
        """Return the share of a kind that survived."""
        return self.survived[kind] / self.planted[kind] if self.planted[kind] else 0.0

    def text(self) -> str:
        """Return the figures for people."""
        lines = [f"files {self.files}, outputs {self.outputs}, without output: {', '.join(self.missing) or 'none'}"]
        lines += [
            f"survived {kind}: {self.survived[kind]} of {self.planted[kind]} ({100 * self.share(kind):.2f} %)"
            for kind in KINDS
        ]
        for name, kept, of in (
            ("technical values kept", self.technical_kept, self.technical),
            ("harmless words kept", self.harmless_kept, self.harmless),
            ("safe private values kept", self.private_kept, self.private),
            ("images identical", self.images_identical, self.images),
            ("files with intervals kept", self.intervals_kept, self.dated),
            ("references kept", self.references_kept, self.references),
        ):
            lines.append(f"{name}: {kept} of {of} ({100 * kept / of if of else 100:.2f} %)")
        lines.append(f"burned-in identities that can be read: {self.burned_survived} of {self.burned}")
        lines.append(f"burned-in markers kept: {self.markers_kept} of {self.markers}")
        lines.append(f"new dciodvfy errors: {self.new_errors} in {self.validated} files validated")
        return "\n".join(lines)


def score(originals: Path, outputs: Path, key: list[FileKey], *, validate: bool = True) -> Figures:
    """Return what survived in `outputs`, what was lost, and what was kept."""
    figures, uids = Figures(), dict[str, str]()
    pairs: list[tuple[FileKey, Dataset, Dataset]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in key:
            figures.files += 1
            source, output = originals / file.name, outputs / file.name
            if not output.exists():
                figures.missing.append(file.name)
                continue
            figures.outputs += 1
            pair = (file, pydicom.dcmread(source, force=True), pydicom.dcmread(output, force=True))
            pairs.append(pair)
            _identities(figures, file, source.read_bytes(), output.read_bytes(), pair[1], pair[2])
            if not file.flood:
                _technical(figures, *pair)
            _words(figures, *pair)
            _images(figures, *pair)
            _intervals(figures, *pair)
            if validate and not file.flood:
                _validate(figures, source, output)
            uids |= _uid_map(*pair[1:])
        for file, source_ds, output_ds in pairs:
            _references(figures, file, source_ds, output_ds, uids)
    return figures


def _paths(ds: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, element in walk(ds):
        found[path] = strings(element)
    return found


def _identities(figures: Figures, file: FileKey, source: bytes, output: bytes, before: Dataset, after: Dataset) -> None:
    searched, found_in = Bytes.of(source), Bytes.of(output)
    said_before, said_after = _paths(before), _paths(after)
    shifted = Counter(
        value[:8]
        for path, element in walk(after)
        if element.VR in ("DA", "DT")
        for value in strings(element)
        if value not in said_before.get(path, ())
    )
    places = _places(after)
    for planted in file.planted:
        alive = _alive(planted, searched, said_before, Counter())
        if not alive:
            continue
        figures.planted[planted.kind] += 1
        if _alive(planted, found_in, said_after, shifted):
            figures.survived[planted.kind] += 1
            figures.leaks.append((file.name, planted.place, planted.kind, _where(planted, places)))


def _alive(planted: Planted, searched: Bytes, said: dict[str, list[str]], shifted: Counter[str]) -> bool:
    for token in planted.bytes_of:
        if planted.kind == "date" and shifted[token]:
            # The date moved here from another: only what stands there beyond is the planted one.
            if searched.count_dates(token) > shifted[token] or any(
                token in value for value in said.get(planted.at, ())
            ):
                return True
        elif searched.say(token, planted.kind):
            return True
    here = " ".join(said.get(planted.at, ())).lower()
    return any(re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", here) for word in planted.words) if here else False


def _places(after: Dataset) -> list[tuple[str, str]]:
    """Return every element's path and what it says, in lower case."""
    found = []
    for path, element in walk(after):
        value = element.value
        said = [value.decode("latin-1")] if isinstance(value, bytes) else strings(element)
        found.append((f"{path} {element.keyword}", " ".join(said).lower()))
    return found


def _where(planted: Planted, places: list[tuple[str, str]]) -> str:
    """Return where in the output it stands: the path of an element, or "bytes"."""
    tokens = [token.lower() for token in planted.bytes_of]
    return next((path for path, said in places if any(token in said for token in tokens)), planted.at or "bytes")


def _technical(figures: Figures, file: FileKey, before: Dataset, after: Dataset) -> None:
    abused = {planted.place.split()[-1] for planted in file.planted if planted.place.startswith("a name in ")}
    kept = dict(walk(after))
    for path, element in walk(before):
        if (
            int(element.tag) not in TECHNICAL_TAGS
            or element.keyword in abused
            or element.value in (None, "", b"")
            or "50003000" in path
        ):
            continue
        if path.startswith("00880200"):
            continue
        figures.technical += 1
        other = kept.get(path)
        if other is not None and (_same(other.value, element.value)):
            figures.technical_kept += 1
        else:
            figures.technical_lost[f"{file.name} {element.keyword}"] += 1


def _same(one: object, other: object) -> bool:
    return one == other or str(one) == str(other)


def _words(figures: Figures, file: FileKey, before: Dataset, after: Dataset) -> None:
    del before
    said = _paths(after)
    for at, words in file.harmless:
        present = {word.lower() for word in re.findall(r"[\w/.]+", " ".join(said.get(at, ())))}
        for word in words:
            figures.harmless += 1
            if word.lower() in present:
                figures.harmless_kept += 1
            else:
                figures.harmless_lost[f"{file.name} {at} {word}"] += 1
    for group, low, creator in file.private_kept:
        figures.private += 1
        try:
            after.private_block(group, creator)[low]
        except KeyError:
            continue
        figures.private_kept += 1


def _images(figures: Figures, file: FileKey, before: Dataset, after: Dataset) -> None:
    if "PixelData" not in before:
        return
    try:
        was = before.pixel_array
    except (ValueError, RuntimeError, AttributeError, NotImplementedError):
        return
    figures.images += 1
    try:
        now = after.pixel_array
    except (ValueError, RuntimeError, AttributeError, NotImplementedError, KeyError):
        figures.images_changed.append(f"{file.name}: cannot be decoded")
        return
    if was.shape != now.shape:
        figures.images_changed.append(f"{file.name}: another shape")
        return
    outside = np.ones(was.shape, bool)
    for box in file.burned:
        _burned(figures, box, was, now, int(before.get("NumberOfFrames") or 1))
        rows, columns = (slice(max(low - MARGIN, 0), high + MARGIN) for low, high in _sides(box))
        where = (
            (..., rows, columns, slice(None))
            if was.shape[-1] == int(before.get("SamplesPerPixel", 1)) > 1
            else (..., rows, columns)
        )
        outside[where] = False
    if file.base in SHOW_TEXT:
        figures.images -= 1
    elif np.array_equal(was[outside], now[outside]):
        figures.images_identical += 1
    else:
        figures.images_changed.append(f"{file.name}: {np.mean(was[outside] != now[outside]):.4f} of the values")


def _sides(box: Burned) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.top, box.bottom), (box.left, box.right)


def _burned(figures: Figures, box: Burned, was: NDArray[Any], now: NDArray[Any], frames: int) -> None:
    """Judge a string by what is left of the contrast between its ink and its ground."""
    first, second = (image[box.frame or 0] if frames > 1 else image for image in (was, now))
    left = _contrast(box, second) / max(_contrast(box, first), 1e-6)
    if box.identifying:
        figures.burned += 1
        figures.burned_survived += left > READABLE
    else:
        figures.markers += 1
        figures.markers_kept += left > READABLE


def _contrast(box: Burned, image: NDArray[Any]) -> float:
    here = image[box.top : box.bottom, box.left : box.right].astype(float)
    grey, ink = here.reshape(*here.shape[:2], -1).mean(axis=2), box.inked()
    return abs(float(grey[ink].mean() - grey[~ink].mean())) if ink.any() and not ink.all() else 0.0


def _intervals(figures: Figures, file: FileKey, before: Dataset, after: Dataset) -> None:
    said, shifts = _paths(after), set()
    for path, element in walk(before):
        if element.VR == "DA":
            for was, now in zip(strings(element), said.get(path, ()), strict=False):
                if (first := _day(was)) and (second := _day(now)):
                    shifts.add((second - first).days)
    if shifts:
        figures.dated += 1
        figures.intervals_kept += len(shifts) == 1
        if len(shifts) > 1:
            figures.intervals_lost.append(f"{file.name}: {len(shifts)} shifts")


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _uid_map(before: Dataset, after: Dataset) -> dict[str, str]:
    """Return how the identities of instances, series and studies were replaced."""
    keywords = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return {str(before[k].value): str(after[k].value) for k in keywords if k in before and k in after}


def _references(figures: Figures, file: FileKey, before: Dataset, after: Dataset, uids: dict[str, str]) -> None:
    said = _paths(after)
    for path, element in walk(before):
        if (
            element.VR != "UI"
            or element.keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
            or "[" not in path
        ):
            continue
        if str(element.value) not in uids:
            continue
        figures.references += 1
        if uids[str(element.value)] in said.get(path, ()):
            figures.references_kept += 1
        else:
            figures.references_lost.append((file.name, path))


def _validate(figures: Figures, source: Path, output: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        return
    before, after = _errors(program, source), _errors(program, output)
    if before is None or after is None:
        return
    figures.validated += 1
    new = after - before
    figures.new_errors += sum(new.values())
    figures.new_error_lines += new


def _errors(program: str, path: Path) -> Counter[str] | None:
    """Return the errors that dciodvfy sees, or None where it ends by a signal; it cannot inflate."""
    with tempfile.TemporaryDirectory() as folder:
        ds = pydicom.dcmread(path, force=True)
        if ds.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = Path(folder, path.name)
            ds.save_as(path)
        done = subprocess.run([program, str(path)], capture_output=True, timeout=VALIDATOR_TIMEOUT_S, check=False)
    if done.returncode < 0:
        return None
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    return Counter(re.sub(r"<[^>]*>|\[\d+\]|'.*'|= .*", "", line)[:160] for line in lines if line.startswith("Error"))


def main() -> None:
    """Print the figures, and the leaks as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("key", type=Path)
    parser.add_argument("originals", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--json", type=Path, help="write everything, leaks included, into this file")
    parser.add_argument("--no-validator", action="store_true")
    arguments = parser.parse_args()
    figures = score(arguments.originals, arguments.outputs, load(arguments.key), validate=not arguments.no_validator)
    sys.stdout.write(figures.text() + "\n")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({one.name: getattr(figures, one.name) for one in fields(figures)}, indent=1)
        )


if __name__ == "__main__":
    main()
