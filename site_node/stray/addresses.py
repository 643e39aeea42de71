"""Streets with a number, as English, German, Dutch, French, Italian and Spanish write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from site_node.second_look.folding import fold
from site_node.stray.finding import Confidence, Kind, Match

if TYPE_CHECKING:
    from collections.abc import Iterator

_CAPITAL = r"[A-Z\u00c0-\u00de][\w'\u2019-]*"
_ARTICLES = r"(?:(?:de|du|des|la|le|les|del|della|dei|di|da|do|dos|el)\s|l'|d')*"
_TYPES = (
    "Street|Avenue|Road|Lane|Drive|Boulevard|Court|Terrace|Crescent|Close|Trail|Square|Parkway|Way|Place|Highway"
    "|St|Ave|Rd|Ln|Dr|Blvd|Ct|Pl"
)
_ENDINGS = "stra(?:\u00df|ss)e|str\\.|weg|platz|allee|gasse|ring|straat|laan|plein|gracht|singel"
_BEGINNINGS = (
    "rue|avenue|boulevard|chemin|impasse|calle|avenida|plaza|paseo|via|viale|corso|piazza|rua|largo|vicolo|strada"
    "|urbanizaci\u00f3n|pasaje|ronda|camino|ulica|plac|ul\\.|aleja"
)
_FRENCH = "rue|avenue|boulevard|chemin|all\u00e9e|impasse|quai|place"
_BEFORE = "wohnhaft"
_STREETS = re.compile(
    rf"""(?<![\w.-])\d{{1,5}}[a-z]?,?\s(?:[NSEW]\.?\s)?(?:{_CAPITAL}\s){{1,4}}(?:{_TYPES})\b(?:\.|(?!\w))
    |(?<![\w-])(?:{_CAPITAL}[\s-])?{_CAPITAL}(?:{_ENDINGS})\s\d{{1,4}}\s?[a-z]?\b
    |(?<![\w-])(?:Stra(?:\u00df|ss)e|Weg|Platz|Allee)\s\d{{1,4}}\b
    |(?<![\w-])(?:\d{{1,4}}(?:\s?(?:bis|ter))?,?\s)?(?i:{_BEGINNINGS})\s{_ARTICLES}{_CAPITAL}(?:\s{_CAPITAL}){{0,3}},?\s(?:n[\u00ba\u00b0.]?\s?)?\d{{1,4}}\b
    |(?<={_BEFORE}\s)[^,;\n]{{4,60}}?,?\s\d{{1,4}}\b
    |(?<![\w-])\d{{1,4}},?\s(?:{_FRENCH})\s{_ARTICLES}{_CAPITAL}
    """,
    re.VERBOSE,
)
# Words without which no street is written, looked for many times as fast; the second in small letters.
_DIGIT, _TYPE = re.compile(r"\d"), re.compile(rf"\s(?:{_TYPES})\b")
_WORDS = re.compile(rf"(?:{_ENDINGS}|{_BEGINNINGS}|{_FRENCH}|{_BEFORE})\s")


def addresses(text: str) -> Iterator[Match]:
    """Yield streets with their numbers."""
    if _DIGIT.search(text) and (_TYPE.search(text) or _WORDS.search(text.lower())):
        for match in _STREETS.finditer(text):
            yield Match(Kind.ADDRESS, "street-and-number", Confidence.LIKELY, *match.span(), fold(match[0]))
