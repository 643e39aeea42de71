"""Make the list of words that may stay in a text: `site_node/deidentify/tables/words.txt`.

Run by hand when a source changes (`python -m tests.planted.words FOLDER`, FOLDER holding what the
packages named here unpack to); its answer is reviewed and committed. Sources:

- DICOM's own words (PS3.6 names of attributes, PS3.16 meanings of codes), from pydicom (MIT);
- words_by_hand.txt beside this script: radiology's terms in several languages;
- the list of DICOM-DRE (Apache-2.0), those of its words that a dictionary confirms;
- wamerican (SCOWL, free for any use), the words that it writes in lower case;
- how often a word is used (wordfreq), and what is a word of medicine (hunspell-en-med): only to decide;
- names: the census of the United States 1990 (public domain, package `names`), Faker (MIT, every
  locale), dicognito (MIT), gender-guesser. Names are only taken away, but for given names of the
  first three, which tell that the next word is a surname.

A word that is also a name is marked by how likely it is one; what each mark allows is said in
site_node/deidentify/vocabulary.py.
"""

from __future__ import annotations

import ast
import gzip
import re
import sys
import unicodedata
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "site_node" / "deidentify" / "tables" / "words.txt"
_WORD = re.compile(r"[^\W\d_]{2,}")
# PS3.16 CID 7480 and 7486: breeds of animals, half of them named for places and people.
_BREEDS = {7480, 7486}
# A surname of at most this rank is taken for a name unless the word is used at least so often.
_CUTS = ((1000, 6.2), (3000, 5.0), (10_000, 4.2), (30_000, 3.3))
_GIVEN_RANK = 2000
# Per cent of a sex who are called so.
_COMMON_GIVEN = 0.01
_USED = 3.0
_TECHNICAL_RANK = 2000


def fold(word: str) -> str:
    """Return `word` without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c))


def classify(source: Path) -> dict[str, set[str]]:
    """Return the words of each mark, given the unpacked packages."""
    ranks, given, surnames, common = _names(source)
    used = _frequencies(source)
    dictionary = {fold(w) for w in _lines(Path("/usr/share/dict/american-english")) if w.isalpha() and w.islower()}
    medical = {fold(w.split("/")[0]) for w in _lines(Path("/usr/share/hunspell/en_med_glut.dic"))}
    listed = {fold(w) for w in _lines(next(source.rglob("allow_lists/default.csv"))) if w.isalpha()}
    standard = _standard()
    by_hand = _by_hand()

    def rank(word: str) -> int:
        return min(ranks.get(word, 10**6), _GIVEN_RANK if word in given or word in surnames else 10**6)

    def likely(word: str) -> bool:
        if word in common:
            return True
        cut = next((cut for limit, cut in _CUTS if rank(word) < limit), 0.0)
        return used.get(word, 0.0) < cut

    def named(word: str) -> bool:
        return rank(word) < 10**6

    technical = set(by_hand["technical"])
    technical |= {w for w in standard if not named(w)}
    technical |= {w for w in standard & dictionary if rank(w) > _TECHNICAL_RANK and not likely(w)}
    technical |= {w for w in listed & medical if not named(w)}
    plain = {w for w in dictionary if w in listed or used.get(w, 0.0) >= _USED}
    plain |= by_hand["plain"] | (standard & dictionary)
    plain = {w for w in plain - technical if len(w) > 1 or w in "ai"}
    likely_names = {w for w in plain if likely(w)} - by_hand["plain"] - by_hand["kept"]
    marks = {
        "technical": {w for w in technical if not named(w)},
        "technical-name": {w for w in technical if named(w)},
        "plain": {w for w in plain - likely_names if not named(w)},
        "plain-name": {w for w in plain - likely_names if named(w)},
        "name": likely_names,
    }
    for mark in ("eponym", "eponym-in-context"):
        for words in marks.values():
            words.difference_update(by_hand[mark])
        marks[mark] = by_hand[mark]
    marks["eponym"] = marks["eponym"] - marks["eponym-in-context"]
    sure = marks["technical"] | marks["plain"] | marks["eponym"]
    marks["given"] = {w for w in given if len(w) > 2} - sure
    return marks


def _names(source: Path) -> tuple[dict[str, int], set[str], set[str], set[str]]:
    """Return ranks of the census' surnames, given names, other surnames and common given names, folded."""
    census = next(source.rglob("dist.all.last"))
    ranks = {fold(line.split()[0]): int(line.split()[3]) for line in _lines(census)}
    given = {
        fold(line.split()[0]) for part in ("male", "female") for line in _lines(census.parent / f"dist.{part}.first")
    }
    common = {
        fold(line.split()[0])
        for part in ("male", "female")
        for line in _lines(census.parent / f"dist.{part}.first")
        if float(line.split()[1]) >= _COMMON_GIVEN
    }
    surnames: set[str] = set()
    import faker.providers.person as people  # noqa: PLC0415 -- a development dependency

    for module in iter_modules(people.__path__):
        provider: Any = import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            if "name" in attribute and "format" not in attribute:
                target = surnames if "last" in attribute else given
                target |= set(_pieces(getattr(provider, attribute)))
    for path in source.rglob("pnanonymizer.py"):
        strings = (n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant))
        for text in strings:
            if isinstance(text, str) and "\n" not in text and text.isupper():
                surnames |= set(_pieces([text]))
    return ranks, given, surnames, common


def _pieces(value: object) -> Iterable[str]:
    """Yield the latin words in a provider's names, whatever holds them."""
    if isinstance(value, str):
        for word in _WORD.findall(fold(value)):
            if word.isascii():
                yield word
    elif isinstance(value, (list, tuple, set, frozenset, dict)):
        for part in value:
            yield from _pieces(part)


def _frequencies(source: Path) -> Mapping[str, float]:
    """Return Zipf frequencies of English words (wordfreq's format: a list of words by centibel)."""
    msgpack: Any = import_module("msgpack")  # of this script alone
    packed = gzip.decompress(next(source.rglob("large_en.msgpack.gz")).read_bytes())
    bins = msgpack.unpackb(packed, strict_map_key=False)
    return {word: 9 - centibel / 100 for centibel, words in enumerate(bins) if centibel for word in words}


def _standard() -> set[str]:
    from pydicom._dicom_dict import DicomDictionary  # noqa: PLC0415
    from pydicom.sr._concepts_dict import concepts  # noqa: PLC0415

    found = {fold(w) for row in DicomDictionary.values() for w in _WORD.findall(row[2])}
    schemes: Any = concepts
    for scheme in schemes.values():
        for codes in scheme.values():
            for meaning, contexts in codes.values():
                if not _BREEDS & set(contexts or ()):
                    found |= {fold(w) for w in _WORD.findall(meaning)}
    return {w for w in found if len(w) > 2}


def _by_hand() -> dict[str, set[str]]:
    sections: dict[str, set[str]] = {}
    section = ""
    for line in _lines(HERE / "words_by_hand.txt"):
        if line.startswith("["):
            section = line.strip("[]")
        elif not line.startswith("#"):
            sections.setdefault(section, set()).update(
                piece for word in line.split() for form in _spellings(word) for piece in re.findall(r"[^\W_]+", form)
            )
    return sections


def _spellings(word: str) -> tuple[str, str]:
    """Return a word without accents, and as one writes it without umlauts."""
    low = word.casefold()
    for umlaut, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue")):
        low = low.replace(umlaut, letters)
    return fold(word), fold(low)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]


_NOTE = """\
# Words that may stay in a text, folded, by mark; vocabulary.py says what a mark means. Made by tests/planted/words.py.
# Words come from DICOM PS3.6 and PS3.16 as packaged in pydicom (MIT), from the allow-list of DICOM-DRE (Apache-2.0,
# copyright the dicom-dre authors), from SCOWL (copyright Kevin Atkinson and others, free for any use) and by hand;
# given names from the census of the United States 1990 (public domain) and from Faker (MIT). Other lists only
# decided which words to leave out."""


def main() -> None:
    """Write the table."""
    marks = classify(Path(sys.argv[1]))
    with TABLE.open("w", encoding="utf-8") as out:
        print(_NOTE, file=out)
        for mark, words in marks.items():
            print(f"[{mark}]", *sorted(words), sep="\n", file=out)
    print({mark: len(words) for mark, words in marks.items()}, TABLE.stat().st_size)  # noqa: T201


if __name__ == "__main__":
    main()
