"""Every clause of the decision, one row each: what the consents say, and what must come of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import pytest

from consent.decision import Outcome, Request, Study, contribution, decide, may_permit
from consent.record import UNRESOLVED, Clause, Kind, Period, Scope
from tests.consent.records import (
    AT,
    FUTURE,
    HUB,
    PAST,
    REQUEST,
    RESEARCH,
    STUDY,
    deny,
    permit,
    record,
)

if TYPE_CHECKING:
    from consent.record import ConsentRecord

PERMIT, DENY, NO_CONSENT, REVIEW = (
    Outcome.PERMIT,
    Outcome.DENY,
    Outcome.NO_CONSENT,
    Outcome.REVIEW,
)
H: Final = ("HRESCH",)
BOTH: Final = Request(("BIORCH",), (HUB, "Organization/spoke"))
BRAIN: Final = replace(REQUEST, project="brain")
EXPIRED: Final = Period(None, PAST)
COMING: Final = Period(FUTURE, None)


def _only(**limits: Any) -> list[ConsentRecord]:
    """Research refused in general and permitted within `limits`."""
    return [record(deny(children=(permit(**{"purposes": H, **limits}),)))]


def _except(**limits: Any) -> list[ConsentRecord]:
    """Research permitted in general and refused within `limits`."""
    return [record(permit(purposes=H, children=(deny(**limits),)))]


def _lifted(**limits: Any) -> list[ConsentRecord]:
    """Everything refused within `limits`, and research permitted all the same."""
    return [record(deny(children=(permit(purposes=H),), **limits))]


def _narrowed(**limits: Any) -> list[ConsentRecord]:
    """Research permitted within `limits`, and everything refused all the same."""
    return [record(permit(purposes=H, children=(deny(),), **limits))]


Row = tuple[str, "list[ConsentRecord]", Request, Outcome]
TABLE: Final[dict[str, list[Row]]] = {
    "IHE PCF P.2, implicit policy: without a consent, deny": [
        ("silence is not consent", [], REQUEST, NO_CONSENT),
    ],
    "FHIR R4 and R5 Consent.status: only active is enforced": [
        ("an active permission of research", [RESEARCH], REQUEST, PERMIT),
        *[
            (f"a permission that is {status}", [replace(RESEARCH, status=status)], REQUEST, NO_CONSENT)
            for status in ("draft", "proposed", "rejected", "inactive", "not-done", "unknown")
        ],
        (
            "entered-in-error is ignored as a refusal too",
            [RESEARCH, record(deny(), status="entered-in-error")],
            REQUEST,
            PERMIT,
        ),
        ("an inactive refusal", [RESEARCH, record(deny(), status="inactive")], REQUEST, PERMIT),
        ("a status nobody knows", [replace(RESEARCH, status="Active")], REQUEST, REVIEW),
    ],
    "FHIR R4 Consent.scope: adr and treatment are about other things": [
        ("an order not to resuscitate", [record(deny(), scope=Scope.OTHER)], REQUEST, NO_CONSENT),
        (
            "an unreadable consent of another scope",
            [RESEARCH, record(deny(), scope=Scope.OTHER, review="x: unknown element")],
            REQUEST,
            PERMIT,
        ),
    ],
    "FHIR R4 extensibility: what may modify the meaning must not be passed over": [
        ("not understood", [replace(RESEARCH, review="x: unknown element")], REQUEST, REVIEW),
        (
            "not understood beside a permission",
            [RESEARCH, replace(RESEARCH, review="x: unknown element")],
            REQUEST,
            REVIEW,
        ),
        (
            "not understood beside a refusal",
            [record(deny()), replace(RESEARCH, review="x: unknown element")],
            REQUEST,
            DENY,
        ),
    ],
    "FHIR R4 Consent.dateTime, R5 Consent.date: when consent was given": [
        ("dated in the future", [replace(RESEARCH, dated_at=FUTURE)], REQUEST, NO_CONSENT),
        ("dated at this very moment", [replace(RESEARCH, dated_at=AT)], REQUEST, PERMIT),
        ("without a date", [replace(RESEARCH, dated_at=None)], REQUEST, NO_CONSENT),
        ("a refusal dated in the future", [record(deny(), dated_at=FUTURE)], REQUEST, DENY),
    ],
    "FHIR R5 Consent.period: effective period of the consent": [
        ("expired as a whole", [replace(RESEARCH, period=EXPIRED)], REQUEST, NO_CONSENT),
        ("not yet begun", [replace(RESEARCH, period=COMING)], REQUEST, NO_CONSENT),
        ("an expired refusal", [record(deny(), period=EXPIRED)], REQUEST, NO_CONSENT),
    ],
    "FHIR R4 Consent.provision.period; Period: both bounds included": [
        ("expired at the root", [record(permit(purposes=H, period=EXPIRED))], REQUEST, NO_CONSENT),
        ("expired in the exception", _only(period=EXPIRED), REQUEST, DENY),
        ("the last instant belongs to it", _only(period=Period(PAST, AT)), REQUEST, PERMIT),
        ("the first instant belongs to it", _only(period=Period(AT, FUTURE)), REQUEST, PERMIT),
        ("one instant too late", _only(period=Period(PAST, AT - timedelta(seconds=1))), REQUEST, DENY),
        ("a refusal for a time gone by", _except(period=EXPIRED), REQUEST, PERMIT),
    ],
    "HL7 v3-ActReason: a permission covers the codes below it": [
        ("the very purpose", [record(permit(purposes=("BIORCH",)))], REQUEST, PERMIT),
        ("a sibling purpose", [record(permit(purposes=("CLINTRCH",)))], REQUEST, NO_CONSENT),
        (
            "a narrower permission than asked",
            [record(permit(purposes=("BIORCH",)))],
            Request(("HRESCH",), (HUB,)),
            NO_CONSENT,
        ),
        ("treatment is not research", [record(permit(purposes=("TREAT",)))], REQUEST, NO_CONSENT),
        ("any of several purposes", [record(permit(purposes=("TREAT", *H)))], REQUEST, PERMIT),
    ],
    "consent.md 1.4: every purpose of the project must be covered": [
        (
            "only one of two purposes permitted",
            [RESEARCH],
            Request(("BIORCH", "HQUALIMP"), (HUB,)),
            NO_CONSENT,
        ),
        (
            "one purpose permitted by each of two consents",
            [RESEARCH, record(permit(purposes=("HQUALIMP",)))],
            Request(("BIORCH", "HQUALIMP"), (HUB,)),
            PERMIT,
        ),
    ],
    "IHE PCF P.4.4 and FHIR R4 Consent.scope research: what names the purpose": [
        ("a permission that names no purpose", [record(permit())], REQUEST, NO_CONSENT),
        ("unless it is about research", [record(permit(), scope=Scope.RESEARCH)], REQUEST, PERMIT),
        (
            "research scope does not widen a named purpose",
            [record(permit(purposes=("TREAT",)), scope=Scope.RESEARCH)],
            REQUEST,
            NO_CONSENT,
        ),
    ],
    "consent.md 1.5: an unknown code matches a refusal and no permission": [
        ("a purpose from an unknown table", [record(permit(purposes=("",)))], REQUEST, NO_CONSENT),
        ("a refusal with such a purpose", _except(purposes=(UNRESOLVED,)), REQUEST, DENY),
    ],
    "HL7 v3-ActReason: a refusal hits the codes below and above it": [
        ("a refusal of the whole", _except(purposes=H), REQUEST, DENY),
        ("a refusal of several purposes, the asked one among them", _except(purposes=("TREAT", *H)), REQUEST, DENY),
        (
            "a refusal of several purposes, a part of the asked one among them",
            _except(purposes=("TREAT", "CLINTRCH")),
            Request(H, (HUB,)),
            DENY,
        ),
        ("a refusal of another purpose", _except(purposes=("CLINTRCH",)), REQUEST, PERMIT),
        (
            "a refusal of a part of what is asked",
            _except(purposes=("CLINTRCH",)),
            Request(("HRESCH",), (HUB,)),
            DENY,
        ),
    ],
    "HL7 v3-ActReason MLTRAINING: below HOPERAT, a facet of its own": [
        ("training refused", _except(purposes=("MLTRAINING",)), REQUEST, DENY),
        ("operations refused", _except(purposes=("HOPERAT",)), REQUEST, PERMIT),
        ("training alone permitted", _only(purposes=("MLTRAINING",)), REQUEST, DENY),
        (
            "training refused elsewhere",
            [RESEARCH, record(deny(purposes=("MLTRAINING",)))],
            REQUEST,
            DENY,
        ),
        (
            "research and training as an exception to a refusal of training",
            [record(deny(purposes=("MLTRAINING",), children=(permit(purposes=("HRESCH", "MLTRAINING")),)))],
            REQUEST,
            NO_CONSENT,
        ),
        (
            "research as an exception to one of two exceptions, which is a refusal of training",
            [
                record(
                    deny(
                        children=(
                            deny(purposes=("MLTRAINING",), children=(permit(purposes=H),)),
                            permit(purposes=("TREAT",)),
                        )
                    )
                )
            ],
            REQUEST,
            DENY,
        ),
        (
            "research as an exception to a refusal of training, beside a consent on care",
            [
                record(deny(purposes=("MLTRAINING",), children=(permit(purposes=H),))),
                record(permit(purposes=("TREAT",))),
            ],
            REQUEST,
            NO_CONSENT,
        ),
        (
            "research as an exception to a refusal of training",
            [record(deny(purposes=("MLTRAINING",), children=(permit(purposes=H),)))],
            REQUEST,
            NO_CONSENT,
        ),
    ],
    "FHIR R4 Consent.provision.actor, role IRCP or PRCP": [
        ("the very recipient", _only(recipients=(HUB,)), REQUEST, PERMIT),
        ("one of two recipients", _only(recipients=(HUB,)), BOTH, DENY),
        ("both recipients", _only(recipients=(HUB, "Organization/spoke")), BOTH, PERMIT),
        ("another recipient refused", _except(recipients=("Organization/54",)), REQUEST, PERMIT),
        ("one of two refused", _except(recipients=("Organization/spoke",)), BOTH, DENY),
    ],
    "FHIR R4 Reference: another system may mean the same party": [
        ("a recipient in other words refused", _except(recipients=("urn:x|1",)), REQUEST, DENY),
        ("a recipient in other words permitted", _only(recipients=("urn:x|1",)), REQUEST, DENY),
        (
            "one of two refused by the second exception",
            [
                record(
                    permit(purposes=H, children=(deny(purposes=("TREAT",)), deny(recipients=("Organization/spoke",))))
                )
            ],
            BOTH,
            DENY,
        ),
        (
            "one of two refused by another consent, which names recipients where the permitting one does not",
            [RESEARCH, record(deny(recipients=("Organization/spoke",)))],
            BOTH,
            DENY,
        ),
        (
            "the same number in another system refused",
            _except(recipients=("urn:x|1",)),
            Request(("BIORCH",), ("urn:y|1",)),
            DENY,
        ),
        (
            "another number in the same system refused",
            _except(recipients=("urn:x|2",)),
            Request(("BIORCH",), ("urn:x|1",)),
            PERMIT,
        ),
        *[
            (f"the recipient refused, spelled {spelling!r}", _except(recipients=(spelling,)), REQUEST, DENY)
            for spelling in ("Organization/HUB", "Organization/hub ", "Organization/\uff48ub")
        ],
        (
            "a recipient refused with a blank after its system",
            _except(recipients=("urn:x| North",)),
            replace(REQUEST, recipients=("urn:x|north",)),
            DENY,
        ),
        ("the recipient permitted in another spelling", _only(recipients=("Organization/Hub",)), REQUEST, DENY),
        ("a group refused", _except(recipients=("Group/1",)), REQUEST, DENY),
        ("a recipient nobody can tell refused", _except(recipients=(UNRESOLVED,)), REQUEST, DENY),
        (
            "a recipient nobody can tell refused, and a bare name asked",
            _except(recipients=(UNRESOLVED,)),
            Request(("BIORCH",), ("hub",)),
            DENY,
        ),
    ],
    "consent.md 1.5: every recipient must be covered": [
        (
            "each recipient permitted by another consent, and refused by it to the other",
            [
                *_only(recipients=(HUB,)),
                *_only(recipients=("Organization/spoke",)),
            ],
            BOTH,
            DENY,
        ),
        (
            "each recipient permitted by another consent",
            [
                record(permit(purposes=H, recipients=(HUB,))),
                record(permit(purposes=H, recipients=("Organization/spoke",))),
            ],
            BOTH,
            PERMIT,
        ),
    ],
    "HL7 consentaction: access permits no use": [
        ("use permitted", _only(actions=("use",)), REQUEST, PERMIT),
        (
            "an exception to a permission of access alone",
            [record(permit(purposes=H, actions=("access",), children=(deny(),)))],
            REQUEST,
            NO_CONSENT,
        ),
        ("access is not use", _only(actions=("access",)), REQUEST, DENY),
        ("an unknown action permitted", _only(actions=(UNRESOLVED,)), REQUEST, DENY),
        *[
            (f"{action} refused", _except(actions=(action,)), REQUEST, DENY)
            for action in ("use", "access", "collect", UNRESOLVED)
        ],
        ("disclosure refused", _except(actions=("disclose", "correct")), REQUEST, PERMIT),
        (
            "use as an exception to refused access",
            [record(deny(actions=("access",), children=(permit(purposes=H, actions=("use",)),)))],
            REQUEST,
            NO_CONSENT,
        ),
    ],
    "docs/consent.md: an actor that names a project": [
        ("the project permitted", _only(projects=("lung", "brain")), BRAIN, PERMIT),
        ("another permitted", _only(projects=("lung",)), BRAIN, DENY),
        ("the project refused", _except(projects=("brain",)), BRAIN, DENY),
        ("another refused", _except(projects=("lung",)), BRAIN, PERMIT),
        *[
            (f"the project refused, spelled {spelling!r}", _except(projects=(spelling,)), BRAIN, DENY)
            for spelling in ("Brain", " brain\u00a0", "\uff42rain")
        ],
        ("the project permitted in another spelling", _only(projects=("Brain",)), BRAIN, DENY),
        ("refused in another spelling, and lifted", _lifted(projects=("Brain",)), BRAIN, NO_CONSENT),
        ("refused, and the project unknown", _except(projects=("lung",)), REQUEST, DENY),
        ("permitted, and the project unknown", _only(projects=("lung",)), REQUEST, DENY),
        (
            "refused for the project, and for studies of another time",
            _except(projects=("brain",), data_period=Period(PAST)),
            BRAIN,
            PERMIT,
        ),
    ],
    "FHIR R4 Consent.provision.dataPeriod; PCF Intermediate, data timeframe": [
        ("studies of that time", _only(data_period=Period(None, PAST)), REQUEST, PERMIT),
        ("studies of another time", _only(data_period=Period(PAST, None)), REQUEST, DENY),
        ("studies of that time refused", _except(data_period=Period(None, PAST)), REQUEST, DENY),
        ("studies of another time refused", _except(data_period=Period(PAST)), REQUEST, PERMIT),
        (
            "a part of the study's day refused",
            _except(data_period=Period(datetime(2024, 5, 1, 18, tzinfo=UTC))),
            REQUEST,
            DENY,
        ),
        (
            "a part of the study's day permitted",
            _only(data_period=Period(datetime(2024, 5, 1, 18, tzinfo=UTC))),
            REQUEST,
            DENY,
        ),
    ],
    "FHIR R4 Consent.provision.data, meaning instance; PCF Intermediate, data by id": [
        ("this very study", _only(data_references=("1.2.3.4",)), REQUEST, PERMIT),
        ("another study", _only(data_references=("9.9",)), REQUEST, DENY),
        ("this very study refused", _except(data_references=("1.2.3.4",)), REQUEST, DENY),
        ("another study refused", _except(data_references=("9.9",)), REQUEST, PERMIT),
        ("data nobody can tell refused", _except(data_references=(UNRESOLVED,)), REQUEST, DENY),
    ],
    "FHIR R4 Consent.provision.securityLabel: without labels, unknown": [
        ("labelled data refused", _except(security_labels=("R",)), REQUEST, DENY),
        ("labelled data permitted", _only(security_labels=("V",)), REQUEST, DENY),
    ],
    "consent.md 1.5: unknown facts match a refusal and no permission": [
        ("an unknown limit of a refusal", _except(unknown=True), REQUEST, DENY),
        ("an unknown limit of a permission", _only(unknown=True), REQUEST, DENY),
        (
            "an unknown limit does not revive a refusal of another purpose",
            _except(unknown=True, purposes=("CLINTRCH",)),
            REQUEST,
            PERMIT,
        ),
    ],
    "FHIR consent notes: attributes of a provision are ANDed, siblings ORed": [
        ("all limits of one rule together", _only(actions=("use",), period=EXPIRED), REQUEST, DENY),
        (
            "siblings are alternatives",
            [record(deny(children=(permit(purposes=("TREAT",)), permit(purposes=H))))],
            REQUEST,
            PERMIT,
        ),
    ],
    "FHIR consent notes: each level states exceptions to its parent": [
        (
            "an exception to an exception",
            [record(permit(purposes=H, children=(deny(children=(permit(recipients=(HUB,)),)),)))],
            REQUEST,
            PERMIT,
        ),
        (
            "an exception to a refusal nobody can delimit",
            [record(deny(unknown=True, children=(permit(purposes=H),)))],
            REQUEST,
            NO_CONSENT,
        ),
        (
            "a refusal beside the permitting exception",
            [record(deny(children=(permit(purposes=H), deny(recipients=(HUB,)))))],
            REQUEST,
            DENY,
        ),
    ],
    "consent.md 1.2 (4): a permission below a permission never widens it": [
        (
            "a permission below a permission does not widen it",
            [record(permit(purposes=("TREAT",), children=(permit(purposes=H),)))],
            REQUEST,
            NO_CONSENT,
        ),
    ],
    "consent.md 1.5: an unknown permission keeps its exceptions": [
        (
            "a refusal below a permission nobody can delimit",
            [record(permit(purposes=H, unknown=True, children=(deny(),)))],
            REQUEST,
            DENY,
        ),
    ],
    "IHE PCF P.4.4 and FHIR R4 Consent.scope research: what names the purpose (nested)": [
        (
            "an exception has to name the purpose itself",
            [record(deny(purposes=H, children=(permit(),)))],
            REQUEST,
            DENY,
        ),
    ],
    "consent.md 1.5: an exception lifts only a refusal that surely applies": [
        (
            "an exception to a refusal of several purposes, the asked one among them",
            [record(deny(purposes=("TREAT", *H), children=(permit(purposes=H),)))],
            REQUEST,
            PERMIT,
        ),
        (
            "an exception to a refusal of a part",
            [record(deny(purposes=("CLINTRCH",), children=(permit(purposes=H),)))],
            Request(("HRESCH",), (HUB,)),
            NO_CONSENT,
        ),
        (
            "an unknown limit of a permission about research",
            [record(permit(unknown=True), scope=Scope.RESEARCH)],
            REQUEST,
            NO_CONSENT,
        ),
        (
            "a purpose named where nobody can tell whether it applies lifts no refusal",
            [
                record(
                    permit(purposes=H, unknown=True, children=(deny(children=(permit(),)),)),
                )
            ],
            REQUEST,
            DENY,
        ),
    ],
    "consent.md 1.5: an unknown permission keeps its exceptions (codes)": [
        (
            "a refusal below a permission of an unknown purpose",
            [record(permit(purposes=(UNRESOLVED,), children=(deny(),)))],
            REQUEST,
            DENY,
        ),
        (
            "a refusal below a permission of an unknown action",
            [record(permit(purposes=H, actions=(UNRESOLVED,), children=(deny(),)))],
            REQUEST,
            DENY,
        ),
    ],
    "HL7 v3-ActReason MLTRAINING: below HOPERAT, a facet of its own (nested)": [
        (
            "research as an exception to a nested refusal of training",
            [record(deny(children=(deny(purposes=("MLTRAINING",), children=(permit(purposes=H),)),)))],
            REQUEST,
            DENY,
        ),
    ],
    "consent.md 1.5: a refusal overrides among active consents": [
        ("two conflicting consents", [RESEARCH, record(deny())], REQUEST, DENY),
        (
            "a newer permission does not lift an older refusal",
            [record(deny(), dated_at=PAST), replace(RESEARCH, dated_at=AT)],
            REQUEST,
            DENY,
        ),
        ("a consent on other things", [RESEARCH, record(permit(purposes=("TREAT",)))], REQUEST, PERMIT),
    ],
}
ROWS: Final = [(f"{clause} | {row[0]}", *row[1:]) for clause, rows in TABLE.items() for row in rows]


def test_the_table_has_at_least_eighty_rows_each_under_its_clause() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 80
    assert all(TABLE.values())


@pytest.mark.parametrize(
    ("records", "request_", "expected"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_the_clause_decides(records: list[ConsentRecord], request_: Request, expected: Outcome) -> None:
    assert decide(records, STUDY, request_, AT).outcome is expected


@pytest.mark.parametrize(
    ("rule", "said", "modality", "expected"),
    [
        (_only, ("CT", "MR"), "MR", PERMIT),
        (_only, ("CT",), "MR", DENY),
        (_only, (UNRESOLVED,), "MR", DENY),
        (_only, ("MR",), None, DENY),
        (_except, ("CT", "MR"), "MR", DENY),
        (_except, ("CT",), "MR", PERMIT),
        (_except, (UNRESOLVED,), "MR", DENY),
        (_except, ("CT",), None, DENY),
        (_lifted, ("MR",), "MR", PERMIT),
        (_lifted, ("MR",), None, NO_CONSENT),
    ],
)
def test_the_modality_of_a_study_decides(
    rule: Any, said: tuple[str, ...], modality: str | None, expected: Outcome
) -> None:
    """FHIR R4 Consent.provision.code with codes of DICOM's ontology."""
    study = replace(STUDY, modality=modality)

    assert decide(rule(modalities=said), study, REQUEST, AT).outcome is expected


LABELLED: Final[dict[str, list[tuple[Any, tuple[str, ...], set[str] | None, Outcome]]]] = {
    "HL7 v3-Confidentiality U<L<M<N<R<V: a permission covers its label and those below": [
        (_only, ("N",), {"N"}, PERMIT),
        (_only, ("R",), {"N"}, PERMIT),
        (_only, ("N",), {"R"}, DENY),
        (_only, ("N",), {"N", "R"}, DENY),
        (_only, ("V",), {"HIV"}, DENY),
        (_only, ("N",), set(), DENY),
    ],
    "HL7 v3-Confidentiality: a refusal hits its label and those above": [
        (_except, ("R",), {"N"}, PERMIT),
        (_except, ("R",), {"R"}, DENY),
        (_except, ("R",), {"V"}, DENY),
        (_except, ("R",), {"L", "V"}, DENY),
        (_except, ("R",), {"HIV"}, DENY),
    ],
    "PCF Advanced, sensitivity: by name": [
        (_only, ("ETH",), {"N", "ETH"}, PERMIT),
        (_only, ("ETH",), {"N"}, DENY),
        (_only, ("ETH",), {"ETH"}, PERMIT),
        (_except, ("HIV",), {"ETH"}, PERMIT),
        (_only, ("ETH",), {"N", "ETH", "HIV"}, DENY),
        (_only, ("ETH", "HIV"), {"N", "ETH", "HIV"}, PERMIT),
        (_except, ("HIV",), {"N", "HIV"}, DENY),
        (_except, ("HIV",), {"N", "ETH"}, PERMIT),
        (_except, ("HIV", "R"), {"R"}, DENY),
    ],
    "consent.md 1.5: an unknown label matches a refusal and no permission": [
        (_only, (UNRESOLVED,), {"N"}, DENY),
        (_only, (UNRESOLVED, "N"), {"N"}, PERMIT),
        (_except, (UNRESOLVED,), {"N"}, DENY),
        (_except, ("R",), None, DENY),
        (_only, ("V",), None, DENY),
        (_lifted, ("R",), {"R"}, PERMIT),
        (_lifted, ("R",), None, NO_CONSENT),
        (_lifted, ("R",), {"HIV"}, NO_CONSENT),
        (_lifted, (UNRESOLVED,), {"N"}, NO_CONSENT),
        (_narrowed, ("R",), {"V"}, NO_CONSENT),
        (_narrowed, ("R",), None, DENY),
        (_narrowed, ("R",), {"HIV"}, DENY),
        (_narrowed, (UNRESOLVED,), {"N"}, DENY),
    ],
}


@pytest.mark.parametrize(
    ("rule", "said", "labels", "expected"),
    [row for rows in LABELLED.values() for row in rows],
    ids=[f"{clause} | {row[1]} {row[2] and sorted(row[2])}" for clause, rows in LABELLED.items() for row in rows],
)
def test_the_labels_of_a_study_decide(
    rule: Any, said: tuple[str, ...], labels: set[str] | None, expected: Outcome
) -> None:
    study = replace(STUDY, security_labels=None if labels is None else frozenset(labels))

    assert decide(rule(security_labels=said), study, REQUEST, AT).outcome is expected


def test_confidentiality_is_ordered_as_hl7_orders_it() -> None:
    order = "ULMNRV"
    for said, has in product(order, order):
        study = replace(STUDY, security_labels=frozenset({has}))
        covered = decide(_only(security_labels=(said,)), study, REQUEST, AT).outcome is PERMIT
        hit = decide(_except(security_labels=(said,)), study, REQUEST, AT).outcome is DENY

        assert covered == (order.index(has) <= order.index(said))
        assert hit == (order.index(has) >= order.index(said))


@pytest.mark.parametrize("rule", [_except, _only])
def test_a_study_without_a_date_is_refused_wherever_dates_matter(rule: Any) -> None:
    undated = Study("patient-1", "1.2.3.4", None)

    verdict = decide(rule(data_period=Period(None, PAST)), undated, REQUEST, AT)

    assert verdict.outcome is DENY


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([RESEARCH], "permitted"),
        ([record(deny())], "an active consent denies this use"),
        ([replace(RESEARCH, review="x")], "an active consent needs a person's review"),
        ([], "no consent on record"),
        ([replace(RESEARCH, period=EXPIRED), RESEARCH, record(permit(purposes=("TREAT",)))], "permitted"),
        ([replace(RESEARCH, period=EXPIRED), record(permit(purposes=("TREAT",)))], "no active consent covers this use"),
        (
            [replace(RESEARCH, dated_at=None), record(permit(purposes=("TREAT",)))],
            "no active consent covers this use",
        ),
        ([record(permit(purposes=("TREAT",)), period=Period(PAST, AT))], "no active consent covers this use"),
        ([replace(RESEARCH, period=COMING)], "no active consent covers this use"),
        ([replace(RESEARCH, period=Period(PAST, AT), dated_at=FUTURE)], "the consent has no date or a date to come"),
        ([replace(RESEARCH, status="inactive")], "no active consent on research or privacy"),
        ([replace(RESEARCH, period=EXPIRED)], "the consent has expired"),
        ([record(permit(purposes=H, period=EXPIRED))], "the consent has expired"),
        ([replace(RESEARCH, dated_at=FUTURE)], "the consent has no date or a date to come"),
        ([record(permit(purposes=("TREAT",)))], "no active consent covers this use"),
    ],
)
def test_the_reason_tells_what_decided_or_what_is_missing(records: list[ConsentRecord], reason: str) -> None:
    verdict = decide(records, STUDY, REQUEST, AT)

    assert verdict.reason == reason
    assert verdict.trace[0] == f"asked: BIORCH with MLTRAINING, for {HUB}"


def test_the_trace_names_the_refusing_consent_and_the_use_it_refuses() -> None:
    refusal = replace(_except(purposes=("MLTRAINING",))[0], consent_id="refusal")

    verdict = decide([RESEARCH, refusal], STUDY, REQUEST, AT)

    assert verdict.trace == (
        f"asked: BIORCH with MLTRAINING, for {HUB}",
        "rule 1 of Consent/c permitted: purpose HRESCH",
        "rule 2 of Consent/refusal denied: purpose MLTRAINING",
    )


NESTED: Final = permit(
    purposes=H,
    children=(deny(purposes=("CLINTRCH",), children=(permit(),)), deny(recipients=(HUB,), period=Period(PAST))),
)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (record(NESTED), "rule 4 of Consent/c denied: period from 2025-01-01, recipient Organization/hub"),
        (_only()[0], "rule 2 of Consent/c permitted: purpose HRESCH"),
        (record(deny()), "rule 1 of Consent/c denied: everything"),
        (record(deny(children=(deny(purposes=H),))), "rule 1 of Consent/c denied: everything"),
        (
            record(deny(children=(permit(purposes=H), deny(purposes=("MLTRAINING", UNRESOLVED))))),
            "rule 3 of Consent/c denied: purpose MLTRAINING or ?",
        ),
        (_except(unknown=True)[0], "rule 2 of Consent/c denied: a limit that is not understood"),
        (_except(data_references=(UNRESOLVED,))[0], "rule 2 of Consent/c denied: a list of studies"),
        (_except(security_labels=("R",))[0], "rule 2 of Consent/c denied: label R"),
        (_except(projects=("brain", "lung"))[0], "rule 2 of Consent/c denied: project brain or lung"),
        (_except(modalities=("MR",))[0], "rule 2 of Consent/c denied: modality MR"),
        (_except(actions=("use", "access"))[0], "rule 2 of Consent/c denied: action use or access"),
        (_except(data_period=Period(None, PAST))[0], "rule 2 of Consent/c denied: study dated until 2025-01-01"),
        (record(permit(purposes=("TREAT",))), "Consent/c contributed nothing: rule 1 does not apply: purpose TREAT"),
        (
            record(permit(purposes=H, unknown=True)),
            "Consent/c contributed nothing: rule 1 may not apply: a limit that is not understood",
        ),
        (record(permit()), "Consent/c contributed nothing: rule 1 names no purpose"),
        (replace(RESEARCH, dated_at=FUTURE), "Consent/c contributed nothing: it has no date or a date to come"),
        (replace(RESEARCH, period=EXPIRED), "Consent/c contributed nothing: it is not in force at this moment"),
        (replace(RESEARCH, status="inactive"), "Consent/c contributed nothing: status inactive"),
        (
            replace(RESEARCH, scope=Scope.OTHER),
            "Consent/c contributed nothing: its scope is neither research nor privacy",
        ),
        (replace(RESEARCH, status="Active"), "Consent/c needs review: its status is none of the known ones"),
        (replace(RESEARCH, review="x: unknown element"), "Consent/c needs review: x: unknown element"),
    ],
)
def test_the_trace_says_which_rule_decided_and_why(given: ConsentRecord, line: str) -> None:
    assert decide([given], STUDY, REQUEST, AT).trace[1] == line


CLAUSES: Final = (Clause(Kind.DENY, ("8",)), Clause(Kind.PERMIT, ("6",)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RESEARCH, True),
        (record(deny(children=(deny(), permit()))), True),
        (record(permit(children=(deny(),))), True),
        (replace(RESEARCH, dated_at=None, period=EXPIRED), True),
        (record(deny(), clauses=CLAUSES), True),
        (record(deny(children=(deny(),))), False),
        (record(permit(), clauses=CLAUSES[:1]), False),
        (replace(RESEARCH, status="inactive"), False),
        (replace(RESEARCH, status="Active"), False),
        (replace(RESEARCH, review="x"), False),
        (replace(RESEARCH, scope=Scope.OTHER), False),
    ],
)
def test_whether_a_consent_could_permit_anything(given: ConsentRecord, *, expected: bool) -> None:
    assert may_permit(given) is expected


NO_TRAINING: Final = deny(purposes=("MLTRAINING",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RESEARCH, replace(RESEARCH, status="inactive")),
        (RESEARCH, replace(RESEARCH, period=EXPIRED)),
        (record(permit(purposes=H)), record(permit(purposes=H, children=(NO_TRAINING,)))),
        (
            record(permit(purposes=H)),
            record(permit(purposes=H, children=(deny(purposes=H, children=(permit(purposes=("MLTRAINING",)),)),))),
        ),
        (record(NO_TRAINING), record(deny(purposes=H))),
    ],
    ids=[
        "its status",
        "its period",
        "that it refuses training",
        "that it permits nothing but training",
        "what it refuses",
    ],
)
def test_consents_that_decide_otherwise_do_not_count_as_alike(one: ConsentRecord, other: ConsentRecord) -> None:
    """Patients are decided once for all whose consents contribute the same."""
    assert contribution(one, STUDY, REQUEST, AT) != contribution(other, STUDY, REQUEST, AT)


def test_a_request_without_purpose_or_recipient_cannot_be_made() -> None:
    for purposes, recipients in ((), (HUB,)), (("BIORCH",), ()), (("BIORCH",), ("",)):
        with pytest.raises(ValueError, match="at least one"):
            Request(purposes, recipients)


@pytest.mark.parametrize("code", ["MLTRAINING", "BIORESEARCH", "PurposeOfUse"])
def test_a_request_for_something_that_is_no_purpose_cannot_be_made(code: str) -> None:
    with pytest.raises(ValueError, match=code):
        Request((code,), (HUB,))


def test_a_moment_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide([RESEARCH], STUDY, REQUEST, AT.replace(tzinfo=None))


def test_the_time_zone_of_the_moment_does_not_matter() -> None:
    records = _only(period=Period(PAST, AT))
    elsewhere = AT.astimezone(timezone(timedelta(hours=9)))

    assert decide(records, STUDY, REQUEST, elsewhere).outcome is PERMIT
