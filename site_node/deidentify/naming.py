"""Which words of a text name somebody or some hospital, by what stands beside them.

A word that is a name too goes after a title or a label, beside a given name, an initial or the rest
of a name; a common name stays where it is medicine's. Where all is upper case the words of the
technique stay beside a name, since nothing tells where the name ends.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from site_node.deidentify.vocabulary import Mark, contexts, vocabulary
from site_node.deidentify.wording import NAMELIKE, Verdict

if TYPE_CHECKING:
    from site_node.deidentify.wording import Token

# A comma or a colon, and blanks.
_NEAR = 3
_MAX_NAME = 5
# A full stop and a blank; two words.
_FEW = 2
_PROSE_WORDS = 4
_POSTCODE_DIGITS = 4
_ABBREVIATION = 3
_LONGEST_TITLE = 6  # letters of an abbreviated one: Dottssa.


def remove_names(tokens: list[Token], text: str) -> None:
    """Mark as gone every token that names, and the numbers that belong to one."""
    if all(map(_stands_alone, tokens)):
        return
    prose = _is_prose(tokens)
    shouted = text.isupper()
    for i, token in enumerate(tokens):
        if token.verdict in _NOBODYS_WORDS:
            token.gone = True
        elif token.verdict is Verdict.NAME:
            token.gone = not (_is_medical(tokens, i, text) or (prose and token.text.islower()))
    # Steps are passed over where no word calls for them.
    verdicts = [token.verdict for token in tokens]
    _remove_called(tokens, text, shouted=shouted, prose=prose)
    if len(tokens) > 1:
        _remove_beside_names(tokens, text, shouted=shouted)
    if Verdict.EPONYM in verdicts:
        _remove_beside_unknown(tokens, text)
    if Verdict.DOUBLE in verdicts:
        _remove_odd_capitals(tokens, text, prose=prose)
    if len(tokens) <= _MAX_NAME and any(kind in _PLAIN_WORDS for kind in verdicts):
        _remove_leftovers(tokens)
    _remove_institutions(tokens, text)
    if Verdict.NUMBER in verdicts:
        _remove_attached(tokens, text)


_NOBODYS_WORDS = (Verdict.UNKNOWN, Verdict.GIVEN)
_PLAIN_WORDS = (Verdict.DOUBLE, Verdict.EPONYM, Verdict.LETTER)
_SURE = (Verdict.WORD, Verdict.NUMBER, Verdict.CODE, Verdict.LETTER)


def _stands_alone(token: Token) -> bool:
    """Return whether a token says nothing of those beside it, nor they of it: so do nearly all."""
    return token.verdict in _SURE and not token.cue


def _is_prose(tokens: list[Token]) -> bool:
    """Return whether most words are lower case, so that a capital means something."""
    words = [t for t in tokens if len(t.text) > 1 and t.text.isalpha()]
    low = sum(t.text.islower() and t.verdict in (Verdict.WORD, Verdict.DOUBLE) for t in words)
    return low >= _PROSE_WORDS and 2 * low >= len(words)


def _is_medical(tokens: list[Token], i: int, text: str) -> bool:
    """Return whether a common name is medicine's here: Wilson's disease, white matter, M. Wilson."""
    token = tokens[i]
    if vocabulary().words.get(token.word) is not Mark.EPONYM_IN_CONTEXT:
        return False
    after = tokens[i + 1 : i + 3]
    for j, other in enumerate(after):
        if not _close(tokens, i + j, i + j + 1, text):
            break
        if other.word in contexts()["eponym-nouns"]:
            return True
        if j == 0 and vocabulary().words.get(other.word) not in (Mark.EPONYM, Mark.EPONYM_IN_CONTEXT):
            break
    if after and _close(tokens, i, i + 1, text) and _is_pair(token, after[0]):
        return True
    asked = token.word in contexts()["eponym-diseases"] and _is_suspected(tokens, i, text)
    if asked or text[: token.start].rstrip().endswith("?"):
        return True
    if i == 0 or not _close(tokens, i - 1, i, text):
        return False
    before = tokens[i - 1]
    of_one = i > 1 and before.word == "of" and f"{tokens[i - 2].word}-{token.word}" in contexts()["eponym-pairs"]
    return of_one or before.word in contexts()["before-eponym"] or _is_pair(before, token)


_QUESTION = re.compile(
    r"(?:\b(?:r/o|rule[sd]? out|ruling out|d/?dx?|vs\.?|versus|[hs]/o|hx|history of|evidence of|exclude|a\.e\.|v\.a\.)"
    r"|\b(?:eval|evaluate|assess|screen|screening|test|tested) for)[\s:?]*$",
    re.IGNORECASE,
)


def _is_suspected(tokens: list[Token], i: int, text: str) -> bool:
    """Return whether a disease is asked about, or is all that is said and not in capitals, as headers write names."""
    if len(tokens) == 1:
        return text.strip(" .?") == tokens[i].text and not text.isupper()
    return _QUESTION.search(text[: tokens[i].start]) is not None


def _is_pair(one: Token, other: Token) -> bool:
    """Return whether two names are one of medicine's: Hill-Sachs, Mallory-Weiss; two common names may be a person's."""
    if f"{one.word}-{other.word}" in contexts()["eponym-pairs"]:
        return True
    return Verdict.EPONYM in (one.verdict, other.verdict) and not one.gone


def _close(tokens: list[Token], i: int, j: int, text: str, between: str = " -'\u2019") -> bool:
    """Return whether nothing but a blank or a hyphen parts two tokens."""
    return not text[tokens[i].end : tokens[j].start].strip(between)


def _remove_called(tokens: list[Token], text: str, *, shouted: bool, prose: bool) -> None:
    """Take away who follows a title or a label: Dr. Head, Name: Fields, seen by Young."""
    for i, token in enumerate(tokens):
        if not token.cue:
            continue
        titled = token.word in contexts()["titles"]
        between = text[token.end : tokens[i + 1].start] if i + 1 < len(tokens) else ""
        marked = ":" in between or "=" in between or token.word in contexts()["by"]
        addressed = (
            prose and token.word in contexts()["patient"] and tokens[i + 1 : i + 2] and tokens[i + 1].text.istitle()
        )
        labelled = token.word in contexts()["person-labels"] and (marked or addressed)
        if not (titled or labelled):
            continue
        if "." in between and len(token.word) > _LONGEST_TITLE and not labelled:
            continue  # the end of a sentence, not of an abbreviation
        referred = i > 0 and tokens[i - 1].word in contexts()["person-labels"]
        technique = (
            "." not in between and ":" not in between and not referred and _is_modality(tokens, i, shouted=shouted)
        )
        _remove_following(tokens, i, text, technique=technique)


def _remove_following(tokens: list[Token], i: int, text: str, *, technique: bool) -> None:
    """Take away the name that follows the title or label `i`; where a machine is meant, its words stay."""
    end = tokens[i].end
    for other in tokens[i + 1 : i + 1 + _MAX_NAME]:
        gap = text[end : other.start]
        if "\n" in gap or len(gap) > _NEAR or gap.strip(" .,:=-^"):
            break
        end = other.end
        if other.word in contexts()["titles"] or (other.particle and not other.gone):
            continue
        if not other.capital and not other.gone:
            break
        stays = technique and (_holds_shouted(other) or _is_kept_name(other))
        if (other.verdict in NAMELIKE and not stays) or other.verdict is Verdict.LETTER:
            other.gone = True
        elif not other.gone:
            break


def _is_modality(tokens: list[Token], i: int, *, shouted: bool) -> bool:
    """Return whether MR or DR is the machine's and no title: MR BRAIN, DR HAND; DR SHARP at the end is a person."""
    if i + 1 >= len(tokens):
        return shouted
    token, after = tokens[i], tokens[i + 1]
    if shouted:
        return not (i and token.word == "dr" and i + 2 == len(tokens))
    # Among words in small letters, a name is not all in capitals.
    return token.text == "MR" and after.text.isupper() and len(after.text) > 1


def _is_kept_name(token: Token) -> bool:
    """Return whether a common name was found to be medicine's: MR WHITE MATTER."""
    return token.verdict is Verdict.NAME and not token.gone


def _holds_shouted(token: Token) -> bool:
    """Return whether a word is technical enough to stay beside a name where all is upper case: DR HAND."""
    return vocabulary().words.get(token.word) is Mark.TECHNICAL_NAME


def _remove_beside_names(tokens: list[Token], text: str, *, shouted: bool) -> None:
    """Take away what stands beside a given name, an initial or a birth date's label, and letters beside a name."""
    for i, token in enumerate(tokens):
        if token.gone and token.given:
            _remove_beside_given(tokens, i, text, shouted=shouted)
        elif token.verdict is Verdict.LETTER and token.capital and text[token.end : token.end + 1] == ".":
            _remove_beside_initial(tokens, i, text, shouted=shouted)
        elif (
            token.cue
            and i
            and token.word in contexts()["birth"]
            and tokens[i - 1].capital
            and tokens[i - 1].verdict is Verdict.DOUBLE
        ):
            tokens[i - 1].gone = len(text[tokens[i - 1].end : token.start]) <= _NEAR
    for i, token in reversed(list(enumerate(tokens))):
        if token.gone and (token.particle or token.verdict in NAMELIKE):
            for k in (i - 1, i + 1):
                if 0 <= k < len(tokens) and not tokens[k].gone:
                    tokens[k].gone = _goes_with(tokens, k, i, text, shouted=shouted)


def _remove_beside_initial(tokens: list[Token], i: int, text: str, *, shouted: bool) -> None:
    for k in (i - 1, i + 1):
        if 0 <= k < len(tokens) and _is_surname_by(tokens, k, i, text):
            tokens[k].gone = tokens[k].gone or not (shouted and _holds_shouted(tokens[k]))
            tokens[i].gone = tokens[i].gone or tokens[k].gone


def _remove_beside_given(tokens: list[Token], i: int, text: str, *, shouted: bool) -> None:
    """Take away the initials and the surname beside the given name `i`: Maria Q. Fields, FIELDS, MARIA."""
    before, after = i - 1, i + 1
    while after < len(tokens) and _close(tokens, after - 1, after, text, " ,.-^="):
        if tokens[after].verdict is Verdict.LETTER:
            tokens[after].gone = True
        elif not tokens[after].particle:
            break
        after += 1
    if before >= 0 and _may_be_name(tokens[before]):
        between = text[tokens[before].end : tokens[i].start]
        comma = "," in between or "^" in between or (before == 0 and not any(t.gone for t in tokens[after : after + 1]))
        if len(between) <= _NEAR and not between.strip(" ,-^=") and (comma or not _holds_shouted(tokens[before])):
            tokens[before].gone = True
    if after < len(tokens) and _may_be_name(tokens[after]):
        between = text[tokens[after - 1].end : tokens[after].start]
        initial = tokens[after - 1].verdict is Verdict.LETTER
        whole = shouted and before >= 0 and tokens[before].gone and _holds_shouted(tokens[after])
        if len(between) <= _NEAR and not between.strip(" ,-^=." if initial else " ,-^=") and not whole:
            tokens[after].gone = True


def _may_be_name(token: Token) -> bool:
    return token.capital and token.verdict in NAMELIKE


def _goes_with(tokens: list[Token], k: int, i: int, text: str, *, shouted: bool) -> bool:
    """Return whether token `k` belongs to the name of which its neighbour `i` is a part that went."""
    token, part = tokens[k], tokens[i]
    low, high = min(i, k), max(i, k)
    between = text[tokens[low].end : tokens[high].start]
    if token.verdict is Verdict.LETTER:
        return token.capital and not between.strip(" .,'") and token.word not in "lr"
    if (part.capital or part.particle) and token.particle and k < i and between in (" ", "'", "\u2019"):
        return True
    if not (part.capital and _may_be_name(token)):
        return False
    if between == "^":
        return part.given or not _holds_shouted(token)
    if between == "-":
        return token.verdict is not Verdict.EPONYM
    apart = between in (" ", ", ", ",") and token.given
    listed = between in (", ", ",") and k < i and token.verdict is Verdict.DOUBLE
    # LAO Fields, MR BRAIN Wilson: the technique in capitals before a name that is not in them.
    other_case = token.text.isupper() and not part.text.isupper() and between == " "
    technique = shouted or (other_case and (len(token.text) <= _ABBREVIATION or 0 < k < i))
    return (apart or listed) and not (technique and _holds_shouted(token))


def _remove_beside_unknown(tokens: list[Token], text: str) -> None:
    """Take away a physician of medicine's who stands beside a name that nobody knows: Scheuermann Gabriex."""
    for i, token in enumerate(tokens):
        if token.verdict is not Verdict.EPONYM or token.gone or not token.capital:
            continue
        if token.word in contexts()["eponym-techniques"]:
            continue
        if i + 1 < len(tokens) and tokens[i + 1].word in contexts()["eponym-nouns"]:
            continue
        if i and (tokens[i - 1].word in contexts()["before-eponym"] or tokens[i - 1].word == "m"):
            continue
        for k in (i - 1, i + 1):
            if 0 <= k < len(tokens) and tokens[k].gone and tokens[k].capital and tokens[k].verdict is Verdict.UNKNOWN:
                low, high = min(i, k), max(i, k)
                token.gone = token.gone or text[tokens[low].end : tokens[high].start] in (" ", ", ", ",", "^")


def _remove_leftovers(tokens: list[Token]) -> None:
    """Take away all of a text of which a name went and only words that are names too are left: Sales, Gabriex."""
    left = [token for token in tokens if not token.gone]
    went = any(token.gone and token.capital and token.verdict in _NOBODYS_WORDS for token in tokens)
    if left and went and all(map(_only_a_name, left)):
        for token in left:
            token.gone = True


def _only_a_name(token: Token) -> bool:
    mark = vocabulary().words.get(token.word)
    return token.capital and (token.verdict is Verdict.LETTER or mark in (Mark.PLAIN_NAME, Mark.EPONYM))


def _remove_odd_capitals(tokens: list[Token], text: str, *, prose: bool) -> None:
    """Take away words that are names too where only a name has a capital: with patient Rush, t2_tse_Power."""
    titled = [t for t in tokens if t.text.istitle() and len(t.text) > 1 and not t.gone]
    for token in titled:
        if token.verdict is not Verdict.DOUBLE or vocabulary().words.get(token.word) is not Mark.PLAIN_NAME:
            continue
        before = text[: token.start].rstrip(" \t\"'([")
        starts = not before or before[-1] in ".:!?\n-/"
        token.gone = (prose and not starts) or (len(titled) == 1 and len(tokens) > _FEW and not starts)


def _is_surname_by(tokens: list[Token], k: int, i: int, text: str) -> bool:
    """Return whether token `k` is the surname to the initial `i`: J. Fields, Fields J."""
    token = tokens[k]
    low, high = min(i, k), max(i, k)
    between = text[tokens[low].end : tokens[high].start]
    if len(between) > _FEW or between.strip(" .,") or not token.capital:
        return False
    # German writes M. (Morbus) before a disease.
    if token.verdict is Verdict.EPONYM and tokens[i].word == "m" and k > i:
        return False
    return token.verdict in (Verdict.NAME, Verdict.DOUBLE, Verdict.EPONYM, Verdict.UNKNOWN, Verdict.GIVEN)


def _remove_institutions(tokens: list[Token], text: str) -> None:
    """Take away what a hospital is called: Good Samaritan Hospital, Klinikum Rechts der Isar."""
    for i, token in enumerate(tokens):
        if not token.cue or token.word not in contexts()["institutions"]:
            continue
        for step in (-1, 1):
            k = i + step
            while (
                0 <= k < len(tokens)
                and abs(k - i) <= _MAX_NAME
                and _close(tokens, min(k, k - step), max(k, k - step), text, " -'\u2019.&")
            ):
                other = tokens[k]
                if other.word not in contexts()["institution-words"]:
                    if not other.capital or other.verdict not in (*NAMELIKE, Verdict.LETTER):
                        break
                    other.gone = True
                k += step


def _remove_attached(tokens: list[Token], text: str) -> None:
    """Take away numbers that belong to what goes: SMITH1234, ABC-123, 8001 Zürich."""
    for i, token in enumerate(tokens):
        if token.verdict is not Verdict.NUMBER or token.gone:
            continue
        for k in (i - 1, i + 1):
            if not 0 <= k < len(tokens) or not tokens[k].gone or tokens[k].verdict is Verdict.NUMBER:
                continue
            low, high = min(i, k), max(i, k)
            between = text[tokens[low].end : tokens[high].start]
            joined = between in ("", "-", "/", ".") and len(token.word) > 1
            apart = between in (" ", ": ", ", ", "_") and len(token.word) >= _POSTCODE_DIGITS
            if joined or apart:
                token.gone = True
