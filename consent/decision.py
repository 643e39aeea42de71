"""Whether a patient's consents permit the use of one study: the gate on which training depends.

Pure: the caller supplies all records of the patient and the moment. Does not merge, supersede or
order records: among active ones a refusal always wins, and an older refusal is lifted only by
marking it inactive.

Source: HL7 FHIR R4/R5 Consent (provision semantics), IHE PCF 1.1 appendix P.4, MII Broad Consent;
where they are silent, fail closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from consent import broad
from consent.purpose import MLTRAINING, PURPOSES
from consent.record import UNRESOLVED, Kind, Outcome, Scope
from consent.rules import Case, Study, evaluate, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from datetime import datetime

    from consent.record import ConsentRecord, Provision

__all__ = ["ENFORCED", "INERT", "Outcome", "Request", "Study", "Verdict", "decide", "may_permit"]

ENFORCED: Final = "active"
INERT: Final = frozenset({"draft", "entered-in-error", "inactive", "not-done", "proposed", "rejected", "unknown"})
"""Statuses under which a consent neither permits nor refuses."""


@dataclass(frozen=True, slots=True)
class Request:
    """Why the data are wanted and who receives what comes of them.

    A recipient is written as the consents write it: `Organization/id`, an absolute URL, or
    `system|value`. Training is always asked beside every purpose, so MLTRAINING itself is refused
    here. The next three concern broad consents: whether studies older than the consent are wanted,
    whether data are joined with those of third parties, and whether any recipient is outside the
    level of protection of the GDPR, which is assumed until the contrary is stated. `project` is what
    a consent may name to limit itself to.
    """

    purposes: tuple[str, ...]
    recipients: tuple[str, ...]
    retrospective: bool = False
    linked: bool = False
    outside_gdpr: bool = True
    project: str | None = None

    def __post_init__(self) -> None:
        """Refuse a request that names no known purpose or no recipient."""
        if not self.purposes or not self.recipients or UNRESOLVED in self.recipients:
            raise ValueError("a request needs at least one purpose and one recipient")
        unknown = [code for code in self.purposes if code not in PURPOSES or code == MLTRAINING]
        if unknown:
            raise ValueError(f"not a purpose of use to ask for: {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome and why; `explain` says what each consent contributed, for the hospital's eyes only.

    It is a function because few verdicts of a cohort are ever read.
    """

    outcome: Outcome
    reason: str
    explain: Callable[[], tuple[str, ...]] = field(repr=False, compare=False)

    @property
    def trace(self) -> tuple[str, ...]:
        """What was asked, and a line for each consent."""
        return self.explain()


def decide(records: Sequence[ConsentRecord], study: Study, request: Request, at: datetime) -> Verdict:
    """Say whether `records`, all consents of the study's patient, permit the request at `at`.

    Every recipient and every purpose, with and without training, has to be permitted.

    Raises: ValueError if `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError("the moment of a decision needs a time zone")
    enforced = [record for record in records if _is_enforced(record)]
    asked = broad.Asked(study.study_date, at, request.retrospective, request.linked, request.outside_gdpr)
    decided = [
        (case, [_effect(record, enforced, case, asked) for record in enforced])
        for case in _cases(enforced, study, request, at)
    ]
    outcomes = [_first(_WITHIN_A_CASE, effects) for _, effects in decided]
    outcome = _first(_ACROSS_CASES, outcomes)
    case, effects = decided[outcomes.index(outcome)]
    reason = _REASONS.get(outcome) or _why_no_consent(records, enforced, at)
    return Verdict(outcome, reason, partial(_trace, records, case, asked, effects))


def contribution(record: ConsentRecord, study: Study, request: Request, at: datetime) -> Hashable:
    """Return all that an outcome and its reason take from one of a patient's consents.

    Two lists of consents with the same contributions come to the same outcome for the same reason,
    if none of them refuses the retrospective policy, which reaches into the others. Every case is
    told, whether or not the list would have asked it: one it would not have asked differs in nothing.
    """
    if not _is_enforced(record):
        return ()
    asked = broad.Asked(study.study_date, at, request.retrospective, request.linked, request.outside_gdpr)
    cases = (
        Case(purpose, training, recipient, study, at, request.project)
        for purpose in request.purposes
        for recipient in request.recipients
        for training in (True, False)
    )
    effects = tuple(_effect(record, (record,), case, asked) for case in cases)
    return effects, _expired(record, at), _is_dated(record, at)


def may_permit(record: ConsentRecord) -> bool:
    """Whether `record` could permit anything at all, at whatever moment and for whatever purpose."""
    if record.status != ENFORCED or record.review is not None or record.scope is Scope.OTHER:
        return False
    if record.clauses is not None:
        return any(clause.kind is Kind.PERMIT for clause in record.clauses)
    return _holds_permission(record.root)


def _holds_permission(rule: Provision) -> bool:
    return rule.kind is Kind.PERMIT or any(map(_holds_permission, rule.children))


_WITHIN_A_CASE: Final = (Outcome.DENY, Outcome.REVIEW, Outcome.PERMIT)
_ACROSS_CASES: Final = (Outcome.DENY, Outcome.REVIEW, Outcome.NO_CONSENT, Outcome.PERMIT)
_REASONS: Final = {
    Outcome.PERMIT: "permitted",
    Outcome.DENY: "an active consent denies this use",
    Outcome.REVIEW: "an active consent needs a person's review",
}


def _first(order: tuple[Outcome, ...], outcomes: Sequence[Outcome]) -> Outcome:
    for outcome in order:
        if outcome in outcomes:
            return outcome
    return Outcome.NO_CONSENT


def _is_enforced(record: ConsentRecord) -> bool:
    return record.status not in INERT and record.scope is not Scope.OTHER


def _cases(records: Sequence[ConsentRecord], study: Study, request: Request, at: datetime) -> Iterator[Case]:
    """Yield the combinations that can differ: what no provision names is asked once."""
    by_recipient = any(record.root.names_recipient for record in records)
    by_training = any(record.root.names_training for record in records)
    for purpose in request.purposes:
        for recipient in request.recipients if by_recipient else request.recipients[:1]:
            for training in (True, False) if by_training else (True,):
                yield Case(purpose, training, recipient, study, at, request.project)


def _effect(record: ConsentRecord, records: Sequence[ConsentRecord], case: Case, asked: broad.Asked) -> Outcome:
    """Say what one consent contributes; NO_CONSENT is nothing."""
    if record.review is not None or record.status != ENFORCED:
        return Outcome.REVIEW
    if record.period is not None and not record.period.contains(case.at):
        return Outcome.NO_CONSENT
    if record.clauses is not None:
        effect, _ = broad.effect(record, records, asked)
    else:
        effect = evaluate(record.root, case, named=record.scope is Scope.RESEARCH)
    # A permission whose date is unknown or still to come is none; a refusal holds regardless.
    if effect is Outcome.PERMIT and not _is_dated(record, case.at):
        return Outcome.NO_CONSENT
    return effect


def _is_dated(record: ConsentRecord, at: datetime) -> bool:
    return record.dated_at is not None and record.dated_at <= at


# ------------------------------------------------------------------ words


def _trace(
    records: Sequence[ConsentRecord], case: Case, asked: broad.Asked, effects: Sequence[Outcome]
) -> tuple[str, ...]:
    enforced = [record for record in records if _is_enforced(record)]
    said = iter(effects)
    lines = [
        _says(record, enforced, case, asked, next(said)) if _is_enforced(record) else _is_inert(record)
        for record in records
    ]
    question = f"asked: {case.purpose}{' with MLTRAINING' if case.training else ''}, for {case.recipient}"
    return (question, *lines)


def _says(
    record: ConsentRecord, records: Sequence[ConsentRecord], case: Case, asked: broad.Asked, effect: Outcome
) -> str:
    name = f"Consent/{record.consent_id}"
    if effect is Outcome.REVIEW:
        return f"{name} needs review: {record.review or 'its status is none of the known ones'}"
    if record.period is not None and not record.period.contains(case.at):
        return f"{name} contributed nothing: it is not in force at this moment"
    if record.clauses is not None:
        made, why = broad.effect(record, records, asked)
        said = f"{name} {_DECIDED[made]}: broad consent, {why}"
    else:
        named = record.scope is Scope.RESEARCH
        made = evaluate(record.root, case, named=named)
        said = explain(record.root, case, named=named, of=name)
    return said if made is effect else f"{name} contributed nothing: it has no date or a date to come"


_DECIDED: Final = {
    Outcome.PERMIT: "permitted",
    Outcome.DENY: "denied",
    Outcome.NO_CONSENT: "contributed nothing",
}


def _is_inert(record: ConsentRecord) -> str:
    why = f"status {record.status}" if record.status in INERT else "its scope is neither research nor privacy"
    return f"Consent/{record.consent_id} contributed nothing: {why}"


def _why_no_consent(records: Sequence[ConsentRecord], enforced: Sequence[ConsentRecord], at: datetime) -> str:
    if not records:
        return "no consent on record"
    if not enforced:
        return "no active consent on research or privacy"
    if all(_expired(record, at) for record in enforced):
        return "the consent has expired"
    if not any(_is_dated(record, at) for record in enforced):
        return "the consent has no date or a date to come"
    return "no active consent covers this use"


def _expired(record: ConsentRecord, at: datetime) -> bool:
    periods = (record.period, record.root.period)
    return any(p is not None and p.end is not None and p.end < at for p in periods)
