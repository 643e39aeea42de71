"""What always holds for a decision, whatever the consents say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from consent.decision import Outcome, Request, Study, decide
from consent.record import ConsentRecord, Kind, Provision
from tests.consent.records import (
    AT,
    RESEARCH,
    purposes,
    recipients,
    record_lists,
    records,
    requests,
    studies,
    trees,
)

if TYPE_CHECKING:
    from random import Random

few = settings(max_examples=200, deadline=None)


@few
@given(record_lists, studies, requests, st.randoms(use_true_random=False))
def test_the_order_of_consents_does_not_matter(
    given_records: list[ConsentRecord], study: Study, request: Request, random: Random
) -> None:
    shuffled = random.sample(given_records, len(given_records))

    assert decide(given_records, study, request, AT).outcome is decide(shuffled, study, request, AT).outcome


@few
@given(record_lists, trees, studies, requests)
def test_an_added_refusal_never_helps(
    given_records: list[ConsentRecord], tree: Provision, study: Study, request: Request
) -> None:
    refusal = replace(RESEARCH, root=_all_deny(tree))
    before = decide(given_records, study, request, AT).outcome

    after = decide([*given_records, refusal], study, request, AT).outcome

    assert after is not Outcome.PERMIT or before is Outcome.PERMIT


@few
@given(record_lists, studies, requests, purposes)
def test_asking_for_more_purposes_never_helps(
    given_records: list[ConsentRecord], study: Study, request: Request, more: tuple[str, ...]
) -> None:
    wider = replace(request, purposes=request.purposes + more)

    if decide(given_records, study, wider, AT).outcome is Outcome.PERMIT:
        assert decide(given_records, study, request, AT).outcome is Outcome.PERMIT


@few
@given(record_lists, studies, requests, recipients)
def test_asking_for_more_recipients_never_helps(
    given_records: list[ConsentRecord], study: Study, request: Request, more: tuple[str, ...]
) -> None:
    wider = replace(request, recipients=request.recipients + more)

    if decide(given_records, study, wider, AT).outcome is Outcome.PERMIT:
        assert decide(given_records, study, request, AT).outcome is Outcome.PERMIT


@few
@given(records, studies, requests)
def test_a_permission_nobody_can_delimit_never_permits(
    given_record: ConsentRecord, study: Study, request: Request
) -> None:
    unclear = replace(given_record, root=replace(given_record.root, unknown=True))

    assert decide([unclear], study, request, AT).outcome is not Outcome.PERMIT


@few
@given(records, studies, requests)
def test_losing_the_date_of_a_study_never_helps(given_record: ConsentRecord, study: Study, request: Request) -> None:
    undated = replace(study, study_date=None)

    if decide([given_record], undated, request, AT).outcome is Outcome.PERMIT:
        assert decide([given_record], study, request, AT).outcome is Outcome.PERMIT


@few
@given(records, studies, requests, st.sampled_from(["draft", "inactive", "entered-in-error", "?"]))
def test_only_an_active_consent_permits(
    given_record: ConsentRecord, study: Study, request: Request, status: str
) -> None:
    verdict = decide([replace(given_record, status=status)], study, request, AT)

    assert verdict.outcome is not Outcome.PERMIT


@few
@given(records, studies, requests)
def test_a_consent_under_review_never_permits(given_record: ConsentRecord, study: Study, request: Request) -> None:
    verdict = decide([RESEARCH, replace(given_record, review="?")], study, request, AT)

    assert (
        verdict.outcome is not Outcome.PERMIT
        or given_record.scope.value == "other"
        or given_record.status in {"inactive", "entered-in-error"}
    )


@few
@given(record_lists, studies, requests)
def test_asking_all_at_once_is_asking_one_by_one(
    given_records: list[ConsentRecord], study: Study, request: Request
) -> None:
    singly = [
        decide(given_records, study, Request((purpose,), (recipient,)), AT).outcome
        for purpose in request.purposes
        for recipient in request.recipients
    ]

    jointly = decide(given_records, study, request, AT).outcome

    assert (jointly is Outcome.PERMIT) == all(o is Outcome.PERMIT for o in singly)


def _all_deny(rule: Provision) -> Provision:
    return replace(rule, kind=Kind.DENY, children=tuple(_all_deny(c) for c in rule.children))
