"""What a demo run found, as plain values; `demo.report` shows it.

Counts and digests only, and pictures of invented patients. Nothing here computes or judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Participated = Literal["trained", "abstained", "offline", "rejected"]


@dataclass(frozen=True, slots=True)
class Count:
    """How many files or studies fell under an outcome, and the reason for it."""

    outcome: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One held-out slice of an invented patient: what is there, and what the model says.

    Shape: all are rows of columns; the image is 0-255, the label maps hold 0 for background.
    """

    caption: str
    image: tuple[tuple[int, ...], ...]
    truth: tuple[tuple[int, ...], ...]
    predicted: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class HospitalResult:
    """One hospital's side of the run; `files` is what lay in its inbox.

    `eligibility` counts studies, `consents` compares each kind of patient with what was expected.
    """

    name: str
    title: str
    files: int
    intake: tuple[Count, ...]
    consents: tuple[ConsentResult, ...]
    eligibility: tuple[Count, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class ConsentResult:
    """Patients of one kind: the outcome they must have, and how many of them had it."""

    kind: str
    expected: str
    patients: int
    as_expected: int


@dataclass(frozen=True, slots=True)
class Score:
    """Dice on held-out patients after one round: the mean over labels, and each label's."""

    dice: float
    by_label: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A model's scores at one hospital, one a round.

    `trained_on` is "federated", "pooled" or the name of the one hospital it was trained at.
    """

    trained_on: str
    held_out_at: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Participation:
    """What one hospital did in one round; `note` says why, as far as outsiders may know."""

    round: int
    hospital: str
    state: Participated
    note: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """The byte search of everything that left: what was looked through, for what, and hits."""

    bodies: int
    bytes: int
    planted: int
    planted_hits: int
    images: int
    pixel_hits: int


@dataclass(frozen=True, slots=True)
class Check:
    """An invariant, whether it held, and what was done to find out."""

    invariant: str
    held: bool
    how: str


@dataclass(frozen=True, slots=True)
class RoundTime:
    """What one round took: wall clock, CPU of all processes, the slowest gate and receipt."""

    round: int
    wall_s: float
    cpu_s: float
    training_s: float
    gate_ms: float
    receipt_ms: float


@dataclass(frozen=True, slots=True)
class Digest:
    """The SHA-256 of something that a later reader may want to check."""

    what: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the report shows."""

    made_at: str
    told: str
    task_title: str
    labels: tuple[str, ...]
    rounds: int
    wall_s: float
    cpu_s: float
    hospitals: tuple[HospitalResult, ...]
    curves: tuple[Curve, ...]
    participation: tuple[Participation, ...]
    search: Search
    checks: tuple[Check, ...]
    times: tuple[RoundTime, ...]
    provenance: tuple[Digest, ...]
    software: tuple[tuple[str, str], ...]
