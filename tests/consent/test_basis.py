"""Legal bases other than consent: what they permit, when they hold, and that a refusal stops them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings

from consent.basis import CONSENT, BasisKind, LegalBasis, decide_under, parse_legal_basis
from consent.decision import Outcome, Request, Study, decide
from consent.errors import DataUseInvalid
from tests.consent.records import (
    AT,
    HUB,
    PAST,
    REQUEST,
    RESEARCH,
    STUDY,
    deny,
    permit,
    record,
    record_lists,
    requests,
    studies,
)

if TYPE_CHECKING:
    from consent.record import ConsentRecord

PERMIT, DENY, NO_CONSENT, REVIEW = Outcome.PERMIT, Outcome.DENY, Outcome.NO_CONSENT, Outcome.REVIEW
AGREEMENT: Final = LegalBasis(
    BasisKind.LIMITED_DATA_SET, "DUA-7", date(2026, 1, 1), date(2026, 12, 31), ("HRESCH",), (HUB,)
)
ISSUED: Final = replace(AGREEMENT, kind=BasisKind.DATA_PERMIT, reference="DE-2026-17")
LENIENT: Final = replace(ISSUED, later_opt_outs=False)
LATER: Final = datetime(2026, 3, 1, tzinfo=UTC)
BOTH: Final = Request(("BIORCH",), (HUB, "Organization/spoke"))
SILENT: Final = record(permit(purposes=("TREAT",)))
NOT_UNDERSTOOD: Final = replace(RESEARCH, review="x: unknown element")

Row = tuple[str, LegalBasis, "list[ConsentRecord]", Request, Outcome]
TABLE: Final[dict[str, list[Row]]] = {
    "GDPR 6(1)(a): consent is the basis unless another is stated": [
        ("permitted", CONSENT, [RESEARCH], REQUEST, PERMIT),
        ("silence", CONSENT, [], REQUEST, NO_CONSENT),
    ],
    "45 CFR 164.514(e): limited data set under its agreement": [
        ("no consent is needed", AGREEMENT, [], REQUEST, PERMIT),
        ("a consent to something else", AGREEMENT, [SILENT], REQUEST, PERMIT),
        ("a purpose not agreed", AGREEMENT, [], Request(("HQUALIMP",), (HUB,)), NO_CONSENT),
        ("one of two purposes not agreed", AGREEMENT, [], Request(("BIORCH", "PUBHLTH"), (HUB,)), NO_CONSENT),
        (
            "care operations, agreed",
            replace(AGREEMENT, purposes=("HQUALIMP",)),
            [],
            Request(("HQUALIMP",), (HUB,)),
            PERMIT,
        ),
        (
            "treatment, though agreed",
            replace(AGREEMENT, purposes=("TREAT",)),
            [],
            Request(("TREAT",), (HUB,)),
            NO_CONSENT,
        ),
        (
            "public health, agreed beside research",
            replace(AGREEMENT, purposes=("HRESCH", "PUBHLTH")),
            [],
            Request(("BIORCH", "PUBHLTH"), (HUB,)),
            PERMIT,
        ),
        ("no issue", replace(AGREEMENT, issued_on=None), [], REQUEST, NO_CONSENT),
        ("one of two recipients not agreed", AGREEMENT, [], BOTH, NO_CONSENT),
        ("no dates", replace(AGREEMENT, valid_until=None), [RESEARCH], REQUEST, NO_CONSENT),
        ("ended yesterday", replace(AGREEMENT, valid_until=date(2026, 5, 31)), [], REQUEST, NO_CONSENT),
        ("ends today", replace(AGREEMENT, valid_until=date(2026, 6, 1)), [], REQUEST, PERMIT),
        ("begins today", replace(AGREEMENT, issued_on=date(2026, 6, 1)), [], REQUEST, PERMIT),
        ("begins tomorrow", replace(AGREEMENT, issued_on=date(2026, 6, 2)), [], REQUEST, NO_CONSENT),
    ],
    "45 CFR 164.512(i): waiver, research alone": [
        ("research", replace(AGREEMENT, kind=BasisKind.WAIVER), [], REQUEST, PERMIT),
        (
            "public health",
            replace(AGREEMENT, kind=BasisKind.WAIVER, purposes=("PUBHLTH",)),
            [],
            Request(("PUBHLTH",), (HUB,)),
            NO_CONSENT,
        ),
    ],
    "consent.md 3: a refusal stops the use under any basis": [
        ("refused", AGREEMENT, [record(deny())], REQUEST, DENY),
        (
            "training refused",
            AGREEMENT,
            [record(permit(purposes=("HRESCH",), children=(deny(purposes=("MLTRAINING",)),)))],
            REQUEST,
            DENY,
        ),
        ("not understood", AGREEMENT, [NOT_UNDERSTOOD], REQUEST, REVIEW),
        ("an inactive refusal", AGREEMENT, [record(deny(), status="inactive")], REQUEST, PERMIT),
        (
            "refused for other recipients",
            AGREEMENT,
            [record(permit(children=(deny(recipients=("Organization/x",)),)))],
            REQUEST,
            PERMIT,
        ),
        (
            "the agreement has ended, and refused",
            replace(AGREEMENT, valid_until=PAST.date()),
            [record(deny())],
            REQUEST,
            DENY,
        ),
    ],
    "EHDS 71(3): a permit, and opt-outs after its issue": [
        ("no opt-out", ISSUED, [], REQUEST, PERMIT),
        ("public health", replace(ISSUED, purposes=("PUBHLTH",)), [], Request(("PUBHLTH",), (HUB,)), PERMIT),
        ("opted out before", ISSUED, [record(deny(), dated_at=PAST)], REQUEST, DENY),
        ("opted out later, counted all the same", ISSUED, [record(deny(), dated_at=LATER)], REQUEST, DENY),
        ("opted out before, later ones passed over", LENIENT, [record(deny(), dated_at=PAST)], REQUEST, DENY),
        (
            "opted out on the day of issue",
            LENIENT,
            [record(deny(), dated_at=datetime(2026, 1, 1, 9, tzinfo=UTC))],
            REQUEST,
            DENY,
        ),
        ("opted out later, passed over", LENIENT, [record(deny(), dated_at=LATER)], REQUEST, PERMIT),
        ("opted out without a date", LENIENT, [record(deny(), dated_at=None)], REQUEST, DENY),
        ("not understood and later", LENIENT, [replace(NOT_UNDERSTOOD, dated_at=LATER)], REQUEST, REVIEW),
        (
            "passing over without an issue",
            replace(LENIENT, issued_on=None),
            [record(deny(), dated_at=LATER)],
            REQUEST,
            DENY,
        ),
        (
            "passing over without a permit",
            replace(AGREEMENT, later_opt_outs=False),
            [record(deny(), dated_at=LATER)],
            REQUEST,
            DENY,
        ),
    ],
}


@pytest.mark.parametrize(
    ("basis", "records", "request_", "expected"),
    [row[1:] for rows in TABLE.values() for row in rows],
    ids=[f"{clause} | {row[0]}" for clause, rows in TABLE.items() for row in rows],
)
def test_the_clause_decides(
    basis: LegalBasis, records: list[ConsentRecord], request_: Request, expected: Outcome
) -> None:
    assert decide_under(basis, records, STUDY, request_, AT).outcome is expected


def test_the_verdict_names_the_document_it_rests_on() -> None:
    permitted = decide_under(AGREEMENT, [SILENT], STUDY, REQUEST, AT)
    ended = decide_under(replace(AGREEMENT, valid_until=PAST.date()), [], STUDY, REQUEST, AT)

    assert permitted.reason == "permitted by limited-data-set DUA-7"
    assert permitted.trace[0] == "no consent refuses; permitted by limited-data-set DUA-7"
    assert permitted.trace[2].startswith("Consent/c contributed nothing")
    assert ended.reason == "limited-data-set DUA-7: it does not hold on this day"


@settings(max_examples=100, deadline=None)
@given(record_lists, studies, requests)
def test_what_consents_refuse_no_basis_permits(
    given_records: list[ConsentRecord], study: Study, request: Request
) -> None:
    wide = replace(AGREEMENT, purposes=("HRESCH", "HOPERAT", "PUBHLTH"), recipients=request.recipients)
    before = decide(given_records, study, request, AT).outcome

    after = decide_under(wide, given_records, study, request, AT).outcome

    assert (after in {DENY, REVIEW}) == (before in {DENY, REVIEW})
    assert decide_under(CONSENT, given_records, study, request, AT).outcome is before


DOCUMENT: Final[dict[str, Any]] = {
    "kind": "data-permit",
    "reference": "DE-2026-17",
    "issued_on": "2026-01-01",
    "valid_until": "2026-12-31",
    "purposes": ["HRESCH"],
    "recipients": [HUB],
}


def test_a_basis_is_read_and_consent_is_what_stands_where_none_is_stated() -> None:
    assert parse_legal_basis(None) == parse_legal_basis({"kind": "consent"}) == CONSENT
    assert parse_legal_basis(DOCUMENT) == ISSUED
    assert parse_legal_basis({**DOCUMENT, "later_opt_outs": False}) == LENIENT
    for changes in (
        {"kind": "waiver"},
        {"valid_until": "2026-01-01"},
        {"reference": "A"},
        {"reference": "A" * 256},
        {"recipients": ["x"] * 64},
    ):
        parse_legal_basis({**DOCUMENT, **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "consent"}, "legal_basis"),
        ({"kind": "because"}, "legal_basis: wrong or unknown: kind"),
        ({"issued_on": None}, "issued_on"),
        ({"valid_until": "soon"}, "valid_until"),
        ({"valid_until": "2025-12-31"}, "valid_until: before"),
        ({"purposes": []}, "purposes"),
        ({"purposes": ["TREAT"]}, "not a purpose it can have"),
        ({"purposes": ["HOPERAT"]}, "not a purpose it can have"),
        ({"purposes": ["Erika"]}, "an unknown purpose"),
        ({"recipients": []}, "recipients"),
        ({"recipients": ["x"] * 65}, "recipients"),
        ({"recipients": ["x", ""]}, "recipients.1"),
        ({"reference": "A" * 257}, "reference"),
        ({"later_opt_outs": "yes"}, "later_opt_outs"),
        ({"colour": "red"}, "colour"),
        ({"kind": "waiver", "later_opt_outs": False}, "later_opt_outs: only a data permit"),
    ],
)
def test_a_basis_that_is_not_whole_is_invalid(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(DataUseInvalid, match=named) as caught:
        parse_legal_basis({**DOCUMENT, **changes})

    assert "Erika" not in str(caught.value)
