"""Which studies may be used now: the catalogue, joined with what each patient's consents decide.

Pure. The frozen set only ever shrinks: `still_permitted` compares a later state with it and never adds to it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from consent import CONSENT, Decider, Outcome, Study, stands_until, still_stands
from site_node.catalogue import LabelledImage, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from consent import LegalBasis, Reading, Request, Verdict

Item: TypeAlias = Series | LabelledImage
_NOTHING: Final[Mapping[str, Standing]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided at `at` on one patient's readings; `until` is from when on they may say something else."""

    readings: tuple[Reading, ...]
    at: datetime
    until: datetime | None
    verdicts: dict[Study, Verdict]

    def is_of(self, readings: tuple[Reading, ...], at: datetime) -> bool:
        """Whether at `at` the same holds on `readings`."""
        return self.readings == readings and still_stands(self.until, self.at, at)


@dataclass(frozen=True, slots=True)
class Cohort:
    """The permitted items, and the verdict on every study asked about (for the hospital's eyes only).

    `standing` is what a later freeze for the same request on the same basis need not decide again, by patient.
    """

    items: tuple[Item, ...]
    verdicts: Mapping[str, Verdict]
    asked: tuple[Study, ...] = ()
    standing: Mapping[str, Standing] = field(default_factory=dict, repr=False, compare=False)

    @property
    def until(self) -> datetime | None:
        """From when on the same consents may say something else; None if never."""
        return min((one.until for one in self.standing.values() if one.until is not None), default=None)

    @property
    def studies(self) -> frozenset[str]:
        """The de-identified StudyInstanceUIDs of the permitted items."""
        return frozenset(item.StudyInstanceUID for item in self.items)

    @property
    def used(self) -> tuple[Study, ...]:
        """The same studies with what consent turns on, in the order of their UID."""
        return tuple(sorted(set(map(_study, self.items)), key=lambda study: (study.StudyInstanceUID, study.patient)))


def freeze(
    items: Sequence[Item],
    consents: Mapping[str, tuple[Reading, ...]],
    request: Request,
    at: datetime,
    basis: LegalBasis = CONSENT,
    modality: str | None = None,
    before: Mapping[str, Standing] = _NOTHING,
) -> Cohort:
    """Return the items whose study may be used for `request` at `at` on `basis`, by consent unless another is given.

    Where two patients or dates are known under one StudyInstanceUID, all must permit. `before` is what stood for the
    same request on the same basis: where it still does, nothing is decided again.
    """
    decider = Decider(basis, request, at)
    verdicts: dict[str, Verdict] = {}
    standing: dict[str, Standing] = {}
    asked = tuple(dict.fromkeys(_study(item, modality) for item in items))
    for study in asked:
        patient = study.patient
        stands = standing.get(patient)
        if stands is None:
            readings = consents.get(patient, ())
            known = before.get(patient)
            if known is None or not known.is_of(readings, at):
                known = Standing(readings, at, stands_until(readings, basis, at), {})
            stands = standing[patient] = known
        verdict = stands.verdicts.get(study)
        if verdict is None:
            verdict = stands.verdicts[study] = decider.decide(stands.readings, study)
        if study.StudyInstanceUID not in verdicts or verdict.outcome is not Outcome.PERMIT:
            verdicts[study.StudyInstanceUID] = verdict
    permitted = tuple(item for item in items if verdicts[item.StudyInstanceUID].outcome is Outcome.PERMIT)
    return Cohort(permitted, verdicts, asked, standing)


def is_validation(patient: str, fraction: float, seed: int) -> bool:
    """Return whether the patient's images measure the model instead of training it.

    By patient, never by image, and the same in every round.
    """
    digest = hashlib.sha256(f"validation:{seed}:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def split(items: Iterable[Item], fraction: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Return the items to train on and the items to validate with."""
    train: list[Item] = []
    validate: list[Item] = []
    for item in items:
        (validate if is_validation(item.patient, fraction, seed) else train).append(item)
    return tuple(train), tuple(validate)


def _study(item: Item, modality: str | None = None) -> Study:
    known = date.fromisoformat(item.study_date) if item.study_date else None
    return Study(item.patient, item.StudyInstanceUID, known, modality=modality)
