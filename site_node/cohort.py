"""Which studies may be used now: the catalogue, joined with what each patient's consents decide.

Pure. The frozen set only ever shrinks: `still_permitted` compares a later state with it and never adds to it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, TypeAlias

from consent import CONSENT, Decider, Outcome, Study
from site_node.catalogue import LabelledImage, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from consent import LegalBasis, Reading, Request, Verdict

Item: TypeAlias = Series | LabelledImage


@dataclass(frozen=True, slots=True)
class Cohort:
    """The permitted items, and the verdict on every study asked about (for the hospital's eyes only)."""

    items: tuple[Item, ...]
    verdicts: Mapping[str, Verdict]
    asked: tuple[Study, ...] = ()

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
) -> Cohort:
    """Return the items whose study may be used for `request` at `at` on `basis`, by consent unless another is given.

    Where two patients or dates are known under one StudyInstanceUID, all must permit.
    """
    decider = Decider(basis, request, at)
    verdicts: dict[str, Verdict] = {}
    asked = tuple(dict.fromkeys(_study(item, modality) for item in items))
    for study in asked:
        verdict = decider.decide(consents.get(study.patient, ()), study)
        if study.StudyInstanceUID not in verdicts or verdict.outcome is not Outcome.PERMIT:
            verdicts[study.StudyInstanceUID] = verdict
    permitted = tuple(item for item in items if verdicts[item.StudyInstanceUID].outcome is Outcome.PERMIT)
    return Cohort(permitted, verdicts, asked)


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
