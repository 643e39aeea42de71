"""What one rule of a consent, with its exceptions, makes of one use of one study.

Pure. Three-valued: a limit that cannot be compared matches a refusal and never a permission.
Which rules count, and what several consents come to, is decided in `decision`.

Source: HL7 FHIR R4/R5 Consent.provision (attributes of a provision are ANDed, values of one
attribute and sibling provisions ORed); IHE PCF 1.1 appendix P.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from unicodedata import normalize

from consent.purpose import MLTRAINING, conflicts, covers
from consent.record import UNRESOLVED, Kind, Match, Outcome, Period, Provision

if TYPE_CHECKING:
    from datetime import date, datetime

USE: Final = "use"
"""The action that training is; `access` alone excludes use (FHIR consentaction)."""

UNRELATED_ACTIONS: Final = frozenset({"correct", "disclose"})
"""Actions whose refusal leaves training possible."""

CONFIDENTIALITY: Final = ("U", "L", "M", "N", "R", "V")
"""HL7 v3-Confidentiality from the least to the most restricted; any other label is a sensitivity."""


@dataclass(frozen=True, slots=True)
class Study:
    """The facts about one imaging study on which consent can turn.

    `security_labels` are HL7 confidentiality and sensitivity codes, all that apply; None where the
    hospital does not label its data. `modality` is the DICOM code of the images used of it.
    """

    patient: str
    StudyInstanceUID: str
    study_date: date | None
    security_labels: frozenset[str] | None = None
    modality: str | None = None


class Case(NamedTuple):
    """One combination of a request: decided on its own, since joint evaluation is unsound."""

    purpose: str
    training: bool
    recipient: str
    study: Study
    at: datetime
    project: str | None = None


def evaluate(rule: Provision, case: Case, *, named: bool) -> Outcome:
    """Say what `rule` and its exceptions make of the case; NO_CONSENT is nothing.

    `named` tells that the purpose was named already, by the consent's scope or by a permission
    around `rule`.
    """
    match = _match(rule, case)
    if match is Match.NO:
        return Outcome.NO_CONSENT
    exceptions = _exceptions(rule, case, match, named=named)
    denied = Outcome.DENY in exceptions
    if rule.kind is Kind.DENY:
        # An exception lifts a refusal that surely applies; elsewhere it is no permission.
        if denied or Outcome.PERMIT not in exceptions:
            return Outcome.DENY
        return Outcome.PERMIT if match is Match.YES else Outcome.NO_CONSENT
    if denied:
        return Outcome.DENY
    # A permission below a permission never widens it, so `exceptions` is not asked for PERMIT.
    return Outcome.PERMIT if match is Match.YES and _named(rule, match, named=named) else Outcome.NO_CONSENT


def explain(rule: Provision, case: Case, *, named: bool, of: str, number: int = 1) -> str:
    """Say which rule of the consent `of` decided and by which limits.

    Rules are numbered from the root, which is 1, in reading order.
    """
    match = _match(rule, case)
    outcome = evaluate(rule, case, named=named)
    deciding = _deciding(rule, _exceptions(rule, case, match, named=named), outcome)
    if deciding is not None:
        before = sum(map(_size, rule.children[:deciding]))
        named = _named(rule, match, named=named)
        return explain(rule.children[deciding], case, named=named, of=of, number=number + 1 + before)
    if outcome is not Outcome.NO_CONSENT:
        limits = ", ".join(_SAYS[limit](rule) for limit in rule.limits)
        return f"rule {number} of {of} {_DECIDED[outcome]}: {limits or 'everything'}"
    if match is Match.YES:
        return f"{of} contributed nothing: rule {number} names no purpose"
    ask = _ASK[rule.kind]
    unmet = ", ".join(_SAYS[limit](rule) for limit in rule.limits if ask[limit](rule, case) is match)
    return f"{of} contributed nothing: rule {number} {'does' if match is Match.NO else 'may'} not apply: {unmet}"


_DECIDED: Final = {Outcome.PERMIT: "permitted", Outcome.DENY: "denied"}


def _exceptions(rule: Provision, case: Case, match: Match, *, named: bool) -> list[Outcome]:
    named = _named(rule, match, named=named)
    return [evaluate(child, case, named=named) for child in rule.children]


def _named(rule: Provision, match: Match, *, named: bool) -> bool:
    return named or (rule.kind is Kind.PERMIT and match is Match.YES and bool(rule.purposes))


def _deciding(rule: Provision, exceptions: list[Outcome], outcome: Outcome) -> int | None:
    """Return which exception made the outcome, if `rule` did not make it itself."""
    permits = rule.kind is Kind.PERMIT
    if outcome is Outcome.PERMIT and not permits:
        return exceptions.index(outcome)
    # Below a refusal, a second refusal matters only where it takes a permission back.
    if outcome is Outcome.DENY and outcome in exceptions and (permits or Outcome.PERMIT in exceptions):
        return exceptions.index(outcome)
    return None


def _size(rule: Provision) -> int:
    return 1 + sum(map(_size, rule.children))


# ------------------------------------------------------------------ limits


def _match(rule: Provision, case: Case) -> Match:
    """Say whether every limit of `rule` applies; a limit that is not set applies always."""
    ask = _ASK[rule.kind]
    return min([ask[limit](rule, case) for limit in rule.limits], default=Match.YES)


def _period(rule: Provision, case: Case) -> Match:
    inside = rule.period is None or rule.period.contains(case.at)
    return Match.YES if inside else Match.NO


def _permitted_purpose(rule: Provision, case: Case) -> Match:
    for purpose in rule.purposes:
        if covers(purpose, case.purpose):
            return Match.YES
    return Match.UNKNOWN if rule.has_unknown_purpose else Match.NO


def _denied_purpose(rule: Provision, case: Case) -> Match:
    if any(covers(purpose, case.purpose) for purpose in rule.purposes):
        return Match.YES
    if case.training and MLTRAINING in rule.purposes:
        return Match.YES
    # Refused in part, or in a way nobody can tell.
    part = any(conflicts(purpose, case.purpose) for purpose in rule.purposes)
    return Match.UNKNOWN if part else Match.NO


def _permitted_action(rule: Provision, _case: Case) -> Match:
    if USE in rule.actions:
        return Match.YES
    return Match.UNKNOWN if UNRESOLVED in rule.actions else Match.NO


def _denied_action(rule: Provision, _case: Case) -> Match:
    if USE in rule.actions:
        return Match.YES
    # Without access or collection there is no use either; anything else unrelated is listed.
    return Match.NO if UNRELATED_ACTIONS.issuperset(rule.actions) else Match.UNKNOWN


def _recipient(rule: Provision, case: Case) -> Match:
    return max(_same_party(named, case.recipient) for named in rule.recipients)


def _same_party(named: str, asked: str) -> Match:
    """Compare two references; those of different systems, or spelled alike, may mean the same party."""
    if named == asked:
        return Match.YES
    comparable = named != UNRESOLVED and _system(named) == _system(asked) and _spelled(named) != _spelled(asked)
    return Match.NO if comparable else Match.UNKNOWN


def _system(reference: str) -> str:
    system, bar, _ = reference.partition("|")
    return system + bar if bar else reference.rpartition("/")[0]


@lru_cache(maxsize=4096)
def _spelled(name: str) -> str:
    """Return a name without what two people write differently: case, width, blanks around it and its system."""
    folded = normalize("NFKC", normalize("NFKC", name).casefold())
    return "|".join(part.strip() for part in folded.split("|"))


def _study_date(rule: Provision, case: Case) -> Match:
    if rule.data_period is None:
        return Match.YES
    return rule.data_period.contains_day(case.study.study_date)


def _study(rule: Provision, case: Case) -> Match:
    if case.study.StudyInstanceUID in rule.data_references:
        return Match.YES
    return Match.UNKNOWN if UNRESOLVED in rule.data_references else Match.NO


def _modality(rule: Provision, case: Case) -> Match:
    return _is_one_of(rule.modalities, case.study.modality)


def _project(rule: Provision, case: Case) -> Match:
    match = _is_one_of(rule.projects, case.project)
    if match is Match.NO and case.project and _spelled(case.project) in map(_spelled, rule.projects):
        return Match.UNKNOWN
    return match


def _is_one_of(named: tuple[str, ...], fact: str | None) -> Match:
    """Compare a fact with the values a rule names; one that is not known may be any of them."""
    if fact in named:
        return Match.YES
    return Match.UNKNOWN if fact is None or UNRESOLVED in named else Match.NO


def _permitted_label(rule: Provision, case: Case) -> Match:
    """Compare labels; a permission up to R covers N, and a sensitivity has to be permitted by name."""
    labels = case.study.security_labels
    if labels is None:
        return Match.UNKNOWN
    ranks, sensitive = _ranks(labels), labels.difference(CONFIDENTIALITY)

    def one(label: str) -> Match:
        if label == UNRESOLVED or (label in CONFIDENTIALITY and not ranks):
            return Match.UNKNOWN
        if label in CONFIDENTIALITY:
            return Match.YES if max(ranks) <= CONFIDENTIALITY.index(label) else Match.NO
        return Match.YES if label in sensitive and sensitive.issubset(rule.security_labels) else Match.NO

    return max(map(one, rule.security_labels))


def _denied_label(rule: Provision, case: Case) -> Match:
    """Compare labels; a refusal from N on hits R too."""
    labels = case.study.security_labels
    if labels is None:
        return Match.UNKNOWN
    ranks = _ranks(labels)

    def one(label: str) -> Match:
        if label == UNRESOLVED or (label in CONFIDENTIALITY and not ranks):
            return Match.UNKNOWN
        if label in CONFIDENTIALITY:
            return Match.YES if max(ranks) >= CONFIDENTIALITY.index(label) else Match.NO
        return Match.YES if label in labels else Match.NO

    return max(map(one, rule.security_labels))


def _ranks(labels: frozenset[str]) -> list[int]:
    return [CONFIDENTIALITY.index(label) for label in labels if label in CONFIDENTIALITY]


def _unknown(_rule: Provision, _case: Case) -> Match:
    return Match.UNKNOWN


_Ask = Callable[[Provision, Case], Match]
_ASK: Final[dict[Kind, dict[str, _Ask]]] = {
    kind: {
        "period": _period,
        "purposes": purpose,
        "recipients": _recipient,
        "projects": _project,
        "actions": action,
        "data_period": _study_date,
        "data_references": _study,
        "modalities": _modality,
        "security_labels": label,
        "unknown": _unknown,
    }
    for kind, purpose, action, label in (
        (Kind.PERMIT, _permitted_purpose, _permitted_action, _permitted_label),
        (Kind.DENY, _denied_purpose, _denied_action, _denied_label),
    )
}


# ------------------------------------------------------------------ words


def _listed(noun: str, entries: tuple[str, ...]) -> str:
    return f"{noun} {' or '.join(entry or '?' for entry in entries)}"


def _from_to(noun: str, period: Period | None) -> str:
    start, end = (period.start, period.end) if period else (None, None)
    return noun + (f" from {start:%Y-%m-%d}" if start else "") + (f" until {end:%Y-%m-%d}" if end else "")


_SAYS: Final[dict[str, Callable[[Provision], str]]] = {
    "period": lambda rule: _from_to("period", rule.period),
    "purposes": lambda rule: _listed("purpose", rule.purposes),
    "recipients": lambda rule: _listed("recipient", rule.recipients),
    "projects": lambda rule: _listed("project", rule.projects),
    "actions": lambda rule: _listed("action", rule.actions),
    "data_period": lambda rule: _from_to("study dated", rule.data_period),
    "data_references": lambda _rule: "a list of studies",
    "modalities": lambda rule: _listed("modality", rule.modalities),
    "security_labels": lambda rule: _listed("label", rule.security_labels),
    "unknown": lambda _rule: "a limit that is not understood",
}
