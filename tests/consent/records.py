"""Short ways to write consent records, and hypothesis strategies for them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final

from hypothesis import strategies as st

from consent.decision import Request, Study
from consent.purpose import MLTRAINING
from consent.record import UNRESOLVED, Clause, ConsentRecord, Kind, Period, Provision, Scope

AT: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAST: Final = datetime(2025, 1, 1, tzinfo=UTC)
FUTURE: Final = datetime(2027, 1, 1, tzinfo=UTC)
STUDY: Final = Study("patient-1", "1.2.3.4", date(2024, 5, 1))
HUB: Final = "Organization/hub"
REQUEST: Final = Request(("BIORCH",), (HUB,))


def permit(**limits: Any) -> Provision:
    return Provision(Kind.PERMIT, **limits)


def deny(**limits: Any) -> Provision:
    return Provision(Kind.DENY, **limits)


def record(root: Provision, **fields: Any) -> ConsentRecord:
    basis: dict[str, Any] = {
        "consent_id": "c",
        "status": "active",
        "dated_at": PAST,
        "period": None,
        "root": root,
    }
    return ConsentRecord(**{**basis, **fields})


RESEARCH: Final = record(permit(purposes=("HRESCH",)))

_PURPOSES = ["HRESCH", "BIORCH", "CLINTRCH", "CLINTRCHPC", "TREAT", "HOPERAT", "HQUALIMP"]
_PARTIES = [HUB, "Organization/spoke", "urn:x|north", UNRESOLVED]
_PERIODS = [Period(), Period(PAST, FUTURE), Period(None, PAST), Period(FUTURE, None)]


def _some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


def provisions(
    children: st.SearchStrategy[tuple[Provision, ...]] | None = None,
) -> st.SearchStrategy[Provision]:
    return st.builds(
        Provision,
        st.sampled_from(Kind),
        period=st.none() | st.sampled_from(_PERIODS),
        purposes=_some([*_PURPOSES, MLTRAINING, UNRESOLVED]),
        recipients=_some(_PARTIES),
        actions=_some(["use", "access", "collect", "disclose", UNRESOLVED]),
        data_period=st.none() | st.sampled_from(_PERIODS),
        data_references=_some([STUDY.StudyInstanceUID, "9.9", UNRESOLVED]),
        security_labels=_some(["N", "R", "HIV", UNRESOLVED]),
        projects=_some(["brain", "lung", UNRESOLVED]),
        modalities=_some(["CT", "MR", UNRESOLVED]),
        children=children if children is not None else st.just(()),
        unknown=st.booleans(),
    )


def _lists(rules: st.SearchStrategy[Provision]) -> st.SearchStrategy[tuple[Provision, ...]]:
    return st.lists(rules, max_size=2).map(tuple)


trees = provisions(_lists(provisions(_lists(provisions()))))
records = st.builds(
    ConsentRecord,
    consent_id=st.just("c"),
    status=st.sampled_from(["active", "active", "active", "inactive", "entered-in-error", ""]),
    dated_at=st.sampled_from([None, PAST, PAST, FUTURE]),
    period=st.none() | st.sampled_from(_PERIODS),
    root=trees,
    scope=st.sampled_from(Scope),
    review=st.sampled_from([None, None, None, "provision: unknown element"]),
)
clauses = st.builds(
    Clause,
    st.sampled_from([Kind.PERMIT, Kind.PERMIT, Kind.DENY]),
    _some(["6", "7", "8", "9", "45", "49", "22", UNRESOLVED]),
    period=st.none() | st.sampled_from([Period(PAST, FUTURE), Period(datetime(2020, 1, 1, tzinfo=UTC), FUTURE)]),
    unknown=st.sampled_from([False, False, False, True]),
)
_PACKAGE: Final = tuple(
    Clause(Kind.PERMIT, (policy,), Period(datetime(2020, 1, 1, tzinfo=UTC), FUTURE)) for policy in ("6", "7", "8", "49")
)
broad_records = st.builds(
    lambda more, whole: record(deny(), scope=Scope.RESEARCH, clauses=(*(_PACKAGE if whole else ()), *more)),
    st.lists(clauses, max_size=4),
    st.booleans(),
)
likely_permits = st.just(RESEARCH) | records
record_lists = st.lists(likely_permits | broad_records, max_size=3)
studies = st.builds(
    Study,
    st.just("patient-1"),
    st.just(STUDY.StudyInstanceUID),
    st.none() | st.just(date(2024, 5, 1)) | st.just(date(2028, 5, 1)),
    st.none() | st.sampled_from([frozenset({"N"}), frozenset({"R", "HIV"}), frozenset({"HIV"}), frozenset()]),
)
purposes = st.lists(st.sampled_from(_PURPOSES), min_size=1, max_size=3, unique=True).map(tuple)
recipients = st.lists(st.sampled_from(_PARTIES[:3]), min_size=1, max_size=3, unique=True).map(tuple)
requests = st.builds(
    Request, purposes, recipients, retrospective=st.booleans(), linked=st.booleans(), outside_gdpr=st.booleans()
)
