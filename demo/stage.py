"""What a demo run is about: the hospitals' inboxes, the task, and who withdraws and who is killed.

Two stages exist: the invented patients that come with the demo, and a folder of the user's own (see `own_data`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.consents import consent_kinds, make_consents
from demo.hospitals import HOSPITALS, make_inbox
from demo.task import TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from demo.hospitals import HospitalName, Inbox

# 23 of 30 patients permit: one more than the default minimum of 20 studies needs after a withdrawal, and some to spare.
PATIENTS = 30
SEED = 20261124
TOLD = (
    "The anatomy is real: an average of 152 brains (MNI152), skull-stripped, so there is no face."
    " The variation between patients, the scanners and every identity are invented by a program."
    " No real person is shown, and these scores say nothing about how well a model would do on"
    " patients. The real DICOM test files of open source packages that were mixed in are counted"
    " here and never shown."
)
# In which rounds a patient withdraws, and a site node is killed.
WITHDRAWS_IN, KILLED_IN = 2, 3


@dataclass(frozen=True, slots=True)
class Ward:
    """One hospital's part: its inbox on disk, its consents, and what must never be found outside.

    `expected` gives, for each PatientID, the kind of consent and the outcome it must come to.
    """

    name: str
    title: str
    inbox: Path
    files: int
    consents: bytes
    planted: tuple[str, ...]
    expected: Mapping[str, tuple[str, str]]
    studies: Mapping[str, str]  # original StudyInstanceUID by PatientID


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything a run starts from."""

    told: str
    task: Mapping[str, Any]
    modality: str
    minimum_studies: int
    minimum_count: int
    wards: tuple[Ward, ...]


def invented_stage(
    root: Path, at: datetime, progress: Callable[[str, int, int], None], patients: int = PATIENTS, public: int = 1
) -> Stage:
    """Make the inboxes of three invented hospitals below `root`, with one in `public` of the real files."""
    wards = tuple(_ward(name, root / name, patients, at, progress, public) for name in HOSPITALS)
    return Stage(TOLD, TASK, "MR", 20, 16, wards)


def _ward(
    name: HospitalName,
    folder: Path,
    patients: int,
    at: datetime,
    progress: Callable[[str, int, int], None],
    public: int,
) -> Ward:
    inbox = make_inbox(name, folder, patients, SEED, lambda done, total: progress(name, done, total), public)
    return Ward(
        name=name,
        title=HOSPITALS[name].title,
        inbox=folder,
        files=inbox.files,
        consents=make_consents(inbox, at),
        planted=inbox.planted,
        expected={pid: (kind.name, kind.outcome) for pid, kind in consent_kinds(inbox).items()},
        studies=_studies(inbox),
    )


def _studies(inbox: Inbox) -> dict[str, str]:
    return {patient.patient_id: patient.StudyInstanceUID for patient in inbox.patients}
