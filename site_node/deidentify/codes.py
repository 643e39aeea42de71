"""Coded concepts of the standard's own dictionaries.

A code is kept only if it is found there, or has the form its coding scheme gives to codes, check digit included; its
meaning is one the dictionary has for it. What a file says about itself is never repeated. A private scheme may hold
anything: its codes stay only when they are made of the words of defined terms.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

from site_node.deidentify.dates import calendar_day
from site_node.deidentify.terms import code_string_ok

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

# PS3.16 section 8: the schemes whose concepts images carry; SRT was SNOMED CT's name until 2019, the others before.
_SCHEMES = ("DCM", "SCT", "FMA", "NEU", "RADLEX")
_SNOMED = "SCT"
_LEGACY_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
_REMEMBERED = 16384  # concepts; a study has tens
_CODE_VALUE = 0x00080100

# UCUM: a number, or one atom of the units that images carry with its prefix, exponent and annotation.
_UNIT = (
    r"(?:1|100?|%|10[*^]-?[0-9]|(?:[YZEPTGMkhdcmunpfa]|da)?"
    r"(?:m|g|s|l|L|Hz|Bq|Ci|Gy|Sv|eV|V|A|C|J|K|N|W|T|F|Pa|bar|rad|Cel|mol|mo|min|h|d|wk|a|deg|U|dB|lm|lx|cd|ppm"
    r"|\[hnsf'U\]|\[ppm\]|\[in_i\]|\[degF\]|m\[Hg\]|\[lb_av\])(?:-?[1-6])?)(?:\{[A-Za-z]{1,8}\})?"
)

# PS3.16 table 8-1: coding schemes that others define, and the form of their codes.
_FORMS = {
    "DCM": r"1[0-3][0-9]{4}",
    "SCT": r"[0-9]{3,15}[01]0[0-9]",  # the partition before the check digit: a concept
    "SRT": r"[A-Z][A-Z0-9]?-[0-9A-F]{4,5}",
    "SNM3": r"[A-Z][A-Z0-9]?-[0-9A-F]{4,5}",
    "99SDM": r"[A-Z][A-Z0-9]?-[0-9A-F]{4,5}",
    "LN": r"[0-9]{1,5}-[0-9]",
    "UCUM": rf"/?{_UNIT}(?:[./]{_UNIT}){{0,3}}",
    "RADLEX": r"RID[0-9]{1,5}",
    "RADELEMENT": r"RDE(S)?[0-9]{1,4}",
    "I9C": r"[0-9EV][0-9]{1,3}(\.[0-9]{1,2})?",
    "I10": r"[A-Z][0-9]{2}(\.[0-9]{1,2})?",
    "I10C": r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?",
    "I10P": r"[0-9A-HJ-NP-Z]{7}",
    "ICDO3": r"C[0-9]{2}(\.[0-9])?|[0-9]{4}/[0-9]",
    "C4": r"[0-9]{4}[0-9FTU]",
    "CPT": r"[0-9]{4}[0-9FTU]",
    "HCPCS": r"[A-V][0-9]{4}",
    "FMA": r"[0-9]{1,6}",
    "NEU": r"[0-9]{1,4}",
    "UMLS": r"C[0-9]{7}",
    "NCIt": r"C[0-9]{1,6}",
    "MDC": r"[0-9-]{1,8}",
    "UBERON": r"[0-9]{7}",
    "ISO3166_1": r"[A-Z]{2,3}",
    "ISO639_1": r"[a-z]{2}",
    "ISO639_2": r"[a-z]{3}",
    "RFC5646": r"[a-z]{2,3}(-[A-Z]{2})?",
    "RXNORM": r"[0-9]{1,7}",
    "ITIS_TSN": r"[0-9]{1,7}",
    "PUBCHEM_CID": r"[0-9]{1,9}",
    "MSH": r"[CD][0-9]{6,9}",
    "BI": r"[0-9]{1,2}",
    "ACR": r"[0-9]{1,3}(\.[0-9]{1,4})?",
    "MA": r"MA:[0-9]{7}",
    "POS": r"[0-9]{2}",
    "NDC": r"[0-9-]{10,13}",
    "JJ1017": r"[0-9]{16}",
    "JJ1017T": r"[0-9]{8}",
    "JJ1017P": r"[0-9]{16}",
    "SCPECG": r"[0-9]{1,2}(\.[0-9]{1,2}){1,3}(-[0-9]{1,2}){0,3}",
}


# PS3.16 table 8-1: designators of schemes whose codes have no form given here.
_DESIGNATORS = (
    "99SDM AS4 ASTM-sigpurpose BARI C5 CD2 CDT DC E E5 E6 E7 FDDC FDDX FDK HB HL7 HPC I9 IBT IC2 ICDO ICS IUPC IUPP "
    "JC8 LB LOINC MCD MCR MDDX MEDR MEDX MGPI MVX NDA NIC NND PATHLEX RC RFC3066 SDM SNM UC UMD UML UPC W1 W2 W4 WC"
)


# A version of a scheme: its number, the year or the day of its release, or one of its names; 02.04.85 is a day.
_RELEASE = re.compile(
    r"[vV]?[0-9]{1,2}(?:\.[0-9]{1,3}|\.[0-9]\.[0-9]{1,2})?|(?:199|20[0-4])[0-9](?:[a-f]|A[AB])?|SNM3|V3|R[45]"
)
_FIRST_RELEASE = 1990


def version_ok(version: str) -> bool:
    """Say whether text is a version of a coding scheme: 2.16, 20160314, 2026d. Source: PS3.3 table 8.8-1."""
    day = calendar_day(version) if len(version) == len("20160314") and version.isdecimal() else None
    return _RELEASE.fullmatch(version) is not None or (day is not None and day.year >= _FIRST_RELEASE)


def standard_code(item: Dataset) -> Code | None:
    """Return the concept of a code sequence's item, with the dictionary's meaning, or None.

    Source: PS3.3 section 8 (code sequence macro); legacy SNOMED codes come out as SNOMED CT.
    """
    from pydicom.sr.coding import Code  # noqa: PLC0415 -- slow, and the profile itself needs no pydicom

    scheme, value = canonical(str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeValue", "")))
    wordings = _dictionary().get((scheme, value)) if scheme in _SCHEMES else None
    return None if wordings is None else Code(value, scheme, wordings[0])


def canonical(scheme: str, value: str) -> tuple[str, str]:
    """Return a concept's scheme and code, legacy SNOMED codes as those of SNOMED CT where they have one."""
    if scheme in _LEGACY_SNOMED and value in _legacy_snomed():
        return _SNOMED, _legacy_snomed()[value]
    return scheme, value


@lru_cache(maxsize=_REMEMBERED)
def meaning(scheme: str, value: str, stated: str = "") -> str | None:
    """Return the meaning of a concept: `stated` if the dictionary has this wording, else its shortest, else None.

    Source: PS3.16, the codes of its context groups and of annex D.
    """
    wordings = _dictionary().get(canonical(scheme, value))
    if wordings is None:
        return None
    folded = " ".join(stated.casefold().split())
    return stated if any(folded == wording.casefold() for wording in wordings) else wordings[0]


@lru_cache(maxsize=_REMEMBERED)
def code_ok(scheme: str, value: str) -> bool:
    """Say whether a code may stay: known, or of its scheme's form, or made of the words of defined terms."""
    if canonical(scheme, value) in _dictionary():
        return True
    form = _forms().get(scheme)
    if form is None:
        return code_string_ok(_CODE_VALUE, value)
    return form.fullmatch(value) is not None and _checks(scheme, value)


@lru_cache(maxsize=_REMEMBERED)
def scheme_ok(scheme: str) -> bool:
    """Say whether a designator is that of a scheme of PS3.16, or a private one (99...) made of known words."""
    if scheme in _forms() or scheme in _schemes():
        return True
    name = scheme.removeprefix("99")
    return any(map(str.isalpha, name)) and code_string_ok(_CODE_VALUE, name)


def _checks(scheme: str, value: str) -> bool:
    """Say whether the check digit holds, where the scheme has one: a record number is not taken for a code."""
    if scheme == _SNOMED:
        return _verhoeff(value)
    if scheme == "LN":
        return _luhn(value.replace("-", ""))
    return True


# The tables of the Verhoeff check (SNOMED CT Technical Implementation Guide, appendix on check digits): the dihedral
# group of order 10, and a permutation applied once more at each place.
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
_ROTATIONS = 5


def _verhoeff(digits: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(digits)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = _PERMUTATION[turned]
        check = _multiply(check, turned)
    return check == 0


def _multiply(a: int, b: int) -> int:
    """Return the product of two elements of the dihedral group: 0-4 are rotations, 5-9 reflections."""
    if a < _ROTATIONS:
        return (a + b) % _ROTATIONS + (0 if b < _ROTATIONS else _ROTATIONS)
    return (a - b) % _ROTATIONS + (_ROTATIONS if b < _ROTATIONS else 0)


def _luhn(digits: str) -> bool:
    """LOINC's check digit: modulus 10 over alternately doubled digits."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value // 10 + value % 10 for value in doubled) % 10 == 0


@cache
def _forms() -> Mapping[str, re.Pattern[str]]:
    return {scheme: re.compile(form) for scheme, form in _FORMS.items()}


@cache
def _schemes() -> frozenset[str]:
    return frozenset(_DESIGNATORS.split()).union(scheme for scheme, _ in _dictionary())


@cache
def _dictionary() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return the wordings of every known concept, the shortest first."""
    # 15 000 rows that a file without coded concepts never needs; pydicom publishes them under this name alone.
    from pydicom.sr._concepts_dict import concepts  # noqa: PLC0415

    tables = cast("dict[str, dict[str, dict[str, tuple[str, list[int]]]]]", concepts)
    known: dict[tuple[str, str], set[str]] = {}
    for scheme, keywords in tables.items():
        for codes in keywords.values():
            for value, (wording, _) in codes.items():
                # Some wordings carry invisible spaces for line breaks.
                known.setdefault((scheme, value), set()).add(wording.replace("\u200b", ""))
    return {
        key: tuple(sorted(wordings, key=lambda wording: (len(wording), wording))) for key, wordings in known.items()
    }


@cache
def _legacy_snomed() -> Mapping[str, str]:
    # pydicom publishes this table under this name alone.
    from pydicom.sr._snomed_dict import mapping  # 10 000 rows, seldom needed  # noqa: PLC0415

    legacy: Mapping[str, str] = mapping["SRT"]
    return legacy
