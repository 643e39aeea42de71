"""Whether a patient's consents permit the use of one study: the gate on which training depends.

Pure: the caller supplies all records of the patient and the moment. Does not merge, supersede or
order records: among active ones a refusal always wins, and an older refusal is lifted only by
marking it inactive.

Source: HL7 FHIR R4/R5 Consent (provision semantics), IHE PCF 1.1 appendix P.4; where they are
silent, fail closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from consent.purpose import MLTRAINING, PURPOSES, conflicts, covers
from consent.record import UNRESOLVED, Kind, Match, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime

    from consent.record import ConsentRecord, Provision

ENFORCED: Final = "active"
INERT: Final = frozenset({"draft", "entered-in-error", "inactive", "not-done", "proposed", "rejected", "unknown"})
"""Statuses under which a consent neither permits nor refuses."""

USE: Final = "use"
"""The action that training is; `access` alone excludes use (FHIR consentaction)."""

UNRELATED_ACTIONS: Final = frozenset({"correct", "disclose"})
"""Actions whose refusal leaves training possible."""


class Outcome(Enum):
    """What consent says; only PERMIT trains."""

    PERMIT = "permit"
    DENY = "deny"
    NO_CONSENT = "no-consent"
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Study:
    """The facts about one imaging study on which consent can turn."""

    patient: str
    StudyInstanceUID: str
    study_date: date | None


@dataclass(frozen=True, slots=True)
class Request:
    """Why the data are wanted and who receives what comes of them.

    A recipient is written as the consents write it: `Organization/id`, an absolute URL, or
    `system|value`. Training is always asked beside every purpose, so MLTRAINING itself is refused
    here.
    """

    purposes: tuple[str, ...]
    recipients: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a request that names no known purpose or no recipient."""
        if not self.purposes or not self.recipients or UNRESOLVED in self.recipients:
            raise ValueError("a request needs at least one purpose and one recipient")
        unknown = [code for code in self.purposes if code not in PURPOSES or code == MLTRAINING]
        if unknown:
            raise ValueError(f"not a purpose of use to ask for: {', '.join(unknown)}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, why, and what each consent contributed (for the hospital's eyes only)."""

    outcome: Outcome
    reason: str
    trace: tuple[str, ...]


class _Case(NamedTuple):
    """One combination of the request: decided on its own, since joint evaluation is unsound."""

    purpose: str
    training: bool
    recipient: str
    study: Study
    at: datetime


def decide(records: Sequence[ConsentRecord], study: Study, request: Request, at: datetime) -> Verdict:
    """Say whether `records`, all consents of the study's patient, permit the request at `at`.

    Every recipient and every purpose, with and without training, has to be permitted.

    Raises: ValueError if `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError("the moment of a decision needs a time zone")
    enforced = [r for r in records if r.status not in INERT and r.scope is not Scope.OTHER]
    decided = [(case, [_effect(record, case) for record in enforced]) for case in _cases(enforced, study, request, at)]
    outcomes = [_first(_WITHIN_A_CASE, effects) for _, effects in decided]
    outcome = _first(_ACROSS_CASES, outcomes)
    case, effects = decided[outcomes.index(outcome)]
    reason = _REASONS.get(outcome) or _why_no_consent(records, enforced, at)
    return Verdict(outcome, reason, _trace(enforced, effects, case))


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


def _cases(records: Sequence[ConsentRecord], study: Study, request: Request, at: datetime) -> Iterator[_Case]:
    """Yield the combinations that can differ: what no provision names is asked once."""
    by_recipient = any(record.root.names_recipient for record in records)
    by_training = any(record.root.names_training for record in records)
    for purpose in request.purposes:
        for recipient in request.recipients if by_recipient else request.recipients[:1]:
            for training in (True, False) if by_training else (True,):
                yield _Case(purpose, training, recipient, study, at)


def _effect(record: ConsentRecord, case: _Case) -> Outcome:
    """Say what one consent contributes; NO_CONSENT is nothing."""
    if record.review is not None or record.status != ENFORCED:
        return Outcome.REVIEW
    if record.period is not None and not record.period.contains(case.at):
        return Outcome.NO_CONSENT
    effect = _evaluate(record.root, case, named=record.scope is Scope.RESEARCH)
    # A permission whose date is unknown or still to come is none; a refusal holds regardless.
    if effect is Outcome.PERMIT and (record.dated_at is None or record.dated_at > case.at):
        return Outcome.NO_CONSENT
    return effect


def _evaluate(rule: Provision, case: _Case, *, named: bool) -> Outcome:
    """Say what `rule` and its exceptions make of the case.

    `named` tells that the purpose was named already, by the consent's scope or by a permission
    around `rule`.
    """
    match = _match(rule, case)
    if match is Match.NO:
        return Outcome.NO_CONSENT
    permits = rule.kind is Kind.PERMIT
    named = named or (permits and match is Match.YES and bool(rule.purposes))
    exceptions = [_evaluate(child, case, named=named) for child in rule.children]
    denied = Outcome.DENY in exceptions
    if not permits:
        # An exception lifts a refusal that surely applies; elsewhere it is no permission.
        if denied or Outcome.PERMIT not in exceptions:
            return Outcome.DENY
        return Outcome.PERMIT if match is Match.YES else Outcome.NO_CONSENT
    if denied:
        return Outcome.DENY
    # A permission below a permission never widens it, so `exceptions` is not asked for PERMIT.
    return Outcome.PERMIT if match is Match.YES and named else Outcome.NO_CONSENT


def _match(rule: Provision, case: _Case) -> Match:
    """Say whether every limit of `rule` applies; a limit that is not set applies always."""
    ask = _ASK[rule.kind]
    return min([ask[limit](rule, case) for limit in rule.limits], default=Match.YES)


def _period(rule: Provision, case: _Case) -> Match:
    inside = rule.period is None or rule.period.contains(case.at)
    return Match.YES if inside else Match.NO


def _permitted_purpose(rule: Provision, case: _Case) -> Match:
    for purpose in rule.purposes:
        if covers(purpose, case.purpose):
            return Match.YES
    return Match.UNKNOWN if rule.has_unknown_purpose else Match.NO


def _denied_purpose(rule: Provision, case: _Case) -> Match:
    if any(covers(purpose, case.purpose) for purpose in rule.purposes):
        return Match.YES
    if case.training and MLTRAINING in rule.purposes:
        return Match.YES
    # Refused in part, or in a way nobody can tell.
    part = any(conflicts(purpose, case.purpose) for purpose in rule.purposes)
    return Match.UNKNOWN if part else Match.NO


def _permitted_action(rule: Provision, _case: _Case) -> Match:
    if USE in rule.actions:
        return Match.YES
    return Match.UNKNOWN if UNRESOLVED in rule.actions else Match.NO


def _denied_action(rule: Provision, _case: _Case) -> Match:
    if USE in rule.actions:
        return Match.YES
    # Without access or collection there is no use either; anything else unrelated is listed.
    return Match.NO if UNRELATED_ACTIONS.issuperset(rule.actions) else Match.UNKNOWN


def _recipient(rule: Provision, case: _Case) -> Match:
    return max(_same_party(named, case.recipient) for named in rule.recipients)


def _same_party(named: str, asked: str) -> Match:
    """Compare two references; those of different systems may mean the same party."""
    if named == asked:
        return Match.YES
    comparable = named != UNRESOLVED and _system(named) == _system(asked)
    return Match.NO if comparable else Match.UNKNOWN


def _system(reference: str) -> str:
    system, bar, _ = reference.partition("|")
    return system + bar if bar else reference.rpartition("/")[0]


def _study_date(rule: Provision, case: _Case) -> Match:
    if rule.data_period is None:
        return Match.YES
    return rule.data_period.contains_day(case.study.study_date)


def _study(rule: Provision, case: _Case) -> Match:
    if case.study.StudyInstanceUID in rule.data_references:
        return Match.YES
    return Match.UNKNOWN if UNRESOLVED in rule.data_references else Match.NO


def _unknown(_rule: Provision, _case: _Case) -> Match:
    return Match.UNKNOWN


_Ask = Callable[["Provision", _Case], Match]
_ASK: Final[dict[Kind, dict[str, _Ask]]] = {
    kind: {
        "period": _period,
        "purposes": purpose,
        "recipients": _recipient,
        "actions": action,
        "data_period": _study_date,
        "data_references": _study,
        "security_labels": _unknown,  # no study carries a label that could be compared
        "unknown": _unknown,
    }
    for kind, purpose, action in (
        (Kind.PERMIT, _permitted_purpose, _permitted_action),
        (Kind.DENY, _denied_purpose, _denied_action),
    )
}


def _why_no_consent(records: Sequence[ConsentRecord], enforced: Sequence[ConsentRecord], at: datetime) -> str:
    if not records:
        return "no consent on record"
    if not enforced:
        return "no active consent on research or privacy"
    if all(_expired(record, at) for record in enforced):
        return "the consent has expired"
    if all(record.dated_at is None or record.dated_at > at for record in enforced):
        return "the consent has no date or a date to come"
    return "no active consent covers this use"


def _expired(record: ConsentRecord, at: datetime) -> bool:
    periods = (record.period, record.root.period)
    return any(p is not None and p.end is not None and p.end < at for p in periods)


def _trace(records: Sequence[ConsentRecord], effects: Sequence[Outcome], case: _Case) -> tuple[str, ...]:
    asked = f"asked: {case.purpose}{' with MLTRAINING' if case.training else ''}"
    lines = [
        f"{record.consent_id}: {effect.value}" + (f", {record.review}" if record.review else "")
        for record, effect in zip(records, effects, strict=True)
    ]
    return (f"{asked}, for {case.recipient}", *lines)
