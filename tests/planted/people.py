"""Invented persons and the things said about them, from a seed; no real person is meant.

Names come from faker in many languages. A token that is also a technical word cannot be told by a byte search from
the word itself; such names are searched as whole names, and alone only at the place where they were planted.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from faker import Faker
from pydicom._dicom_dict import DicomDictionary
from pydicom.sr.codedict import codes

if TYPE_CHECKING:
    import numpy as np

LATIN = ("en_US", "en_GB", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "sv_SE", "pl_PL", "pt_BR", "fi_FI", "cs_CZ")
# Surnames that are words of radiology or of every day.
WORD_SURNAMES = (
    ("Wilson", "Joachim"),
    ("Little", "Gwendolyn"),
    ("Parkinson", "Thaddeus"),
    ("White", "Marguerite"),
    ("Waters", "Leopold"),
    ("Head", "Cornelius"),
    ("Young", "Philippa"),
    ("Fields", "Barnaby"),
    ("Long", "Rosalind"),
)
HARMLESS = (
    ("CT HEAD W/O CONTRAST", ("CT", "HEAD", "CONTRAST")),
    ("AX T2 FLAIR", ("AX", "T2", "FLAIR")),
    ("MR BRAIN WHITE MATTER LESIONS", ("MR", "BRAIN", "MATTER", "LESIONS")),
    ("Thorax pa lateral", ("Thorax", "pa", "lateral")),
    ("Abdomen portal venous 5.0 mm", ("Abdomen", "portal", "venous", "mm")),
    ("SAG T1 MPRAGE post Gd", ("SAG", "T1", "MPRAGE", "post")),
    ("Knee left coronal PD fat sat", ("Knee", "left", "coronal", "PD", "fat", "sat")),
    ("US CAROTID DOPPLER", ("US", "CAROTID", "DOPPLER")),
    ("Mammography screening bilateral", ("Mammography", "screening", "bilateral")),
    ("Angiography coronary LAO", ("Angiography", "coronary", "LAO")),
    ("PET whole body FDG", ("PET", "whole", "body", "FDG")),
    ("Parkinson disease protocol DaTSCAN", ("disease", "protocol")),
)
MIN_TOKEN = 5  # characters a Latin token needs to be searched by itself


@dataclass(frozen=True, slots=True)
class Said:
    """One thing said: the text as written, and the tokens of which none may survive.

    `whole` says that the tokens are words of every day: they are searched joined, and alone at their place.
    """

    text: str
    tokens: tuple[str, ...]
    kind: str = "basic"
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """A patient: names in each script, as PN components, and a character set that can write them."""

    family: str
    given: str
    pn: str
    charset: str | list[str]
    scripts: tuple[str, ...]  # the names in the other scripts
    patient_id: str
    birth_date: str
    word: bool

    def said(self, text: str) -> Said:
        """Return `text`, which says this person's name."""
        tokens = tuple(token for token in (self.family, self.given) if token.lower() in text.lower())
        return Said(text, tokens, whole=self.word)


@cache
def technical_words() -> frozenset[str]:
    """Return the words, in lower case, that a clean file may say for other reasons."""
    texts = [f"{entry[2]} {entry[4]}" for entry in DicomDictionary.values()]
    texts += [meaning for scheme in (codes.SCT, codes.DCM) for meaning in _meanings(scheme)]
    texts += [text for text, _ in HARMLESS]
    return frozenset(
        word for text in texts for word in re.findall(r"\w+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower())
    )


@cache
def technical_text() -> str:
    """Return every such word in one text, to look for parts of words."""
    return " ".join(sorted(technical_words()))


def _meanings(scheme: Any) -> list[str]:
    return [getattr(scheme, name).meaning for name in dir(scheme)[:4000] if name[0].isupper()]


def ascii_fold(text: str) -> str:
    """Return `text` in ASCII letters, accents dropped."""
    decomposed = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("ł", "l").replace("ø", "o"))
    return decomposed.encode("ascii", "ignore").decode()


class Inventor:
    """Invents things that nobody said before in this corpus."""

    def __init__(self, seed: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.fakers = {name: Faker(name) for name in (*LATIN, "ja_JP", "ko_KR", "ru_RU", "zh_CN", "el_GR")}
        for number, faker in enumerate(self.fakers.values()):
            faker.seed_instance(seed * 100 + number)
        self.used: set[str] = set()
        self.patients_say: frozenset[str] = frozenset()

    def next_file(self) -> None:
        """Allow what was said of others in another file to be said again: a file is searched for its own alone."""
        self.used = set(self.patients_say)

    def fresh(self, token: str) -> bool:
        """Return whether `token` can be told from everything else, and take it."""
        low = token.lower()
        if len(low) < MIN_TOKEN or low in technical_text() or not low.isascii():
            return False
        if any(low in other or other in low for other in self.used):
            return False
        self.used.add(low)
        return True

    def name(self) -> tuple[str, str]:
        """Return a family and a given name, new and in ASCII."""
        while True:
            faker = self.fakers[LATIN[int(self.rng.integers(len(LATIN)))]]
            family, given = (re.sub(r"\W", "", ascii_fold(part)) for part in (faker.last_name(), faker.first_name()))
            if len(given) >= MIN_TOKEN and given.lower() not in technical_text() and self.fresh(family):
                return family, given

    def digits(self, count: int) -> str:
        """Return a number of so many digits."""
        while True:
            text = str(int(self.rng.integers(10 ** (count - 1), 10**count)))
            if text not in self.used:
                self.used.add(text)
                return text

    def stranger(self) -> Said:
        """Return a person name as PN."""
        family, given = self.name()
        return Said(f"{family}^{given}", (family,))

    def label(self) -> Said:
        """Return a name as people write it in a short text."""
        family, given = self.name()
        forms = (f"{given} {family}", f"{family.upper()} {given.upper()}", f"Dr. {family}", f"{family}, {given[0]}.")
        return Said(forms[int(self.rng.integers(len(forms)))], (family,))

    def number(self) -> Said:
        """Return an identifier as hospitals write them."""
        digits = self.digits(8)
        forms = (digits, f"MRN-{digits}", f"A{digits}", f"{digits}X")
        return Said(forms[int(self.rng.integers(len(forms)))], (digits,))

    def hospital(self) -> Said:
        """Return the name of a hospital."""
        family, _ = self.name()
        forms = (f"{family} General Hospital", f"St. {family} Clinic", f"Klinikum {family}", f"{family} Med Ctr")
        return Said(forms[int(self.rng.integers(len(forms)))], (family,))

    def address(self) -> Said:
        """Return a street and a town."""
        family, _ = self.name()
        town, _ = self.name()
        return Said(f"{int(self.rng.integers(2, 998))} {family} Street, {town}", (family, town))

    def phone(self) -> Said:
        """Return a telephone number."""
        digits = self.digits(7)
        return Said(f"+1-555-{digits[:3]}-{digits[3:]}", (f"{digits[:3]}-{digits[3:]}",))

    def mail(self) -> Said:
        """Return a mail address."""
        family, given = self.name()
        return Said(f"{given[0].lower()}.{family.lower()}@example.org", (family,))

    def title(self) -> Said:
        """Return an application entity title, which names a hospital."""
        family, _ = self.name()
        return Said(f"AE_{family.upper()[:11]}", (family.upper()[:11],))

    def link(self) -> Said:
        """Return an address of a server."""
        family, _ = self.name()
        return Said(f"https://pacs.{family.lower()}.example.org/wado?x={self.digits(6)}", (family,))

    def day(self) -> Said:
        """Return a date."""
        while True:
            year, month, day = (int(self.rng.integers(*span)) for span in ((1931, 2024), (1, 13), (1, 29)))
            text = f"{year}{month:02}{day:02}"
            if text not in self.used:
                self.used.add(text)
                return Said(text, (text,), "date")

    def time(self) -> Said:
        """Return a time of day."""
        hour, minute, second = (int(self.rng.integers(*span)) for span in ((10, 23), (10, 59), (10, 59)))
        text = f"{hour}{minute}{second}.{self.digits(6)}"
        return Said(text, (text,), "date")

    def moment(self) -> Said:
        """Return a date and a time."""
        day, hour = self.day(), int(self.rng.integers(100000, 235959))
        return Said(f"{day.text}{hour:06}.{self.digits(6)}", day.tokens, "date")

    def uid(self) -> Said:
        """Return a UID."""
        text = f"1.2.826.0.1.3680043.9.{self.digits(7)}.{self.digits(9)}.{self.digits(8)}"
        return Said(text, (text,), "uid")

    def machine(self) -> Said:
        """Return a serial number or another name of one device."""
        digits = self.digits(8)
        return Said(f"SN{digits}", (digits,), "device")

    def comment(self) -> Said:
        """Return a sentence that says a name, a number and a date."""
        family, given = self.name()
        digits, day = self.digits(8), self.day().text
        return Said(
            f"Discussed with {given} {family} on {day[6:]}.{day[4:6]}.{day[:4]}, chart {digits}.", (family, digits)
        )

    def people(self, count: int) -> list[Person]:
        """Return patients, every second with a surname that is a word, the others of many scripts."""
        made = [self._word(*WORD_SURNAMES[int(i)]) for i in self.rng.permutation(len(WORD_SURNAMES))[: count // 2]]
        makers = (self._japanese, self._german, self._korean, self._russian, self._chinese, self._greek, self._english)
        made += [makers[i % len(makers)]() for i in range(count - len(made))]
        self.patients_say = frozenset(self.used)
        return made

    def _person(
        self,
        family: str,
        given: str,
        charset: str | list[str],
        scripts: tuple[str, ...],
        pn: str,
        *,
        word: bool = False,
    ) -> Person:
        return Person(family, given, pn, charset, scripts, self.digits(8), self.day().text, word)

    def _word(self, family: str, given: str) -> Person:
        middle = "ABCDEFGHJKLM"[int(self.rng.integers(12))]
        return self._person(
            family, given, "ISO_IR 100", (), f"{family.upper()}^{given.upper()}^{middle}^Mr.", word=True
        )

    def _english(self) -> Person:
        family, given = self.name()
        return self._person(family, given, "", (), f"{family}^{given}")

    def _german(self) -> Person:
        while True:
            family, given = self.fakers["de_DE"].last_name(), self.fakers["de_DE"].first_name()
            folded = ascii_fold(family)
            if folded != family and "ß" not in family and self.fresh(folded) and family.isalpha():
                return self._person(family, given, "ISO_IR 100", (family,), f"{family}^{given}^^Dr.")

    def _japanese(self) -> Person:
        faker = self.fakers["ja_JP"]
        kanji, kana = (faker.last_name(), faker.first_name()), (faker.last_kana_name(), faker.first_kana_name())
        family, given = self.name()
        pn = f"{family}^{given}={'^'.join(kanji)}={'^'.join(kana)}"
        return self._person(family, given, ["", "ISO 2022 IR 87"], ("".join(kanji), kana[0] + kana[1]), pn)

    def _korean(self) -> Person:
        faker = self.fakers["ko_KR"]
        hangul = (faker.last_name(), faker.first_name())
        family, given = self.name()
        pn = f"{family}^{given}=={'^'.join(hangul)}"
        return self._person(family, given, ["", "ISO 2022 IR 149"], (hangul[1],), pn)

    def _russian(self) -> Person:
        family, given = self.fakers["ru_RU"].last_name_male(), self.fakers["ru_RU"].first_name_male()
        return self._person(family, given, "ISO_IR 144", (family,), f"{family}^{given}")

    def _chinese(self) -> Person:
        hanzi = (self.fakers["zh_CN"].last_name(), self.fakers["zh_CN"].first_name())
        family, given = self.name()
        return self._person(family, given, "GB18030", ("".join(hanzi),), f"{family}^{given}={'^'.join(hanzi)}")

    def _greek(self) -> Person:
        family, given = self.fakers["el_GR"].last_name_male(), self.fakers["el_GR"].first_name_male()
        return self._person(family, given, "ISO_IR 192", (family,), f"{family}^{given}")
