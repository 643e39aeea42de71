"""Names of persons in a running text, told from eponyms, makers and words: a given name beside another, or a title.

De-identification takes away every word it does not know; here a word has to look like somebody's before it is said to
be one. A single name without a title or a label is found by the dictionary of known patients alone.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from site_node.deidentify.vocabulary import Mark, contexts, vocabulary
from site_node.deidentify.wording import TOKEN, Verdict, tokens_of
from site_node.stray import lexicon
from site_node.stray.finding import Confidence, Kind, Match

if TYPE_CHECKING:
    from collections.abc import Iterator

    from site_node.deidentify.wording import Token

_NOTHING: frozenset[str] = frozenset()
_TITLES = {
    **dict.fromkeys(("mr", "mrs", "ms", "miss", "herr", "herrn", "frau", "mme", "madame", "monsieur", "mlle",
                     "signora", "senor", "senora", "mevrouw", "dhr", "mevr"), Kind.NAME),
    **dict.fromkeys(("dr", "prof", "doctor", "doktor", "docteur", "dott", "dottssa", "doctora", "drs"), Kind.STAFF),
}  # fmt: skip
_FIRMS = lexicon.section("firms")
_SEPARATORS = frozenset((" ", ", ", "^", ",", "  "))
# Given names that are something else when they are written so.
_NO_GIVEN = lexicon.section("no-given")
_AROUND = re.compile(
    r"copyright|\(c\)|©|licen[cs]e|\bauthors?\b|maintainer|contributor|\bet al\b|@param|doi\b", re.IGNORECASE
)
_MIN_LETTERS = 3
_LONGEST = 4  # words of a name
# Two words beside each other that begin with capitals, or more that may be some.
_CAPITAL = rf"[^\W\d_a-z\u00df-\u00f6\u00f8-\u00ff](?:{TOKEN.pattern}|)"
_PAIR = re.compile(rf"(?<![^\W_])({_CAPITAL})(?:  ?|, ?|\^|\. ?)(?=({_CAPITAL}))")


def names(text: str) -> Iterator[Match]:
    """Yield what names somebody in `text`; nothing of a line of credits."""
    if not _may_name(text) or _AROUND.search(text):
        return
    tokens = tokens_of(text, [], _NOTHING)
    taken = -1
    for i, (one, other) in enumerate(pairwise(tokens)):
        if i <= taken:
            continue
        between = text[one.end : other.start]
        if (
            (kind := _TITLES.get(one.word))
            and between in (" ", ". ", ".", "^")
            and _is_title(one)
            and _may_be_called(other)
        ):
            taken = _last(tokens, i + 1, text)
            yield _match(kind, "title-and-name", text, other.start, tokens[taken].end)
        elif _is_pair(one, other, between) and not _is_medical(tokens, i):
            taken = _last(tokens, i + 1, text)
            yield _match(Kind.NAME, "given-name-and-surname", text, one.start, tokens[taken].end)


def _may_name(text: str) -> bool:
    """Return whether two words stand beside each other that can be a name: most texts have none, and cost little."""
    pairs = (tokens_of(" ".join(pair), [], _NOTHING) for pair in _PAIR.findall(text))
    return any(token.given or token.word in _TITLES for pair in pairs for token in pair)


def _match(kind: Kind, rule: str, text: str, start: int, end: int) -> Match:
    value = " ".join(sorted(re.findall(r"[^\W\d_]{2,}", text[start:end].lower())))
    return Match(kind, rule, Confidence.LIKELY, start, end, value)


def _is_title(token: Token) -> bool:
    """Return whether a word is written as a title is: MR and MS are modalities, and DR is one too."""
    return token.text.istitle() or (token.text.isupper() and len(token.text) >= _MIN_LETTERS)


def _is_word(token: Token) -> bool:
    return token.verdict in (Verdict.WORD, Verdict.CODE, Verdict.NUMBER, Verdict.LETTER)


def _may_be_called(token: Token) -> bool:
    """Return whether somebody may have the word for a name."""
    return (
        token.capital
        and token.text.isalpha()
        and len(token.text) >= _MIN_LETTERS
        and not _is_word(token)
        and token.word not in _FIRMS
        and token.word not in contexts()["institutions"]
    )


def _is_given(token: Token) -> bool:
    """Return whether the word is a given name, and no word besides."""
    plain = vocabulary().words.get(token.word) in (None, Mark.NAME, Mark.EPONYM_IN_CONTEXT)
    return token.given and plain and token.text not in _NO_GIVEN


def _is_pair(one: Token, other: Token, between: str) -> bool:
    if between not in _SEPARATORS or not _may_be_called(one) or not _may_be_called(other) or one.word == other.word:
        return False
    if not (_is_given(one) or _is_given(other)):
        return False
    # A surname that is a word, too, is one where it is written as a name is: Waters, Leopold; Leopold Waters.
    weak = other if _is_given(one) else one
    written = between in ("^", ", ") or (one.text.istitle() and other.text.istitle())
    return weak.verdict is not Verdict.DOUBLE or written


def _is_medical(tokens: list[Token], i: int) -> bool:
    """Return whether two names are one of medicine's, or of a thing: Marie-Tooth disease, Karl Storz endoscope."""
    pair = f"{tokens[i].word}-{tokens[i + 1].word}"
    if pair in contexts()["eponym-pairs"] or Verdict.EPONYM in (tokens[i].verdict, tokens[i + 1].verdict):
        return True
    nearby = tokens[max(0, i - 1) : i + 4]
    return any(token.word in contexts()["eponym-nouns"] or token.word in _FIRMS for token in nearby)


def _last(tokens: list[Token], i: int, text: str) -> int:
    """Return the index of the last word of a name that goes on."""
    for k in range(i + 1, min(i + _LONGEST, len(tokens))):
        if text[tokens[k - 1].end : tokens[k].start] not in (" ", "^", "-") or not _may_be_called(tokens[k]):
            return k - 1
        i = k
    return i
