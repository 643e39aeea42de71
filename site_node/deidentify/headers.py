"""A new data set with only what the profile lists; the source is neither changed nor forwarded.

Works element by element from the table in profile.py. Does not look at pixels and does not decide
whether an image may be used; pixels.py does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from site_node.deidentify.codes import standard_code
from site_node.deidentify.profile import (
    ALWAYS_EMPTY,
    METHOD,
    METHOD_CODES,
    RULES,
    Action,
    Rule,
)
from site_node.errors import UnreadableInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydicom.sr.coding import Code
    from pydicom.tag import BaseTag

    from site_node.deidentify.pseudonym import Pseudonymiser

# PS3.5 6.2, and what pydicom raises for a value that does not fit its VR.
INVALID_VALUE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)
IDENTITY_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_EARLIEST_YEAR = 1895  # Röntgen's; a year before is a typing error
_MAX_LABEL = 64  # PS3.5 6.2, LO
_UID_FORM = re.compile(r"[0-9.]{1,64}")


def deidentify(ds: Dataset, pseudonymiser: Pseudonymiser) -> Dataset:
    """Return the de-identified copy of `ds`, with file meta information of its own.

    The same input always gives the same bytes. PixelData is passed on bit by bit.
    Raises: UnreadableInstance naming the attribute without which an instance has no identity.
    Source: PS3.15 Annex E.1.1 (de-identifier), table E.1-1.
    """
    patient_id = str(ds.get("PatientID", "") or "").strip()
    if not patient_id:
        raise UnreadableInstance("PatientID: absent or empty")
    cleaner = _Cleaner(pseudonymiser, timedelta(days=pseudonymiser.days(patient_id)))
    clean = cleaner.dataset(ds)
    for keyword in IDENTITY_UIDS:
        if not clean.get(keyword):
            raise UnreadableInstance(f"{keyword}: absent or not a UID")
    for keyword in ALWAYS_EMPTY:
        if keyword not in clean:
            setattr(clean, keyword, None)
    clean.PatientID = clean.PatientName = pseudonymiser.patient(patient_id)
    _declare(clean)
    clean.file_meta = _file_meta(clean, UID(ds.file_meta.TransferSyntaxUID))
    return clean


def original_date(ds: Dataset) -> str | None:
    """Return the true StudyDate as YYYY-MM-DD, or None; for decisions inside the hospital only."""
    moment = _day(str(ds.get("StudyDate", "") or ""))
    return moment.date().isoformat() if moment else None


def _declare(clean: Dataset) -> None:
    """State what was done. Source: PS3.15 E.2 and E.3.6, PS3.3 C.12.1.1.7."""
    clean.SpecificCharacterSet = "ISO_IR 192"  # meanings of codes are not all ASCII
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = METHOD
    clean.DeidentificationMethodCodeSequence = [_code_item(value, "DCM", meaning) for value, meaning in METHOD_CODES]
    clean.LongitudinalTemporalInformationModified = "MODIFIED"


def _file_meta(clean: Dataset, transfer_syntax: UID) -> FileMetaDataset:
    """Return file meta information with nothing of the source's but its transfer syntax."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = clean.SOPClassUID
    meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    return meta


@dataclass(frozen=True, slots=True)
class _Cleaner:
    """The profile applied for one patient; each action's method is in `_ACTIONS`."""

    pseudonymiser: Pseudonymiser
    shift: timedelta

    def dataset(self, ds: Dataset) -> Dataset:
        clean = Dataset()
        # Elements outside the profile are never even decoded.
        for tag in list(ds.keys()):
            rule = RULES.get(tag)
            kept = None if rule is None else self._element(ds, tag, rule)
            if kept is not None:
                clean[tag] = kept
        if "SegmentLabel" in clean:
            clean.SegmentLabel = _segment_label(clean)
        return clean

    def _element(self, ds: Dataset, tag: BaseTag, rule: Rule) -> DataElement | None:
        try:
            return _ACTIONS[rule.action](self, ds[tag], rule)
        except INVALID_VALUE:
            # A value that does not fit its VR is none that the profile lets stay.
            return None

    def number(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        vrs = dictionary_VR(element.tag)
        values = _values(element)
        if element.VR not in vrs.split(" or ") or not all(map(_is_number, values)):
            return None
        if element.VR == "AT" and not all(map(dictionary_has_tag, values)):
            return None
        return DataElement(element.tag, element.VR, element.value)

    def term(self, element: DataElement, rule: Rule) -> DataElement | None:
        other = "OTHER" if "OTHER" in rule.terms else None
        stripped = (str(value).strip() for value in _values(element))
        terms = [term if term in rule.terms else other for term in stripped]
        return _new(element.tag, [term for term in terms if term is not None])

    def uid(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        uids = [str(value) for value in _values(element)]
        if not all(map(_UID_FORM.fullmatch, uids)):
            return None
        return _new(element.tag, [self.pseudonymiser.uid(uid) for uid in uids])

    def date(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        days = [_day(str(value)) for value in _values(element)]
        return _new(element.tag, [f"{day - self.shift:%Y%m%d}" for day in days if day is not None])

    def sequence(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        if element.VR != "SQ":
            return None
        return DataElement(element.tag, "SQ", [self.dataset(item) for item in element.value])

    def code(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        known = [code for item in element.value if (code := standard_code(item)) is not None]
        return DataElement(element.tag, "SQ", list(map(_as_item, known))) if known else None

    def fixed(self, element: DataElement, rule: Rule) -> DataElement:
        return DataElement(element.tag, dictionary_VR(element.tag), rule.value)

    def pixels(self, element: DataElement, rule: Rule) -> DataElement | None:
        del rule
        if not isinstance(element.value, bytes):
            return None
        return DataElement(element.tag, element.VR, element.value, is_undefined_length=element.is_undefined_length)


_ACTIONS: dict[Action, Callable[[_Cleaner, DataElement, Rule], DataElement | None]] = {
    Action.NUMBER: _Cleaner.number,
    Action.TERM: _Cleaner.term,
    Action.UID: _Cleaner.uid,
    Action.DATE: _Cleaner.date,
    Action.SEQUENCE: _Cleaner.sequence,
    Action.CODE: _Cleaner.code,
    Action.FIXED: _Cleaner.fixed,
    Action.PIXELS: _Cleaner.pixels,
}


def _values(element: DataElement) -> list[Any]:
    value = element.value
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _new(tag: BaseTag, values: list[str]) -> DataElement | None:
    """Return an element of the dictionary's VR, or None where no value is left."""
    if not values:
        return None
    return DataElement(tag, dictionary_VR(tag), values[0] if len(values) == 1 else values)


def _day(text: str) -> datetime | None:
    """Return the day of a DA or DT value, or None if it is none."""
    try:
        day = datetime.strptime(text[:8], "%Y%m%d")  # a calendar day has no zone  # noqa: DTZ007 -- a DICOM date has no zone
    except ValueError:
        return None
    return day if day.year >= _EARLIEST_YEAR else None


def _segment_label(segment: Dataset) -> str:
    kinds: Iterable[Dataset] = segment.get("SegmentedPropertyTypeCodeSequence") or ()
    return next((str(kind.CodeMeaning)[:_MAX_LABEL] for kind in kinds), "REMOVED")


def _as_item(code: Code) -> Dataset:
    return _code_item(code.value, code.scheme_designator, code.meaning)


def _code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """Return an item of a code sequence. Source: PS3.3 table 8.8-1."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, scheme
    item.CodeMeaning = meaning[:_MAX_LABEL]
    return item
