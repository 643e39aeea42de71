"""What is identifying in any text by its shape: dates, times, numbers, telephones, addresses, rooms.

Nothing here knows the instance. Ages go too, since the profile removes the patient's age.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from site_node.deidentify.identities import Span, fold, merged, written_days
from site_node.deidentify.vocabulary import contexts, vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTHS = (
    "jan(?:uary|uar|uari|vier)?|feb(?:ruary|ruar|ruari)?|mar(?:ch|zo)?|mär[zs]?|maerz|mrz|apr(?:il)?|may|mai|june?|juni"
    "|july?|juli|aug(?:ust)?|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?|janv|f[ée]vr(?:ier)?|avril"
    "|juin|juillet|août|aout|septembre|octobre|novembre|décembre|enero|febrero|abril|mayo|junio|julio|agosto|septiembre"
    "|octubre|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|maart|mei"
    "|augustus"
)
_STREET = (
    "street|avenue|road|lane|drive|boulevard|court|terrace|place|square|parkway|highway|way|crescent|close|trail|turnpike"
    "|circle|plaza|alley|st|ave|rd|ln|dr|blvd|ct|pl|pkwy|hwy|sq|ter"
)
# Words that end a street's name and are technical words as well: 5 VIEWS CHEST ST.
_UNSURE_STREET = frozenset(
    ["st", "rd", "ln", "dr", "ct", "pl", "ter", "sq", "ave", "way", "close", "place", "circle", "square"]
)
_LABELS = (
    r"mrn|pid|pat(?:ient)?[ -]?(?:id|nr|no)|patid|patnr|acc(?:ession)?(?:[ -]?(?:no|nr|number))?|acct|account|ssn|nhs"
    r"|nhi|ahv|insurance|policy|versicherung\w*|fall(?:nummer|nr|-nr)"
    r"|case[ -]?(?:id|no)|licen[cs]e|plate|serial|s/n|sn"
    r"|phone|tel|telefon|telephone|telefax|fax|mobile?|handy|ext|pager|cell|order|auftrag\w*|study[ -]?id"
    r"|exam[ -]?(?:id|no)|id|hn|hosp(?:ital)?[ -]?(?:no|nr|id)|dob|born|geb(?:oren)?|d\.o\.b\.?|vin|passport|badge"
    r"|visit|encounter|kvnr|bsn|pesel|svnr|dni|cpf|iban"
)
# What follows a group of digits that is a measurement, and is no further group of a number.
_UNIT = r"(?!\s?(?:mm|cm|m|ms|s|sec|hz|khz|kv|kvp|ma|mas|hu|x|ml|cc|kg|g|min|slices|views|%|°)\b)"
_FURTHER = rf"(?:[^\S\n]{{1,2}}(?:\d{{2,}}|\d(?=\s\d))(?:[\d./-]*\d)?(?![\w.]\d){_UNIT}\b)"
_AGE = "ages?|aged|âge|alter|edad|età|leeftijd|idade|(?:pt|patient)\\sis"
_OLD = r"(?:9\d|1[01]\d)"  # years that 45 CFR 164.514(b)(2)(i)(C) lets nobody tell

_ROOM = "room|rm|bed|zimmer|zi|bett|ward|station|suite|apt|box|chambre|lit|cama|stanza|letto|kamer|habitaci[oó]n"
_SINCE = (
    "since|from|seit|von|depuis|desde|dal|sinds|year|jahr|année|año|dated?|datum|prior|vom|in|of|im|en|nel|born|geb"
)
_ARTICLES = "(?:(?:de|du|des|la|le|les|del|della|dei|di|da|do|dos|el|l')\\s?)*"
_RUE = "rue|boulevard|chemin|allée|impasse|quai|calle|avenida|plaza|paseo|via|viale|corso|piazza|rua|largo"
_DOMAIN = "com|org|net|edu|gov|de|fr|es|it|nl|ch|at|uk|eu|info|local|lan"

_REACH = re.compile(
    rf"""[\w.+-]+\s?@\s?[\w-]+(?:\.[\w-]+)*
    |(?:https?|ftp|dicom|file)://\S+|\bwww\.\S+|\\\\[\w.-]+\\\S+|\b[\w-]+\.(?:{_DOMAIN})\b(?:/\S*)?""",
    re.VERBOSE | re.IGNORECASE,
)
# Read in lower case, which is faster than regardless of case.
_NUMBERED = re.compile(
    rf"""
    \b\d{{1,3}}(?:\.\d{{1,3}}){{3,}}\b|\b[0-9a-f]{{2}}(?:[:-][0-9a-f]{{2}}){{5}}\b                           # IP, MAC
    |\b\d+(?:\.\d+){{4,}}\b                                                                            # UID
    |(?<![\w.])(?:\+|00)\d[\d\s()./-]{{5,}}\d|\(\d{{2,5}}\)\s?\d[\d\s/-]{{2,}}\d                         # telephone
    |(?<![\w.])\d{{3}}[\s.-]\d{{3}}[\s.-]\d{{4}}\b|(?<![\w.])0\d{{1,4}}[\s/-]\d[\d\s-]{{4,}}\d
    |\b(?:mrn|pid|patid|acc|acct|ssn|nhs|hn)[-_]?\d[\w./-]*                                              # MRN285
    |\b(?:{_LABELS})\b\.?(?:\s*(?:no|nr|number|num)\b\.?)?\s*[:#=.]?\s*\#?\s*
        (?P<value>(?:[a-z]\s(?=\d{{3}}))?[a-z]{{0,6}}[-/.]?\d[\w./-]*{_FURTHER}*)
    |\b(?:no|nr|num)[.:]\s?(?P<count>\d{{3,}}{_FURTHER}*)\b{_UNIT}|\b(?:pat|patient|pt)\b\.?\s?[:\#]?\s?(?P<of>\d{{3,}}{_FURTHER}*)\b{_UNIT}
    |\#\s?[a-z]{{0,4}}-?\d[\w-]*
    |\b(?:{_MONTHS})\b\.?[\s,/-]{{0,2}}'?(?:19|20)?\d\d\b(?!\s?(?:mm|cm|ms))                              # a month
    |\b(?:0?[1-9]|1[0-2])[/.](?:19|20)\d\d\b|\b(?:19|20)\d\d[/-](?:0[1-9]|1[0-2])\b
    |\b(?:{_SINCE})\b[.:]?\s+(?P<year>(?:19|20)\d\d)\b(?!\s?(?:mm|ms|hz|x))
    |\b(?:[01]?\d|2[0-3])[:h][0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:\s?[ap]\.?m\b\.?|\s?uhr\b|\s?hrs?\b)?(?!\d) # a time
    |\b(?:1[0-2]|0?[1-9])\s?[ap]\.?m\b|\b(?:[01]?\d|2[0-3])[.:]?[0-5]\d\s?(?:uhr|hrs?|h)\b
    |\b\d{{1,3}}(?=[\s-]*(?:y/?o\b|yrs?\b|years?|-?j[äa]e?hrig\w*|j\.|jahre|ans\b|años|anni|jaar))          # an age
    |\b0\d\d[ymwd]\b|\b\d{{2,3}}\s?yo?\b|\b(?:{_AGE})\b\s?[:=]?\s?(?P<age>\d{{1,3}})\b|\b\d{{1,3}}\s?[歳才岁歲세]
    |\b{_OLD}[\s/-]?[fmwj]\b|\b[fmw]/{_OLD}\b
    |\b(?:{_ROOM})\b\.?\s?[:\#]?\s?(?P<number>[a-z]?-?\d{{1,4}}[a-z]?)\b
    |\b[a-z]{{1,2}}\d[a-z\d]?\s\d[a-z]{{2}}\b|\b[a-z]\d[a-z]\s?\d[a-z]\d\b|\b[a-z]{{1,2}}-\d{{4,5}}\b      # a postcode
    |\b\d{{1,5}}[a-z]?,?\s+(?:[nsew]\.?\s+)?(?P<street>(?:[a-z0-9][\w'.-]*\s+){{1,4}}(?:{_STREET}))\b\.?
    |\b[\w-]*(?:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse|damm|straat|laan|plein|gracht)\s?\d{{1,4}}\s?[a-z]?\b
    |\b(?:\d{{1,4}}\s?(?:bis|ter)?,?\s+)?(?:{_RUE})\s+{_ARTICLES}[a-zà-þ][\w'-]*(?:\s+[a-zà-þ][\w'-]*){{0,2}}
        (?:[,\s]+(?:n[º°.]?\s?)?\d{{1,4}}\b)?
    """,
    re.VERBOSE,
)
_PARTS = ("value", "count", "of", "year", "age", "number")  # what goes alone, without the word before it
# Long numbers, and short ones in groups; decimals are no identifiers until they are long.
_LONG = re.compile(r"(?<![\w.])\d+(?:[-/]\d+)+(?!\w)|(?<![\d.])\d{5,}|(?<=\d\.)\d{8,}")
# Two numbers of up to three digits are a range, a ratio or a blood pressure.
_RANGE = re.compile(r"\d{1,3}[-/]\d{1,3}")
# Groups of digits apart by blanks: of a telephone or a register's number, or of a matrix, b-values, delays.
_GROUPS = re.compile(
    rf"(?<![\w.,/:-])\d{{1,4}}(?:[^\S\n]{{1,2}}\d{{1,4}}){{1,5}}(?![\w/:-]|[.,]\d){_UNIT}", re.IGNORECASE
)
_GROUPED_DIGITS = range(7, 17)
_LARGE_GROUP = 3
_ROUND = (8, 10, 25)  # what measurements are multiples of
_PARAMETER = re.compile(r"([^\W\d_]+)[\s:=]*$")
_CENTURY = re.compile(r"(?:19|20)\d\d")
_VERSION = re.compile(r"\b(?:v|ver|vers|version|release|rev)[. ]*$", re.IGNORECASE)
_VERSION_REACH = 10


def shapes(text: str) -> list[Span]:
    """Return the places in `text` that identify by their shape, merged."""
    found = (
        [m.span() for m in _REACH.finditer(text)] if "@" in text or "." in text or "\\" in text or "/" in text else []
    )
    if any(map(str.isdigit, text)):
        found += _numbered(text)
        found += (m.span() for m in _LONG.finditer(text) if not _RANGE.fullmatch(m[0]))
        found += (m.span() for m in _GROUPS.finditer(text) if not _measures(m[0].split(), text[: m.start()]))
        found += ((start, end) for start, end, days in written_days(text) if _dated(text, start, end, sure=bool(days)))
    return merged(found)


def _numbered(text: str) -> Iterator[Span]:
    low = text.lower()
    if len(low) != len(text):
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    place = 0
    while match := _NUMBERED.search(low, place):
        street = match["street"]
        if street and not _is_street(street):
            place = match.start() + 1
            continue
        place = match.end()
        part = next((name for name in _PARTS if match[name]), 0)
        yield match.span(part)


def _measures(groups: list[str], before: str) -> bool:
    """Return whether groups of digits are measurements: few digits, round or repeated numbers, or a parameter's."""
    if sum(map(len, groups)) not in _GROUPED_DIGITS or max(map(len, groups)) < _LARGE_GROUP:
        return True
    parameter = _PARAMETER.search(before[-_VERSION_REACH:])
    if parameter and fold(parameter[1]) in contexts()["parameters"]:
        return True
    if any(len(group) > 1 and group[0] == "0" for group in groups):
        return False
    large = [int(group) for group in groups if len(group) >= _LARGE_GROUP]
    return len(set(large)) < len(large) or all(any(n % step == 0 for step in _ROUND) for n in large)


def _is_street(street: str) -> bool:
    """Return whether words after a number are a street's: one that ends in St or Dr holds no technical word."""
    *words, last = (fold(word.strip(".,'")) for word in street.split())
    return last not in _UNSURE_STREET or not any(vocabulary().technical(word) for word in words if word != "main")


def _dated(text: str, start: int, end: int, *, sure: bool) -> bool:
    """Return whether a written day is one: it is in the calendar, or a month's name says so."""
    written = text[start:end]
    if any(map(str.isalpha, written)):
        return sure or not any(fold(word) in contexts()["unsure-months"] for word in re.findall(r"[^\W\d_]+", written))
    if _CENTURY.search(written):
        return sure
    version = _VERSION.search(text[max(0, start - _VERSION_REACH) : start])
    return sure and " " not in written.strip() and not version
