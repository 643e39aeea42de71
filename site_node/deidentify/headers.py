"""De-identified headers: what the profile lets stay, cleaned, in a data set of its own; pixels pass untouched.

First everything the instance says about persons, places and days is gathered from what the profile takes out; then
each element is kept, cleaned, moved, remapped, emptied, replaced or dropped, at any depth. Does not look at pixels,
nor into encapsulated documents: their bytes are left out for document.py to give back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from site_node.deidentify import charsets, concepts, tags
from site_node.deidentify.cleaner import DOCUMENT_LEFT_OUT, GRAPHICS_REMOVED, ICON_REMOVED, Cleaner
from site_node.deidentify.dates import calendar_day
from site_node.deidentify.gathering import gather
from site_node.deidentify.iods import iod
from site_node.deidentify.profile import Dates, Option, Profile
from site_node.deidentify.rules import plan
from site_node.deidentify.stream import DataSet, Element, Part10, places, text
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Collection

    from site_node.deidentify.identities import Identities
    from site_node.deidentify.pseudonym import Pseudonymiser
    from site_node.deidentify.rules import Plan

__all__ = [
    "DOCUMENT_LEFT_OUT",
    "GRAPHICS_REMOVED",
    "ICON_REMOVED",
    "Cleaned",
    "declare",
    "decoded",
    "deidentify",
    "original_date",
    "patient_key",
]

METHOD = "PS3.15 2026d Annex E Basic Profile, allow-list"
IMPLEMENTATION_UID = "2.25.188204254213049226812911853541266532137"
IMPLEMENTATION_NAME = "FILMROOM_1"
DICOMDIR = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A de-identified file, what its source said about persons, and what was left out of it (`notes`)."""

    part10: Part10
    identities: Identities
    notes: frozenset[str]


def deidentify(source: Part10, profile: Profile, pseudonymiser: Pseudonymiser) -> Cleaned:
    """Return the de-identified copy of `source`; the same input always gives the same bytes.

    Raises: UnreadableInstance naming the attribute without which an instance has no identity.
    Source: PS3.15 Annex E.1.1 (de-identifier), table E.1-1.
    """
    sop_class = text(source.elements, tags.SOP_CLASS) or text(source.meta, tags.META_SOP_CLASS)
    sop_instance = text(source.elements, tags.SOP_INSTANCE) or text(source.meta, tags.META_SOP_INSTANCE)
    for keyword, uid in (("SOPClassUID", sop_class), ("SOPInstanceUID", sop_instance)):
        if not uid:
            raise UnreadableInstance(f"{keyword}: absent or not a UID")
    rules = plan(profile, iod(sop_class), root=True)
    gathered = gather(source, rules)
    identities, numbers = gathered.identities(), gathered.numbers()
    cleaner = Cleaner(profile, pseudonymiser, patient_key(source), identities, numbers)
    elements = cleaner.dataset(source.elements, rules)
    notes = cleaner.notes
    if sop_class == DICOMDIR:
        cleaners = {
            patient: Cleaner(profile, pseudonymiser, patient, identities, numbers) for patient in _patients(source)
        }
        elements |= _records(source, rules, cleaners)
        notes = notes.union(*(each.notes for each in cleaners.values()))
    else:
        _declare(elements, profile, cleaner.patient)
    meta = _meta(source.transfer_syntax, pseudonymiser.uid(sop_class).encode(), cleaner.mapped(sop_instance))
    part10 = Part10(meta, source.transfer_syntax, dict(sorted(elements.items())))
    if sop_class == DICOMDIR:
        part10 = _with_places(part10, source)
    return Cleaned(part10, identities, frozenset(notes))


def declare(
    part10: Part10, *, done: Collection[Option] = (), burned_in: bool | None = None, recognizable: bool | None = None
) -> Part10:
    """Return `part10` stating what was done to its pixels; None leaves an attribute as it is.

    Source: PS3.3 C.7.6.1.1.7 and C.12.1.1.7; PS3.15 E.3.1 and E.3.2; PS3.16 CID 7050.
    """
    elements = dict(part10.elements)
    if done:
        old = elements[tags.METHOD_CODES].value if tags.METHOD_CODES in elements else []
        items = list(old) if isinstance(old, list) else []
        known = {text(item, tags.CODE) for item in items}
        items += [_method(*option.value) for option in Option if option in done and option.value[0] not in known]
        items.sort(key=lambda item: text(item, tags.CODE))
        elements[tags.METHOD_CODES] = Element(tags.METHOD_CODES, "SQ", items)
    for tag, answer in ((tags.BURNED_IN, burned_in), (tags.RECOGNIZABLE, recognizable)):
        if answer is not None:
            elements[tag] = Element(tag, "CS", b"YES" if answer else b"NO")
    return replace(part10, elements=dict(sorted(elements.items())))


def decoded(ds: DataSet, tag: int) -> str:
    """Return a value as text without its padding, by the data set's own repertoire; "" where there is none."""
    element = ds.get(tag)
    if element is None or isinstance(element.value, list):
        return ""
    return charsets.decode(bytes(element.value), charsets.of(ds, "")).strip(" \0")


def original_date(source: Part10) -> str | None:
    """Return the true StudyDate as YYYY-MM-DD, or None; for decisions inside the hospital only."""
    day = calendar_day(text(source.elements, tags.STUDY_DATE))
    return day.isoformat() if day else None


def patient_key(source: Part10) -> str:
    """Return what stands for the patient: PatientID, else name and birth date, else the study.

    Without any of them it is the instance itself, so that two persons never become one.
    """
    person = _person(source.elements)
    return person or text(source.elements, tags.STUDY) or text(source.meta, tags.META_SOP_INSTANCE)


def _person(ds: DataSet) -> str:
    patient_id = decoded(ds, tags.PATIENT_ID)
    name = decoded(ds, tags.PATIENT_NAME)
    if patient_id or not name.strip("^= "):
        return patient_id
    return f"{name}\0{text(ds, tags.BIRTH_DATE)}"


def _declare(elements: DataSet, profile: Profile, patient: bytes) -> None:
    """State what was done. Source: PS3.15 E.2 and E.3, PS3.3 C.12.1.1.7."""
    done = profile.chosen - {Option.CLEAN_PIXEL_DATA, Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}
    dates = {Dates.REMOVE: b"REMOVED", Dates.MODIFIED: b"MODIFIED", Dates.FULL: b"UNMODIFIED"}
    for element in (
        Element(tags.CHARSET, "CS", b"ISO_IR 192"),
        Element(tags.PATIENT_NAME, "PN", patient),
        Element(tags.PATIENT_ID, "LO", patient),
        Element(tags.IDENTITY_REMOVED, "CS", b"YES"),
        Element(tags.METHOD, "LO", METHOD.encode()),
        Element(tags.METHOD_CODES, "SQ", [_method(*code) for code in profile.method_codes(done)]),
        Element(tags.LONGITUDINAL, "CS", dates[profile.options.dates]),
    ):
        elements[element.tag] = element


def _method(code: str, meaning: str) -> DataSet:
    return concepts.item(code, "DCM", meaning)


def _meta(transfer_syntax: str, sop_class: bytes, sop_instance: bytes) -> DataSet:
    """Return file meta information with nothing of the source's but its transfer syntax. Source: PS3.10 7.1."""
    rows = (
        Element(tags.META_VERSION, "OB", b"\0\1"),
        Element(tags.META_SOP_CLASS, "UI", sop_class),
        Element(tags.META_SOP_INSTANCE, "UI", sop_instance),
        Element(tags.META_SYNTAX, "UI", transfer_syntax.encode()),
        Element(tags.IMPLEMENTATION_UID, "UI", IMPLEMENTATION_UID.encode()),
        Element(tags.IMPLEMENTATION_NAME, "SH", IMPLEMENTATION_NAME.encode()),
    )
    return {element.tag: element for element in rows}


def _items(source: Part10) -> list[DataSet]:
    element = source.elements.get(tags.RECORDS)
    return element.value if element is not None and isinstance(element.value, list) else []


def _patients(source: Part10) -> list[str]:
    """Return whose record each record of a DICOMDIR is: the patient's above it. Source: PS3.3 F.3.2.2."""
    items = _items(source)
    owners = [""] * len(items)
    index = {place: number for number, place in enumerate(source.records[: len(items)])}
    waiting = [(_offset(source, source.elements, tags.FIRST_RECORD), "")]
    seen: set[int] = set()
    while waiting:
        place, owner = waiting.pop()
        number = index.get(place)
        if number is None or number in seen:
            continue
        seen.add(number)
        item = items[number]
        is_patient = text(item, tags.RECORD_TYPE) == "PATIENT"
        owners[number] = (_person(item) if is_patient else owner) or f"record {number} of {patient_key(source)}"
        waiting += [
            (_offset(source, item, tags.NEXT_RECORD), owner),
            (_offset(source, item, tags.LOWER_RECORD), owners[number]),
        ]
    return owners


def _records(source: Part10, rules: Plan, cleaners: dict[str, Cleaner]) -> DataSet:
    """Return the records, each cleaned for its patient."""
    element, below = source.elements.get(tags.RECORDS), rules[tags.RECORDS].below
    if element is None or below is None:
        return {}
    charset = Element(tags.CHARSET, "CS", b"ISO_IR 192")
    items = []
    for item, owner in zip(_items(source), _patients(source), strict=True):
        kept = cleaners[owner].item(item, below)
        items.append(dict(sorted((kept | {tags.CHARSET: charset}).items())))
    return {tags.RECORDS: Element(tags.RECORDS, "SQ", items, element.undefined)}


def _with_places(part10: Part10, source: Part10) -> Part10:
    """Return a DICOMDIR whose offsets point to where its records now are; an offset to nothing becomes 0.

    Source: PS3.3 F.3.2.2: offsets are from the first byte of the file.
    """
    moved = dict(zip(source.records, places(part10, tags.RECORDS), strict=False))
    order: Literal["big", "little"] = "big" if part10.big_endian else "little"

    def placed(ds: DataSet) -> DataSet:
        offsets = {
            tag: Element(tag, "UL", moved.get(_offset(source, ds, tag), 0).to_bytes(4, order))
            for tag in (tags.FIRST_RECORD, tags.LAST_RECORD, tags.NEXT_RECORD, tags.LOWER_RECORD)
            if tag in ds
        }
        return ds | offsets

    elements = placed(part10.elements)
    element = elements.get(tags.RECORDS)
    if element is not None and isinstance(element.value, list):
        elements[tags.RECORDS] = element._replace(value=[placed(item) for item in element.value])
    return replace(part10, elements=elements)


def _offset(source: Part10, ds: DataSet, tag: int) -> int:
    element = ds.get(tag)
    if element is None or isinstance(element.value, list) or len(element.value) != 4:  # noqa: PLR2004 -- bytes of UL
        return 0
    return int.from_bytes(element.value, "big" if source.big_endian else "little")
