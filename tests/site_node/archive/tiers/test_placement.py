"""What may leave, and which copy serves: each decision beside an independent account of what the modes mean."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent import Deny, Permit
from site_node.archive.locked.worm import CopyRecord, LockedObject, place_of
from site_node.archive.tiers import placement
from site_node.archive.tiers.placement import MODES, Here, may_leave
from site_node.config import TIER_MODES, LockedCopies, LockedCopy, SiteConfig, Tiers
from site_node.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
UNTIL = datetime(2036, 1, 1, tzinfo=UTC)
OBJECT = LockedObject("n", "s", "p", "CT", "2026-01-01", 3, 10**6, UNTIL, hold=True)
DOMAINS = {"basement": "hospital", "cellar": "hospital", "cloud": "provider", "partner": "south"}
COPIES = tuple(
    LockedCopy(name, "https://s3.example", name, "file:k", domain, required=False) for name, domain in DOMAINS.items()
)
LOCKED = LockedCopies(copies=COPIES, domains=1)
SINCE = AT - timedelta(hours=1)

# By hand, not from the table: which sets of domains with a good copy let a file leave.
NEEDS: dict[str, Callable[[set[str]], bool]] = {
    "second-copy": lambda _: False,
    "active-archive": lambda good: len(good) >= 2 and bool(good - {"hospital"}),
    "failover": lambda _: False,
    "production-in-cloud": lambda good: len(good) >= 2 and "hospital" in good,
    "complete-cloud": lambda good: len(good - {"hospital"}) >= 2,
}


def tiers(mode: str, **settings: float) -> Tiers:
    return Tiers(mode, "/pacs", **settings)  # type: ignore[arg-type] # numbers of every key


def record(copy: LockedCopy, **changes: object) -> CopyRecord:
    good = CopyRecord(copy.name, place_of(copy), "1", "d", 9, UNTIL, hold=True, verified_at=AT, fault="")
    return replace(good, **changes)  # type: ignore[arg-type] # one field of its own type


def test_the_table_has_a_row_for_every_mode_of_the_configuration() -> None:
    assert tuple(MODES) == TIER_MODES
    assert set(MODES) == set(NEEDS)


@pytest.mark.parametrize(
    ("domains", "home", "is_one"),
    [
        (("south", "South "), "hospital", True),
        (("Hospital", "south"), "hospital", True),
        (("hospital", "hospital"), "hospital", False),
        (("hospital", "south"), "elsewhere", False),
    ],
)
def test_a_domain_in_two_spellings_is_not_taken_for_two(domains: tuple[str, str], home: str, *, is_one: bool) -> None:
    copies = tuple(
        LockedCopy(f"c{number}", "https://s3.example", f"b{number}", "file:k", domain)
        for number, domain in enumerate(domains)
    )
    configured = {"locked": LockedCopies(copies=copies), "tiers": Tiers("second-copy", "/pacs", home=home)}

    with pytest.raises(ConfigurationError, match="are they one") if is_one else nullcontext():
        SiteConfig("north", **configured)  # type: ignore[arg-type] # each table is of its own type


# Each makes a copy that no longer counts.
FLAWS = {
    "gone": None,
    "place": {"place": "https://elsewhere/x"},
    "fault": {"fault": "its bytes are not those that were locked"},
    "short": {"until": UNTIL - timedelta(seconds=1)},
    "hold": {"hold": False},
    "old": {"verified_at": SINCE - timedelta(seconds=1)},
    "future": {"verified_at": AT + timedelta(days=1)},
    "probe": {},
}
flaws = st.dictionaries(st.sampled_from(sorted(DOMAINS)), st.sampled_from(sorted(FLAWS)))


@given(st.sampled_from(TIER_MODES), flaws)
def test_a_file_leaves_only_with_the_copies_that_its_mode_demands(mode: str, flawed: dict[str, str]) -> None:
    records, compliant = {}, {}
    for copy in COPIES:
        flaw = flawed.get(copy.name)
        compliant[copy.name] = Deny("failed") if flaw == "probe" else Permit()
        changes = FLAWS[flaw] if flaw else {}
        if changes is not None:
            records[copy.name] = record(copy, **changes)

    verdict = may_leave(OBJECT, records, compliant, tiers(mode, keep_days=1), LOCKED, SINCE, AT)

    good = {domain for name, domain in DOMAINS.items() if name not in flawed}
    assert isinstance(verdict, Permit) == NEEDS[mode](good)
    if isinstance(verdict, Deny):
        assert verdict.reason


@given(st.sampled_from(TIER_MODES), flaws, st.sampled_from(sorted(DOMAINS)), st.sampled_from(sorted(FLAWS)))
def test_one_more_flaw_never_lets_a_file_leave(mode: str, flawed: dict[str, str], name: str, flaw: str) -> None:
    def verdict(found: dict[str, str]) -> Permit | Deny:
        records = {
            copy.name: record(copy, **(FLAWS[found[copy.name]] or {} if copy.name in found else {}))
            for copy in COPIES
            if found.get(copy.name) != "gone"
        }
        compliant = {copy.name: Deny("x") if found.get(copy.name) == "probe" else Permit() for copy in COPIES}
        return may_leave(OBJECT, records, compliant, tiers(mode, keep_days=1), LOCKED, SINCE, AT)

    if isinstance(verdict(flawed), Deny):
        assert isinstance(verdict({name: flaw} | flawed), Deny)


def test_a_required_copy_that_is_wanting_keeps_files_in_every_mode() -> None:
    required = replace(LOCKED, copies=tuple(replace(copy, required=copy.name == "cellar") for copy in COPIES))
    records = {copy.name: record(copy) for copy in COPIES if copy.name != "cellar"}
    compliant = {copy.name: Permit() for copy in COPIES}

    for mode in TIER_MODES:
        assert isinstance(may_leave(OBJECT, records, compliant, tiers(mode), required, SINCE, AT), Deny)


# ------------------------------------------------------------------ what is wanted away


def here(name: str, size_mb: int, days_old: int, came_days: int = 100) -> Here:
    return Here(name, size_mb * 10**6, AT - timedelta(days=days_old), AT - timedelta(days=came_days))


HERE = [here("new", 400, 1), here("old", 300, 900), here("older", 200, 2000), here("back", 100, 3000, came_days=2)]


@pytest.mark.parametrize(
    ("mode", "settings", "leaving"),
    [
        ("second-copy", {"keep_days": 1}, []),
        ("failover", {"keep_days": 1}, []),
        ("active-archive", {"keep_days": 1000}, ["older"]),
        ("active-archive", {"keep_days": 365}, ["older", "old"]),
        ("active-archive", {"max_gb": 1.0}, []),
        ("active-archive", {"max_gb": 0.8}, ["older"]),
        ("active-archive", {"max_gb": 0.5}, ["older", "old"]),
        ("active-archive", {"max_gb": 0.8, "keep_days": 365}, ["older", "old"]),
        ("active-archive", {"max_gb": 0.05}, ["older", "old", "new"]),
        ("active-archive", {"max_gb": 0.05, "rest_days": 0}, ["back", "older", "old", "new"]),
        ("production-in-cloud", {}, ["older", "old", "new"]),
        ("complete-cloud", {"rest_days": 0}, ["back", "older", "old", "new"]),
    ],
)
def test_what_is_wanted_away(mode: str, settings: dict[str, float], leaving: list[str]) -> None:
    wanted = placement.wanted_away(tiers(mode, **settings), HERE, AT)

    assert list(wanted) == leaving
    assert all(wanted.values())


sizes = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(0, 4000), st.integers(0, 30)), max_size=12, unique_by=lambda one: one
)


@given(sizes, st.integers(0, 4000), st.integers(0, 10), st.integers(0, 3000))
def test_a_bound_in_bytes_is_kept_by_what_rested_and_no_more_leaves_than_that(
    found: list[tuple[int, int, int]], keep_days: int, rest_days: int, kilobytes: int
) -> None:
    settings = tiers("active-archive", keep_days=keep_days, max_gb=kilobytes / 10**6, rest_days=rest_days)
    files = [
        Here(str(number), size, AT - timedelta(days=old), AT - timedelta(days=came))
        for number, (size, old, came) in enumerate(found)
    ]
    wanted = placement.wanted_away(settings, files, AT)

    rested = {one.name for one in files if AT - one.came >= timedelta(days=rest_days)}
    by_age = {one.name for one in files if keep_days and AT - one.dated >= timedelta(days=keep_days)} & rested
    left = [one for one in files if one.name not in wanted]
    assert set(wanted) <= rested
    assert by_age <= set(wanted)
    if settings.max_bytes:
        assert sum(one.size for one in left) <= settings.max_bytes or not {one.name for one in left} & rested
        by_size = [one for one in files if one.name in set(wanted) - by_age]
        last = max(by_size, key=lambda one: (one.dated, one.came, one.name), default=None)
        assert last is None or sum(one.size for one in left) + last.size > settings.max_bytes
    else:
        assert set(wanted) == by_age


# ------------------------------------------------------------------ which copy serves


@pytest.mark.parametrize(
    ("mode", "serving", "order"),
    [
        ("second-copy", "", ["basement", "cellar", "cloud", "partner"]),
        ("active-archive", "", ["basement", "cellar", "cloud", "partner"]),
        ("failover", "", ["cloud", "partner", "basement", "cellar"]),
        ("failover", "south", ["partner", "cloud"]),
        ("production-in-cloud", "", ["cloud", "partner", "basement", "cellar"]),
        ("production-in-cloud", "hospital", ["basement", "cellar", "cloud", "partner"]),
        ("complete-cloud", "", ["cloud", "partner"]),
        ("complete-cloud", "south", ["partner", "cloud"]),
    ],
)
def test_who_is_asked_for_a_file_and_in_which_order(mode: str, serving: str, order: list[str]) -> None:
    assert placement.reads(tiers(mode), COPIES, serving) == order


# ------------------------------------------------------------------ what the configuration can give


@pytest.mark.parametrize(
    ("mode", "domains", "wanting"),
    [
        ("second-copy", ["provider"], ""),
        ("second-copy", ["hospital"], "outside domain 'hospital'"),
        ("active-archive", ["provider"], "in 2 administrative domains"),
        ("active-archive", ["provider", "hospital"], ""),
        ("failover", ["provider"], ""),
        ("production-in-cloud", ["provider", "south"], "in domain 'hospital'"),
        ("production-in-cloud", ["provider", "hospital"], ""),
        ("complete-cloud", ["provider", "hospital"], "in 2 administrative domains"),
        ("complete-cloud", ["provider", "south"], ""),
    ],
)
def test_a_mode_whose_copies_are_not_configured_does_not_start(mode: str, domains: list[str], wanting: str) -> None:
    copies = tuple(LockedCopy(domain, "https://s3.example", domain, "file:k", domain) for domain in domains)

    verdict = placement.possible(tiers(mode, keep_days=1), LockedCopies(copies=copies))

    assert isinstance(verdict, Permit) == (not wanting)
    assert wanting in (verdict.reason if isinstance(verdict, Deny) else "")


def test_an_active_archive_without_a_bound_does_not_start() -> None:
    assert placement.possible(tiers("active-archive"), LOCKED) == Deny("active-archive demands keep_days or max_gb")


@given(st.integers(0, 200), st.integers(1, 400))
def test_what_leaves_is_locked_for_long_enough_and_no_date_moves_back(left_days: int, lock_days: int) -> None:
    settings = tiers("active-archive", keep_days=1, lock_days=lock_days)
    before = replace(OBJECT, until=AT + timedelta(days=left_days))
    after = replace(before, until=placement.prolonged(before, settings, AT))
    compliant = {copy.name: Permit() for copy in COPIES}

    def verdict(locked: LockedObject) -> Permit | Deny:
        records = {copy.name: record(copy, until=locked.until) for copy in COPIES}
        return may_leave(locked, records, compliant, settings, LOCKED, SINCE, AT)

    assert after.until >= before.until
    assert verdict(after) == Permit()
    assert isinstance(verdict(before), Permit) == (left_days >= lock_days)


def test_every_required_copy_is_read_back_even_where_others_would_do() -> None:
    required = replace(LOCKED, copies=tuple(replace(copy, required=True) for copy in COPIES))
    compliant = {copy.name: Permit() for copy in COPIES}
    records = {copy.name: record(copy) for copy in COPIES}
    records["cellar"] = replace(records["cellar"], verified_at=AT - timedelta(days=2))

    verdict = may_leave(OBJECT, records, compliant, tiers("active-archive"), required, SINCE, AT)

    assert verdict == Deny("cellar was not read back now")
