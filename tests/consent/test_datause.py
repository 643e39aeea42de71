"""Terms of use in DUO codes: the codes against the ontology's table, and each code's rule."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from consent.datause import (
    ABSTRACT,
    ATTRIBUTION,
    LABELS,
    MODIFIERS,
    PERMISSIONS,
    DataUse,
    DataUseDecision,
    Modifier,
    ResearchKind,
    ResearchPurpose,
    match_data_use,
    parse_data_use,
)
from consent.errors import DataUseInvalid

APPROVE, MANUAL, DENY = DataUseDecision.APPROVE, DataUseDecision.MANUAL, DataUseDecision.DENY
TABLE: Final = Path(__file__).parents[2].parent / "shared/data/consent/duo/duo.csv"
AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
HEALTH: Final = ResearchPurpose(ResearchKind.HEALTH, methods_development=False)
PNEUMONIA: Final = "MONDO:0005249"
LUNG: Final = "MONDO:0005275"

Facts = dict[str, Any]


def _rows() -> list[dict[str, str]]:
    if not TABLE.exists():
        pytest.skip(f"the DUO table is not at {TABLE}")
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_ontology_is_ours_and_none_is_added() -> None:
    rows = _rows()

    for row in rows:
        code, shorthand, label = row["id"], row["shorthand"], row["label"]
        if shorthand:
            ours = PERMISSIONS if "permission" in row["description"].split("indicates")[0] else MODIFIERS
            assert (ours[code], LABELS[shorthand]) == (shorthand, label)
        else:
            assert ABSTRACT[code] == label
    assert len(rows) == len(PERMISSIONS) + len(MODIFIERS) + len(ABSTRACT) == 25
    assert len(LABELS) == 23


def test_release_and_attribution_are_stated() -> None:
    assert ATTRIBUTION == "Data Use Ontology (DUO), release 2021-02-23, GA4GH and EBISPOT/DUO, CC BY 4.0"


@pytest.mark.parametrize(
    ("permission", "facts", "expected"),
    [
        ("NRES", {}, APPROVE),
        ("NRES", {"clinical_care": True}, MANUAL),
        ("NRES", {"clinical_care": None}, MANUAL),
        ("NRES", {"kind": ResearchKind.NONE}, APPROVE),
        ("GRU", {"kind": ResearchKind.NONE}, MANUAL),
        ("GRU", {"kind": None, "methods_development": None, "ancestry": None}, APPROVE),
        ("HMB", {"kind": ResearchKind.NONE}, MANUAL),
        ("HMB", {"kind": None}, MANUAL),
        ("HMB", {"ancestry": None}, MANUAL),
        ("HMB", {"kind": ResearchKind.GENERAL, "ancestry": None}, DENY),
        ("HMB", {"kind": None, "ancestry": True}, DENY),
        ("DS", {"diseases": (LUNG,), "ancestry": None}, MANUAL),
        ("DS", {"methods_development": None}, MANUAL),
        ("DS", {"diseases": (LUNG,), "kind": ResearchKind.NONE}, MANUAL),
        ("DS", {"diseases": (PNEUMONIA,), "kind": ResearchKind.NONE}, MANUAL),
        ("POA", {"ancestry": None}, MANUAL),
        ("GRU", {"kind": ResearchKind.GENERAL, "ancestry": True}, APPROVE),
        ("GRU", {"methods_development": True}, APPROVE),
        ("HMB", {}, APPROVE),
        ("HMB", {"kind": ResearchKind.GENERAL}, DENY),
        ("HMB", {"ancestry": True}, DENY),
        ("DS", {"diseases": (LUNG,)}, APPROVE),
        ("DS", {"diseases": (PNEUMONIA,)}, MANUAL),
        ("DS", {"diseases": (PNEUMONIA,), "ancestry": True}, MANUAL),
        ("DS", {"diseases": (LUNG, PNEUMONIA)}, MANUAL),
        ("DS", {"diseases": (LUNG,), "ancestry": True}, MANUAL),
        ("DS", {}, DENY),
        ("DS", {"methods_development": True}, MANUAL),
        ("POA", {"ancestry": True}, APPROVE),
        ("POA", {}, DENY),
        ("POA", {"methods_development": True}, DENY),
        ("DUO:9999999", {}, MANUAL),
    ],
)
def test_the_permission_decides(permission: str, facts: Facts, expected: DataUseDecision) -> None:
    use = DataUse(permission, diseases=(LUNG,))

    verdict = match_data_use(use, replace(HEALTH, **facts), AT)

    assert verdict.decision is expected
    assert bool(verdict.reasons) == (expected is not APPROVE)


@pytest.mark.parametrize(
    ("code", "values", "facts", "expected"),
    [
        ("NPOA", (), {}, APPROVE),
        ("NPOA", (), {"ancestry": True}, DENY),
        ("NPOA", (), {"ancestry": None}, MANUAL),
        ("NMDS", (), {}, APPROVE),
        ("NMDS", (), {"methods_development": None}, MANUAL),
        ("NMDS", (), {"methods_development": True}, DENY),
        ("GSO", (), {"genetic": True}, APPROVE),
        ("GSO", (), {"genetic": False}, DENY),
        ("GSO", (), {}, MANUAL),
        ("CC", (), {"clinical_care": True}, APPROVE),
        ("NPU", (), {"for_profit": False}, APPROVE),
        ("NPU", (), {"for_profit": True}, DENY),
        ("NPU", (), {"commercial": False}, MANUAL),
        ("NCU", (), {"commercial": False}, APPROVE),
        ("NCU", (), {"commercial": True}, DENY),
        ("NCU", (), {"for_profit": False}, MANUAL),
        ("NPUNCU", (), {"commercial": False, "for_profit": False}, APPROVE),
        ("NPUNCU", (), {"commercial": False}, MANUAL),
        ("NPUNCU", (), {"commercial": False, "for_profit": True}, DENY),
        ("NPUNCU", (), {"commercial": True}, DENY),
        ("GS", ("DEU", "FRA"), {"countries": ("DEU",)}, APPROVE),
        ("GS", ("DEU", "FRA"), {"countries": ("DEU", "USA")}, DENY),
        ("GS", ("DEU",), {}, MANUAL),
        ("GS", (), {"countries": ("DEU",)}, MANUAL),
        ("IS", ("north",), {"institutions": ("north",)}, APPROVE),
        ("IS", ("north",), {"institutions": ("north", "south")}, DENY),
        ("US", ("u1",), {"users": ("u1",)}, APPROVE),
        ("US", ("u1",), {"users": ("u2",)}, DENY),
        ("PS", ("p1",), {"projects": ("p1",)}, APPROVE),
        ("PS", ("p1",), {"projects": ("p2",)}, DENY),
        ("RS", ("paediatrics",), {"topics": ("paediatrics",)}, APPROVE),
        ("RS", ("paediatrics",), {"topics": ("ageing",)}, MANUAL),
        ("RS", ("paediatrics",), {}, MANUAL),
        ("IRB", (), {"ethics_approved_until": date(2026, 6, 1)}, APPROVE),
        ("IRB", (), {"ethics_approved_until": date(2026, 5, 31)}, DENY),
        ("IRB", (), {}, MANUAL),
        ("PUB", (), {"will_publish": True}, APPROVE),
        ("PUB", (), {"will_publish": False}, DENY),
        ("PUB", (), {}, MANUAL),
        ("MOR", ("2027-01-01",), {"publishes_from": date(2027, 1, 1)}, APPROVE),
        ("MOR", ("2027-01-01",), {"publishes_from": date(2026, 12, 31)}, DENY),
        ("MOR", ("2027-01-01",), {}, MANUAL),
        ("MOR", ("soon",), {"publishes_from": date(2027, 1, 1)}, MANUAL),
        ("MOR", (), {"publishes_from": date(2027, 1, 1)}, MANUAL),
        ("COL", (), {"collaboration_signed": True}, APPROVE),
        ("COL", (), {"collaboration_signed": False}, MANUAL),
        ("TS", ("12",), {}, APPROVE),
        ("TS", ("a year",), {}, MANUAL),
        ("TS", (), {}, MANUAL),
        ("TS", ("0",), {}, MANUAL),
        ("RTN", (), {"returns_data": True}, APPROVE),
        ("RTN", (), {"returns_data": False}, DENY),
        ("RTN", (), {}, MANUAL),
        ("DUO:9999999", (), {}, MANUAL),
    ],
)
def test_the_modifier_decides(code: str, values: tuple[str, ...], facts: Facts, expected: DataUseDecision) -> None:
    use = DataUse("GRU", modifiers=(Modifier(code, values),))

    assert match_data_use(use, replace(HEALTH, **facts), AT).decision is expected


@pytest.mark.parametrize("disease", [LUNG, PNEUMONIA])
def test_methods_on_a_disease_need_a_person_despite_their_prohibition(disease: str) -> None:
    use = DataUse("DS", (LUNG,), (Modifier("NMDS"),))
    methods = replace(HEALTH, methods_development=True, diseases=(disease,))

    assert match_data_use(use, methods, AT).decision is MANUAL
    assert match_data_use(use, replace(methods, diseases=()), AT).decision is DENY


# DUO:0000007, "disease specific research": use is allowed for the disease named; which are kinds of it, MONDO knows.
def test_whether_a_disease_is_a_kind_of_another_is_for_people_to_decide() -> None:
    verdict = match_data_use(DataUse("DS", (LUNG,)), replace(HEALTH, diseases=(PNEUMONIA,)), AT)

    assert verdict.decision is MANUAL
    assert "whether a disease studied is a kind of the dataset's is for people to decide" in verdict.reasons[0]


def test_every_modifier_has_a_rule_of_its_own() -> None:
    stated = ResearchPurpose(
        ResearchKind.HEALTH,
        methods_development=False,
        genetic=True,
        commercial=False,
        for_profit=False,
        countries=("x",),
        institutions=("x",),
        users=("x",),
        projects=("x",),
        topics=("x",),
        ethics_approved_until=date(2030, 1, 1),
        will_publish=True,
        publishes_from=date(2030, 1, 1),
        collaboration_signed=True,
        returns_data=True,
    )
    values = {"MOR": ("2027-01-01",), "TS": ("12",)}
    use = DataUse("GRU", (), tuple(Modifier(c, values.get(c, ("x",))) for c in MODIFIERS.values()))

    assert match_data_use(use, stated, AT).decision is APPROVE


def test_an_added_modifier_never_helps() -> None:
    for permission, code in product(PERMISSIONS.values(), MODIFIERS.values()):
        bare = match_data_use(DataUse(permission), HEALTH, AT).decision
        narrowed = DataUse(permission, modifiers=(Modifier(code),))

        assert match_data_use(narrowed, HEALTH, AT).decision >= bare


def test_a_modifier_given_twice_has_to_hold_twice() -> None:
    use = DataUse("GRU", modifiers=(Modifier("GS", ("DEU",)), Modifier("GS", ("FRA",))))

    verdict = match_data_use(use, replace(HEALTH, countries=("FRA",)), AT)

    assert verdict.decision is DENY
    assert verdict.reasons == ("GS: deny, a participant is in another country",)


FACTS: Final[dict[str, list[Any]]] = {
    "kind": [None, *ResearchKind],
    "methods_development": [None, False, True],
    "ancestry": [None, False, True],
    "diseases": [(), (LUNG,), ("MONDO:1",)],
}


def test_every_term_that_does_not_approve_says_why() -> None:
    facts = [dict(zip(FACTS, values, strict=True)) for values in product(*FACTS.values())]
    others = {
        name: stated
        for stated in (None, False, True)
        for name in ("genetic", "commercial", "for_profit", "will_publish", "returns_data", "clinical_care")
    }
    for permission, code, values in product(PERMISSIONS.values(), MODIFIERS.values(), [(), ("x",), ("2027-01-01",)]):
        use = DataUse(permission, (LUNG,), (Modifier(code, values),))
        for fact in facts:
            for stated in (None, False, True):
                purpose = ResearchPurpose(**fact, **dict.fromkeys(others, stated), publishes_from=date(2026, 1, 1))
                for term in match_data_use(use, purpose, AT).terms:
                    assert bool(term.why) == (term.decision is not APPROVE)
                    assert term.why != "a code that is not known here"


def test_each_term_answers_for_itself() -> None:
    use = DataUse("GRU", modifiers=(Modifier("NCU"), Modifier("XYZ")))

    verdict = match_data_use(use, replace(HEALTH, commercial=False), AT)

    assert [(term.code, term.decision) for term in verdict.terms] == [
        ("GRU", APPROVE),
        ("NCU", APPROVE),
        ("XYZ", MANUAL),
    ]
    assert verdict.reasons == ("XYZ: manual, a code that is not known here",)


def test_no_modifier_stands_for_another() -> None:
    stated = replace(HEALTH, commercial=True, for_profit=False)

    assert match_data_use(DataUse("GRU", modifiers=(Modifier("NPU"),)), stated, AT).decision is APPROVE
    assert match_data_use(DataUse("GRU", modifiers=(Modifier("NCU"),)), stated, AT).decision is DENY
    assert match_data_use(DataUse("GRU", modifiers=(Modifier("NPUNCU"),)), stated, AT).decision is DENY


FACTS_OF_HEALTH: Final[Facts] = {"kind": ResearchKind.HEALTH, "methods_development": False}


@pytest.mark.parametrize("fact", ["kind", "methods_development", "ancestry", "clinical_care", "commercial", "genetic"])
def test_a_fact_that_is_not_stated_never_approves_more_than_each_answer(fact: str) -> None:
    answers: list[Any] = list(ResearchKind) if fact == "kind" else [False, True]
    for permission, code in product(PERMISSIONS.values(), MODIFIERS.values()):
        use = DataUse(permission, (LUNG,), (Modifier(code),))
        unstated, *stated = [
            match_data_use(use, ResearchPurpose(**{**FACTS_OF_HEALTH, fact: answer}), AT).decision
            for answer in (None, *answers)
        ]

        # Without a kind the use is research of some kind: that it is none is known from the purposes.
        assert unstated is not APPROVE or set(stated) == {APPROVE} or fact == "kind"
        assert unstated is not DENY or DENY in stated


@pytest.mark.parametrize(
    "code", ["DUO:0000044", "DUO_0000044", "http://purl.obolibrary.org/obo/DUO_0000044", "DUO_00000044", "NPOA"]
)
def test_a_code_is_read_in_every_spelling_of_the_ontologys_files(code: str) -> None:
    assert parse_data_use({"permission": "GRU", "modifiers": [{"code": code}]}).modifiers == (Modifier("NPOA"),)


def test_codes_and_shorthands_read_the_same() -> None:
    by_code = {"permission": "DUO:0000007", "diseases": [LUNG], "modifiers": [{"code": "NCU"}]}
    by_name = {**by_code, "permission": "DS", "modifiers": [{"code": "DUO:0000046"}]}

    expected = DataUse("DS", (LUNG,), (Modifier("NCU"),))
    assert parse_data_use(by_code) == parse_data_use(by_name) == expected


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"permission": ["GRU", "HMB"]},
        {"permission": "NCU"},
        {"permission": "GRU", "modifiers": [{"code": "HMB"}]},
        {"permission": "DUO:0000001"},
        {"permission": "GRU", "modifiers": [{"code": "DUO:0000017"}]},
        {"permission": "GRU", "modifiers": [{"code": "TS", "values": [12]}]},
        {"permission": "GRU", "colour": "red"},
        {"permission": "GRU", "modifiers": None},
    ],
)
def test_terms_without_exactly_one_permission_or_of_another_form_are_invalid(
    document: dict[str, object],
) -> None:
    with pytest.raises(DataUseInvalid):
        parse_data_use(document)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("12",), datetime(2025, 2, 28, tzinfo=UTC)),
        (("1",), datetime(2024, 3, 29, tzinfo=UTC)),
        (("10",), datetime(2024, 12, 29, tzinfo=UTC)),
        (("11",), datetime(2025, 1, 29, tzinfo=UTC)),
        (("x",), None),
    ],
)
def test_a_time_limit_ends_the_grant(values: tuple[str, ...], expected: datetime | None) -> None:
    use = DataUse("GRU", modifiers=(Modifier("TS", values), Modifier("NCU")))

    assert use.expiry(datetime(2024, 2, 29, tzinfo=UTC)) == expected
