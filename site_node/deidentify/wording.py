"""What each word of a text is, taken alone: a word, a code of the technique, a name, or nothing known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

from site_node.deidentify.identities import Span, fold
from site_node.deidentify.vocabulary import Mark, contexts, vocabulary


class Verdict(Enum):
    """What a token is, and when it goes."""

    WORD = auto()  # stays whatever stands beside it
    DOUBLE = auto()  # a word that is a name too: goes beside a title, a given name, an initial
    LETTER = auto()  # one letter: goes beside a name
    NUMBER = auto()  # stays unless it belongs to what goes
    CODE = auto()  # letters and digits of the technique
    NAME = auto()  # goes unless it is medicine's or in prose
    EPONYM = auto()  # stays unless a person is meant
    GIVEN = auto()  # a given name: goes, and what follows is a surname
    UNKNOWN = auto()  # goes


_VERDICTS = {
    Mark.TECHNICAL: Verdict.WORD,
    Mark.TECHNICAL_NAME: Verdict.DOUBLE,
    Mark.PLAIN: Verdict.WORD,
    Mark.PLAIN_NAME: Verdict.DOUBLE,
    Mark.NAME: Verdict.NAME,
    Mark.EPONYM: Verdict.EPONYM,
    Mark.EPONYM_IN_CONTEXT: Verdict.NAME,
}
# A tuple, since members of an Enum are hashed slowly.
NAMELIKE = (Verdict.DOUBLE, Verdict.NAME, Verdict.EPONYM, Verdict.GIVEN, Verdict.UNKNOWN)
TOKEN = re.compile(r"[^\W_]+(?:['\u2019`\u00b4][^\W\d_]{1,2}(?![^\W_]))?")
_POSSESSIVE = re.compile(r"['\u2019`\u00b4][^\W\d_]{1,2}$")


_CODE_RUN = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
# Sizes of a matrix or a voxel, and levels of the spine: 512x512, L4L5.
_SIZES = re.compile(r"\d{1,4}(?:x\d{1,4}){1,3}(?:mm|cm)?|(?:[ctls]\d{1,2}){2,3}")
# Kernels and weightings, whatever the vendor: B30f, Br40d, T2, 3D.
_SHORT_CODE = re.compile(r"(?=(?:\D*\d){1,2}\D*$)(?=(?:\d*\D){1,3}\d*$)(?:\D{1,2}\d+\D{0,2}|\d+\D{1,2}\d*)")
_PARAMETER_DIGITS = 4
_NAMED_DIGITS = 3
_LONG_ENOUGH_TO_NAME = 3
# Endings of other forms of a technical word, and how long the word must be: Knochens, Bronchien.
_INFLECTIONS = (("s", 5), ("e", 7), ("n", 7), ("en", 6), ("er", 7), ("es", 6), ("em", 6))
_COMPOUND_PART = 4
_AFTER_PREFIX = {Mark.TECHNICAL: 5, Mark.PLAIN: 8}
# Endings that make a word of medicine of any stem, and beginnings that leave a word a word.
_MEDICAL_ENDING = re.compile(
    r"""...(?:(?<!a)itis|itides|carcinomas?|sarcomas?|adenomas?|blastomas?|cytomas?|angiomas?|fibromas?|gliomas?|lipomas?|[bcdfglmnprtx]iomas?|ectom(?:y|ies)|ostom(?:y|ies)
    |otom(?:y|ies)|opath(?:y|ies|ic)|oplast(?:y|ies)|ograph(?:y|ic|ies|ie)|ogram(?:s|me)?|emia|aemia|uria|algia|troph(?:y|ic|ies)|plas(?:ia|tic)|topi[ac]|ocele|oscop(?:y|ic|ies)|ectas(?:is|ia|es)
    |malacia|megaly|penia|plegi[ac]|rrhag(?:e|ic)|rrhea|scleros(?:is|es)|stenos(?:is|es)|thorax|lith(?:iasis|s)?|iasis|osteal|vascular|genesis|genic|lys(?:is|tic)|ptysis|phagia|pn(?:ea|oea)|desis|centesis
    |clas(?:is|tic)|odynia|ocyt(?:e|es|ic)|osteoph?yt(?:e|es|ic)|arthro(?:sis|tic)|necros(?:is|es)|fibros(?:is|es)|phytosis|ocytosis|spasm|trop(?:ia|ion)|opsia|ometry|ometric|ectomized)$""",
    re.VERBOSE,
)
_PREFIX = re.compile(
    """hyper|hypo|peri|para|intra|extra|retro|sub|supra|infra|inter|trans|post|pre|anti|non|neo|poly|micro|macro|multi|un|re|bi|uni|hemi|semi|endo|epi|
    juxta|mid|antero|postero|infero|supero|medio|latero|dorso|ventro|cranio|caudo|cardio|pulmo|pneumo|hydro|haemo|hemo|thoraco|lumbo|sacro|ilio|femoro|tibio|
    talo|naviculo|costo|sterno|cervico|fronto|parieto|temporo|occipito|osteo|fibro|broncho|angio|arterio|veno|gastro|entero|hepato|spleno|nephro|uretero|
    neuro|radio|echo|immuno|chemo|vertebro|cranial|gluco|thrombo|chondro|sclero""".replace("\n", "").replace(" ", "")
)


@dataclass(slots=True)
class Token:
    """A word or number of a text: where it stands, its folded word, what it is, and whether it goes."""

    start: int
    end: int
    text: str
    word: str
    verdict: Verdict
    gone: bool
    capital: bool  # it begins with one
    given: bool  # people have it for a given name
    particle: bool
    cue: bool  # it says something of the words beside it


def tokens_of(text: str, shapes: list[Span], keep: frozenset[str]) -> list[Token]:
    """Return the tokens of `text` outside the places `shapes`; those in `keep` are words."""
    tokens = []
    place = 0
    for match in TOKEN.finditer(text):
        start, end = match.span()
        while place < len(shapes) and shapes[place][1] <= start:
            place += 1
        if place < len(shapes) and shapes[place][0] < end:
            continue
        word, kind, *facts = _facts(match[0])
        if word in keep:
            kind = Verdict.WORD
        tokens.append(Token(start, end, match[0], word, kind, False, *facts))  # noqa: FBT003 -- a field by its place
    return tokens


_CUES = ("titles", "person-labels", "institutions", "birth")


@lru_cache(maxsize=16384)
def _facts(token: str) -> tuple[str, Verdict, bool, bool, bool, bool]:
    """Return what a token is wherever it stands: its fields from `word` on, but for `gone`."""
    word, kind = verdict(token)
    given = kind is Verdict.GIVEN or word in vocabulary().given
    cue = any(word in contexts()[section] for section in _CUES)
    return word, kind, token[0].isupper(), given, word in contexts()["particles"], cue


@lru_cache(maxsize=16384)
def verdict(token: str) -> tuple[str, Verdict]:
    """Return a token's folded word, and what it is alone."""
    word = fold(_POSSESSIVE.sub("", token))
    if len(word) == 1:
        return word, Verdict.NUMBER if word.isdigit() else Verdict.LETTER
    if word.isdigit():
        return word, Verdict.NUMBER
    table = vocabulary()
    mark = table.words.get(word)
    if mark is not None:
        return word, _VERDICTS[mark]
    if not word.isalpha():
        return word, Verdict.CODE if _is_code(word) else Verdict.UNKNOWN
    if word in table.given or _is_two_given(token, word):
        return word, Verdict.GIVEN
    return word, Verdict.WORD if _is_compound(token, word) else Verdict.UNKNOWN


def _is_code(word: str) -> bool:
    """Return whether letters with digits are of the technique: t2w, 5mm, B30f, 512x512, L4L5."""
    if _SIZES.fullmatch(word) or _SHORT_CODE.fullmatch(word):
        return True
    parts = _CODE_RUN.findall(word)
    digits = sum(len(part) for part in parts if part.isdigit())
    first, last, pair = parts[0], parts[-1], len(parts) == 2  # noqa: PLR2004 -- letters and a number
    if pair and first.isdigit() and last in contexts()["units"]:
        return digits <= _PARAMETER_DIGITS
    if pair and (first in contexts()["parameters"] or (last in contexts()["parameters"] and len(last) == 1)):
        return digits <= _PARAMETER_DIGITS
    # tra320 is one; CT123 may be a number of the hospital's.
    letters = [part for part in parts if part.isalpha()]
    known = all(len(part) == 1 or vocabulary().words.get(part) in _CODE_MARKS for part in letters)
    return known and max(map(len, letters), default=0) >= _LONG_ENOUGH_TO_NAME and digits <= _NAMED_DIGITS


_CODE_MARKS = (Mark.TECHNICAL, Mark.PLAIN, Mark.TECHNICAL_NAME)


def _is_two_given(token: str, word: str) -> bool:
    """Return whether a word is given names written together: MariaLuisa, KARLHEINRICH."""
    given = vocabulary().given
    pieces = _CAMEL.findall(token) if token.isascii() and not (token.isupper() or token.istitle()) else []
    if len(pieces) > 1:
        return all(piece.lower() in given for piece in pieces)
    cuts = range(_COMPOUND_PART, len(word) - _COMPOUND_PART + 1)
    return any(word[:cut] in given and word[cut:] in given for cut in cuts)


def _is_compound(token: str, word: str) -> bool:
    """Return whether a word is made of technical ones: CTAChest, Kniegelenk, nodules, perivesical."""
    words = vocabulary().words
    pieces = _CAMEL.findall(token) if token.isascii() and not (token.isupper() or token.istitle()) else []
    marks = [words.get(piece.lower()) for piece in pieces if len(piece) > 1]
    if (
        len(pieces) > 1
        and len(marks) == len(pieces)
        and Mark.TECHNICAL in marks
        and all(m in _CODE_MARKS for m in marks)
    ):
        return True
    if any(word.endswith(e) and len(word) - len(e) >= n and _technical(word[: -len(e)]) for e, n in _INFLECTIONS):
        return True
    if _MEDICAL_ENDING.search(word):
        return True
    prefix = _PREFIX.match(word)
    rest = word[prefix.end() :] if prefix else ""
    if rest and len(rest) >= _AFTER_PREFIX.get(words.get(rest, Mark.NAME), len(word)):
        return True
    cuts = range(_COMPOUND_PART, len(word) - _COMPOUND_PART + 1)
    return any(_technical(word[:cut]) and _technical(word[cut:]) for cut in cuts)


def _technical(word: str) -> bool:
    return vocabulary().words.get(word) is Mark.TECHNICAL
