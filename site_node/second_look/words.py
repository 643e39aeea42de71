"""How this pass compares words: folded, split, and told from the language of radiology.

Its word list is made from DICOM's dictionary and standard codes, not from the one that cleans text.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from pydicom._dicom_dict import DicomDictionary

from site_node.second_look.folding import fold

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# What stands in person names, addresses and institutions of many people, and in names that say nobody.
_COMMON = frozenset(
    [
        "anonymous",
        "anonymized",
        "anonymised",
        "unknown",
        "none",
        "removed",
        "patient",
        "name",
        "test",
        "dummy",
        "unspecified",
        "referring",
        "doctor",
        "phys",
        "physician",
        "http",
        "https",
        "www",
        "com",
        "org",
        "net",
        "edu",
        "gov",
        "example",
        "wado",
        "local",
        "hospital",
        "hospitals",
        "clinic",
        "clinics",
        "klinik",
        "klinikum",
        "center",
        "centre",
        "centro",
        "general",
        "university",
        "universitaet",
        "medical",
        "medicine",
        "med",
        "ctr",
        "institute",
        "institut",
        "department",
        "dept",
        "imaging",
        "radiology",
        "health",
        "healthcare",
        "saint",
        "san",
        "santa",
        "street",
        "road",
        "avenue",
        "lane",
        "drive",
        "way",
        "north",
        "south",
        "east",
        "west",
        "upper",
        "lower",
        "room",
        "floor",
        "ward",
        "unit",
        "group",
        "service",
        "services",
        "the",
        "and",
        "for",
        "of",
        "von",
        "van",
        "der",
        "den",
        "del",
        "della",
        "das",
        "mrs",
        "prof",
    ]
)
# Words of everybody, and of diseases and views called after somebody, that are surnames too.
_SURNAMES = frozenset(
    [
        "addison",
        "alzheimer",
        "baker",
        "barrett",
        "bell",
        "berry",
        "black",
        "brown",
        "chiari",
        "crohn",
        "cushing",
        "down",
        "ewing",
        "fields",
        "foot",
        "graves",
        "gray",
        "green",
        "hand",
        "head",
        "hodgkin",
        "huntington",
        "little",
        "long",
        "marfan",
        "paget",
        "parkinson",
        "rose",
        "short",
        "stone",
        "turner",
        "water",
        "waters",
        "white",
        "wilms",
        "wilson",
        "wood",
        "young",
    ]
)


@lru_cache(maxsize=16384)
def words(text: str) -> tuple[str, ...]:
    """Return the words of `text`, folded, in order."""
    return tuple(_WORD.findall(fold(text)))


def spelled_out(text: str) -> str:
    """Return `text` folded with umlauts written as two letters, as in Mueller."""
    return fold(re.sub("[äöüÄÖÜ]", lambda match: match.group() + "e", text))


@cache
def technical() -> frozenset[str]:
    """Return the words that an instance may say of anybody, folded."""
    from pydicom.sr._concepts_dict import concepts  # noqa: PLC0415 -- slow, and only what looks needs it

    said = {word for entry in DicomDictionary.values() for word in words(entry[2])}
    for scheme in concepts.values():
        for keyword in scheme:
            said.update(words(_CAMEL.sub(" ", keyword)))
    return frozenset(said | _COMMON | _SURNAMES)
