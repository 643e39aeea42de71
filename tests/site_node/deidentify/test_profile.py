"""The profile against an independent transcription of PS3.15 table E.1-1."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from site_node.deidentify.profile import ALWAYS_EMPTY, RULES, Action

TABLE = Path(__file__).parents[2] / "vectors" / "ps315_table_e1_1.csv"
ANY_VALUE = frozenset({"NUMBER", "TERM", "CODE", "PIXELS"})
VRS = {
    Action.NUMBER: {"US", "SS", "UL", "SL", "FL", "FD", "DS", "IS", "AT", "US or SS"},
    Action.TERM: {"CS", "SH", "LO"},
    Action.UID: {"UI"},
    Action.DATE: {"DA", "DT"},
    Action.SEQUENCE: {"SQ"},
    Action.CODE: {"SQ"},
    Action.FIXED: {"LO", "SH", "CS", "TM", "PN"},
    Action.PIXELS: {"OB or OW"},
}


def standard() -> dict[int, tuple[str, str]]:
    with TABLE.open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {int(row["tag"], 16): (row["action"], row["modified_dates"]) for row in rows}


STANDARD = standard()


def obeys(action: Action, basic: str, modified_dates: str) -> bool:
    """Return whether our action is one that the standard allows for the attribute."""
    match action:
        case Action.UID | Action.SEQUENCE:
            return "U" in basic
        case Action.DATE:
            return modified_dates == "C"
        case Action.FIXED:
            return bool({"Z", "D"} & set(basic))
        case _:
            return False


def test_the_transcription_is_whole() -> None:
    assert len(STANDARD) == 653
    assert STANDARD[0x00100010] == ("Z", "")
    assert STANDARD[0x00080020] == ("Z", "C")


@pytest.mark.parametrize("tag", sorted(RULES.keys() & STANDARD.keys()), ids=keyword_for_tag)
def test_no_listed_attribute_keeps_what_the_standard_takes_away(tag: int) -> None:
    assert obeys(RULES[tag].action, *STANDARD[tag])


def test_nothing_of_the_standards_table_is_kept_as_it_is() -> None:
    kept = {tag for tag, rule in RULES.items() if rule.action.name in ANY_VALUE}

    assert not kept & STANDARD.keys()


def test_every_attribute_has_a_value_representation_its_action_can_check() -> None:
    odd = {keyword_for_tag(tag) for tag, rule in RULES.items() if dictionary_VR(tag) not in VRS[rule.action]}

    assert not odd


def test_no_private_group_curve_overlay_or_meta_element_is_listed() -> None:
    groups = {tag >> 16 for tag in RULES}

    assert not {group for group in groups if group % 2 or group < 8}
    assert not {group for group in groups if group & 0xFF00 in {0x5000, 0x6000}}


def test_a_fixed_value_and_a_term_list_belong_to_their_own_actions() -> None:
    for rule in RULES.values():
        assert bool(rule.terms) == (rule.action is Action.TERM)
        assert not rule.value or rule.action is Action.FIXED


def test_the_emptied_attributes_are_those_every_image_must_have() -> None:
    assert {"PatientBirthDate", "PatientSex", "ReferringPhysicianName"} <= set(ALWAYS_EMPTY)
