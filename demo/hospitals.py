"""What one invented hospital's archive sends: virtual patients, real public files, and broken ones.

The virtual patients carry identities in every place where scanners leave them. The public files are
copies of the DICOM files that come with pydicom, pydicom-data and pynetdicom; they may name people,
so nothing shows their text. Nothing here says who consented: see `demo.consents`.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from demo.anatomy import Look, virtual_brain
from demo.dicom_files import Scan, image_series, segmentation, write
from demo.identities import invent_patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from demo.identities import FakePatient

HospitalName = Literal["north", "east", "west"]

# Installed package → the folder in it that holds DICOM files.
_PUBLIC_FOLDERS: Final = (
    ("pydicom", "data/test_files"),
    ("pydicom", "data/charset_files"),
    ("data_store", "data"),  # pydicom-data's import name
    ("pynetdicom", "tests/dicom_files"),
)
_NOT_DICOM: Final = frozenset({".txt", ".dump", ".gz", ".icc", ".py", ".pyc", ".json"})


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of scanning: its times, and how a brain looks by it."""

    name: str
    repetition_ms: float
    echo_ms: float
    look: Look


@dataclass(frozen=True, slots=True)
class Hospital:
    """An invented hospital with one scanner and two protocols; `t2_share` of patients get T2."""

    title: str
    town: str
    prefix: str
    scanner: str
    field_tesla: float
    character_set: str
    t1: Protocol
    t2: Protocol
    t2_share: float


@dataclass(frozen=True, slots=True)
class Inbox:
    """What was put into a folder: who, which texts must never leave, and how many files in all."""

    hospital: HospitalName
    patients: tuple[FakePatient, ...]
    planted: tuple[str, ...]
    files: int


HOSPITALS: Final[Mapping[HospitalName, Hospital]] = {
    "north": Hospital(
        title="Northgate Infirmary",
        town="Northgate-on-Wold",
        prefix="NG",
        scanner="Boreal Imaging",
        field_tesla=3.0,
        character_set="ISO_IR 192",
        t1=Protocol("T1 AX", 600.0, 12.0, Look(1.0, bias=0.10, noise=0.02, inverted=False)),
        t2=Protocol("T2 AX", 5200.0, 98.0, Look(1.0, bias=0.10, noise=0.02, inverted=True)),
        t2_share=0.2,
    ),
    "east": Hospital(
        title="Eastmere Hospital",
        town="Eastmere-by-Sands",
        prefix="EM",
        scanner="Levant Medical",
        field_tesla=1.5,
        character_set="ISO_IR 100",
        t1=Protocol("T1 FAST", 450.0, 9.0, Look(0.7, bias=0.25, noise=0.05, inverted=False)),
        t2=Protocol("T2 FAST", 3800.0, 90.0, Look(0.8, bias=0.25, noise=0.05, inverted=True)),
        t2_share=0.3,
    ),
    "west": Hospital(
        title="Westfold Clinic",
        town="Westfold-in-Vale",
        prefix="WF",
        scanner="Occident Systems",
        field_tesla=1.5,
        character_set="ISO_IR 192",
        t1=Protocol("SE T1", 520.0, 11.0, Look(1.2, bias=0.15, noise=0.03, inverted=False)),
        t2=Protocol("SE T2", 4200.0, 95.0, Look(1.2, bias=0.15, noise=0.03, inverted=True)),
        t2_share=0.7,
    ),
}


def make_inbox(
    hospital: HospitalName,
    folder: Path,
    patients: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    public: int = 1,
) -> Inbox:
    """Fill `folder` with what this hospital's archive sends; equal arguments give equal bytes.

    Of its share of the real files it gets one in `public`.
    """
    place = tuple(HOSPITALS).index(hospital)
    made = []
    for number in range(patients):
        rng = np.random.default_rng([seed, place, number])
        made.append(_make_patient(rng, HOSPITALS[hospital], number, folder / "virtual"))
        if progress is not None:
            progress(number + 1, patients)
    _copy_public(folder / "public", public_files()[place :: len(HOSPITALS) * public])
    _make_broken(folder / "broken", min((folder / "virtual").rglob("*.dcm")))
    return Inbox(hospital, tuple(made), _planted(made), _count_files(folder))


def public_files() -> tuple[tuple[str, Path], ...]:
    """Give the real DICOM files of the installed packages, each under a name to copy it to."""
    found = []
    for package, inner in _PUBLIC_FOLDERS:
        root = _package_folder(package)
        paths = (path for path in (root / inner).rglob("*") if path.is_file())
        found += [
            (f"{package}/{path.relative_to(root)}", path)
            for path in sorted(paths)
            if path.suffix not in _NOT_DICOM and path.name != "README"
        ]
    return tuple(found)


def _package_folder(package: str) -> Path:
    """Give where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the demo needs {package}: pip install 'filmroom[demo]'")
    return Path(spec.origin).parent


def _make_patient(rng: np.random.Generator, hospital: Hospital, number: int, folder: Path) -> FakePatient:
    patient = invent_patient(rng, hospital.prefix, number, hospital.town)
    protocol = hospital.t2 if rng.random() < hospital.t2_share else hospital.t1
    scan = Scan(patient, hospital, protocol, virtual_brain(rng, protocol.look))
    images = image_series(scan)
    target = folder / f"{number:03d}"
    target.mkdir(parents=True)
    for place, ds in enumerate(images):
        write(ds, target / f"mr{place:02d}.dcm")
    write(segmentation(scan, images), target / "seg.dcm")
    return patient


def _copy_public(folder: Path, share: Iterable[tuple[str, Path]]) -> None:
    """Copy this hospital's share; together the hospitals have every file once."""
    for name, path in share:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _make_broken(folder: Path, whole: Path) -> None:
    content = whole.read_bytes()
    folder.mkdir()
    (folder / "truncated-in-the-pixels.dcm").write_bytes(content[: len(content) * 2 // 3])
    (folder / "not-dicom.dcm").write_bytes(b"This is a shopping list, whatever its name says.\n")
    (folder / "empty.dcm").write_bytes(b"")


def _planted(patients: list[FakePatient]) -> tuple[str, ...]:
    return tuple(sorted({text for patient in patients for text in patient.identifiers()}))


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
