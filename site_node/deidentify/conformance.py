"""What Filmroom does for each option of PS3.15 Annex E: the conformance statement, in one place.

The documentation prints these sentences and a test compares the two. Says what is done, not that it was done to some
instance: that is for the method codes each instance carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from site_node.deidentify.profile import BASIC, Option, Options, content_rows, rows, safe_private_table

EDITION = "PS3.15 2026d"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is done for one option: its code, whether it is on by default, and how many rows of the tables it has."""

    code: str
    meaning: str
    by_default: bool
    attributes: int
    content_items: int
    done: str


_BASIC_DONE = (
    "Every row of table E.1-1 is applied, at any depth and in the file meta information; a compound action takes the "
    "first of its codes that leaves the information object valid, and a required attribute that would be removed is "
    "emptied (type 2) or replaced by a dummy (type 1). An attribute in no table is dropped unless the reviewed list of "
    "what may stay has it, and then only as a number, a defined term, a cleaned text, a remapped UID, a coded concept "
    "or numeric bulk data. Preamble, group lengths, padding and comments inside code streams do not survive."
)
_DONE = MappingProxyType(
    {
        Option.CLEAN_PIXEL_DATA: (
            "Text in the pixels is looked for in every frame as a person would see it; what identifies or cannot be "
            "judged is blanked in the stored values or held for a person; all other pixels stay."
        ),
        Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES: (
            "A head that could be recognised is defaced or the instance is held; declared only where that was done, or "
            "where no head is in view."
        ),
        Option.CLEAN_GRAPHICS: (
            "Graphic annotations stay with their texts cleaned; overlays and curves go, and so do overlay planes in "
            "the unused bits of pixels."
        ),
        Option.CLEAN_STRUCTURED_CONTENT: (
            "Content trees, acquisition context and specimen preparation stay; each item follows table E.3.4-1 by its "
            "concept name, and what the table lacks follows its value type: texts cleaned, names replaced, dates moved."
        ),
        Option.CLEAN_DESCRIPTORS: (
            "Descriptions, comments and labels keep the words of a medical vocabulary without names, and lose every "
            "value the instance states of persons, places, numbers and days, in any form."
        ),
        Option.RETAIN_FULL_DATES: "Dates and times stay as they are.",
        Option.RETAIN_MODIFIED_DATES: (
            "Every date moves back by whole days and every time by seconds that a key gives to the patient: intervals "
            "between a patient's examinations stay, to the day. The time zone goes."
        ),
        Option.RETAIN_PATIENT_CHARACTERISTICS: (
            "Age, sex, size, weight and the like stay; an age over 89 years becomes 90; texts are cleaned."
        ),
        Option.RETAIN_DEVICE_IDENTITY: (
            "Station names, serial numbers and device UIDs stay; dates of calibration follow the policy for dates."
        ),
        Option.RETAIN_UIDS: "UIDs stay. Without it each becomes a keyed one, the same wherever it stood.",
        Option.RETAIN_SAFE_PRIVATE: (
            "Private attributes of table E.3.10-1 stay under their creator, checked and cleaned by their value "
            "representation; those stored as opaque bytes go all the same."
        ),
        Option.RETAIN_INSTITUTION_IDENTITY: "Name, address, codes and departments of institutions stay.",
    }
)


def statements(options: Options | None = None) -> tuple[Statement, ...]:
    """Return the conformance statement under `options`: the Basic Profile, then each option.

    Source: PS3.2 N.11, PS3.16 CID 7050.
    """
    chosen = (options or Options()).chosen()
    basic = Statement(
        *BASIC, by_default=True, attributes=len(rows()), content_items=len(content_rows()), done=_BASIC_DONE
    )
    return (basic, *(_statement(option, on=option in chosen) for option in Option))


def _statement(option: Option, *, on: bool) -> Statement:
    attributes = sum(option in row.options for row in rows())
    if option is Option.RETAIN_SAFE_PRIVATE:
        attributes = len(safe_private_table())
    items = sum(option in row.options for row in content_rows())
    code, meaning = option.value
    return Statement(code, meaning, on, attributes, items, _DONE[option])


def markdown(options: Options | None = None) -> str:
    """Return the statement as the table that docs/deidentification.md shows."""
    lines = ["| code | option | default | attributes | content items | what is done |", "|---|---|---|---|---|---|"]
    for each in statements(options):
        on = "on" if each.by_default else "off"
        cells = (each.code, each.meaning, on, str(each.attributes), str(each.content_items), each.done)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
