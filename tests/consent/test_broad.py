"""The German Broad Consent: packages of policies, their windows, and the official examples."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from consent import broad
from consent.decision import Outcome, Request, Study, decide
from consent.fhir import parse_consent
from tests.consent.records import AT, HUB, RESEARCH, deny, permit, record

PERMIT, DENY, NO_CONSENT, REVIEW = Outcome.PERMIT, Outcome.DENY, Outcome.NO_CONSENT, Outcome.REVIEW
Json = dict[str, Any]

DATA: Final = Path(__file__).parents[2].parent / "shared/data/consent/mii"
HERE: Final = Request(("HRESCH",), (HUB,), outside_gdpr=False)
ABROAD: Final = Request(("HRESCH",), (HUB,))
BACK: Final = replace(HERE, retrospective=True)
LINKED: Final = replace(HERE, linked=True)

FIVE_YEARS: Final = {"start": "2022-01-01", "end": "2026-12-31"}
THIRTY_YEARS: Final = {"start": "2022-01-01", "end": "2051-12-31"}
PERIODS: Final = {"6": FIVE_YEARS, "112": FIVE_YEARS}
INSIDE: Final = date(2024, 5, 1)
BEFORE: Final = date(2015, 5, 1)
AFTER: Final = date(2027, 1, 1)


def policy(number: str, kind: str = "permit", **limits: Any) -> Json:
    code = {"system": broad.SYSTEM, "code": f"{broad.SYSTEM.removeprefix('urn:oid:')}.{number}"}
    period = PERIODS.get(number, THIRTY_YEARS)
    return {"type": kind, "period": period, "code": [{"coding": [code]}], **limits}


def consent(*policies: Json, **changes: Any) -> Json:
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}
    category = {"system": "https://example.org/category", "code": broad.CATEGORY}
    root: Json = {"type": "deny", "period": THIRTY_YEARS}
    return {
        "resourceType": "Consent",
        "id": "mii",
        "status": "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [category]}],
        "patient": {"reference": "Patient/1"},
        "dateTime": "2022-01-01",
        "policy": [{"uri": "urn:oid:2.16.840.1.113883.3.1937.777.24.2.1791"}],
        "provision": root | ({"provision": list(policies)} if policies else {}),
        **changes,
    }


def study(day: date | None) -> Study:
    return Study("patient-1", "1.2.3.4", day)


MDAT: Final = tuple(map(policy, ("6", "7", "8")))
IMGDAT: Final = tuple(map(policy, ("112", "113", "114")))
OLD: Final = "urn:oid:2.16.840.1.113883.3.1937.777.24.5.1"
OLDER_SYSTEM: Final = [{"coding": [{"system": OLD, "code": OLD.removeprefix("urn:oid:") + ".8"}]}]
LAST_YEAR: Final = {"start": "2022-01-01", "end": "2025-12-31"}

Row = tuple[str, list[Json], date | None, Request, Outcome]
TABLE: Final[dict[str, list[Row]]] = {
    "TORCH: the whole package in one resource": [
        ("the package", [consent(*MDAT)], INSIDE, HERE, PERMIT),
        *[
            (f"without {n}", [consent(*(p for p in MDAT if p != policy(n)))], INSIDE, HERE, NO_CONSENT)
            for n in ("6", "7", "8")
        ],
        ("torn apart into two", [consent(MDAT[0]), consent(*MDAT[1:], id="b")], INSIDE, HERE, NO_CONSENT),
        (
            "policies listed in one provision",
            [consent({**MDAT[0], "code": [c for p in MDAT for c in p["code"]]})],
            INSIDE,
            HERE,
            PERMIT,
        ),
        ("the module alone", [consent(policy("1"))], INSIDE, HERE, NO_CONSENT),
        ("biomaterial alone", [consent(*map(policy, ("19", "20", "22")))], INSIDE, HERE, NO_CONSENT),
        ("nothing permitted", [consent()], INSIDE, HERE, DENY),
        ("part of it beside the whole", [consent(*MDAT), consent(policy("22"), id="b")], INSIDE, HERE, PERMIT),
    ],
    "MII 24.5.3.6, valid five years: the window for the study's date": [
        ("before the window", [consent(*MDAT)], BEFORE, HERE, NO_CONSENT),
        ("after the window", [consent(*MDAT)], AFTER, HERE, NO_CONSENT),
        ("first day", [consent(*MDAT)], date(2022, 1, 1), HERE, PERMIT),
        ("last day", [consent(*MDAT)], date(2026, 12, 31), HERE, PERMIT),
        ("no date", [consent(*MDAT)], None, HERE, NO_CONSENT),
        ("no date, asked back", [consent(*MDAT, policy("45"))], None, BACK, NO_CONSENT),
        ("no start", [consent(policy("6", period={"end": "2026"}), *MDAT[1:])], INSIDE, HERE, NO_CONSENT),
        (
            "no period",
            [consent({k: v for k, v in MDAT[0].items() if k != "period"}, *MDAT[1:])],
            INSIDE,
            HERE,
            NO_CONSENT,
        ),
    ],
    "MII 24.5.3.7 and .8, valid thirty years: in force now": [
        ("permitted twice, once ended", [consent(*MDAT, policy("8", period=LAST_YEAR))], INSIDE, HERE, PERMIT),
        (
            "two windows",
            [consent(*MDAT, policy("6", period={"start": "2010", "end": "2012"}))],
            INSIDE,
            HERE,
            PERMIT,
        ),
        ("use ended", [consent(*MDAT[:2], policy("8", period=LAST_YEAR))], INSIDE, HERE, NO_CONSENT),
        ("keeping ended", [consent(MDAT[0], policy("7", period=LAST_YEAR), MDAT[2])], INSIDE, HERE, NO_CONSENT),
        ("use without a start", [consent(*MDAT[:2], policy("8", period={"end": "2051"}))], INSIDE, HERE, NO_CONSENT),
    ],
    "MII 24.5.3.45: retrospective, only if asked, in the same resource": [
        ("asked and permitted", [consent(*MDAT, policy("45"))], BEFORE, BACK, PERMIT),
        ("not asked", [consent(*MDAT, policy("45"))], BEFORE, HERE, NO_CONSENT),
        ("not permitted", [consent(*MDAT)], BEFORE, BACK, NO_CONSENT),
        ("withdrawn codes do not do", [consent(*MDAT, policy("46"))], BEFORE, BACK, NO_CONSENT),
        ("in another resource", [consent(*MDAT), consent(policy("45"), id="b")], BEFORE, BACK, NO_CONSENT),
        ("ended", [consent(*MDAT, policy("45", period=LAST_YEAR))], BEFORE, BACK, NO_CONSENT),
        (
            "refused elsewhere",
            [consent(*MDAT, policy("45")), consent(MDAT[0], policy("45", "deny"), id="b")],
            BEFORE,
            BACK,
            NO_CONSENT,
        ),
        ("its module refused", [consent(*MDAT, policy("45"), policy("44", "deny"))], BEFORE, BACK, NO_CONSENT),
        *[
            (f"{n} refused", [consent(*MDAT, policy("45"), policy(n, "deny"))], BEFORE, BACK, NO_CONSENT)
            for n in ("44", "46", "47")
        ],
        ("refused, and not needed", [consent(*MDAT, policy("45", "deny"))], INSIDE, BACK, PERMIT),
        (
            "refused for a time gone by",
            [consent(*MDAT, policy("45"), policy("45", "deny", period=LAST_YEAR))],
            BEFORE,
            BACK,
            PERMIT,
        ),
        (
            "refused without a period",
            [consent(*MDAT, policy("45"), {k: v for k, v in policy("45", "deny").items() if k != "period"})],
            BEFORE,
            BACK,
            NO_CONSENT,
        ),
        (
            "refused within a limit nobody can tell",
            [consent(*MDAT, policy("45"), policy("45", "deny", period=LAST_YEAR, purpose=[{"code": "X"}]))],
            BEFORE,
            BACK,
            NO_CONSENT,
        ),
        ("permitted twice", [consent(*MDAT, policy("45"), policy("45", period=LAST_YEAR))], BEFORE, BACK, PERMIT),
        (
            "two windows",
            [consent(*MDAT, policy("45"), policy("6", period={"start": "2010", "end": "2012"}))],
            BEFORE,
            BACK,
            PERMIT,
        ),
        (
            "no window but a refused one",
            [consent(*MDAT[1:], policy("45"), policy("6", "deny", period={"start": "2030", "end": "2031"}))],
            BEFORE,
            BACK,
            NO_CONSENT,
        ),
        ("before 1900", [consent(*MDAT, policy("45"))], date(1899, 12, 31), BACK, NO_CONSENT),
        ("from 1900", [consent(*MDAT, policy("45"))], date(1900, 1, 1), BACK, PERMIT),
        ("not beyond the end", [consent(*MDAT, policy("45"))], AFTER, BACK, NO_CONSENT),
        (
            "a refusal to collect cuts it",
            [consent(*MDAT, policy("45"), policy("6", "deny", period={"start": "2010", "end": "2016"}))],
            BEFORE,
            BACK,
            DENY,
        ),
        (
            "a refusal to collect at another time",
            [consent(*MDAT, policy("45"), policy("6", "deny", period={"start": "2010", "end": "2012"}))],
            BEFORE,
            BACK,
            PERMIT,
        ),
    ],
    "MII 24.5.3.48 and .49: outside the level of the GDPR": [
        ("asked, not permitted", [consent(*MDAT)], INSIDE, ABROAD, NO_CONSENT),
        ("asked and permitted", [consent(*MDAT, policy("49"))], INSIDE, ABROAD, PERMIT),
        ("the module alone", [consent(*MDAT, policy("48"))], INSIDE, ABROAD, NO_CONSENT),
        ("refused and asked", [consent(*MDAT, policy("49", "deny"))], INSIDE, ABROAD, DENY),
        ("module refused and asked", [consent(*MDAT, policy("49"), policy("48", "deny"))], INSIDE, ABROAD, DENY),
        ("refused, not asked", [consent(*MDAT, policy("49", "deny"))], INSIDE, HERE, PERMIT),
    ],
    "MII 24.5.3.9: joined with data of others": [
        ("asked, not permitted", [consent(*MDAT)], INSIDE, LINKED, NO_CONSENT),
        ("asked and permitted", [consent(*MDAT, policy("9"))], INSIDE, LINKED, PERMIT),
        ("refused and asked", [consent(*MDAT, policy("9", "deny"))], INSIDE, LINKED, DENY),
        ("refused, not asked", [consent(*MDAT, policy("9", "deny"))], INSIDE, HERE, PERMIT),
        ("the other package's does not do", [consent(*MDAT, policy("115"))], INSIDE, LINKED, NO_CONSENT),
    ],
    "MII 24.5.3.112 to .115: images (DZPG)": [
        ("the package", [consent(*IMGDAT)], INSIDE, HERE, PERMIT),
        ("without use", [consent(*IMGDAT[:2])], INSIDE, HERE, NO_CONSENT),
        ("mixed with the other", [consent(*IMGDAT[:2], MDAT[2])], INSIDE, HERE, NO_CONSENT),
        ("no way back", [consent(*IMGDAT, policy("45"))], BEFORE, BACK, NO_CONSENT),
        ("linked", [consent(*IMGDAT, policy("115"))], INSIDE, LINKED, PERMIT),
        ("images refused beside the general package", [consent(*MDAT, policy("114", "deny"))], INSIDE, HERE, DENY),
        ("their module refused", [consent(*MDAT, policy("111", "deny"))], INSIDE, HERE, DENY),
    ],
    "TORCH: a refusal in any resource": [
        *[
            (f"{n} refused elsewhere", [consent(*MDAT), consent(policy(n, "deny"), id="b")], INSIDE, HERE, DENY)
            for n in ("1", "6", "7", "8")
        ],
        *[
            (f"{n} refused in the same", [consent(*MDAT, policy(n, "deny"))], INSIDE, HERE, DENY)
            for n in ("1", "6", "7", "8", "111", "112", "113", "114")
        ],
        *[
            (
                f"{n} refused beside what is not needed",
                [consent(*MDAT), consent(policy("22"), policy(n, "deny"), id="b")],
                INSIDE,
                HERE,
                DENY,
            )
            for n in ("1", "6", "7", "8")
        ],
        ("refused for a time gone by", [consent(*MDAT, policy("8", "deny", period=LAST_YEAR))], INSIDE, HERE, PERMIT),
        ("no date, and collecting refused", [consent(*MDAT, policy("6", "deny"))], None, HERE, DENY),
        ("biomaterial refused", [consent(*MDAT, policy("22", "deny"))], INSIDE, HERE, PERMIT),
    ],
    "consent.md 1.5: what nobody can tell matches a refusal and no permission": [
        ("an unknown policy refused", [consent(*MDAT, policy("999", "deny"))], INSIDE, HERE, DENY),
        ("an unknown policy permitted", [consent(*MDAT, policy("999"))], INSIDE, HERE, PERMIT),
        (
            "the older code system permitted",
            [consent(*MDAT[:2], {**MDAT[2], "code": OLDER_SYSTEM})],
            INSIDE,
            HERE,
            NO_CONSENT,
        ),
        ("the older code system refused", [consent(*MDAT, {"type": "deny", "code": OLDER_SYSTEM})], INSIDE, HERE, DENY),
        (
            "a permission limited further",
            [consent(*MDAT[:2], policy("8", dataPeriod={"start": "2020"}))],
            INSIDE,
            HERE,
            NO_CONSENT,
        ),
        (
            "a refusal limited further",
            [consent(*MDAT, policy("8", "deny", period=LAST_YEAR, purpose=[{"code": "X"}]))],
            INSIDE,
            HERE,
            DENY,
        ),
        ("a permission without a policy", [consent({"type": "permit"})], INSIDE, HERE, NO_CONSENT),
        ("a refusal without a policy", [consent(*MDAT, {"type": "deny"})], INSIDE, HERE, DENY),
    ],
    "MII profile: the root denies, with a period and nothing else": [
        ("a root that permits", [consent(provision={"type": "permit", "provision": list(MDAT)})], INSIDE, HERE, REVIEW),
        (
            "a root with a limit",
            [consent(provision={"type": "deny", "purpose": [{"code": "X"}], "provision": list(MDAT)})],
            INSIDE,
            HERE,
            REVIEW,
        ),
        ("a third level", [consent({**MDAT[0], "provision": list(MDAT)})], INSIDE, HERE, REVIEW),
        (
            "the root has ended",
            [consent(provision={"type": "deny", "period": LAST_YEAR, "provision": list(MDAT)})],
            INSIDE,
            HERE,
            NO_CONSENT,
        ),
    ],
    "FHIR R4 Consent.status, dateTime": [
        ("inactive", [consent(*MDAT, status="inactive")], INSIDE, HERE, NO_CONSENT),
        ("rejected", [consent(*MDAT, status="rejected")], INSIDE, HERE, NO_CONSENT),
        (
            "an inactive refusal",
            [consent(*MDAT), consent(policy("8", "deny"), id="b", status="inactive")],
            INSIDE,
            HERE,
            PERMIT,
        ),
        ("dated in the future", [consent(*MDAT, dateTime="2027-01-01")], INSIDE, HERE, NO_CONSENT),
    ],
}


@pytest.mark.parametrize(
    ("resources", "day", "request_", "expected"),
    [row[1:] for rows in TABLE.values() for row in rows],
    ids=[f"{clause} | {row[0]}" for clause, rows in TABLE.items() for row in rows],
)
def test_the_clause_decides(resources: list[Json], day: date | None, request_: Request, expected: Outcome) -> None:
    records = [parse_consent(resource).record for resource in resources]

    assert decide(records, study(day), request_, AT).outcome is expected
    assert decide(records[::-1], study(day), request_, AT).outcome is expected


def test_a_policy_is_enough_to_tell_a_broad_consent() -> None:
    unlabelled = consent(*MDAT, category=[{"coding": [{"system": "http://loinc.org", "code": "57016-8"}]}])

    assert parse_consent(unlabelled).record.clauses is not None


def test_a_plain_refusal_stops_a_broad_consent_and_a_plain_permission_widens_none() -> None:
    package = parse_consent(consent(*MDAT)).record

    assert decide([package, record(deny())], study(INSIDE), HERE, AT).outcome is DENY
    assert decide([parse_consent(consent()).record, RESEARCH], study(INSIDE), HERE, AT).outcome is DENY
    back = parse_consent(consent(*MDAT, policy("45"))).record
    assert decide([back, record(permit(purposes=("TREAT",)))], study(BEFORE), BACK, AT).outcome is PERMIT


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ([consent(*MDAT)], "Consent/mii permitted: broad consent, whole package permitted"),
        ([consent(*MDAT[:2])], "Consent/mii contributed nothing: broad consent, policy 8 not permitted for this study"),
        ([consent(*MDAT, policy("8", "deny"))], "Consent/mii denied: broad consent, policy 8 refused"),
        ([consent()], "Consent/mii denied: broad consent, no policy permitted"),
        ([consent(*MDAT, dateTime="2027")], "Consent/mii contributed nothing: it has no date or a date to come"),
    ],
)
def test_the_trace_names_the_policy(resources: list[Json], line: str) -> None:
    records = [parse_consent(resource).record for resource in resources]

    assert decide(records, study(INSIDE), HERE, AT).trace[1].startswith(line)


@pytest.mark.parametrize(
    ("name", "day", "request_", "expected"),
    [
        ("Einwilligung", date(2024, 5, 1), HERE, PERMIT),
        ("Einwilligung", date(2024, 5, 1), ABROAD, NO_CONSENT),
        ("Einwilligung", date(2024, 5, 1), LINKED, NO_CONSENT),
        ("Einwilligung", date(2025, 9, 1), HERE, NO_CONSENT),
        ("Einwilligung", date(2019, 5, 1), BACK, NO_CONSENT),
        # Its policy 7 stands in the provision that ends after five years, which are over.
        ("Einwilligung_2", date(2024, 5, 1), HERE, NO_CONSENT),
        ("ResultType_ConsentStatus", date(2024, 5, 1), HERE, DENY),
    ],
)
def test_the_official_examples_decide(name: str, day: date, request_: Request, expected: Outcome) -> None:
    path = DATA / f"Example_MII_Consent_{name}.json"
    if not path.exists():
        pytest.skip(f"the official examples are not at {DATA}")
    parsed = parse_consent(json.loads(path.read_text()))

    assert parsed.record.review is None
    assert parsed.record.clauses is not None
    assert decide([parsed.record], study(day), request_, AT).outcome is expected


def test_the_second_official_example_permits_while_its_five_years_last() -> None:
    path = DATA / "Example_MII_Consent_Einwilligung_2.json"
    if not path.exists():
        pytest.skip(f"the official examples are not at {DATA}")
    found = parse_consent(json.loads(path.read_text())).record

    assert decide([found], study(date(2024, 5, 1)), HERE, datetime(2025, 8, 31, tzinfo=UTC)).outcome is PERMIT


def test_the_policies_are_those_of_the_code_system() -> None:
    path = DATA / "CodeSystem-MiiConsentPolicy.md"
    if not path.exists():
        pytest.skip(f"the code system is not at {DATA}")
    prefix = broad.SYSTEM.removeprefix("urn:oid:") + "."
    rows = [[cell.strip() for cell in line.split("|")] for line in path.read_text().splitlines()]
    codes = {cell.removeprefix(prefix) for row in rows for cell in row if cell.startswith(prefix)}

    assert codes == broad.POLICIES
