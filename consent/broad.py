"""What a German Broad Consent says on one imaging study: a package of policies, not a tree of rules.

Pure. Research is permitted where one consent permits the whole package: collecting at the time of
the study, keeping now and using now. The root of such a consent is always "deny" by its profile, so
it says nothing about the patient's will unless no policy at all is permitted below it.

Source: MII Kerndatensatz, module Consent, code system urn:oid:2.16.840.1.113883.3.1937.777.24.5.3
version 1.1.0; the reading of windows follows TORCH, but a refusal also cuts the retrospective
window, and a study without a date is not permitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from consent.record import UNRESOLVED, Kind, Match, Outcome, Period

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from consent.record import Clause, ConsentRecord

SYSTEM: Final = "urn:oid:2.16.840.1.113883.3.1937.777.24.5.3"
CATEGORY: Final = "2.16.840.1.113883.3.1937.777.24.2.184"
POLICIES: Final = frozenset(str(number) for number in range(1, 125))
"""Every module and policy of the code system, withdrawn ones included, by the last part of its OID."""

OLDEST: Final = date(1900, 1, 1)
"""How far back the retrospective policy reaches."""


@dataclass(frozen=True, slots=True)
class Package:
    """The policies which together permit research with one kind of data, and the module around them."""

    module: str
    collect: str
    keep: str
    use: str
    merge: str
    retrospective: tuple[str, ...] = ()


MDAT: Final = Package("1", collect="6", keep="7", use="8", merge="9", retrospective=("44", "45", "46", "47"))
IMGDAT: Final = Package("111", collect="112", keep="113", use="114", merge="115")
PACKAGES: Final = (MDAT, IMGDAT)
RETROSPECTIVE: Final = "45"
ABROAD: Final = "49"
"""Use outside the level of protection of the GDPR; 48 is the module around it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of broad consents: one study, now, and how its data would be used."""

    study_date: date | None
    at: datetime
    retrospective: bool
    linked: bool
    outside_gdpr: bool


def effect(record: ConsentRecord, records: Sequence[ConsentRecord], asked: Asked) -> tuple[Outcome, str]:
    """Say what the broad consent `record` contributes, and why.

    `records` are all consents of the patient that are enforced: a refusal of the retrospective
    policy in one of them ends the retrospective window of all.
    """
    clauses = record.clauses or ()
    refused = _refused(clauses, asked)
    if refused:
        return Outcome.DENY, f"policy {refused} refused"
    if all(clause.kind is Kind.DENY for clause in clauses):
        return Outcome.DENY, "no policy permitted"
    permitted = [c for c in clauses if c.kind is Kind.PERMIT and not c.unknown]
    back = asked.retrospective and not _retrospection_refused(records, asked.at)
    lacks = [_missing(package, permitted, asked, back=back) for package in PACKAGES]
    if None in lacks:
        return Outcome.PERMIT, "whole package permitted"
    return Outcome.NO_CONSENT, f"policy {lacks[0]} not permitted for this study and moment"


def _missing(package: Package, permitted: Sequence[Clause], asked: Asked, *, back: bool) -> str | None:
    """Return the first policy of the package that is not permitted."""
    needed = [package.keep, package.use]
    needed += [package.merge] if asked.linked else []
    needed += [ABROAD] if asked.outside_gdpr else []
    for policy in needed:
        if not any(_holds(clause.period, asked.at) for clause in _about(permitted, (policy,))):
            return policy
    windows = [c.period for c in _about(permitted, (package.collect,)) if c.period and c.period.start]
    if any(window.contains_day(asked.study_date) is Match.YES for window in windows):
        return None
    if not (back and RETROSPECTIVE in package.retrospective):
        return package.collect
    if not any(_holds(clause.period, asked.at) for clause in _about(permitted, (RETROSPECTIVE,))):
        return RETROSPECTIVE
    earlier = asked.study_date is not None and asked.study_date >= OLDEST
    reaches = earlier and any(Period(None, w.end).contains_day(asked.study_date) is Match.YES for w in windows)
    return None if reaches else package.collect


def _refused(clauses: Iterable[Clause], asked: Asked) -> str | None:
    """Return the first policy needed for any image that is refused; what nobody can tell is needed."""
    now = {UNRESOLVED, *(p for k in PACKAGES for p in (k.module, k.keep, k.use))}
    now |= {package.merge for package in PACKAGES} if asked.linked else set()
    now |= {"48", ABROAD} if asked.outside_gdpr else set()
    then = {package.collect for package in PACKAGES}
    for clause in clauses:
        if clause.kind is Kind.PERMIT:
            continue
        for policy in clause.policies or (UNRESOLVED,):
            in_force = clause.unknown or clause.period is None or clause.period.contains(asked.at)
            at_the_time = clause.unknown or clause.period is None or clause.period.contains_day(asked.study_date)
            if (policy in now and in_force) or (policy in then and at_the_time):
                return policy or "?"
    return None


def _retrospection_refused(records: Iterable[ConsentRecord], at: datetime) -> bool:
    return any(
        clause.kind is Kind.DENY and (clause.unknown or clause.period is None or clause.period.contains(at))
        for record in records
        for clause in _about(record.clauses or (), MDAT.retrospective)
    )


def _about(clauses: Iterable[Clause], policies: Sequence[str]) -> list[Clause]:
    return [clause for clause in clauses if not frozenset(policies).isdisjoint(clause.policies)]


def _holds(period: Period | None, at: datetime) -> bool:
    """Whether a policy is permitted at `at`; its profile demands a start."""
    return period is not None and period.start is not None and period.contains(at)
