"""On which legal basis a dataset is used, and what a patient's consents still decide under it.

A dataset without a stated basis rests on consent. Under any other basis consent is not what permits,
but a patient's refusal, and a consent that nobody understands, stop the use all the same.

Source: 45 CFR 164.514(e) (limited data set) and 164.512(i) (waiver); Regulation (EU) 2025/327 (EHDS),
articles 53, 68 and 71; GDPR article 7(3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from consent.decision import Outcome, Verdict, decide
from consent.errors import DataUseInvalid
from consent.purpose import PURPOSES, covers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from consent.decision import Request, Study
    from consent.record import ConsentRecord


class BasisKind(Enum):
    """What permits the use of a dataset."""

    CONSENT = "consent"
    LIMITED_DATA_SET = "limited-data-set"
    DATA_PERMIT = "data-permit"
    WAIVER = "waiver"


PURPOSES_OF: Final = {
    # 164.514(e)(3)(i): research, public health, health care operations.
    BasisKind.LIMITED_DATA_SET: ("HRESCH", "PUBHLTH", "HOPERAT"),
    # EHDS 53(1)(a) and (e): public health, scientific research.
    BasisKind.DATA_PERMIT: ("HRESCH", "PUBHLTH"),
    # 164.512(i): research.
    BasisKind.WAIVER: ("HRESCH",),
}
"""The purposes the law allows a basis to have, by their HL7 codes; each includes those below it."""


@dataclass(frozen=True, slots=True)
class LegalBasis:
    """The basis of one dataset, and the document that shows it.

    `reference` names the agreement, permit or waiver; it holds from `issued_on` to `valid_until`,
    both included (UTC), for `purposes` (HL7 codes) and `recipients` as a request writes them.
    `later_opt_outs` tells whether refusals made after the issue of a data permit count.
    """

    kind: BasisKind = BasisKind.CONSENT
    reference: str = ""
    issued_on: date | None = None
    valid_until: date | None = None
    purposes: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    later_opt_outs: bool = True


CONSENT: Final = LegalBasis()


def decide_under(
    basis: LegalBasis, records: Sequence[ConsentRecord], study: Study, request: Request, at: datetime
) -> Verdict:
    """Say whether `request` is permitted on `basis`; a refusal in `records` stops it under any basis.

    Raises: ValueError if `at` has no time zone.
    """
    if basis.kind is BasisKind.CONSENT:
        return decide(records, study, request, at)
    verdict = decide([r for r in records if _counts(r, basis)], study, request, at)
    if verdict.outcome in {Outcome.DENY, Outcome.REVIEW}:
        return verdict
    name = f"{basis.kind.value} {basis.reference}"
    fault = _fault(basis, request, at.astimezone(UTC).date())
    if fault is not None:
        return replace(verdict, outcome=Outcome.NO_CONSENT, reason=f"{name}: {fault}")
    reason = f"permitted by {name}"
    return Verdict(Outcome.PERMIT, reason, lambda: (f"no consent refuses; {reason}", *verdict.trace))


def _counts(record: ConsentRecord, basis: LegalBasis) -> bool:
    """Whether a consent can stop the use: EHDS 71(3) leaves a permit untouched by later opt-outs."""
    if basis.later_opt_outs or basis.kind is not BasisKind.DATA_PERMIT or record.review is not None:
        return True
    if record.dated_at is None or basis.issued_on is None:
        return True
    return record.dated_at.astimezone(UTC).date() <= basis.issued_on


def _fault(basis: LegalBasis, request: Request, day: date) -> str | None:
    lawful = PURPOSES_OF[basis.kind]
    for purpose in request.purposes:
        if not any(covers(p, purpose) for p in lawful):
            return f"purpose {purpose} cannot rest on this basis"
        if not any(covers(p, purpose) for p in basis.purposes):
            return f"purpose {purpose} is not among those agreed"
    if not frozenset(request.recipients) <= frozenset(basis.recipients):
        return "a recipient is not among those agreed"
    if basis.issued_on is None or basis.valid_until is None:
        return "it has no dates"
    if not basis.issued_on <= day <= basis.valid_until:
        return "it does not hold on this day"
    return None


# ------------------------------------------------------------------ reading


def _as_date(value: object) -> object:
    return date.fromisoformat(value) if isinstance(value, str) else value


_Day = Annotated[date, BeforeValidator(_as_date)]
_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=64)]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: Literal["limited-data-set", "data-permit", "waiver"]
    reference: _Text
    issued_on: _Day
    valid_until: _Day
    purposes: _Texts
    recipients: _Texts
    later_opt_outs: bool = True


def parse_legal_basis(document: Mapping[str, object] | None) -> LegalBasis:
    """Read `{kind, reference, issued_on, valid_until, purposes, recipients}`; nothing at all is consent.

    Raises: DataUseInvalid if the form is wrong, a purpose unknown or not lawful on this basis, or
        later opt-outs are passed over without a data permit.
    """
    if document is None or dict(document) == {"kind": BasisKind.CONSENT.value}:
        return CONSENT
    try:
        form = _Form.model_validate(dict(document))
    except ValidationError as error:
        fields = {".".join(map(str, fault["loc"])) for fault in error.errors()}
        raise DataUseInvalid(f"legal_basis: wrong or unknown: {', '.join(sorted(fields))}") from None
    kind = BasisKind(form.kind)
    unlawful = [p for p in form.purposes if not any(covers(lawful, p) for lawful in PURPOSES_OF[kind])]
    if unlawful:
        known = "not a purpose it can have" if PURPOSES.issuperset(unlawful) else "an unknown purpose"
        raise DataUseInvalid(f"legal_basis.purposes: {known}")
    if form.valid_until < form.issued_on:
        raise DataUseInvalid("legal_basis.valid_until: before issued_on")
    if not form.later_opt_outs and kind is not BasisKind.DATA_PERMIT:
        raise DataUseInvalid("legal_basis.later_opt_outs: only a data permit may pass them over")
    return LegalBasis(
        kind,
        form.reference,
        form.issued_on,
        form.valid_until,
        tuple(form.purposes),
        tuple(form.recipients),
        form.later_opt_outs,
    )
