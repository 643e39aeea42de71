"""What always holds for a decision, whatever the consents say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consent.decision import Outcome, Request, Study, decide, may_permit
from consent.record import UNRESOLVED, Clause, ConsentRecord, Kind, Provision
from tests.consent.records import (
    AT,
    RESEARCH,
    STUDY,
    broad_records,
    clauses,
    purposes,
    recipients,
    record_lists,
    records,
    requests,
    studies,
    trees,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

few = settings(max_examples=120, deadline=None)


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
@given(record_lists, studies, requests)
def test_losing_what_is_known_of_a_study_never_helps(
    given_records: list[ConsentRecord], study: Study, request: Request
) -> None:
    known = decide(given_records, study, request, AT).outcome
    for less in (replace(study, study_date=None), replace(study, security_labels=None)):
        if decide(given_records, less, request, AT).outcome is Outcome.PERMIT:
            assert known is Outcome.PERMIT


@few
@given(records, studies, requests, st.data())
def test_a_limit_nobody_can_tell_never_helps(
    given_record: ConsentRecord, study: Study, request: Request, data: st.DataObject
) -> None:
    limit = data.draw(st.sampled_from(["purposes", "recipients", "actions", "data_references", "security_labels"]))
    known = getattr(given_record.root, limit)
    changes: dict[str, Any] = {limit: (UNRESOLVED,) * max(len(known), 1)}
    unclear = replace(given_record, root=replace(given_record.root, **changes))

    permitted = decide([unclear], study, request, AT).outcome is Outcome.PERMIT

    assert not permitted or given_record.root.kind is Kind.DENY or limit == "purposes"
    assert not permitted or decide([given_record], study, request, AT).outcome is Outcome.PERMIT or not known


@few
@given(broad_records, clauses, studies, requests)
def test_a_refused_policy_never_helps_and_a_further_wish_never_does(
    given_record: ConsentRecord, clause: Clause, study: Study, request: Request
) -> None:
    refused = replace(given_record, clauses=(*(given_record.clauses or ()), replace(clause, kind=Kind.DENY)))
    before = decide([given_record], study, request, AT).outcome

    assert decide([refused], study, request, AT).outcome is not Outcome.PERMIT or before is Outcome.PERMIT
    for more in (replace(request, linked=True), replace(request, outside_gdpr=True)):
        assert decide([given_record], study, more, AT).outcome is not Outcome.PERMIT or before is Outcome.PERMIT


@few
@given(record_lists, studies, requests)
def test_the_trace_has_a_line_for_every_consent_and_names_what_decided(
    given_records: list[ConsentRecord], study: Study, request: Request
) -> None:
    verdict = decide(given_records, study, request, AT)
    question, *lines = verdict.trace

    assert question.startswith("asked: ")
    assert len(lines) == len(given_records)
    words = {Outcome.PERMIT: " permitted", Outcome.DENY: " denied", Outcome.REVIEW: "needs review"}
    if verdict.outcome in words:
        assert any(words[verdict.outcome] in line for line in lines)
    else:
        assert all("contributed nothing" in line for line in lines)


@few
@given(records, studies, requests)
def test_what_may_not_permit_never_does(given_record: ConsentRecord, study: Study, request: Request) -> None:
    if not may_permit(given_record):
        assert decide([given_record], study, request, AT).outcome is not Outcome.PERMIT


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
        decide(given_records, study, replace(request, purposes=(purpose,), recipients=(recipient,)), AT).outcome
        for purpose in request.purposes
        for recipient in request.recipients
    ]

    jointly = decide(given_records, study, request, AT).outcome

    assert (jointly is Outcome.PERMIT) == all(o is Outcome.PERMIT for o in singly)


_SPELLINGS = st.sampled_from([str.upper, str.swapcase, " {}\u00a0".format, "\u2003{}".format])


@few
@given(record_lists, studies, requests, _SPELLINGS)
def test_names_in_another_spelling_never_help(
    given_records: list[ConsentRecord], study: Study, request: Request, spelling: Callable[[str], str]
) -> None:
    asked = replace(request, project="brain")
    respelled = [replace(one, root=_respelled(one.root, spelling)) for one in given_records]

    before, after = (decide(records, study, asked, AT).outcome for records in (given_records, respelled))

    assert after is not Outcome.PERMIT or before is Outcome.PERMIT


@few
@given(requests, _SPELLINGS, st.sampled_from(["projects", "recipients"]))
def test_a_refusal_in_another_spelling_refuses(request: Request, spelling: Callable[[str], str], limit: str) -> None:
    asked = replace(request, project="brain")
    name = "brain" if limit == "projects" else request.recipients[0]
    limits: dict[str, Any] = {limit: (spelling(name),)}
    refusal = replace(RESEARCH, root=Provision(Kind.DENY, **limits))

    assert decide([RESEARCH, refusal], STUDY, asked, AT).outcome is Outcome.DENY


def _respelled(rule: Provision, spelling: Callable[[str], str]) -> Provision:
    """Return the rule with every name that is one written otherwise."""
    return replace(
        rule,
        recipients=tuple(spelling(name) if name else name for name in rule.recipients),
        projects=tuple(spelling(name) if name else name for name in rule.projects),
        children=tuple(_respelled(child, spelling) for child in rule.children),
    )


def _all_deny(rule: Provision) -> Provision:
    return replace(rule, kind=Kind.DENY, children=tuple(_all_deny(c) for c in rule.children))
