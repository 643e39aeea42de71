"""Invented people, with everything a hospital writes about a patient into an image.

Names are put together from syllables so that no common word, and nobody's name, comes out. Every
text that could tell who a patient is, is given by `FakePatient.identifiers`; the byte search looks
for exactly these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from pydicom.uid import PYDICOM_ROOT_UID, generate_uid

from demo.anatomy import SHAPE

if TYPE_CHECKING:
    import numpy as np

_FAMILY: Final = (
    ("Quillo", "Thistle", "Bramble", "Wöllen", "Skårne", "Marrow", "Fennic", "Öster"),
    ("mantle", "wickham", "feather", "quist", "thorpe", "bälow", "dottir", "garth"),
)
_GIVEN: Final = (
    ("Peri", "Odo", "Isol", "Marim", "Théo", "Wilfr", "Brunh", "Cass"),
    ("windara", "lisande", "amunda", "belline", "orantha", "uvianne"),
)
_STREETS: Final = ("Larkspur Rise", "Undercliff Mews", "Saltpan Quay", "Cobbler's Yard")
_FIRST_STUDY: Final = datetime(2023, 1, 2, 8, tzinfo=UTC)
_STUDY_DAYS: Final = 1200


@dataclass(frozen=True, slots=True)
class FakePatient:
    """One invented patient and the one study made of them.

    Names are DICOM person names (PS3.5 section 6.2.1); the UIDs are those the scanner gave.
    """

    patient_id: str
    other_id: str
    name: str
    sex: str
    born: date
    address: str
    phone: str
    referring: str
    performing: str
    operator: str
    accession: str
    study_at: datetime
    StudyInstanceUID: str
    SeriesInstanceUID: str
    FrameOfReferenceUID: str
    SOPInstanceUIDs: tuple[str, ...]

    def identifiers(self) -> tuple[str, ...]:
        """Give every text that tells who this is, in the forms an image carries it."""
        return (
            self.patient_id,
            self.other_id,
            *name_forms(self.name),
            f"{self.born:%Y%m%d}",
            f"{self.born:%Y-%m-%d}",
            self.address,
            self.phone,
            *(form for name in self.staff() for form in name_forms(name)),
            self.accession,
            self.StudyInstanceUID,
            self.SeriesInstanceUID,
            self.FrameOfReferenceUID,
            *self.SOPInstanceUIDs,
        )

    def staff(self) -> tuple[str, ...]:
        """Give the names of the people who asked for, made and read the study."""
        return self.referring, self.performing, self.operator


def name_forms(name: str) -> tuple[str, ...]:
    """Give a person's name whole, as spoken, and by its family and its given name."""
    family, given = name.split("^")[:2]
    return name, f"{given} {family}", family, given


def invent_patient(rng: np.random.Generator, prefix: str, number: int, town: str) -> FakePatient:
    """Give invented patient `number` of the hospital whose record numbers begin with `prefix`."""
    study_at = _FIRST_STUDY + timedelta(days=int(rng.integers(_STUDY_DAYS)), minutes=int(rng.integers(600)))
    patient_id = f"{prefix}-{number:03d}{rng.integers(10**5):05d}"
    return FakePatient(
        patient_id=patient_id,
        other_id=f"NAT{rng.integers(10**9):09d}",
        name=f"{_name(rng)}^{_pick(rng, _GIVEN[0])}^{_pick(rng, ('Dr', 'Prof', ''))}^",
        sex=_pick(rng, ("F", "M", "O")),
        born=date(1931, 1, 1) + timedelta(days=int(rng.integers(25_000))),
        address=f"{rng.integers(1, 400)} {_pick(rng, _STREETS)}, {town}",
        phone=f"+99 5550 {rng.integers(10**6):06d}",
        referring=_name(rng),
        performing=_name(rng),
        operator=_name(rng),
        accession=f"ACC{prefix}{rng.integers(10**8):08d}",
        study_at=study_at,
        StudyInstanceUID=original_uid(patient_id, "study"),
        SeriesInstanceUID=original_uid(patient_id, "series"),
        FrameOfReferenceUID=original_uid(patient_id, "frame of reference"),
        SOPInstanceUIDs=tuple(original_uid(patient_id, f"image {n}") for n in range(SHAPE[0])),
    )


def original_uid(*parts: str) -> str:
    """Give the UID that a scanner would have given; equal parts give an equal UID."""
    return str(generate_uid(PYDICOM_ROOT_UID, entropy_srcs=list(parts)))


def _name(rng: np.random.Generator) -> str:
    family, given = (_pick(rng, first) + _pick(rng, last) for first, last in (_FAMILY, _GIVEN))
    return f"{family}^{given}"


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
