"""The user's own labelled DICOM as the demo's stage: `make demo DATA=folder`.

The folder holds image series and the binary SEGs that label them. Each folder directly below it is one hospital; a
folder without such is dealt out to three hospitals, patient by patient. Consents are invented: all permit, but one
patient of each hospital refuses. Nothing in the folder is altered.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from demo.consents import simple_consents
from demo.stage import Stage, Ward
from demo.task import task_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydicom import Dataset

HOSPITALS = ("north", "east", "west")
FEWEST_PATIENTS = 5
LARGEST = 256  # pixels; larger images are cropped, so that a demo stays a demo
_HALVED = 8  # the demo's network halves three times
_PLANTED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientAddress",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_SHORTEST = 4  # shorter texts are found by chance in any file


class NotUsable(Exception):
    """The folder cannot be used; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    ds: Dataset


def own_stage(data: Path, root: Path) -> Stage:
    """Deal the files of `data` out to hospitals below `root`.

    Raises: NotUsable if there are too few patients, or no labels of a kind that all hospitals have.
    """
    files = _read(data)
    dealt = _deal(data, files)
    for name, own in dealt.items():
        patients = {str(file.ds.PatientID) for file in own}
        if len(patients) < FEWEST_PATIENTS:
            raise NotUsable(f"{name} would have {len(patients)} patients; at least {FEWEST_PATIENTS} are needed")
    labels = _labels(dealt.values())
    if not labels:
        raise NotUsable("no binary SEG with coded segments that occur at every hospital")
    modality = Counter(str(file.ds.Modality) for file in files if file.ds.Modality != "SEG").most_common(1)[0][0]
    wards = tuple(_ward(name, own, root / name, labels) for name, own in dealt.items())
    smallest = min(len(ward.expected) for ward in wards)
    told = (
        f"Your own data: {len(files)} files of {sum(len(w.expected) for w in wards)} patients. Consents are invented."
    )
    return Stage(told, task_for(modality, labels, _size(files)), modality, max(2, smallest - 3), 2, wards)


def _read(data: Path) -> list[_File]:
    if not data.is_dir():
        raise NotUsable(f"{data} is not a folder")
    found = []
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        try:
            ds = dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue  # the site's own intake is shown what is not DICOM in the invented inboxes
        if "PatientID" in ds and "Modality" in ds and "StudyInstanceUID" in ds:
            found.append(_File(path, ds))
    if not found:
        raise NotUsable(f"{data} holds no DICOM files")
    return found


def _deal(data: Path, files: Iterable[_File]) -> dict[str, list[_File]]:
    folders = sorted(
        {file.path.relative_to(data).parts[0] for file in files if len(file.path.relative_to(data).parts) > 1}
    )
    by_folder = len(folders) in range(2, len(HOSPITALS) + 1)
    patients = sorted({str(file.ds.PatientID) for file in files})
    dealt: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        first = file.path.relative_to(data).parts[0]
        place = folders.index(first) if by_folder else patients.index(str(file.ds.PatientID)) % len(HOSPITALS)
        dealt[HOSPITALS[place]].append(file)
    return {name: dealt[name] for name in HOSPITALS if name in dealt}


def _labels(dealt: Iterable[list[_File]]) -> list[dict[str, Any]]:
    """Return the segment codes that every hospital has, as the task's labels."""
    each = [_codes(files) for files in dealt]
    common = set.intersection(*(set(codes) for codes in each))
    return [
        {
            "value": value,
            "name": each[0][key].lower(),
            "code": {"scheme": key[0], "value": key[1], "meaning": each[0][key]},
        }
        for value, key in enumerate(sorted(common), start=1)
    ]


def _codes(files: Iterable[_File]) -> dict[tuple[str, str], str]:
    found = {}
    for file in files:
        for segment in file.ds.get("SegmentSequence", []):
            code = segment.SegmentedPropertyTypeCodeSequence[0]
            found[str(code.CodingSchemeDesignator), str(code.CodeValue)] = str(code.CodeMeaning)
    return found


def _size(files: Iterable[_File]) -> tuple[int, int]:
    """Return rows and columns that hold every image, as the network can halve them, up to a bound."""
    sizes = [
        (int(file.ds.Rows), int(file.ds.Columns)) for file in files if file.ds.Modality != "SEG" and "Rows" in file.ds
    ]
    rows, columns = (min(LARGEST, -(-max(each) // _HALVED) * _HALVED) for each in zip(*sizes, strict=True))
    return rows, columns


def _ward(name: str, files: list[_File], folder: Path, labels: list[dict[str, Any]]) -> Ward:
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copyfile(file.path, folder / f"{number:06d}.dcm")
    wanted = {(label["code"]["scheme"], label["code"]["value"]) for label in labels}
    studies = _labelled_studies(files, wanted)
    refuses = min(studies)
    expected = {pid: ("deny", "deny") if pid == refuses else ("permit", "permit") for pid in studies}
    return Ward(
        name=name,
        title=name.capitalize(),
        inbox=folder,
        files=len(files),
        consents=simple_consents({pid: outcome for pid, (_, outcome) in expected.items()}, datetime.now(UTC)),
        planted=tuple(sorted(_planted(files))),
        expected=expected,
        studies=studies,
    )


def _labelled_studies(files: Iterable[_File], wanted: set[tuple[str, str]]) -> Mapping[str, str]:
    return {
        str(file.ds.PatientID): str(file.ds.StudyInstanceUID)
        for file in files
        if file.ds.Modality == "SEG" and wanted <= set(_codes([file]))
    }


def _planted(files: Iterable[_File]) -> set[str]:
    values = {str(file.ds.get(keyword, "")) for file in files for keyword in _PLANTED}
    uids = {str(file.ds.get(keyword, "")) for file in files for keyword in ("StudyInstanceUID", "SOPInstanceUID")}
    return {value for value in values | uids if len(value) >= _SHORTEST}
