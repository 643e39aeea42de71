"""Decides many studies at one moment, each distinct case once.

An outcome turns on how a record's moments lie to the moment of the decision and to the day of the
study, not on the moments themselves. Two readings of one shape whose moments lie alike contribute
alike, and lists that contribute alike come to the same. What reaches beyond one record, or beyond
the day of a study, is decided plainly, and so is every trace.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING

from consent.basis import BasisKind, decide_under
from consent.broad import MDAT, OLDEST
from consent.decision import Outcome, Verdict, contribution

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from datetime import date

    from consent.basis import LegalBasis
    from consent.decision import Request, Study
    from consent.reading import Reading


class Decider:
    """Decides on one basis, for one request, at one moment; keeps what it found for as long as it lives.

    Raises: ValueError if `at` has no time zone.
    """

    def __init__(self, basis: LegalBasis, request: Request, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("the moment of a decision needs a time zone")
        self._basis = basis
        self._request = request
        self._at = at
        self._days: dict[date | None, tuple[tuple[datetime, ...], Hashable]] = {}
        self._contributions: dict[Hashable, Hashable] = {}
        self._decided: dict[Hashable, tuple[Outcome, str]] = {}
        # Which refusals count under a data permit may turn on the day each was made.
        self._plain = basis.kind is BasisKind.DATA_PERMIT and not basis.later_opt_outs

    def decide(self, readings: Sequence[Reading], study: Study) -> Verdict:
        """Say what `decide_under` says of these consents, all of the study's patient."""
        if self._plain or any(map(self._reaches_further, readings)):
            return self._plainly(readings, study)
        # Neither order nor number of contributions matters to an outcome or its reason.
        known = frozenset([self._contribution(reading, study) for reading in readings])
        found = self._decided.get(known)
        if found is None:
            verdict = self._plainly(readings, study)
            found = self._decided[known] = verdict.outcome, verdict.reason
        return Verdict(*found, partial(self._trace, readings, study))

    def _reaches_further(self, reading: Reading) -> bool:
        shape = reading.shape
        if shape.names_studies:
            return True
        return bool(shape.refuses) and not shape.refuses.isdisjoint(MDAT.retrospective)

    def _contribution(self, reading: Reading, study: Study) -> Hashable:
        lies = self._days.get(study.study_date)
        if lies is None:
            lies = self._days[study.study_date] = self._lies(study.study_date)
        bounds, day = lies
        shape = reading.shape
        # Twice the number of bounds before the moment, and one more if it is one of them.
        places = [bisect_left(bounds, moment) + bisect_right(bounds, moment) for moment in reading.moments]
        key = (shape.text, day, study.modality, study.security_labels, *places)
        found = self._contributions.get(key)
        if found is None:
            found = self._contributions[key] = contribution(reading.record(), study, self._request, self._at)
        return found

    def _lies(self, day: date | None) -> tuple[tuple[datetime, ...], Hashable]:
        """Return the instants to which moments may lie before or after, and what else of a day matters."""
        if day is None:
            return (self._at,), None
        first = datetime.combine(day, time(), UTC)
        last = first + timedelta(days=1, microseconds=-1)
        bounds = tuple(sorted((first, last, self._at)))
        return bounds, (first < self._at, first == self._at, last < self._at, last == self._at, day >= OLDEST)

    def _plainly(self, readings: Sequence[Reading], study: Study) -> Verdict:
        records = [reading.record() for reading in readings]
        return decide_under(self._basis, records, study, self._request, self._at)

    def _trace(self, readings: Sequence[Reading], study: Study) -> tuple[str, ...]:
        return self._plainly(readings, study).trace


def stands_until(readings: Iterable[Reading], basis: LegalBasis, at: datetime) -> datetime | None:
    """Return the moment from which on verdicts of `at` on these readings may be others; None if there is none.

    No verdict changes between two moments of the readings. A basis other than consent is asked by the day.
    """
    moments = [moment for reading in readings for moment in reading.moments if moment >= at]
    if basis.kind is not BasisKind.CONSENT:
        moments.append(datetime.combine(at.astimezone(UTC).date() + timedelta(days=1), time(), UTC))
    return min(moments, default=None)


def still_stands(until: datetime | None, decided_at: datetime, at: datetime) -> bool:
    """Whether verdicts of `decided_at` that stand `until` a moment are those of `at` as well."""
    return at == decided_at or (decided_at < at and (until is None or at < until))
