"""Coded concepts of the standard's own dictionaries.

A code is kept only if it is found there, and its meaning is taken from there: what a file says
about itself is never repeated. Does not know private schemes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pydicom.sr.codedict import Collection

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

# PS3.16 section 8: the schemes whose concepts images carry; SRT was SNOMED CT's name until 2019.
_SCHEMES = ("DCM", "SCT", "FMA", "NEU", "RADLEX")
_LEGACY_SNOMED = "SRT"


def standard_code(item: Dataset) -> Code | None:
    """Return the concept of a code sequence's item, with the dictionary's meaning, or None.

    Source: PS3.3 section 8 (code sequence macro); legacy SNOMED codes come out as SNOMED CT.
    """
    value, scheme = str(item.get("CodeValue", "")), str(item.get("CodingSchemeDesignator", ""))
    if scheme == _LEGACY_SNOMED:
        return _legacy_snomed().get(value)
    return _dictionary().get((scheme, value))


@cache
def _dictionary() -> dict[tuple[str, str], Code]:
    """Return every known concept; of several wordings the shortest."""
    known: dict[tuple[str, str], Code] = {}
    for scheme in _SCHEMES:
        concepts = Collection(scheme).concepts.values()
        for code in sorted(concepts, key=lambda code: (-len(code.meaning), code.meaning)):
            known[scheme, code.value] = code
    return known


@cache
def _legacy_snomed() -> dict[str, Code]:
    mapping = _snomed_mapping()
    dictionary = _dictionary()
    pairs = ((old, dictionary.get(("SCT", new))) for old, new in mapping.items())
    return {old: code for old, code in pairs if code is not None}


def _snomed_mapping() -> dict[str, str]:
    # pydicom publishes this table under this name alone.
    from pydicom.sr._snomed_dict import mapping  # 10 000 rows, seldom needed  # noqa: PLC0415 -- a large table, only for segmentations

    return mapping["SRT"]
