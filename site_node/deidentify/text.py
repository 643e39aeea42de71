"""Text of which only harmless words are left: descriptions, comments, reports, words on a picture.

Three nets, one behind the other: what this instance says about persons (identities.py), what
identifies by its shape (shapes.py), and the words: one that vocabulary.py does not list goes
(wording.py), and so does one that names somebody where it stands (naming.py). Headers are upper
case and have no grammar, so nothing here needs either; where both are there, they help to tell a
name from a word. Does not decide which attribute is cleaned.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from site_node.deidentify.identities import Span, merged
from site_node.deidentify.naming import remove_names
from site_node.deidentify.shapes import shapes
from site_node.deidentify.vocabulary import contexts, vocabulary
from site_node.deidentify.wording import TOKEN, Verdict, tokens_of, verdict

if TYPE_CHECKING:
    from site_node.deidentify.identities import Identities
    from site_node.deidentify.wording import Token

_KEEP_NOTHING = frozenset[str]()
# Descriptions repeat from file to file; a report does not, and none of it is kept in memory.
_CACHED_LENGTH = 128


def clean(text: str, identities: Identities, keep: frozenset[str] = _KEEP_NOTHING) -> str:
    """Return the harmless words of `text` in their order, and "" if none is left.

    Lines stay lines. `keep` are folded words that stay although no vocabulary has them; what
    `identities` say goes all the same.
    """
    if not text.strip():
        return ""
    judge = _judged if len(text) <= _CACHED_LENGTH else _judge
    places = judge(text, keep)
    known = identities.spans(text)
    if known:
        places = tuple(merged((*places, *known)))
    if not places:
        return text.strip()
    return _without(text, places)


def harmless(text: str, identities: Identities) -> bool:
    """Return whether words read on a picture are of the technique alone: markers, scales, units.

    Stricter than `clean`, since words may be misread: only technical words, numbers beside their
    unit, and nothing that resembles what the instance says about persons.
    """
    tokens = TOKEN.findall(text)
    if not tokens or not any(map(_says_something, tokens)) or _judge(text, _KEEP_NOTHING):
        return False
    return all(map(_technical, tokens)) and _measured(text) and not identities.resembles(text)


@lru_cache(maxsize=8192)
def _judged(text: str, keep: frozenset[str]) -> tuple[Span, ...]:
    return _judge(text, keep)


def _judge(text: str, keep: frozenset[str]) -> tuple[Span, ...]:
    """Return what goes from `text` whoever the patient is."""
    places = shapes(text)
    tokens = tokens_of(text, places, keep)
    remove_names(tokens, text)
    gone = ((t.start, _end(t, text)) for t in tokens if t.gone and t.word not in keep)
    return tuple(merged((*places, *gone)))


def _end(token: Token, text: str) -> int:
    """Return where a token ends, with the full stop of an initial."""
    return token.end + (token.verdict is Verdict.LETTER and text[token.end : token.end + 1] == ".")


# ---- what is left ----

_HOLES = re.compile(r"[(\[{<][\s.,;:/^=_-]*[)\]}>]|([\"'])\s*\1")
_BLANKS = re.compile(r"[ \t]{2,}")
_SAYS = re.compile(r"[^\W_]")
_HANGING = re.compile(r"^[\s,;:/^=_&+.)\]-]+(?=\S)|[\s,;/^=_&+(\[-]+$")


def _without(text: str, places: tuple[Span, ...]) -> str:
    """Return `text` without `places`, and without the punctuation that they leave behind."""
    parts = []
    last = 0
    for start, end in places:
        parts.append(text[last:start])
        last = end
    parts.append(text[last:])
    lines = ("\0".join(parts)).split("\n")
    return "\n".join(line for line in map(_tidy, lines)).strip()


_GAP = re.compile(r"([ \t]*[,;^=_&+/\\-]?[ \t]*)\0(?:['\u2019]s\b)?([ \t]*[,;^=_&+/\\-]?[ \t]*)")


def _tidy(line: str) -> str:
    """Return a line with one divider where something was taken away."""
    if "\0" not in line:
        return line.rstrip()
    while "\0" in line:
        line = _GAP.sub(_divider, line, count=1)
    line = _HOLES.sub("", line)
    line = _BLANKS.sub(" ", line)
    return _HANGING.sub("", line) if _SAYS.search(line) else ""


def _divider(match: re.Match[str]) -> str:
    left, right = match.groups()
    strong = left.strip() or right.strip()
    if strong in ("_", "^", "=", "\\", "/", "-", "+", "&"):
        return strong if left.strip() and right.strip() else " " if " " in left + right else strong
    return f"{strong} " if strong else " "


# ---- words on a picture ----

# Letters at the edges of a picture, one of each axis at most: R, AP, RAH.
_ORIENTATION = re.compile(r"[ap]?[rl]?[hfsi]?|[rl]?[ap]?[hfsi]?|[hfsi]?[rl]?[ap]?|[hfsi]?[ap]?[rl]?")
_AXES = 3
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_NUMBER_DIGITS = 4
_BARE_DIGITS = 2


def _says_something(token: str) -> bool:
    return any(map(str.isalnum, token))


def _technical(token: str) -> bool:
    word, kind = verdict(token)
    if kind in (Verdict.NUMBER, Verdict.CODE) or word in contexts()["units"]:
        return True
    if kind is Verdict.LETTER or (len(word) <= _AXES and _ORIENTATION.fullmatch(word)):
        return word in "xyzt" or _ORIENTATION.fullmatch(word) is not None
    return vocabulary().technical(word)


def _measured(text: str) -> bool:
    """Return whether each number is small, or stands beside a unit or a technical word."""
    alone = all(map(str.isdigit, TOKEN.findall(text)))
    most = _BARE_DIGITS if alone else _NUMBER_DIGITS
    return all(len(re.split("[.,]", number)[0]) <= most for number in _NUMBER.findall(text))
